"""Whether one mean over training runs lies above another: Welch's t-test at 5 %.

It takes samples of few runs for what they are, where a bootstrap of two or three runs would find differences
in noise; and the paper gives what it needs.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy.stats import ttest_ind_from_stats

LEVEL = 0.05


class Verdict(StrEnum):
    HOLDS = "holds"
    FAILS = "does not hold"
    UNTOLD = "cannot be told apart"
    NOT_COMPARED = "not compared"
    MISSING = "not run"


class Sample(NamedTuple):
    mean: float
    std: float
    """With one less than their number in the denominator."""
    size: float
    """How many runs; infinite of a number that is known exactly."""

    @property
    def exact(self) -> bool:
        return self.size == np.inf


def sample_of(runs: np.ndarray) -> Sample:
    """Of numbers ``[R]``, one a training run; those that are NaN are left out."""
    known = np.asarray(runs, float)
    known = known[~np.isnan(known)]
    mean = float(known.mean()) if len(known) else np.nan
    return Sample(mean, float(known.std(ddof=1)) if len(known) > 1 else np.nan, len(known))


def exactly(value: float) -> Sample:
    """A number that is no sample's mean. Against one, Welch's test is the t-test of a single sample."""
    return Sample(value, 0.0, np.inf)


def differ(one: Sample, other: Sample) -> bool:
    """Whether two samples have different means, by Welch's test at `LEVEL`; not with a single run."""
    if min(one.size, other.size) < 2:
        return False
    if one.std == other.std == 0:
        return one.mean != other.mean
    return bool(ttest_ind_from_stats(*one, *other, equal_var=False).pvalue < LEVEL)


def compare(more: Sample, less: Sample) -> tuple[Verdict, str]:
    """Whether the mean of ``more`` is the higher one, and what to note of it."""
    if more.exact and less.exact:
        return (Verdict.HOLDS if more.mean > less.mean else Verdict.FAILS), ""
    if min(more.size, less.size) < 2:
        return Verdict.UNTOLD, "a single seed" if min(more.size, less.size) else "no numbers"
    if not differ(more, less):
        return Verdict.UNTOLD, ""
    return (Verdict.HOLDS if more.mean > less.mean else Verdict.FAILS), ""


def counts(verdicts: Iterable[Verdict]) -> dict[Verdict, int]:
    """How many of each, in the order of `Verdict`; those there are none of left out."""
    found = list(verdicts)
    return {verdict: found.count(verdict) for verdict in Verdict if verdict in found}
