"""A study's results as Markdown and CSV, the published numbers beside ours."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from simtrust.evaluation.aggregates import interquartile_mean, probability_of_improvement
from simtrust.evaluation.statistics import Interval
from simtrust.paper.cells import Cell
from simtrust.paper.comparison import Verdict, counts
from simtrust.paper.csv_text import csv_text
from simtrust.paper.markdown import number, table, with_interval
from simtrust.paper.orderings import Judgement
from simtrust.paper.scores import JUDGED_BY, Score
from simtrust.paper.studies import OURS, RECIPES, Setting, Study

DATA_DIFFER = """The paper's datasets (D4RL v2) were made with MuJoCo up to 2.0; these are other data, of
other agents and another MuJoCo. So compare the order of the recipes and the distances between them with the
paper's, not the returns themselves. "÷ best" is the return divided by the mean return of the dataset's best
tenth of the episodes; "–" where that is unknown or not positive, as for random data."""
STATISTICS = """Ours: mean ± standard deviation over training seeds (R − 1). IQM: mean of the middle half of
the runs; of fewer than four runs, their mean. In parentheses 95 % percentile-bootstrap intervals, for which
runs are drawn again within each setting; none from a single seed. Of few runs they are too narrow: that of
the IQM of normally distributed runs holds the truth in about 90 % of the cases for five runs, in 75 % for
three, in 50 % for two. P(H2O better): the chance that a run of H2O does better than one of the recipe. SAC
does not depend on the dataset, nor CQL on the shift: the same runs are shown in several settings, and count
in each as if they were others."""
UNLIKE = """**These runs are not of one kind**, so what is said of one beside another may be of that instead
of the recipe:"""
OVER_SETTINGS = """Each recipe over the settings in which it and H2O were trained equally far, which need not
be the same for all."""
ORDERED = """Every two recipes that the paper puts one above the other. "Clear": the paper's own runs tell
them apart (Welch's t-test at 5 %, from its mean, standard deviation and seeds), whether its ± divides by
R − 1 or by R, which it does not say; "no numbers" where it gives none. Whether an ordering holds among ours
is asked in the same way, with R − 1; runs after different numbers of updates are not compared."""
CLEAR = {True: "clear in the paper", False: "not clear in the paper", None: "no numbers in the paper"}


class Results(NamedTuple):
    """All that a study's page tells."""

    study: Study
    scores: Mapping[Cell, Score]
    best: Mapping[Setting, float]
    """What the best tenth of each setting's dataset earns, where that can be divided by."""
    judged: Sequence[Judgement]
    unlike: Sequence[str]
    """In what the runs are not of one kind."""


def page(results: Results, command: str) -> str:
    """Markdown: the returns, what they say of each recipe over all settings, and the paper's orderings."""
    study, found = results.study, results.scores
    parts = [
        f"# {study.name}: {study.title}",
        DATA_DIFFER,
        JUDGED_BY,
        STATISTICS,
        *(["\n".join([UNLIKE, "", *(f"- {line}" for line in results.unlike)])] if results.unlike else []),
        table(HEADS, [_line(row) for row in rows(results)]),
    ]
    if shown := _over_settings(results):
        heads = ("recipe", "settings", "P(H2O better)", "of these with ÷ best", "IQM ÷ best")
        parts += ["## Over all settings", OVER_SETTINGS, table(heads, shown)]
    if results.judged:
        said = "; ".join(filter(None, (_of(results.judged, clear) for clear in CLEAR)))
        judged = [each for each in results.judged if each.verdict != Verdict.MISSING]
        lines = [_ordering(judgement) for judgement in judged]
        heads = ("setting", "ordering", "in the paper", "clear", "among ours", "our difference")
        parts += ["## The paper's orderings", ORDERED, said, *([table(heads, lines)] if lines else [])]
    done, begun = sum(score.finished for score in found.values()), len(found)
    parts.append(
        f"Of {len(study.cells)} cells {done} are finished, {begun - done} begun, "
        f"{len(study.cells) - begun} not evaluated yet."
    )
    return "\n\n".join([*parts, f"- command: `{command}`"]) + "\n"


class Row(NamedTuple):
    """A recipe in a setting."""

    setting: Setting
    recipe: str
    score: Score | None
    iqm: Interval
    improvement: Interval
    """P(H2O better)."""
    relative: float
    """The return by that of the dataset's best tenth."""


UNKNOWN = Interval(math.nan, math.nan, math.nan)
HEADS = (
    "setting", "recipe", "updates", "seeds", "return", "IQM", "÷ best", "P(H2O better)", "published",
)  # fmt: skip


def rows(results: Results) -> list[Row]:
    """One for each setting and recipe, also for what has not been run."""
    found = []
    for setting in results.study.settings:
        ours = results.scores.get(setting.cell(OURS))
        for recipe in results.study.recipes:
            score = results.scores.get(setting.cell(recipe))
            best = results.best.get(setting, math.nan)
            if score is None:
                found.append(Row(setting, recipe, None, UNKNOWN, UNKNOWN, math.nan))
                continue
            better = UNKNOWN
            if ours is not None and recipe != OURS and ours.step == score.step:
                better = probability_of_improvement([ours.returns], [score.returns])
            iqm = interquartile_mean([score.returns])
            found.append(Row(setting, recipe, score, iqm, better, score.mean / best))
    return found


def _line(row: Row) -> tuple[str, ...]:
    score, cell = row.score, row.setting.cell(row.recipe)
    published = _published(cell.published)
    if cell.elsewhere:
        published += f" (D2C: {cell.elsewhere})"
    if score is None:
        return (str(row.setting), RECIPES[row.recipe], "–", "–", "–", "–", "–", "–", published)
    return (
        str(row.setting),
        RECIPES[row.recipe],
        f"{score.step:,}" if score.finished else f"{score.step:,} of {score.steps:,}",
        str(score.seeds),
        _mean_and_std(score),
        with_interval(row.iqm, ",.0f"),
        number(row.relative, ".2f"),
        with_interval(row.improvement, ".2f"),
        published,
    )


def _over_settings(results: Results) -> list[tuple[str, ...]]:
    """Of each recipe: over the settings where it and H2O went equally far, and whose best tenth is known."""
    lines = []
    for recipe in results.study.recipes:
        pairs = []
        for setting in results.study.settings:
            ours, score = (results.scores.get(setting.cell(name)) for name in (OURS, recipe))
            if ours is not None and score is not None and ours.step == score.step:
                pairs.append((ours.returns, score.returns, results.best.get(setting, math.nan)))
        if len(pairs) < 2:
            continue
        relative = [theirs / best for _, theirs, best in pairs if not math.isnan(best)]
        better = probability_of_improvement(*zip(*[(ours, theirs) for ours, theirs, _ in pairs], strict=True))
        lines.append(
            (
                RECIPES[recipe],
                str(len(pairs)),
                "–" if recipe == OURS else with_interval(better, ".2f"),
                str(len(relative)),
                with_interval(interquartile_mean(relative), ".2f"),
            )
        )
    return lines


def _ordering(judgement: Judgement) -> tuple[str, ...]:
    ordering = judgement.ordering
    verdict = f"{judgement.verdict} ({judgement.note})" if judgement.note else str(judgement.verdict)
    return (
        str(ordering.setting),
        f"{RECIPES[ordering.better]} > {RECIPES[ordering.worse]}",
        ordering.claim,
        {True: "yes", False: "no", None: "no numbers"}[ordering.clear],
        verdict,
        number(judgement.difference, "+,.0f"),
    )


def _of(judged: Sequence[Judgement], clear: bool | None) -> str:
    """How many there are of each verdict; empty if there are none at all."""
    chosen = [judgement for judgement in judged if judgement.ordering.clear is clear]
    tally = counts(judgement.verdict for judgement in chosen)
    told = ", ".join(f"{verdict} {count}" for verdict, count in tally.items())
    return f"{CLEAR[clear]}, {len(chosen)}: {told}" if chosen else ""


CSV_HEADS = (
    "setting", "recipe", "cell", "updates", "updates_planned", "seeds", "evaluations", "mean", "std",
    "iqm", "iqm_low", "iqm_high", "relative_to_best_decile",
    "h2o_better", "h2o_better_low", "h2o_better_high",
    "published_mean", "published_std", "published_seeds", "seed_returns",
)  # fmt: skip


def table_csv(results: Results) -> str:
    """A line for each setting and recipe; ``seed_returns`` are separated by spaces."""
    lines = []
    for row in rows(results):
        cell, score = row.setting.cell(row.recipe), row.score
        published = cell.published or ("", "", "")
        ours = [""] * 6 if score is None else [
            score.step, score.steps, score.seeds, score.evaluations, score.mean, score.std
        ]  # fmt: skip
        seeds = "" if score is None else " ".join(f"{value:.6g}" for value in score.returns)
        values = [*ours, *row.iqm, row.relative, *row.improvement]
        lines.append([row.setting, row.recipe, cell.name, *values, *published, seeds])
    return csv_text(CSV_HEADS, lines)


def _mean_and_std(score: Score) -> str:
    return f"{score.mean:,.0f} ± {number(score.std, ',.0f')}"


def _published(published: object | None) -> str:
    return "–" if published is None else str(published)
