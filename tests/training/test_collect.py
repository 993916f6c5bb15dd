"""Rollouts of one and of several instances a run: whose rows they are, where episodes end, and how."""

import json

import gymnasium
import numpy as np
import pytest

from simtrust.errors import ConfigError, SimtrustError
from simtrust.simulators import make_simulator
from simtrust.training.collect import Collector, instance_seeds
from simtrust.training.config import TrainConfig
from simtrust.training.scaling import make_scaling

pytestmark = pytest.mark.usefixtures("misbehaving")
RUNS, EACH, LENGTH = 2, 3, 30


def collector(name, instances, max_episode_steps=None):
    simulator = make_simulator(name, num_envs=instances, max_episode_steps=max_episode_steps)
    space = simulator.single_action_space
    width = simulator.single_observation_space.shape[0]
    identity = make_scaling(
        None, space.low, space.high, width, discount=0.99, normalise_observations=False, reward_scale=1.0
    )
    return Collector(simulator, identity)


class Explorer:
    """Acts by the observation alone, and remembers what it was asked."""

    def __init__(self):
        self.asked, self.steps = [], []

    def __call__(self, observation, keys, step):
        self.asked.append(observation.shape)
        self.steps.append(step)
        return np.sin(observation[..., :1])


@pytest.mark.parametrize("ending", ["truncating", "terminating"])
def test_rows_lie_side_by_side_and_episodes_end_in_each_instance(ending):
    collecting, explore = collector(f"misbehaving:{ending}", RUNS * EACH), Explorer()
    collecting.restart([7, 8])
    rollouts = [collecting.collect(explore, None, step=start, count=60) for start in (0, 60)]
    assert explore.asked == [(RUNS, EACH, 2)] * 40
    assert explore.steps == list(range(0, 120, EACH))
    # A Counter observes the steps since its reset, and which episode it is.
    moment = np.arange(40)
    counted, episode = moment % LENGTH, 1 + moment // LENGTH
    for start, rollout in zip((0, 20), rollouts, strict=True):
        rows = rollout.transitions
        assert rows.observation.shape == (RUNS, 60, 2) and rows.reward.shape == (RUNS, 60)
        part = slice(start, start + 20)
        apart = [np.asarray(field).reshape(RUNS, 20, EACH, -1) for field in rows]
        for run in range(RUNS):
            for instance in range(EACH):
                observation, action, reward, following, terminated = (
                    field[run, :, instance] for field in apart
                )
                assert np.array_equal(observation, np.stack([counted, episode], 1)[part])
                assert np.array_equal(following, np.stack([counted + 1, episode], 1)[part])
                assert np.allclose(action, np.sin(observation[:, :1]))
                assert (reward == 1).all()
                ends = (counted[part] == LENGTH - 1) & (ending == "terminating")
                assert np.array_equal(terminated[:, 0], ends)
    assert [rollout.episode_returns for rollout in rollouts] == [[[], []], [[30.0] * EACH] * RUNS]


def test_every_row_of_an_instance_belongs_to_its_run_and_seed():
    collecting = collector("Pendulum-v1", RUNS * EACH)
    collecting.restart([7, 8])
    rows = collecting.collect(Explorer(), None, step=0, count=30).transitions
    starts = rows.observation[:, :EACH].reshape(-1, 3)
    env = gymnasium.make("Pendulum-v1")
    assert np.array_equal(starts, [env.reset(seed=seed)[0] for seed in instance_seeds([7, 8], EACH)])
    # The next observation of an instance is its observation one moment later.
    assert np.array_equal(rows.next_observation[:, :-EACH], rows.observation[:, EACH:])


def test_the_returns_told_of_a_run_are_its_own():
    collecting = collector("Pendulum-v1", RUNS * EACH, max_episode_steps=10)
    collecting.restart([7, 8])
    rollout = collecting.collect(Explorer(), None, step=0, count=10 * EACH)
    sums = rollout.transitions.reward.reshape(RUNS, 10, EACH).sum(1)
    assert np.allclose(rollout.episode_returns, sums) and len(np.unique(sums)) == RUNS * EACH


def test_one_instance_a_run_steps_as_ever():
    collecting, explore = collector("Pendulum-v1", RUNS), Explorer()
    collecting.restart([7, 8])
    rows = collecting.collect(explore, None, step=5, count=210).transitions
    assert explore.steps == list(range(5, 215)) and explore.asked == [(RUNS, 1, 3)] * 210
    for run, seed in enumerate([7, 8]):
        env = gymnasium.make("Pendulum-v1")
        observation, _ = env.reset(seed=seed)
        for index in range(210):
            # Pendulum's torque goes up to 2.
            action = 2 * np.sin(observation[:1])
            following, reward, terminated, truncated, _ = env.step(action.astype(np.float32))
            row = (field[run, index] for field in rows)
            for ours, theirs in zip(row, (observation, action, reward, following, terminated), strict=True):
                assert np.allclose(ours, theirs, atol=1e-5)
            observation = env.reset()[0] if truncated else following


def test_the_seeds_of_instances_follow_from_their_run_alone():
    assert instance_seeds([4, 2**40], 1) == [4, 2**40]
    assert instance_seeds([4, 5], 3)[3:] == instance_seeds([5], 3)
    assert len(set(instance_seeds(range(50), 4))) == 200
    assert instance_seeds([None, 5], 3) == [None] * 3 + instance_seeds([5], 3)


def test_a_run_without_a_seed_goes_on_where_it_is():
    restarted, going_on, fresh = (collector("Hopper-v5", RUNS * EACH, max_episode_steps=9) for _ in range(3))
    for each, seeds in ((restarted, [7, 8]), (going_on, [7, 8]), (fresh, [4, 5])):
        each.restart(seeds)
    before = [each.collect(Explorer(), None, step=0, count=5 * EACH) for each in (restarted, going_on)]
    assert np.array_equal(before[0].transitions.reward, before[1].transitions.reward)
    restarted.restart([4, None])
    ours, on, new = (
        each.collect(Explorer(), None, step=0, count=6 * EACH) for each in (restarted, going_on, fresh)
    )
    for mine, theirs in (
        (ours.of(slice(0, 1)), new.of(slice(0, 1))),
        (ours.of(slice(1, 2)), on.of(slice(1, 2))),
    ):
        for field, other in zip(mine.transitions, theirs.transitions, strict=True):
            assert np.array_equal(field, other)
        assert mine.episode_returns == theirs.episode_returns
    assert [len(returns) for returns in ours.episode_returns] == [0, EACH]


def test_workers_change_no_bit_of_a_run(train, tmp_path):
    options = {"sim": "misbehaving:truncating", "sim_instances": 2, "seeds": 2}
    metrics = []
    for workers in (0, 3):
        folder = tmp_path / f"run{workers}"
        result = train(**options, sim_workers=workers, out=folder)
        metrics.append((folder / "metrics.jsonl").read_bytes())
        runs = result.summary["runs"]
    assert metrics[0] == metrics[1]
    lines = [json.loads(line) for line in metrics[0].splitlines()]
    # 50 rows a round are 25 steps of each of two instances: the first episodes end in the second round.
    assert [line.get("simulator_return") for line in lines if line["seed"] == 0] == [None, 30.0]
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sim_instances": 0}, "--sim-instances is 0"),
        ({"sim_workers": -1}, "--sim-workers is -1"),
        ({"sim_instances": 3}, "--rollout-steps 1000 must be a multiple of --sim-instances 3"),
        ({"sim_instances": 4, "steps": 1_002}, "--steps 1002 must be a multiple of --sim-instances 4"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig("sac", sim="Pendulum-v1", **options)


def test_workers_of_a_built_in_simulator_are_refused(train):
    with pytest.raises(SimtrustError, match=r"built in.*--sim-workers 2"):
        train(sim="Hopper-v5", sim_workers=2)
