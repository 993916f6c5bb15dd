"""A few logged steps beside the simulator's own: do both mean the same by their columns and rewards?

Unlike the gap, this asks for no number. It looks for what no dynamics explain: a sign, a unit, an order of
columns, or a reward that is another one.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from simtrust.data.dataset import Dataset, select_rows, unknown_next_state
from simtrust.data.log_findings import NotChecked
from simtrust.errors import DataError
from simtrust.gap.readings import Change, Reading, candidates
from simtrust.gap.replay_probe import Probe
from simtrust.gap.step_errors import dimension_scales, root_mean_square
from simtrust.gap.support import Support
from simtrust.simulators.guard import StateNotSettable
from simtrust.simulators.shifts import Shift
from simtrust.types import Transitions

ROWS, FEWEST_ROWS, INSTANCES = 300, 30, 100
TRIAL_ROWS, ALL_TRIALS = (25, 100), 3000
"""Rows that one other reading is tried on; and those of all readings together, which bounds the time."""
FITS, POOR = 0.01, 0.3
"""Errors below which nothing is looked for, and from which on an entry's change is not the simulator's."""
STEP, HALF, STEPS = 0.75, 0.5, 3
"""What one change of the reading, and all up to three, must leave of the error at most."""
MOST = 1e6
"""An error that is no better than a failure."""
WIDER = 8.0
"""Ranges that differ by this factor may be degrees for radians."""
VARIES = 0.1
"""A reward tells something if so many rows have another one than the median."""


@dataclass(frozen=True, eq=False)
class LoggedSteps:
    """What the simulator made of N logged steps; errors are in standard deviations of the logged change."""

    rows: int
    error: float
    """Median over the rows, as logged."""
    mended: float
    """The same after ``changes``."""
    changes: tuple[Change, ...]
    """Mistakes that, undone, make the log fit; none where nothing was found."""
    column_error: np.ndarray  # [O] root mean square of the middle rows, as logged; NaN where nothing varies
    correlation: np.ndarray  # [O] of logged and simulated changes, as logged; NaN where one does not vary
    slope: np.ndarray  # [O] least-squares factor from the simulated change to the logged one
    reward_correlation: float
    """Of the rewards, after ``changes``; 0 where the simulator's is constant, NaN where the log's is."""


@dataclass(frozen=True, eq=False)
class _Steps:
    """Of N rows under one reading."""

    change: np.ndarray  # [N, O] simulated, in the log's terms; NaN where it failed
    reward: np.ndarray  # [N]; NaN where it failed
    gap: np.ndarray  # [N] root mean square of the normalised error; infinite where it failed
    determined: np.ndarray  # [N] bool: stepped, from a state that the observation tells in full

    @property
    def error(self) -> float:
        return float(np.median(self.gap))


@dataclass(frozen=True, eq=False)
class _Bench:
    """Rows of a log that are stepped under one reading after another."""

    probe: Probe  # of N rows
    change: np.ndarray  # [N, O] float64, logged
    reward: np.ndarray  # [N] float64, logged
    scale: np.ndarray  # [O]

    @classmethod
    def of(
        cls, probe: Probe, rows: Transitions[np.ndarray], actions: np.ndarray, scale: np.ndarray
    ) -> "_Bench":
        """Of rows ``[N]`` and the actions ``[N, A]`` with which the simulator makes their steps."""
        observed = rows.observation.astype(np.float64)
        probe = replace(probe, observations=observed, actions=actions)
        return cls(probe, rows.next_observation - observed, rows.reward.astype(np.float64), scale)

    def steps(self, chosen: np.ndarray, reading: Reading) -> _Steps:
        """Of the rows ``chosen [M]``, counted among the N."""
        observed = self.probe.observations[chosen]
        probe = replace(
            self.probe,
            observations=reading.observation.to_simulator(observed),
            actions=reading.action.to_simulator(self.probe.actions[chosen]),
        )
        # What a reading makes of a number may be beyond float32, which the simulator then fails at.
        with np.errstate(over="ignore"):
            rolled = probe.roll(np.arange(len(chosen)), 1)
        change = reading.observation.to_log(rolled.predicted[:, 0]) - observed
        change[rolled.diverged] = np.nan
        gap = root_mean_square(change - self.change[chosen], self.scale)
        reward = np.where(rolled.diverged, np.nan, rolled.reward[:, 0])
        gap = np.where(np.isfinite(gap), gap, np.inf)
        return _Steps(change, reward, gap, rolled.determined & ~rolled.diverged)


def compare_logged_steps(
    dataset: Dataset, simulator: str, support: Support, *, shifts: Sequence[Shift] = (), seed: int = 0
) -> LoggedSteps | NotChecked:
    """Put the simulator into some 300 logged states, step it once, and look for what no dynamics explain.

    Where it does not do what was logged, the steps are tried again with signs of columns turned, pairs of
    them swapped, and degrees for radians. What halves the error is told, also up to three together.

    Args:
        dataset: T rows, whose actions are within the simulator's bounds.
        simulator: by name, as `simtrust.gap.replay_probe.replay` takes it.
        support: of the log and this simulator, for the ranges of both.
        shifts: of a built-in simulator.
        seed: of the rows that are chosen, and of the simulator's own randomness.

    Raises:
        DataError: the log does not fit the simulator's spaces.
        SimulatorError: the simulator cannot be made.
    """
    generator = np.random.default_rng(seed)
    known = np.flatnonzero(~unknown_next_state(dataset.transitions))
    rows = np.sort(generator.permutation(known)[:ROWS])
    try:
        scale = dimension_scales(dataset, "change")
    except DataError:
        return NotChecked("no observation changes")
    if len(rows) < FEWEST_ROWS:
        return NotChecked(f"it takes {FEWEST_ROWS} rows whose next observation is known")
    try:
        opened = Probe.of(dataset, simulator, shifts, min(INSTANCES, len(rows)), seed)
    except StateNotSettable:
        return NotChecked("the simulator has no method set_observation: only ranges were compared")
    with closing(opened) as probe:
        bench = _Bench.of(probe, select_rows(dataset.transitions, rows), probe.actions[rows], scale)
        every, plain = np.arange(len(rows)), Reading.as_logged(dataset.observation_size, dataset.action_size)
        logged = bench.steps(every, plain)
        best, mended = _best_reading(bench, logged, plain, support.widths), logged
        if best is not plain:
            mended = bench.steps(every, best)
            if not mended.error <= HALF * logged.error:
                best, mended = plain, logged
    told = int(mended.determined.sum())
    if told < FEWEST_ROWS:
        reason = f"the simulator could be stepped from only {told} of {len(rows)} logged states"
        return NotChecked(f"{reason}: only ranges were compared")
    correlation, slope = _fits(logged.change[logged.determined], bench.change[logged.determined])
    return LoggedSteps(
        rows=len(rows),
        error=logged.error,
        mended=mended.error,
        changes=best.changes,
        column_error=_column_errors(logged, bench),
        correlation=correlation,
        slope=slope,
        reward_correlation=_reward_correlation(
            mended.reward[mended.determined], bench.reward[mended.determined]
        ),
    )


def _best_reading(bench: _Bench, logged: _Steps, plain: Reading, widths: np.ndarray) -> Reading:
    """The reading that fits best, by one change after the other; the plain one if none helps enough."""
    poor = _column_errors(logged, bench) > POOR
    alike = _correlations(logged.change, bench.change)
    tried = list(candidates(poor, alike, widths, bench.probe.actions.shape[1], wider=WIDER))
    fewest, most = TRIAL_ROWS
    count = int(np.clip(ALL_TRIALS // max(len(tried), 1), fewest, most))
    chosen = np.arange(len(bench.change))[:: -(-len(bench.change) // count)]
    best, error = plain, bench.steps(chosen, plain).error
    for _ in range(STEPS):
        if not error > FITS:
            break
        readings = [best.changed(other) for other in tried if other not in best.changes]
        errors = [bench.steps(chosen, reading).error for reading in readings]
        if not errors or not min(errors) <= STEP * min(error, MOST):
            break
        best, error = readings[int(np.argmin(errors))], min(errors)
    return best


def _column_errors(steps: _Steps, bench: _Bench) -> np.ndarray:
    """``[O]``: medians of the normalised |error|; infinite where most rows failed, NaN without a scale."""
    error = np.abs(steps.change - bench.change) / bench.scale
    return np.where(np.isnan(bench.scale), np.nan, np.median(np.nan_to_num(error, nan=np.inf), axis=0))


def _correlations(simulated: np.ndarray, logged: np.ndarray) -> np.ndarray:
    """``[O, O]``: |correlation| of the logged change of one entry with the simulated one of another."""
    usable = np.isfinite(simulated).all(1)
    if not usable.any():
        return np.zeros((logged.shape[1], logged.shape[1]))
    parts = [values[usable] - values[usable].mean(0) for values in (logged, simulated)]
    sizes = [np.sqrt(np.square(part).sum(0)) for part in parts]
    units = [part / np.where(size > 0, size, np.inf) for part, size in zip(parts, sizes, strict=True)]
    return np.abs(units[0].T @ units[1])


def _fits(simulated: np.ndarray, logged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation and least-squares factor of ``logged [N, O]`` by ``simulated [N, O]``, by entry.

    NaN where one of them does not vary, and for few rows.
    """
    unknown = np.full(logged.shape[1], np.nan)
    if len(simulated) < FEWEST_ROWS:
        return unknown, unknown
    simulated, logged = simulated - simulated.mean(0), logged - logged.mean(0)
    product, square = (simulated * logged).mean(0), np.square(simulated).mean(0)
    spread = np.sqrt(square * np.square(logged).mean(0))
    varies = spread > 0
    return (
        np.divide(product, spread, out=unknown.copy(), where=varies),
        np.divide(product, square, out=unknown.copy(), where=varies),
    )


def _reward_correlation(simulated: np.ndarray, logged: np.ndarray) -> float:
    if not _varies(logged):
        return float("nan")
    if not _varies(simulated):
        return 0.0
    correlation, _ = _fits(simulated[:, None], logged[:, None])
    return float(correlation[0])


def _varies(reward: np.ndarray) -> bool:
    size = np.finfo(np.float32).eps * np.abs(reward).max(initial=0.0)
    return bool((np.abs(reward - np.median(reward)) > 4 * size).mean() > VARIES)
