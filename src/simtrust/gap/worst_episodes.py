"""The episodes in which the simulator errs most, and what it makes of them when it is left to itself."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np

from simtrust.data import Dataset
from simtrust.data.dataset import episode_numbers, unknown_next_state
from simtrust.errors import DataError
from simtrust.gap.findings import WorstEpisode
from simtrust.gap.replay_probe import Probe, refuse_empty, require_positive
from simtrust.gap.step_errors import GapErrors, check_of_log
from simtrust.simulators import Shift

LEAST_ROWS = 10
"""An episode's mean over fewer rows says little."""


def worst_episodes(
    dataset: Dataset,
    simulator_name: str,
    errors: GapErrors,
    *,
    shifts: Sequence[Shift] = (),
    most: int = 3,
    horizon: int = 200,
    seed: int = 0,
) -> tuple[WorstEpisode, ...]:
    """The episodes of the largest mean one-step gap, the worst first, each run open loop from its worst part.

    The simulator starts where those ``horizon`` rows of the episode begin whose mean gap is largest, among
    the rows that can be replayed, and gets the logged actions for ``horizon`` steps or to the episode's end.
    Episodes of fewer than 10 rows that can be compared are passed over, unless all are such. Ends of episodes
    in a built-in simulator are passed over; another environment is not stepped after its own.

    Args:
        dataset, simulator_name, shifts: as for `replay`.
        errors: of the same log, simulator and shifts; rows that are not in it count as not usable.
        most: at most so many episodes.
        horizon: H steps at most.
        seed: of the simulator's randomness.

    Returns:
        Of each episode what is logged and what is simulated, ``[H + 1, O]`` float64 in the log's units, with
        an H of its own. What is simulated is NaN from a failure on.

    Raises:
        StateNotSettable, SimulatorError, ConfigError: as for `replay`; no failure on its way is an error.
        DataError: as for `replay`; or the errors are of another log, or all NaN.
    """
    most, horizon = require_positive("most", most), require_positive("horizon", horizon)
    refuse_empty(dataset)
    check_of_log(dataset, errors.rows, errors.error)
    gap = np.full(len(dataset), np.nan)
    gap[errors.rows] = errors.gap
    means = _episode_means(dataset, gap)
    # In the order of the log where they are equal, and NaN, which are passed over, last.
    ordered = np.argsort(-means, kind="stable")[: min(most, np.count_nonzero(~np.isnan(means)))]
    with closing(Probe.of(dataset, simulator_name, shifts, 1, seed)) as probe:
        return tuple(
            _run(dataset, probe, gap, int(episode), float(means[episode]), horizon) for episode in ordered
        )


def _episode_means(dataset: Dataset, gap: np.ndarray) -> np.ndarray:
    """[episodes] float64: means of ``gap [T]``; NaN for those that are passed over."""
    usable = ~np.isnan(gap)
    if not usable.any():
        raise DataError(
            f"{dataset.source}: no row has a one-step error, so no episode is the worst. Remedy: replay more "
            "rows."
        )
    episode = episode_numbers(dataset.episode_end)[usable]
    rows = np.bincount(episode, minlength=dataset.episode_count)
    sums = np.bincount(episode, gap[usable], dataset.episode_count)
    return np.where(rows >= min(LEAST_ROWS, rows.max()), sums / np.maximum(rows, 1), np.nan)


def _run(
    dataset: Dataset, probe: Probe, gap: np.ndarray, episode: int, mean: float, horizon: int
) -> WorstEpisode:
    end = int(np.flatnonzero(dataset.episode_end)[episode]) + 1
    first_row = end - int(dataset.episode_lengths[episode])
    start = first_row + _worst_start(gap[first_row:end], horizon)
    # Nobody may have recorded what a terminal row led to.
    recorded = end - int(unknown_next_state(dataset.transitions)[end - 1])
    steps = slice(start, min(start + horizon, recorded))
    state = np.asarray(dataset.transitions.observation, np.float64)[start : start + 1]
    real = np.asarray(dataset.transitions.next_observation, np.float64)[steps]
    simulated = probe.roll(np.array([start]), len(real)).predicted[0]
    return WorstEpisode(
        episode, start, mean, np.concatenate([state, real]), np.concatenate([state, simulated])
    )


def _worst_start(gap: np.ndarray, horizon: int) -> int:
    """Where the ``horizon`` rows of the largest mean begin in an episode, by its rows' ``gap [L]``.

    Only at a row that has a gap: its observation determines the simulator's state.
    """
    usable = ~np.isnan(gap)
    size = min(horizon, len(gap))
    sums, counts = (
        np.convolve(values, np.ones(size), "valid") for values in (np.where(usable, gap, 0.0), usable)
    )
    beginnings = np.flatnonzero(usable[: len(sums)])
    if not len(beginnings):
        return int(usable.argmax())
    return int(beginnings[np.argmax(sums[beginnings] / counts[beginnings])])
