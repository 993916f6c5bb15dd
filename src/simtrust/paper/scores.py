"""What the runs of a study's cells say so far: returns in the real task, and how they are judged."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simtrust.paper.cell_training import run_directory
from simtrust.paper.cells import Cell
from simtrust.paper.logs import LogFacts, facts_of
from simtrust.paper.studies import Setting
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
        directory = run_directory(out, cell)
        if (directory / "config.json").exists():
            one = score(cell, read_run(directory))
            if one is not None and np.isfinite(one.returns).any():
                found[cell] = one
    return found


def best_deciles(settings: Iterable[Setting], out: Path) -> dict[Setting, float]:
    """What the best tenth of each setting's dataset earns, where that is known and positive.

    A return divided by a negative one, as random datasets have, would say nothing.
    """
    found: dict[Setting, LogFacts | None] = {
        setting: facts_of(setting.cell("h2o"), out) for setting in settings
    }
    return {setting: facts.best_decile for setting, facts in found.items() if facts and facts.best_decile > 0}
