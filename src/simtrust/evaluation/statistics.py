"""What a handful of training runs say about a recipe."""

from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap


class Interval(NamedTuple):
    """A mean over runs, and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        mean, low, high = (f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}" for x in self)
        return f"{mean} ({low} to {high})"


def mean_interval(runs: np.ndarray, *, seed: int = 0) -> Interval:
    """Mean of ``[R]`` numbers, one a training run, with its 95 % percentile-bootstrap interval.

    Runs are what is drawn again, not episodes: episodes of one policy say nothing of how another
    training would have ended. With fewer than two runs the interval is unknown (NaN). Runs that are
    NaN are left out.
    """
    runs = np.asarray(runs, float)
    runs = runs[~np.isnan(runs)]
    if len(runs) < 2:
        return Interval(float(runs.mean()) if len(runs) else np.nan, np.nan, np.nan)
    if np.ptp(runs) == 0:
        return Interval(float(runs[0]), float(runs[0]), float(runs[0]))
    interval = bootstrap(
        (runs,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(seed)
    ).confidence_interval
    return Interval(float(runs.mean()), float(interval.low), float(interval.high))
