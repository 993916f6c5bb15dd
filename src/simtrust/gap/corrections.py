"""What the gap looks like: which single correction of the simulator would make replay agree with the log."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from simtrust.data import Dataset
from simtrust.gap.replay_probe import replay
from simtrust.gap.step_errors import step_errors
from simtrust.simulators import Shift
from simtrust.simulators.built_in import find_built_in
from simtrust.simulators.shifts import KINDS

ROWS = 2_000
"""Rows that a correction is fitted on, spread evenly over the log."""
REFINEMENTS = 10


class Correction(NamedTuple):
    """One kind of shift, and the amount of it with which the simulator would agree best with the log."""

    kind: str
    present: float
    """The amount that the simulator has now."""
    fitted: float
    explained: float
    """Share of the mean one-step gap that goes away, at most 1; 0 if no amount is better than now."""

    def __str__(self) -> str:
        return f"{self.kind} {self.fitted:.3g} in place of {self.present:.3g} explains {self.explained:.0%}"


Evaluate = Callable[[float], float]


def fit_corrections(
    dataset: Dataset,
    simulator_name: str,
    *,
    shifts: Sequence[Shift] = (),
    rows: int = ROWS,
    progress: Callable[[str], Any] | None = None,
) -> tuple[Correction, ...]:
    """Fit gravity, friction, delay and dead zone one at a time by replay, the best explanation first.

    Corrections are alternatives: two that explain 40 % each need not explain 80 % together.

    Args:
        dataset: the log.
        simulator_name: a built-in simulator.
        shifts: what it has already.
        rows: how many of the log's rows are replayed.
        progress: told each kind as its turn comes.

    Raises:
        StateNotSettable, DataError, SimulatorError: as `replay`.
    """
    chosen = spread_rows(dataset, rows)
    built_in = find_built_in(simulator_name)
    if built_in is not None:
        # With these, the ideal simulator is this one; and each of its own shifts can be taken away.
        simulator_name, shifts = built_in.ideal, built_in.all_shifts(shifts)
    reach = 0.5 * float(np.abs(np.asarray(dataset.transitions.action)).max())

    def gap_with(kind: str, amount: float) -> float:
        others = [shift for shift in shifts if shift.kind != kind]
        own = [] if amount == KINDS[kind].neutral else [Shift(kind, amount)]
        replayed = replay(dataset, simulator_name, shifts=[*others, *own], rows=chosen)
        return float(np.nanmean(step_errors(dataset, replayed).gap))

    searches: dict[str, Callable[[Evaluate], float]] = {
        "gravity": lambda gap: _best_factor(gap, 0.25, 4.0),
        "friction": lambda gap: _best_factor(gap, 0.1, 10.0),
        "delay": lambda gap: min(range(4), key=lambda steps: gap(float(steps))),
        "dead-zone": lambda gap: _best_amount(gap, reach),
    }
    fitted = []
    for kind, search in searches.items():
        if progress is not None:
            progress(kind)
        present = next((s.amount for s in shifts if s.kind == kind), KINDS[kind].neutral)
        fitted.append(_fit(kind, present, search, lambda amount, kind=kind: gap_with(kind, amount)))
    return tuple(sorted(fitted, key=lambda correction: -correction.explained))


def spread_rows(dataset: Dataset, count: int) -> np.ndarray:
    """Up to ``count`` rows of the log, evenly spread."""
    return np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int))


def _fit(kind: str, present: float, search: Callable[[Evaluate], float], gap: Evaluate) -> Correction:
    now = gap(present)
    best = float(search(gap))
    left = gap(best)
    if left >= now:
        return Correction(kind, present, present, 0.0)
    return Correction(kind, present, best, 1.0 - left / now)


def _best_factor(gap: Evaluate, low: float, high: float) -> float:
    """The factor with the least gap: the best of a grid, then refined between its neighbours."""
    grid = np.geomspace(low, high, 9)
    best = int(np.argmin([gap(float(factor)) for factor in grid]))
    around = np.log(grid[[max(best - 1, 0), min(best + 1, len(grid) - 1)]])
    return float(np.exp(_refine(lambda logarithm: gap(float(np.exp(logarithm))), *around)))


def _best_amount(gap: Evaluate, high: float) -> float:
    """The amount from 0 with the least gap, found likewise."""
    grid = np.linspace(0.0, high, 9)
    best = int(np.argmin([gap(float(amount)) for amount in grid]))
    return _refine(gap, grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])


def _refine(gap: Evaluate, low: float, high: float) -> float:
    options = {"maxiter": REFINEMENTS, "xatol": 1e-3 * (high - low)}
    found = minimize_scalar(gap, bounds=(low, high), method="bounded", options=options)
    return float(found.x)  # pyright: ignore[reportAttributeAccessIssue]
