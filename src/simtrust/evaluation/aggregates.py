"""What a handful of runs on several tasks say of a recipe, without one lucky run deciding.

The measures of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice":
interquartile mean, probability of improvement, and intervals from a bootstrap that is stratified by task.
Scores are one array ``[R_k]`` for each task k, a number a training run; tasks may differ in their runs.
Runs that are NaN are left out.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import trim_mean

from simtrust.evaluation.statistics import Interval

RESAMPLES = 10_000
TAIL = 0.025
"""Left out at either end by an interval of 95 %."""

Tasks = Sequence[np.ndarray]


def interquartile_mean(tasks: Tasks, *, seed: int = 0) -> Interval:
    """The mean of the middle half of all runs of all tasks, with its 95 % interval.

    A quarter of the runs, rounded down, is left out at either end. NaN where a task has no run.
    """
    return _with_interval(_known(tasks), _middle_mean, seed)


def probability_of_improvement(ours: Tasks, theirs: Tasks, *, seed: int = 0) -> Interval:
    """The chance that a run of ours does better than one of theirs on the same task, with its 95 % interval.

    Of each task, the share of the pairs of runs in which ours has the higher score, where a tie counts half
    (Mann and Whitney's U over the number of pairs); the mean of the tasks. NaN where a task has no run of
    one of the two.
    """
    ours, theirs = _known(ours), _known(theirs)

    def improvement(drawn: Tasks) -> np.ndarray:
        pairs = zip(drawn[: len(ours)], drawn[len(ours) :], strict=True)
        return np.mean([_share_won(one, other) for one, other in pairs], axis=0)

    return _with_interval([*ours, *theirs], improvement, seed)


def _middle_mean(tasks: Tasks) -> np.ndarray:
    """Runs ``[..., R_k]`` to ``[...]``."""
    return np.asarray(trim_mean(np.concatenate(tasks, axis=-1), 0.25, axis=-1))


def _share_won(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Runs ``[..., R]`` and ``[..., R']`` to ``[...]``."""
    difference = ours[..., :, None] - theirs[..., None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean((-2, -1))


def _known(tasks: Tasks) -> list[np.ndarray]:
    arrays = (np.asarray(runs, float) for runs in tasks)
    return [runs[~np.isnan(runs)] for runs in arrays]


def _with_interval(strata: Tasks, statistic: Callable[[Tasks], np.ndarray], seed: int) -> Interval:
    """A statistic of strata ``[R_k]`` and the percentile interval of runs drawn again within each stratum.

    NaN for the interval if a stratum has fewer than two runs: one says nothing of how far others lie.
    """
    fewest = min(map(len, strata), default=0)
    if not fewest:
        return Interval(np.nan, np.nan, np.nan)
    value = float(statistic(strata))
    if fewest < 2:
        return Interval(value, np.nan, np.nan)
    generator = np.random.default_rng(seed)
    drawn = [runs[generator.integers(len(runs), size=(RESAMPLES, len(runs)))] for runs in strata]
    low, high = np.quantile(statistic(drawn), (TAIL, 1 - TAIL))
    return Interval(value, float(low), float(high))
