"""Evaluators of policies whose actions and values are known."""

import numpy as np
import pytest

from simtrust.data.dataset import Dataset
from simtrust.errors import DataError
from simtrust.evaluation.evaluators import action_difference, temporal_difference_error
from simtrust.types import Transitions

ROWS, EPISODE = 2_000, 20


class Known:
    """π(s) = s₁ + 0.25, and Q(s, a) = 10·s₀ + a."""

    seed, step, discount = 0, 0, 0.5

    def __call__(self, observation, /):
        return observation[..., 1:] + 0.25

    def value(self, observation, action, /):
        return 10 * observation[..., 0] + action[..., 0]


def log(rows: int = ROWS, **columns: np.ndarray) -> Dataset:
    """s₀ counts within episodes of 20 rows, a = s₁ = 3, r = 1, and s' has s₀ + 1."""
    count = np.arange(rows) % EPISODE
    observation = np.stack([count, np.full(rows, 3.0)], -1).astype(np.float32)
    fields = {
        "observation": observation,
        "action": observation[:, 1:],
        "reward": np.ones(rows, np.float32),
        "next_observation": observation + np.array([1, 0], np.float32),
        "terminated": np.zeros(rows, np.float32),
        **columns,
    }
    return Dataset(Transitions(**fields), count == EPISODE - 1, "log", "")


def test_action_difference():
    assert action_difference(log())(Known()) == pytest.approx(0.25)


def test_action_difference_is_of_whole_episodes_spread_over_the_log():
    """Every episode's first action is 20 off: so is one action in twenty, on whatever episodes are chosen."""
    action = np.where(np.arange(ROWS) % EPISODE == 0, 3.25 + 20, 3.25).astype(np.float32)[:, None]
    assert action_difference(log(action=action), share=0.05)(Known()) == pytest.approx(1.0)


@pytest.mark.parametrize("terminated", [0.0, 1.0])
def test_temporal_difference_error(terminated):
    """δ = 1 + (1 − d)/2·(10(s₀ + 1) + 3.25) − (10 s₀ + 3): its mean magnitude over s₀ = 0 ... 19."""
    count = np.arange(EPISODE)
    error = 1 + (1 - terminated) / 2 * (10 * (count + 1) + 3.25) - (10 * count + 3)
    dataset = log(terminated=np.full(ROWS, terminated, np.float32))
    found = temporal_difference_error(dataset)(Known())
    assert found == pytest.approx(np.abs(error).mean(), rel=1e-6)


def test_too_small_a_log_is_refused():
    with pytest.raises(DataError, match="5 rows have a known next state"):
        action_difference(log(rows=5))
