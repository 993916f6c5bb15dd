"""Rows on the device: the log, and the replay buffers of simulated transitions.

A transition is stored as one packed row, so that a mini-batch is a single gather.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from simtrust.types import Transitions


def row_size(observation_size: int, action_size: int, *, measured_gap: bool = False) -> int:
    """Numbers in a packed row: s, a, r, s', terminated, and the measured gap where it has one."""
    return 2 * observation_size + action_size + 2 + measured_gap


def pack(transitions: Transitions[np.ndarray], measured_gap: np.ndarray | None = None) -> np.ndarray:
    """Transitions with leading axes [...], and their gap [...], as float32 rows [..., row_size]."""
    observation, action, reward, next_observation, terminated = transitions
    columns = [observation, action, reward[..., None], next_observation, terminated[..., None]]
    if measured_gap is not None:
        columns.append(measured_gap[..., None])
    return np.concatenate([np.asarray(c, np.float32) for c in columns], axis=-1)


def unpack(rows: Float[Array, "*batch row"], observation_size: int, action_size: int) -> Transitions[Array]:
    """The transitions of packed rows, also under ``jit``; a measured gap is passed over."""
    ends = np.cumsum([observation_size, action_size, 1, observation_size])
    observation, action, reward, next_observation, terminated = jnp.split(rows, ends, axis=-1)
    return Transitions(observation, action, reward[..., 0], next_observation, terminated[..., 0])


def unpack_gap(rows: Float[Array, "*batch row"]) -> Float[Array, "*batch"]:
    """The measured gap of packed rows that have one."""
    return rows[..., -1]


class ReplayBuffer(eqx.Module):
    """The latest simulated rows of every run, overwritten oldest first.

    Runs advance together, so one ``size`` and one ``position`` serve them all.
    """

    rows: Float[Array, "R capacity row"] | Int[Array, "R capacity row"]
    size: Int[Array, ""]
    position: Int[Array, ""]
    """Where the next row goes."""

    @classmethod
    def create(cls, runs: int, capacity: int, row: int) -> "ReplayBuffer":
        """An empty buffer; memory: ``4·runs·capacity·row`` bytes."""
        return cls(jnp.zeros((runs, capacity, row)), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    @property
    def capacity(self) -> int:
        return self.rows.shape[1]

    def sample(self, run: Int[Array, ""], key: PRNGKeyArray, count: int) -> Float[Array, "count row"]:
        """``count`` rows of the run of this number, uniform with replacement. It must not be empty."""
        return self.rows[run, jax.random.randint(key, (count,), 0, self.size)]

    def numbered(self) -> "ReplayBuffer":
        """The same buffer, where every entry of a row is the number of that row, int32."""
        numbers = jnp.arange(self.capacity, dtype=jnp.int32)[:, None]
        return ReplayBuffer(jnp.broadcast_to(numbers, self.rows.shape), self.size, self.position)


@partial(jax.jit, donate_argnums=0)
def insert(buffer: ReplayBuffer, rows: Float[Array, "R n row"]) -> ReplayBuffer:
    """``buffer`` with ``rows`` added; the old buffer is given up, so that nothing is copied.

    ``n`` may not exceed the capacity.
    """
    count = rows.shape[1]
    slots = (buffer.position + jnp.arange(count)) % buffer.capacity
    return ReplayBuffer(
        buffer.rows.at[:, slots].set(rows),
        jnp.minimum(buffer.size + count, buffer.capacity),
        (buffer.position + count) % buffer.capacity,
    )
