"""Packed rows, and the ring of simulated ones against a deque."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrust.data.replay import ReplayBuffer, insert, pack, row_size, unpack, unpack_gap
from simtrust.types import Transitions

RUNS = 2


def make_transitions(leading: tuple[int, ...], observation_size: int, action_size: int, seed: int = 0):
    random = np.random.default_rng(seed)
    return Transitions(
        random.normal(size=(*leading, observation_size)).astype(np.float32),
        random.normal(size=(*leading, action_size)).astype(np.float32),
        random.normal(size=leading).astype(np.float32),
        random.normal(size=(*leading, observation_size)).astype(np.float32),
        random.integers(0, 2, leading).astype(np.float32),
    )


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 3), max_size=2).map(tuple),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_unpack_is_the_inverse_of_pack(leading, observation_size, action_size, seed):
    transitions = make_transitions(leading, observation_size, action_size, seed)
    rows = pack(transitions)
    assert rows.shape == (*leading, row_size(observation_size, action_size))
    assert rows.dtype == np.float32
    for column, expected in zip(
        unpack(jnp.asarray(rows), observation_size, action_size), transitions, strict=True
    ):
        np.testing.assert_array_equal(column, expected)


def test_a_row_is_s_a_r_next_s_terminated():
    transitions = Transitions(
        np.array([1.0, 2]), np.array([3.0]), np.array(4.0), np.array([5.0, 6]), np.array(True)
    )
    np.testing.assert_array_equal(pack(transitions), [1, 2, 3, 4, 5, 6, 1])
    np.testing.assert_array_equal(pack(transitions, np.array(0.5)), [1, 2, 3, 4, 5, 6, 1, 0.5])


def test_every_row_of_a_wrapped_ring_keeps_its_own_measured_gap():
    transitions = make_transitions((RUNS, 7), 2, 1)
    rows = pack(transitions, 2 * transitions.reward)
    assert rows.shape[-1] == row_size(2, 1, measured_gap=True) == row_size(2, 1) + 1
    buffer = ReplayBuffer.create(RUNS, 5, rows.shape[-1])
    for part in (rows[:, :3], rows[:, 3:]):
        buffer = insert(buffer, jnp.asarray(part))
    found = unpack(buffer.rows, 2, 1)
    np.testing.assert_array_equal(unpack_gap(buffer.rows), 2 * found.reward)
    # The last five of seven, where the ring wrapped after the fifth.
    for column, expected in zip(found, transitions, strict=True):
        np.testing.assert_array_equal(column, expected[:, [5, 6, 2, 3, 4]])


def numbered(start: int, count: int) -> jax.Array:
    """Rows [R, count, 2] of run and number; numbers count from 1, since empty slots hold 0."""
    number = np.arange(start + 1, start + count + 1, dtype=np.float32)
    return jnp.asarray(
        np.stack([np.stack([np.full(count, run), number], -1) for run in range(RUNS)]), jnp.float32
    )


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from((1, 3, 7)).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n), max_size=8))
    )
)
def test_ring_holds_what_a_deque_holds(drawn):
    capacity, counts = drawn
    buffer, start = ReplayBuffer.create(RUNS, capacity, 2), 0
    reference: deque[int] = deque(maxlen=capacity)
    slots = np.zeros(capacity)
    for count in counts:
        buffer = insert(buffer, numbered(start, count))
        for number in range(start, start + count):
            reference.append(number + 1)
            slots[number % capacity] = number + 1
        start += count
    assert buffer.capacity == capacity
    assert (int(buffer.size), int(buffer.position)) == (len(reference), start % capacity)
    rows = np.asarray(buffer.rows)
    np.testing.assert_array_equal(rows[:, :, 1], np.stack([slots] * RUNS))
    assert sorted(rows[0, : len(reference), 1]) == list(reference)
    for run in range(RUNS):
        assert (rows[run, : len(reference), 0] == run).all()


def test_samples_are_all_the_inserted_rows_and_no_others():
    buffer = insert(ReplayBuffer.create(RUNS, 8, 2), numbered(0, 3))
    drawn = np.asarray(buffer.sample(jnp.asarray(1), jax.random.key(0), 200))
    assert drawn.shape == (200, 2)
    assert set(map(tuple, drawn.tolist())) == {(1, 1), (1, 2), (1, 3)}


def test_samples_of_a_full_ring_are_its_latest_rows():
    buffer = ReplayBuffer.create(RUNS, 4, 2)
    for start in (0, 3):
        buffer = insert(buffer, numbered(start, 3))
    drawn = np.asarray(buffer.sample(jnp.asarray(0), jax.random.key(0), 200))
    assert set(drawn[:, 1].tolist()) == {3, 4, 5, 6}


def test_every_run_draws_its_own_rows():
    buffer = insert(ReplayBuffer.create(RUNS, 8, 2), numbered(0, 3))
    keys = jax.random.split(jax.random.key(0), RUNS)
    drawn = jax.vmap(buffer.sample, (0, 0, None))(jnp.arange(RUNS), keys, 50)
    np.testing.assert_array_equal(drawn[:, :, 0], [[0] * 50, [1] * 50])
    assert (drawn[0, :, 1] != drawn[1, :, 1]).any()


def test_the_old_buffer_is_given_up_and_the_new_rows_are_not():
    """Otherwise every insertion would copy the whole buffer."""
    buffer, rows = ReplayBuffer.create(RUNS, 8, 2), numbered(0, 3)
    insert(buffer, rows)
    assert buffer.rows.is_deleted()
    assert not rows.is_deleted()
