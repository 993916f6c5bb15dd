"""What is recorded is what the physics did: states, ends, streams and seeds."""

import numpy as np
import pytest

from simtrust.data.dataset import rows_from_columns
from simtrust.generation.behaviour import GivenActions, UniformActions
from simtrust.generation.log_file import best_decile, content_sha256
from simtrust.generation.recording import record, stream_count
from simtrust.simulators import make_simulator

TASK_NAMES = ["HalfCheetah-v5", "Walker2d-v5", "Hopper-v5", "Ant-v5"]


def recorded(task, rows, streams, seed=0):
    simulator = make_simulator(task, num_envs=streams)
    behaviour = UniformActions(simulator.single_action_space, seed)
    return record(simulator, behaviour, rows, seeds=list(range(seed, seed + streams)), title="", quiet=True)


@pytest.fixture(scope="module", params=TASK_NAMES)
def log(request):
    return request.param, recorded(request.param, 400, 3)


def test_every_state_gives_its_observation_and_the_next_bit_for_bit(log):
    task, columns = log
    simulator = make_simulator(task, num_envs=400)
    observation = simulator.set_state(columns["infos/qpos"], columns["infos/qvel"]).astype(np.float32)
    # Contact forces, Ant's last entries, are of the step before.
    physical = slice(0, 27 if task == "Ant-v5" else None)
    np.testing.assert_array_equal(observation[:, physical], columns["observations"][:, physical])
    following, reward, terminated, _, _ = simulator.step(columns["actions"])
    np.testing.assert_array_equal(following.astype(np.float32), columns["next_observations"])
    # Ant's reward takes the torso's place of one substep before, which the state does not tell.
    if task != "Ant-v5":
        np.testing.assert_array_equal(reward.astype(np.float32), columns["rewards"])
    np.testing.assert_array_equal(terminated, columns["terminals"])
    assert columns["infos/qpos"].dtype == columns["infos/qvel"].dtype == np.float64


def test_rows_follow_one_another_within_an_episode_and_nowhere_else(log):
    _, columns = log
    _, ends, dropped = rows_from_columns("log", columns)
    assert dropped is None
    follows = (columns["next_observations"][:-1] == columns["observations"][1:]).all(1)
    np.testing.assert_array_equal(follows, ~ends[:-1])
    # 3 streams of 134 rows, of which the last has 132.
    assert ends[[133, 267, 399]].all()
    assert not (columns["terminals"] & columns["timeouts"]).any()


def test_taking_the_actions_again_gives_the_same_log(log):
    task, columns = log
    actions = columns["actions"][:268].reshape(2, 134, -1)
    simulator = make_simulator(task, num_envs=2)
    again = record(simulator, GivenActions(actions), 268, seeds=[0, 1], title="", quiet=True)
    assert "infos/action_log_probs" in columns
    assert "infos/action_log_probs" not in again
    for key, values in again.items():
        np.testing.assert_array_equal(values, columns[key][:268])


def test_time_limits_are_timeouts():
    columns = recorded("HalfCheetah-v5", 2_500, 1)
    assert np.flatnonzero(columns["timeouts"]).tolist() == [999, 1_999, 2_499]
    assert not columns["terminals"].any()
    assert columns["infos/qpos"][1_000, 0] < 0.2, "a new episode begins at x = 0, within ±0.1"


def test_uniform_actions_fill_their_space_and_know_their_density():
    columns = recorded("Hopper-v5", 2_000, 1)
    action = columns["actions"]
    assert action.dtype == np.float32
    assert (np.abs(action) <= 1).all()
    np.testing.assert_allclose(action.mean(0), 0, atol=0.06)
    np.testing.assert_allclose(action.var(0), 1 / 3, atol=0.03)
    np.testing.assert_allclose(columns["infos/action_log_probs"], -3 * np.log(2), rtol=1e-6)


def test_seeds():
    first, again, other = (recorded("Hopper-v5", 50, 2, seed) for seed in (3, 3, 4))
    assert content_sha256(first) == content_sha256(again) != content_sha256(other)
    assert (first["observations"][0] != first["observations"][25]).any(), "streams have seeds of their own"


def test_the_sum_is_of_names_types_shapes_and_values():
    rows = {"b": np.arange(4, dtype=np.float32), "a": np.zeros(2, bool)}
    known = content_sha256(rows)
    assert known == content_sha256(dict(reversed(rows.items())))
    assert known == content_sha256(rows | {"b": np.repeat(rows["b"], 2)[::2].astype(">f4")})
    others = (
        rows | {"b": rows["b"] + np.float32(1e-6)},
        rows | {"b": rows["b"].astype(np.float64)},
        rows | {"b": rows["b"].reshape(2, 2)},
        {"c": rows["b"], "a": rows["a"]},
    )
    assert known not in [content_sha256(other) for other in others]


def test_best_decile():
    assert best_decile(np.arange(20.0)) == 18.5
    assert best_decile(np.array([3.0, 5.0])) == 5.0


@pytest.mark.parametrize(
    ("rows", "streams"), [(1, 1), (19_999, 1), (20_000, 2), (640_000, 64), (10_000_000, 64)]
)
def test_a_stream_holds_at_least_ten_whole_episodes(rows, streams):
    assert stream_count(rows) == streams
