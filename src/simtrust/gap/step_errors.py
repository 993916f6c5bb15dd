"""One-step errors of a replay, in units in which dimensions compare, and their means by episode."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from simtrust.data import Dataset
from simtrust.data.dataset import episode_numbers, unknown_next_state
from simtrust.errors import ConfigError, DataError
from simtrust.gap.replay_probe import Replay, require_positive

RESAMPLING_BLOCK = 4_000_000
"""Draws held at once, which bounds the memory whatever the number of episodes."""

Normalisation = Literal["change", "state"]


@dataclass(frozen=True, eq=False)
class GapErrors:
    """One-step errors of N rows, simulated less logged; NaN in rows that are not usable."""

    rows: np.ndarray  # [N] int: rows of the dataset
    episode: np.ndarray  # [N] int: their episodes
    error: np.ndarray  # [N, O] float64, in the log's units
    scale: np.ndarray  # [O] float64, in the log's units; NaN where the log does not vary
    gap: np.ndarray  # [N] float64: root mean square of the normalised error over dimensions that vary
    normalisation: Normalisation

    @property
    def normalised(self) -> np.ndarray:
        """[N, O] float64: ``error / scale``; NaN where the log does not vary."""
        return self.error / self.scale


def step_errors(dataset: Dataset, replayed: Replay, *, normalisation: Normalisation = "change") -> GapErrors:
    """Compare a replay with the log, dimension by dimension.

    ``"change"``, the default, divides by the standard deviation of the logged change s' − s, over the
    whole log. Then 1 is the error of a simulator that predicts the mean change whatever is done, in every
    dimension alike, and 1 − mean(normalised²) is about the share of the change that it explains.
    ``"state"`` divides by the standard deviation of s, as model-based estimates on standardised states do.
    That hides errors of one step: it measures them against how far the machine ever travels, so
    positions hardly count, and the same simulator looks twice as good at half the time step.

    Dimensions that vary by no more than the log's own float32 rounding have no scale and do not enter the
    gap; their error in the log's units is there.

    Raises:
        DataError: no dimension varies, or the replay is not of this log.
        ConfigError: the normalisation is unknown.
    """
    check_of_log(dataset, replayed.rows, replayed.predicted)
    scale = dimension_scales(dataset, normalisation)
    following = np.asarray(dataset.transitions.next_observation)[replayed.rows]
    error = replayed.predicted - following
    error[~replayed.usable] = np.nan
    episode = episode_numbers(dataset.episode_end)[replayed.rows]
    return GapErrors(replayed.rows, episode, error, scale, root_mean_square(error, scale), normalisation)


def check_of_log(dataset: Dataset, rows: np.ndarray, values: np.ndarray) -> None:
    """Raise DataError if ``rows [N]`` and what was made of them, ``values [N, O]``, are not of this log."""
    if values.shape[1] != dataset.observation_size or rows.max() >= len(dataset):
        raise DataError(
            f"{dataset.source}: the replay is of another log, of observations {values.shape[1]} wide and at "
            f"least {rows.max() + 1:,} rows. Remedy: replay this one."
        )


def dimension_scales(dataset: Dataset, normalisation: Normalisation) -> np.ndarray:
    """``[O]`` float64, in the log's units: what errors are divided by; NaN where the log does not vary.

    Raises:
        DataError: no dimension varies.
        ConfigError: the normalisation is unknown.
    """
    if normalisation not in get_args(Normalisation):
        known = " or ".join(map(repr, get_args(Normalisation)))
        raise ConfigError(f"normalisation is {normalisation!r}; it must be {known}")
    state = np.asarray(dataset.transitions.observation, np.float64)
    values = state
    if normalisation == "change":
        recorded = ~unknown_next_state(dataset.transitions)
        values = np.asarray(dataset.transitions.next_observation, np.float64)[recorded] - state[recorded]
    spread = values.std(axis=0) if len(values) else np.zeros(state.shape[1])
    rounding = np.finfo(np.float32).eps * np.abs(state).max(axis=0)
    scale = np.where(spread > rounding, spread, np.nan)
    if np.isnan(scale).all():
        raise DataError(
            f"{dataset.source}: no dimension of the {normalisation} varies, so there is nothing to compare "
            "an error with. Remedy: record the machine while it moves."
        )
    return scale


def root_mean_square(error: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """``[...]`` of errors ``[..., O]``: over the dimensions that have a scale."""
    varies = ~np.isnan(scale)
    return np.sqrt(np.square(error[..., varies] / scale[varies]).mean(axis=-1))


class Intervals(NamedTuple):
    """Means, and where they lie with 95 % confidence; NaN where that is unknown."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Summary(NamedTuple):
    """Means over the usable rows, with intervals from resampled episodes."""

    bias: Intervals  # [O]: signed error, in the log's units
    absolute: Intervals  # [O]: absolute error, in the log's units
    normalised: Intervals  # [O]: absolute normalised error
    gap: Intervals  # []
    rows: int  # usable
    episodes: int  # that hold them


def summarise(errors: GapErrors, *, resamples: int = 2000, seed: int = 0) -> Summary:
    """Mean errors with 95 % percentile-bootstrap intervals by episode.

    Episodes are drawn again, not rows: neighbouring rows err alike, and rows drawn one by one would make
    intervals far too narrow. The intervals are NaN with one episode, and rough with fewer than ten.

    Raises:
        ConfigError: ``resamples`` is not positive.
    """
    size = errors.error.shape[1]
    columns = (*errors.error.T, *map(np.abs, errors.error.T), errors.gap)
    means = episode_bootstrap(columns, errors.episode, resamples, seed)
    bias, absolute, gap = (
        Intervals(*(bound[part] for bound in means))
        for part in (slice(size), slice(size, 2 * size), 2 * size)
    )
    normalised = Intervals(*(bound / errors.scale for bound in absolute))
    usable = ~np.isnan(errors.gap)
    episodes = len(np.unique(errors.episode[usable]))
    return Summary(bias, absolute, normalised, gap, int(usable.sum()), episodes)


def episode_bootstrap(
    columns: Iterable[np.ndarray], episode: np.ndarray, resamples: int, seed: int
) -> Intervals:
    """Means ``[K]`` of K columns ``[N]``, rows of ``episode [N]``, with NaN left out, and their intervals.

    Raises:
        ConfigError: ``resamples`` is not positive.
    """
    resamples = require_positive("resamples", resamples)
    sums, counts = _episode_sums(columns, episode)
    mean = _ratio(sums.sum(axis=0), counts.sum(axis=0))
    several = (counts > 0).sum(axis=0) > 1
    low, high = np.full((2, len(mean)), np.nan)
    if several.any():
        drawn = _resampled_means(sums[:, several], counts[:, several], resamples, seed)
        low[several], high[several] = np.nanquantile(drawn, (0.025, 0.975), axis=0)
    return Intervals(mean, low, high)


def _episode_sums(columns: Iterable[np.ndarray], episode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts ``[E, K]`` of what is not NaN, by episode, of the episodes that hold any."""
    episodes, index = np.unique(episode, return_inverse=True)
    sums, counts = [], []
    for column in columns:
        known = ~np.isnan(column)
        sums.append(np.bincount(index[known], column[known], len(episodes)))
        counts.append(np.bincount(index[known], minlength=len(episodes)))
    kept = np.any(counts, axis=0)
    return np.stack(sums, axis=1)[kept], np.stack(counts, axis=1)[kept].astype(float)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """[resamples, K]: means over as many episodes as there are, drawn with replacement."""
    generator = np.random.default_rng(seed)
    episodes = len(sums)
    block = max(1, RESAMPLING_BLOCK // episodes)
    means = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        draws = generator.integers(episodes, size=(size, episodes)) + episodes * np.arange(size)[:, None]
        times = np.bincount(draws.ravel(), minlength=size * episodes).reshape(size, episodes).astype(float)
        means.append(_ratio(times @ sums, times @ counts))
    return np.concatenate(means)


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)
