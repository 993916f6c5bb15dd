"""Shares of rows within each other's range, counted by hand."""

import numpy as np
import pytest
from gymnasium.spaces import Box

from simtrust.data.log_findings import Column, Log
from simtrust.gap.support import (
    Support,
    measure_support,
    outside_observation_space,
    ranges_apart,
    ranges_wider,
)
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


def support(inside, within=1.0, beyond=np.nan, widths=1.0, changes=1.0) -> Support:
    """Of dimensions in which these shares of every policy's rows are inside the log's range."""
    inside = np.asarray(inside, float)
    ones = np.ones(inside.shape[1])
    within, beyond, widths, changes = (
        np.broadcast_to(x, ones.shape) for x in (within, beyond, widths, changes)
    )
    return Support(inside, ones, within, 7 * ones, 9 * ones, 6, beyond, widths, changes)


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


def test_bounds_that_are_left_are_told_with_the_factor(known_gaps, found):
    """The log ends at 1 and 20, the space at 1 and 15; nothing is below 0, so no lower bound compares."""
    np.testing.assert_allclose(found.beyond, [1.0, 20 / 15], rtol=1e-6)
    told = outside_observation_space(
        log_of(known_gaps, 3), support(np.ones((3, 3)), 0.5, beyond=[57.0, 3.0, np.nan])
    )
    assert [place.detail for place in told.places] == [
        "50.0% of rows are outside, up to 57 times the bound: degrees for radians? (57.3 times)",
        "50.0% of rows are outside, up to 3 times the bound",
        "50.0% of rows are outside",
    ]


def test_the_bound_on_the_side_of_the_value_counts(known_gaps):
    log = np.array([[-6.0, -6.0], [2.0, 2.0]])
    dataset = known_gaps.dataset_of(log, np.zeros((2, 1)), log)
    space = Box(np.array([-2, -np.inf]), np.array([8, 8]), dtype=np.float64)
    np.testing.assert_allclose(measure_support(dataset, rows_of(np.ones((3, 2))), space).beyond, [3.0, 0.25])


def test_ranges_and_changes_are_multiples_of_the_rollouts(known_gaps):
    """Of 1,001 values from 0 to 1,000 the middle 98% are 980 wide; a single one far out changes nothing."""
    log = np.arange(1001.0)[:, None] * [1, 1]
    log[-1] = 1e6
    following = log + np.array([[30.0, 0.0]]) * np.where(np.arange(1001) % 2, 1, -1)[:, None]
    dataset = known_gaps.dataset_of(log, np.zeros((1001, 1)), following)
    rolled = rows_of([[0.0, 7.0], [5.0, 7.0], [10.0, 7.0], [0.0, 7.0]])
    moved = rolled._replace(next_observation=rolled.observation + np.float32([[2, 0], [-2, 0]] * 2))
    found = measure_support(dataset, moved, Box(-np.inf, np.inf, (2,), np.float32))
    np.testing.assert_allclose(found.widths, [98.0, np.nan], rtol=1e-3)
    np.testing.assert_allclose(found.changes, [15.0, np.nan], rtol=1e-3)


def test_other_units_are_wide_in_range_and_change_and_a_long_way_is_not(known_gaps):
    log, ones = log_of(known_gaps, 4), np.ones((3, 4))
    units = support(ones, widths=[57.0, 57.0, 21.0, 19.0], changes=[57.0, 4.0, 21.0, 19.0])
    found = ranges_wider(log, units)
    assert [place.column for place in found.places] == [0, 2]
    assert "57 times as wide" in found.places[0].detail and "degrees for radians?" in found.places[0].detail
    assert "degrees" not in found.places[1].detail
    assert ranges_wider(log, support(ones, widths=np.nan, changes=np.nan)) is None
