"""Figure 2's results as Markdown and CSV: every measure of every recipe, over training seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from simtrust.evaluation.aggregates import interquartile_mean, probability_of_improvement
from simtrust.evaluation.statistics import Interval
from simtrust.paper.claims import Finding, claims_section
from simtrust.paper.comparison import Sample, sample_of
from simtrust.paper.csv_text import csv_text
from simtrust.paper.markdown import number, with_interval
from simtrust.paper.markdown import table as markdown_table
from simtrust.paper.robot import STUDIES, Cell, Study, of_study
from simtrust.paper.robot_claims import LIMITS_HALFWAY
from simtrust.paper.studies import OURS

Cells = Mapping[tuple[str, str], Cell]
"""By study and recipe."""

STATISTICS = """A run's number is the mean over its episodes. Over training seeds: the standard deviation
(R − 1), and IQM, the mean of the middle half of the runs; of fewer than four runs, their mean. P(H2O better):
the chance that a run of h2o does better than one of the recipe; of errors the smaller one is better. In
parentheses 95 % percentile-bootstrap intervals, for which runs are drawn again within each task; none from a
single seed. Of few runs they are too narrow. The error is over the time upright, so that of a robot that
falls at once means little."""
OVER_TASKS = """Each recipe over the tasks for which it and h2o were trained equally far. The time upright is
a share of the whole episode."""
NOT_THE_PAPERS = """The paper's are of a real robot, one recorded episode of each recipe; ours are of its
detailed twin. Speeds and tilt velocities are of every run's first episode, the others of all episodes."""


class Measure(NamedTuple):
    """What is told of a cell's runs."""

    key: str
    """In `Cell.measures`."""
    form: str
    """Of its numbers."""
    sign: int
    """1 where more is better, −1 where less is."""

    def name(self, study: Study) -> str:
        fidelity, measure = self.key.split()
        named = {"seconds": "seconds upright", "error": error_name(study)}.get(measure, measure)
        return f"{named}, {'real robot' if fidelity == 'real' else fidelity}"


MEASURES = (
    Measure("real seconds", ".1f", 1),
    Measure("real error", ".3f", -1),
    Measure("real return", ",.0f", 1),
    Measure("simulator return", ",.0f", 1),
    Measure("simulator seconds", ".1f", 1),
    Measure("simulator error", ".3f", -1),
)
OVERVIEW = MEASURES[:-1]
UNKNOWN = Interval(math.nan, math.nan, math.nan)


def error_name(study: Study) -> str:
    return "RMS of x (m)" if study.error == "position" else "RMS of ẋ − 0.2 (m/s)"


class Row(NamedTuple):
    """A measure of a recipe on a task."""

    study: str
    recipe: str
    measure: Measure
    runs: np.ndarray
    """[R]: means over episodes."""
    steps: int
    better: Interval
    """P(H2O better)."""

    @property
    def sample(self) -> Sample:
        return sample_of(self.runs)

    @property
    def iqm(self) -> Interval:
        return interquartile_mean([self.runs])


def rows(cells: Cells) -> list[Row]:
    """One for each task, measure and recipe, in this order."""
    found = []
    for study in STUDIES:
        own = of_study(cells, study)
        for measure in MEASURES:
            for recipe, cell in own.items():
                better = improvement([own[OURS]], [cell], measure) if OURS in own else UNKNOWN
                known = UNKNOWN if recipe == OURS else better
                found.append(Row(study, recipe, measure, cell.per_run(measure.key), cell.steps, known))
    return found


def improvement(ours: Sequence[Cell], theirs: Sequence[Cell], measure: Measure) -> Interval:
    """The chance that a run of ours does better, task by task; unknown if some were trained further."""
    if any(one.steps != other.steps for one, other in zip(ours, theirs, strict=True)):
        return UNKNOWN
    one, other = ([measure.sign * cell.per_run(measure.key) for cell in side] for side in (ours, theirs))
    return probability_of_improvement(one, other)


def page(cells: Cells, found: Mapping[str, Sequence[Finding]]) -> str:
    """Markdown: an overview, every measure by itself, both tasks together, and the paper's claims."""
    parts = [overview(cells), STATISTICS]
    told = rows(cells)
    for name, study in STUDIES.items():
        for measure in MEASURES:
            lines = [_line(row) for row in told if (row.study, row.measure) == (name, measure)]
            if lines:
                parts += [f"## {name}: {measure.name(study)}", markdown_table(HEADS, lines)]
    if lines := _over_tasks(cells):
        heads = ("recipe", "tasks", "P(H2O better), real return", "IQM of the share of time upright")
        parts += ["## Over both tasks", OVER_TASKS, markdown_table(heads, lines)]
    return "\n\n".join([*parts, *([claims_page(found)] if found else [])]) + "\n"


def claims_page(found: Mapping[str, Sequence[Finding]]) -> str:
    """Markdown: what the paper says, and whether ours do."""
    return claims_section(found, NOT_THE_PAPERS, LIMITS_HALFWAY)


def overview(cells: Cells) -> str:
    """Markdown: means over training seeds with 95 % bootstrap intervals, one table a study."""
    parts = []
    for name, study in STUDIES.items():
        own = of_study(cells, name)
        if not own:
            continue
        some = next(iter(own.values()))
        runs = f"{len(some.seeds)} training seeds of {some.steps:,} updates"
        heads = (
            "recipe", "seconds upright", error_name(study), "real return", "simulator return",
            "simulator seconds",
        )  # fmt: skip
        lines = [
            [recipe, *(str(cell.interval(measure.key)) for measure in OVERVIEW)]
            for recipe, cell in own.items()
        ]
        parts += [
            f"{name}: {runs}, {some.episodes} episodes of {study.task.seconds:.0f} s each",
            markdown_table(heads, lines),
        ]
    return "\n\n".join(parts)


HEADS = ("recipe", "updates", "seeds", "mean ± std", "IQM", "P(H2O better)")


def _line(row: Row) -> tuple[str, ...]:
    form = row.measure.form
    mean, std, size = row.sample
    return (
        row.recipe,
        f"{row.steps:,}",
        str(size),
        f"{number(mean, form)} ± {number(std, form)}",
        with_interval(row.iqm, form),
        with_interval(row.better, ".2f"),
    )


def _over_tasks(cells: Cells) -> list[tuple[str, ...]]:
    """Of each recipe that both tasks have: whether H2O does better, and how long it stays up."""
    by_key = {measure.key: measure for measure in MEASURES}
    lines = []
    for recipe in dict.fromkeys(recipe for _, recipe in cells):
        pairs = [
            (cells[study, OURS], cells[study, recipe])
            for study in STUDIES
            if (study, OURS) in cells and (study, recipe) in cells
            and cells[study, OURS].steps == cells[study, recipe].steps
        ]  # fmt: skip
        if len(pairs) < 2:
            continue
        ours, theirs = zip(*pairs, strict=True)
        better = UNKNOWN if recipe == OURS else improvement(ours, theirs, by_key["real return"])
        shares = [cell.per_run("real seconds") / STUDIES[cell.study].task.seconds for cell in theirs]
        iqm = interquartile_mean(shares)
        lines.append((recipe, str(len(pairs)), with_interval(better, ".2f"), with_interval(iqm, ".2f")))
    return lines


CSV_HEADS = (
    "study", "recipe", "measure", "updates", "seeds", "mean", "std", "iqm", "iqm_low", "iqm_high",
    "h2o_better", "h2o_better_low", "h2o_better_high", "seed_values",
)  # fmt: skip


def statistics_csv(cells: Cells) -> str:
    """A line for each task, measure and recipe; ``seed_values`` are separated by spaces."""
    lines = []
    for row in rows(cells):
        mean, std, size = row.sample
        seeds = " ".join(f"{value:.6g}" for value in row.runs)
        lines.append(
            [row.study, row.recipe, row.measure.key, row.steps, size, mean, std, *row.iqm, *row.better, seeds]
        )
    return csv_text(CSV_HEADS, lines)
