"""Shares of rows within each other's range, counted by hand."""

import numpy as np
import pytest
from gymnasium.spaces import Box

from simtrust.gap.support import measure_support
from simtrust.types import Transitions


def rows_of(observation) -> Transitions:
    observation = np.asarray(observation, np.float32)
    zero = np.zeros(len(observation), np.float32)
    return Transitions(observation, zero[:, None], zero, observation, zero)


@pytest.fixture
def found(known_gaps):
    """The log lies in [0, 1] × [10, 20]; of the simulator's six rows two are of each policy."""
    log = [[0, 10], [1, 20], [0.5, 15], [0.25, 12]]
    dataset = known_gaps.dataset_of(np.array(log), np.zeros((4, 1)), np.array(log))
    rolled = [[0.5, 15], [0.6, 30], [2, 11], [0.5, 9], [-1, 5], [3, 40]]
    space = Box(np.array([0.2, -np.inf], np.float32), np.array([1.0, 15.0], np.float32))
    return measure_support(dataset, rows_of(rolled), space)


def test_shares_are_counted_by_policy_and_dimension(found):
    np.testing.assert_array_equal(found.simulated_inside, [[1.0, 0.5], [0.5, 0.5], [0.0, 0.0]])
    np.testing.assert_allclose(found.overall, [0.5, 1 / 3])
    assert found.rows == 6


def test_the_log_is_compared_with_the_rollouts_and_with_the_space(found):
    assert (found.low.tolist(), found.high.tolist()) == ([-1.0, 5.0], [3.0, 40.0])
    np.testing.assert_array_equal(found.log_inside, [1.0, 1.0])
    np.testing.assert_array_equal(found.log_within_bounds, [0.75, 0.75])


@pytest.mark.parametrize(("beyond", "inside"), [(1e-6, 1.0), (1e-3, 0.0)])
def test_rounding_is_forgiven_and_no_more(known_gaps, beyond, inside):
    log = np.array([[100.0], [101.0]])
    dataset = known_gaps.dataset_of(log, np.zeros((2, 1)), log)
    reach = beyond * 101.0
    rolled = rows_of([[101.0 + reach], [100.0 - reach], [101.0 + reach]])
    found = measure_support(dataset, rolled, Box(-np.inf, np.inf, (1,), np.float32))
    np.testing.assert_array_equal(found.overall, [inside])
