"""Recorded episodes tell the same returns, and every step of the truth until an episode's end."""

import numpy as np
import pytest

from simtrust.evaluation.returns import episode_steps, run_episodes
from simtrust.evaluation.traces import record_episodes
from simtrust.simulators import make_simulator
from simtrust.simulators.wheel_legged import FALLEN_TILT

GAINS = np.array([22.0, 3.5, 2.0, 3.0])
SEEDS = [4, 5, 4, 5]


def stabilised_and_not(observation):
    """Of two policies, the first keeps the robot upright, the second lets it fall."""
    torque = np.clip(observation @ GAINS, -4, 4)
    return np.stack([torque[0], np.zeros_like(torque[1])])[..., None].astype(np.float32)


@pytest.fixture
def robots():
    return make_simulator("StandingStillReal-v0", num_envs=4, max_episode_steps=400)


@pytest.fixture
def recorded(robots):
    return record_episodes(robots, stabilised_and_not, runs=2, seeds=SEEDS)


def test_returns_are_those_of_unrecorded_episodes(robots, recorded):
    returns, lengths = run_episodes(robots, stabilised_and_not, runs=2, seeds=SEEDS)
    np.testing.assert_array_equal(recorded[0].returns, returns)
    np.testing.assert_array_equal(recorded[0].lengths, lengths)


def test_nothing_is_recorded_after_an_end(recorded):
    (_, lengths), (state, action) = recorded
    assert state.shape == (2, 2, 400, 4)
    assert action.shape == (2, 2, 400, 1)
    for array in (state, action):
        np.testing.assert_array_equal((~np.isnan(array[..., 0])).sum(-1), lengths)
    assert (lengths[0] == 400).all()
    assert (lengths[1] < 400).all()


def test_the_last_state_of_a_fall_is_fallen(recorded):
    (_, lengths), (state, _) = recorded
    for episode, length in zip(state[1], lengths[1], strict=True):
        assert abs(episode[length - 1, 0]) > FALLEN_TILT
        assert abs(episode[length - 2, 0]) <= FALLEN_TILT


def test_equal_seeds_give_every_policy_equal_starts(robots):
    first = next(episode_steps(robots, stabilised_and_not, runs=2, seeds=SEEDS))
    np.testing.assert_array_equal(first.observation[:2], first.observation[2:])
    assert (first.observation[0] != first.observation[1]).any()


def test_actions_are_the_policys(recorded):
    assert (recorded[1].action[1][~np.isnan(recorded[1].action[1])] == 0).all()
    assert np.nanmax(np.abs(recorded[1].action[0])) > 0
