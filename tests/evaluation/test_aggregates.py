"""Interquartile means and probabilities of improvement: worked out by hand, and as rliable has them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtrust.evaluation.aggregates import interquartile_mean, probability_of_improvement

# [runs, tasks]; the first run of both has the same score on the first task.
OURS = np.array(
    [[1.0, 2.15, 2.86], [0.55, 1.77, 2.5], [1.03, 2.67, 2.75], [0.69, 2.24, 3.18], [1.05, 1.53, 2.99]]
)
THEIRS = np.array([[1.0, 1.63, 2.27], [-0.15, 1.66, 1.58], [0.68, 1.67, 2.64], [0.88, 2.21, 1.24]])


class TestAgainstRliable:
    """What rliable 1.2.0 says of `OURS` and `THEIRS` (arch 7.2.0, pandas 2.3.3, NumPy 2.4.6), with

        metrics.aggregate_iqm(OURS)
        metrics.probability_of_improvement(OURS, THEIRS)
        library.get_interval_estimates(
            {"iqm": OURS}, lambda scores: np.array([metrics.aggregate_iqm(scores)]), reps=50_000,
            random_state=np.random.RandomState(0))
        library.get_interval_estimates(
            {"x,y": (OURS, THEIRS)}, metrics.probability_of_improvement, reps=10_000,
            random_state=np.random.RandomState(0))

    Its intervals move by 0.02 with the random state, since few runs can be drawn in few ways.
    """

    @pytest.mark.parametrize(
        ("scores", "mean", "low", "high"),
        [
            (OURS, 1.9655555555555557, 1.76888889, 2.17222222),
            (THEIRS, 1.4633333333333336, 1.32166667, 1.75666667),
        ],
    )
    def test_the_interquartile_mean(self, scores, mean, low, high):
        found = interquartile_mean(list(scores.T))
        assert found.mean == pytest.approx(mean, rel=1e-12)
        np.testing.assert_allclose(found[1:], [low, high], atol=0.025)

    def test_the_probability_of_improvement(self):
        found = probability_of_improvement(list(OURS.T), list(THEIRS.T))
        assert found.mean == pytest.approx(0.7916666666666666, rel=1e-12)
        np.testing.assert_allclose(found[1:], [0.60833333, 0.95], atol=0.02)


def test_the_middle_half_is_of_all_tasks_together():
    # Of 1 ... 8, two are left out at either end, wherever they come from.
    tasks = [np.array([1.0, 8.0, 3.0]), np.array([100.0, 4.0, 5.0, 6.0, -50.0])]
    assert interquartile_mean(tasks).mean == np.mean([3, 4, 5, 6])
    assert interquartile_mean([np.array([1.0, 2.0, 30.0])]).mean == 11.0


def test_runs_are_drawn_again_within_their_task():
    """Two tasks that lie far apart, whose runs agree: nothing is uncertain, whatever lies between them."""
    found = interquartile_mean([np.full(3, 1.0), np.full(3, 9.0)])
    assert found == (5.0, 5.0, 5.0)
    assert probability_of_improvement([np.full(3, 1.0)] * 2, [np.zeros(3), np.full(3, 2.0)]) == (
        0.5,
        0.5,
        0.5,
    )


def test_a_tie_counts_half_and_tasks_count_alike():
    ours = [np.array([1.0, 2.0]), np.array([5.0] * 4)]
    theirs = [np.array([1.0, 0.0]), np.array([9.0])]
    # Of the first, 1 > 0, 2 > 1, 2 > 0 and a tie; of the second none.
    assert probability_of_improvement(ours, theirs).mean == pytest.approx(3.5 / 4 / 2)


def test_two_runs_each_can_be_drawn_in_sixteen_ways():
    # All of ours above all of theirs but for one pair: 0.75; two equal draws of either give 0, 1/2 or 1.
    assert probability_of_improvement([np.array([1.0, 3.0])], [np.array([0.0, 2.0])]) == (0.75, 0.0, 1.0)


def test_one_run_says_nothing_of_others():
    found = interquartile_mean([np.array([1.0, 2.0]), np.array([3.0])])
    assert found.mean == 2.0
    assert np.isnan(found[1:]).all()


def test_without_a_run_nothing_is_known():
    assert np.isnan(interquartile_mean([np.array([1.0, 2.0]), np.array([np.nan])])).all()
    assert np.isnan(probability_of_improvement([np.array([1.0, 2.0])], [np.array([])])).all()
    assert np.isnan(interquartile_mean([])).all()


def test_missing_runs_are_left_out():
    whole = [np.array([1.0, 4.0, 2.0])]
    assert interquartile_mean([np.array([1.0, np.nan, 4.0, 2.0])]) == interquartile_mean(whole)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6),
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6),
)
def test_what_one_wins_the_other_loses(ours, theirs):
    one, other = (
        probability_of_improvement([np.array(a)], [np.array(b)]) for a, b in ((ours, theirs), (theirs, ours))
    )
    assert one.mean + other.mean == pytest.approx(1)
    assert 0 <= one.low <= one.high <= 1


def covered(runs, repeats):
    """How often the interval of so many standard normal runs holds their true mean, 0."""
    draws = np.random.default_rng(0).standard_normal((repeats, runs))
    intervals = (interquartile_mean([draw]) for draw in draws)
    return np.mean([low <= 0 <= high for _, low, high in intervals])


def test_intervals_of_few_runs_cover_less_than_they_say():
    """Of two and of three runs they span all: both lie on one side with chance 1/2, all three with 1/4."""
    for runs, share in ((2, 0.5), (3, 0.75)):
        draw = np.random.default_rng(1).standard_normal(runs)
        assert interquartile_mean([draw])[1:] == (draw.min(), draw.max())
        assert covered(runs, 300) == pytest.approx(share, abs=0.06)
    assert covered(5, 300) == pytest.approx(0.9, abs=0.03)


def test_of_fewer_than_four_runs_the_middle_half_is_all_of_them():
    assert interquartile_mean([np.array([0.0, 1.0, 8.0])]).mean == 3.0
    assert interquartile_mean([np.array([0.0, 1.0, 3.0, 80.0])]).mean == 2.0
