"""Two means of runs, told apart by Welch's t-test or not."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind

from simtrust.paper.comparison import Sample, Verdict, compare, differ, exactly, sample_of


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0, 4.0])
def test_the_test_is_welchs(shift):
    one, other = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0, 2.4]) + shift
    samples = [Sample(float(x.mean()), float(x.std(ddof=1)), len(x)) for x in (one, other)]
    assert samples == [sample_of(one), sample_of(other)]
    assert differ(*samples) == (np.asarray(ttest_ind(one, other, equal_var=False))[1] < 0.05)


@pytest.mark.parametrize("limit", np.linspace(-6.0, 10.0, 33).tolist())
def test_against_a_limit_it_is_the_test_of_a_single_sample(limit):
    runs = np.array([1.0, 2.0, 4.0])
    expected = ttest_1samp(runs, limit).pvalue < 0.05
    assert differ(sample_of(runs), exactly(limit)) == differ(exactly(limit), sample_of(runs)) == expected


def test_a_single_run_tells_nothing_apart_and_equal_runs_everything():
    assert not differ(Sample(1.0, 0.0, 1), Sample(9.0, 0.0, 5))
    assert differ(Sample(1.0, 0.0, 2), Sample(1.1, 0.0, 2))
    assert not differ(Sample(1.0, 0.0, 2), Sample(1.0, 0.0, 2))


@pytest.mark.parametrize(
    ("more", "less", "verdict", "note"),
    [
        ([5.0, 5.1, 5.2], [1.0, 1.1, 1.2], Verdict.HOLDS, ""),
        ([1.0, 1.1, 1.2], [5.0, 5.1, 5.2], Verdict.FAILS, ""),
        ([5.0, 1.0, 3.0], [1.0, 4.0, 2.0], Verdict.UNTOLD, ""),
        ([5.0, np.nan], [1.0, 1.1, 1.2], Verdict.UNTOLD, "a single seed"),
        ([np.nan, np.nan], [1.0, 1.1, 1.2], Verdict.UNTOLD, "no numbers"),
    ],
)
def test_the_higher_mean_is_told(more, less, verdict, note):
    assert compare(sample_of(np.array(more)), sample_of(np.array(less))) == (verdict, note)
