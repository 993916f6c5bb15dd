"""Shares of rows within each other's range, counted by hand."""

import numpy as np
import pytest
from gymnasium.spaces import Box

from simtrust.data.log_findings import Column, Log
from simtrust.gap.support import Support, measure_support, outside_observation_space, ranges_apart
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


def log_of(known_gaps, size: int) -> Log:
    rows = np.zeros((4, size))
    columns = [Column("observation", i, f"s{i}", "", 0.0, 0.5, 1.0, 0.3, 4) for i in range(size)]
    return Log(known_gaps.dataset_of(rows, np.zeros((4, 1)), rows), tuple(columns))


def support(inside, within=1.0) -> Support:
    """Of dimensions in which these shares of every policy's rows are inside the log's range."""
    inside = np.asarray(inside, float)
    ones = np.ones(inside.shape[1])
    return Support(inside, ones, np.broadcast_to(within, ones.shape), 7 * ones, 9 * ones, 6)


def test_log_and_simulator_are_apart_where_no_policy_comes_near(known_gaps):
    found = ranges_apart(
        log_of(known_gaps, 3), support([[0.0, 0.0, 0.9], [0.04, 0.0, 1.0], [0.04, 0.06, 1.0]])
    )
    assert [place.column for place in found.places] == [0]
    assert "[0, 1] in the log, [7, 9] in the simulator" in str(found.places[0])
    assert ranges_apart(log_of(known_gaps, 1), support([[0.0], [0.0], [0.06]])) is None


def test_more_than_a_thousandth_outside_the_space_is_told(known_gaps):
    ones = np.ones((3, 4))
    found = outside_observation_space(log_of(known_gaps, 4), support(ones, [1.0, 0.75, 0.9995, 0.9985]))
    assert [place.column for place in found.places] == [1, 3]
    assert "25.0% of rows are outside" in str(found.places[0])
    assert outside_observation_space(log_of(known_gaps, 4), support(ones, 0.9995)) is None
