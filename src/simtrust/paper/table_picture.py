"""Pictures of a study: returns beside the published ones, learning curves, returns by rows of the log."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simtrust.evaluation.statistics import mean_interval
from simtrust.paper.files import save_picture
from simtrust.paper.scores import Score
from simtrust.paper.studies import RECIPES, Setting
from simtrust.paper.table_text import Results

COLUMNS = 3
OURS, THEIRS = "tab:blue", "0.55"
OUR_LABEL = "ours: mean, 95 % bootstrap interval (of few runs too narrow)"
PAPER_LABEL = "paper: mean ± std"


def draw(results: Results, path: Path) -> Path:
    """Whichever picture the study is (`draw_returns`, `draw_by_rows` or `draw_curves`)."""
    if any(setting.thousands is not None for setting in results.study.settings):
        return draw_by_rows(results, path)
    if results.study.name == "figure7":
        return draw_curves(results, path)
    return draw_returns(results, path)


def draw_returns(results: Results, path: Path) -> Path:
    """A panel a setting: mean of ours with 95 % bootstrap interval and every seed; the paper's mean ± std."""
    figure, panels = _panels(results)
    for setting, axis in panels.items():
        for place, recipe in enumerate(results.study.recipes):
            cell = setting.cell(recipe)
            if (published := cell.published) is not None:
                _point(
                    axis,
                    place - 0.15,
                    published.mean,
                    (published.std, published.std),
                    THEIRS,
                    "s",
                    PAPER_LABEL,
                )
            if (score := results.scores.get(cell)) is not None:
                mean, low, high = mean_interval(score.returns)
                reach = (0.0, 0.0) if np.isnan(low) else (mean - low, high - mean)
                _point(axis, place + 0.15, mean, reach, OURS, "o", OUR_LABEL)
                axis.scatter(
                    np.full(len(score.returns), place + 0.32), score.returns, s=6, color=OURS, alpha=0.5
                )
        names = [RECIPES[recipe] for recipe in results.study.recipes]
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize="small")
        axis.set_ylabel("return in the real task")
    return _save(figure, panels, path)


def _point(
    axis: Axes, x: float, y: float, reach: tuple[float, float], colour: str, marker: str, label: str
) -> None:
    axis.errorbar(
        x, y, [[reach[0]], [reach[1]]], fmt=marker, color=colour, markersize=5, capsize=2, label=label
    )


def draw_curves(results: Results, path: Path) -> Path:
    """A panel a setting: the return along training, mean of the seeds and their range (Fig. 7)."""
    figure, panels = _panels(results)
    for setting, axis in panels.items():
        for number, recipe in enumerate(results.study.recipes):
            score = results.scores.get(setting.cell(recipe))
            if score is not None:
                _curve(axis, score, f"C{number}", RECIPES[recipe])
        axis.set(xlabel="updates", ylabel="return in the real task")
    return _save(figure, panels, path)


def _curve(axis: Axes, score: Score, colour: str, label: str) -> None:
    steps, returns = score.curve
    known = np.ma.masked_invalid(returns)
    axis.plot(steps, known.mean(1), color=colour, label=label)
    axis.fill_between(steps, known.min(1), known.max(1), color=colour, alpha=0.15, linewidth=0)


def draw_by_rows(results: Results, path: Path) -> Path:
    """Return against the rows of the log: means of the seeds with 95 % bootstrap intervals (Fig. 6)."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.add_subplot()
    for number, recipe in enumerate(results.study.recipes):
        cells = ((setting.thousands, setting.cell(recipe)) for setting in results.study.settings)
        points = [
            (rows, *mean_interval(results.scores[cell].returns))
            for rows, cell in cells
            if cell in results.scores
        ]
        if points:
            rows, mean, low, high = np.array(points, float).T
            axis.plot(rows, mean, "o-", color=f"C{number}", label=RECIPES[recipe])
            axis.fill_between(rows, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
    axis.set(xlabel="real transitions (thousands)", ylabel="return in the real task")
    return _save(figure, {results.study.settings[0]: axis}, path, titled=False)


def _panels(results: Results) -> tuple[Figure, dict[Setting, Axes]]:
    settings = results.study.settings
    columns = min(COLUMNS, len(settings))
    lines = -(-len(settings) // columns)
    width = max(4.2, 0.55 * len(results.study.recipes) + 1.2)
    figure = Figure(figsize=(width * columns, 3.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for unused in axes[len(settings) :]:
        unused.remove()
    return figure, dict(zip(settings, axes, strict=False))


def _save(figure: Figure, panels: dict[Setting, Axes], path: Path, *, titled: bool = True) -> Path:
    labelled = {}
    for setting, axis in panels.items():
        if titled:
            axis.set_title(str(setting), fontsize="medium")
        axis.grid(alpha=0.25)
        handles, labels = axis.get_legend_handles_labels()
        labelled |= dict(zip(labels, handles, strict=True))
    if labelled:
        figure.legend(
            labelled.values(), labelled.keys(), loc="outside upper center", ncols=len(labelled), frameon=False
        )
    return save_picture(figure, path)
