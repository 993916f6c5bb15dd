"""How far a simulator goes astray within many steps, left to itself in logged states."""

from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np

from simtrust.data import Dataset
from simtrust.data.dataset import episode_numbers, unknown_next_state
from simtrust.errors import DataError, SimulatorError
from simtrust.gap.replay_probe import INSTANCES, Probe, Progress, refuse_empty, require_positive
from simtrust.gap.step_errors import (
    Intervals,
    Normalisation,
    dimension_scales,
    episode_bootstrap,
    root_mean_square,
)
from simtrust.simulators import Shift


class Drift(NamedTuple):
    """How far the simulator has gone astray after h = 0 to H steps on its own."""

    error: Intervals  # [H + 1]: over the starts, the gap of what it observes after h steps
    each: np.ndarray  # [N, H + 1]: of every start; NaN where diverged or not recorded
    starts: np.ndarray  # [N] int: rows of the dataset
    diverged: np.ndarray  # [N] bool: the simulator failed on its way
    normalisation: Normalisation


def drift(
    dataset: Dataset,
    simulator_name: str,
    *,
    shifts: Sequence[Shift] = (),
    horizon: int = 50,
    starts: int = 256,
    normalisation: Normalisation = "state",
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Drift:
    """Run the simulator open loop under the logged actions, from some logged states.

    Starts are drawn evenly, without replacement, from the rows that ``horizon - 1`` more rows of their
    episode follow and that determine the simulator's state. Ends of episodes in a built-in simulator are
    passed over: the machine did not end there. Starts at which it failed are left out.

    Args:
        dataset, simulator_name, shifts, progress: as for `replay`.
        horizon: H steps.
        starts: at most so many.
        normalisation: as for `step_errors`, with the other default: over many steps errors grow to the size
            of the state, where √2 is the distance of two states of the log that have nothing in common.
        resamples: of the episodes, for the intervals.
        seed: of the starts, the simulator's randomness, and the resampling.

    Raises:
        StateNotSettable, SimulatorError, ConfigError: as for `replay`.
        DataError: as for `replay`; or no episode has so many rows.
    """
    horizon, starts = require_positive("horizon", horizon), require_positive("starts", starts)
    refuse_empty(dataset)
    scale = dimension_scales(dataset, normalisation)
    rows = _drawn_starts(dataset, horizon, starts, seed)
    with closing(Probe.of(dataset, simulator_name, shifts, min(len(rows), INSTANCES), seed)) as probe:
        rolled = probe.roll(rows, horizon, progress)
    each = root_mean_square(_drift_errors(dataset, rows, rolled.predicted), scale)
    each[rolled.diverged] = np.nan
    if not rolled.determined.any():
        raise DataError(
            f"{dataset.source}: none of the {len(rows):,} starts determines the state of {simulator_name}. "
            "Remedy: draw more starts, or estimate the gap by other means than replay."
        )
    if rolled.diverged[rolled.determined].all():
        raise SimulatorError(f"{simulator_name} failed on its way from every start, first: {rolled.failure}")
    kept = rolled.determined
    episode = episode_numbers(dataset.episode_end)[rows[kept]]
    error = episode_bootstrap(each[kept].T, episode, resamples, seed)
    return Drift(error, each[kept], rows[kept], rolled.diverged[kept], normalisation)


def _drawn_starts(dataset: Dataset, horizon: int, starts: int, seed: int) -> np.ndarray:
    """[N] int, sorted: rows from which ``horizon`` rows lie within the episode."""
    lengths = dataset.episode_lengths
    rows_left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(dataset))
    eligible = np.flatnonzero(rows_left >= horizon)
    if not len(eligible):
        raise DataError(
            f"{dataset.source}: no episode has {horizon} rows; the longest has {lengths.max()}. Remedy: "
            f"choose a horizon of at most {lengths.max()}."
        )
    chosen = np.random.default_rng(seed).choice(eligible, min(starts, len(eligible)), replace=False)
    return np.sort(chosen)


def _drift_errors(dataset: Dataset, rows: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """[N, H + 1, O]: simulated less logged after h steps; 0 at the start, NaN where nobody recorded it."""
    steps = rows[:, None] + np.arange(predicted.shape[1])
    following = np.asarray(dataset.transitions.next_observation)[steps]
    unknown = unknown_next_state(dataset.transitions)[steps][..., None]
    error = np.where(unknown, np.nan, predicted - following)
    return np.concatenate((np.zeros_like(error[:, :1]), error), axis=1)
