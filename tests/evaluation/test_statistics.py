"""Intervals are over training runs, and known where they can be worked out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simtrust.evaluation.statistics import Interval, mean_interval


def test_two_runs_span_their_interval():
    # Drawn twice from {0, 1}, the mean is 0, ½ or 1 with chances ¼, ½, ¼: 2.5 % lies in the outer ones.
    assert mean_interval(np.array([0.0, 1.0])) == Interval(0.5, 0.0, 1.0)


def test_equal_runs_leave_no_doubt():
    assert mean_interval(np.full(5, 3.5)) == Interval(3.5, 3.5, 3.5)


def test_one_run_says_nothing_of_others():
    interval = mean_interval(np.array([2.0]))
    assert interval.mean == 2.0
    assert np.isnan([interval.low, interval.high]).all()


def test_no_run_has_no_mean():
    assert np.isnan(mean_interval(np.array([np.nan]))).all()


def test_missing_runs_are_left_out():
    assert mean_interval(np.array([1.0, np.nan, 4.0])) == mean_interval(np.array([1.0, 4.0]))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
def test_the_mean_lies_within_and_the_runs_around(runs):
    mean, low, high = mean_interval(np.array(runs))
    slack = 1e-9 * max(map(abs, runs), default=0.0) + 1e-12
    assert min(runs) - slack <= low <= mean + slack
    assert mean - slack <= high <= max(runs) + slack


def test_many_runs_give_the_normal_interval():
    runs = np.random.default_rng(0).standard_normal(400)
    mean, low, high = mean_interval(runs)
    half = 1.96 * runs.std() / 20
    np.testing.assert_allclose([low, high], [mean - half, mean + half], atol=0.01)


def test_intervals_print_three_digits_or_whole_numbers():
    assert str(Interval(0.12345, -1234.6, 99.96)) == "0.123 (-1,235 to 100)"
