"""What the runs of a study's cells say so far: returns in the real task, and how they are judged."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simtrust.paper.cells import Cell
from simtrust.paper.logs import facts_of
from simtrust.paper.same_runs import is_begun, log_sum, run_directory
from simtrust.paper.studies import Setting, Study
from simtrust.reports.run_record import RunRecord, mean_since, read_run

LAST = 5
"""Evaluations whose mean a run is judged by."""
JUDGED_BY = f"""A run is judged by the mean return of its last {LAST} evaluations in the real task, of five
episodes each with the best action, or of the evaluations there are if these are fewer."""


class Score(NamedTuple):
    """A cell's runs, finished or not."""

    cell: Cell
    returns: np.ndarray
    """[R]: of each training seed, the mean of the last `LAST` evaluations."""
    evaluations: int
    """How many that was the mean of."""
    step: int
    """Updates at the last of them."""
    steps: int
    """Updates that it is to have."""
    curve: tuple[np.ndarray, np.ndarray]
    """Updates [t] of all evaluations, and returns [t, R]."""

    @property
    def seeds(self) -> int:
        """Runs that it is the mean of: those with a return."""
        return int(np.isfinite(self.returns).sum())

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.returns))

    @property
    def std(self) -> float:
        """Over seeds, of the population they are drawn from (R − 1); NaN for one seed."""
        known = self.returns[~np.isnan(self.returns)]
        return float(known.std(ddof=1)) if len(known) > 1 else np.nan


def score(cell: Cell, run: RunRecord) -> Score | None:
    """None if the run was not evaluated yet."""
    steps, returns = run.curves.known("return_mean")
    final = run.final
    if final is None:
        return None
    if not len(steps) or final.step > steps[-1]:
        # A run whose last evaluation is the final one only.
        steps = np.append(steps, final.step)
        returns = np.vstack([returns.reshape(-1, len(final.mean)), final.mean])
    last = steps[-LAST:]
    judged = mean_since(steps, returns, last[0])
    return Score(cell, judged, len(last), int(steps[-1]), run.config.steps, (steps, returns))


def scores(cells: Iterable[Cell], out: Path) -> dict[Cell, Score]:
    """Of every cell that has been evaluated at least once in the folder ``out``."""
    found = {}
    for cell in cells:
        if is_begun(out, cell):
            one = score(cell, read_run(run_directory(out, cell)))
            if one is not None and np.isfinite(one.returns).any():
                found[cell] = one
    return found


def best_deciles(study: Study, scores: Mapping[Cell, Score], out: Path) -> dict[Setting, float]:
    """What the best tenth of the dataset earns that a setting's runs learnt from, if known and positive.

    A return divided by a negative one, as random datasets have, would say nothing. Nor would one divided by
    that of another dataset, or of one of several.
    """
    found = {}
    for setting in study.settings:
        learning = [cell for cell in map(setting.cell, study.recipes) if cell in scores and cell.log]
        sums = {log_sum(out, cell) for cell in learning}
        facts = facts_of(sums.pop(), out) if len(sums) == 1 else None
        if facts is not None and facts.best_decile > 0:
            found[setting] = facts.best_decile
    return found
