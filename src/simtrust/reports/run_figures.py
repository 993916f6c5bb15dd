"""The charts of a training report's page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from simtrust.evaluation.statistics import Interval, mean_interval
from simtrust.gap.classifier import LOGIT_BOUND
from simtrust.reports.charts import Chart, Choice, escaped, label, listed, rounded, view
from simtrust.reports.run_comparison import Comparison
from simtrust.reports.run_record import Curves, FinalReturns, RunRecord

POINTS = 400
"""Of a curve; more are thinned evenly."""
SHOWN_SEEDS = 20
"""Seeds that one can choose by themselves."""
MOST_COMPARED = 5
"""Runs whose curves are drawn beside this one."""
COLOURS = ("accent", "second", "third")
DASHES = ("solid", "dash", "dot")
LEGEND = {"showlegend": True, "margin": {"t": 40}, "legend": {"traceorder": "normal"}}
STEPS = {"title": {"text": "updates"}, "rangemode": "tozero"}


class Line(NamedTuple):
    """A metric on a chart."""

    metric: str
    name: str


class Band(NamedTuple):
    """A curve with what lies around it, over steps ``[t]``."""

    name: str
    steps: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def judged_in(run: RunRecord) -> str:
    """What charts call the place where a run's policies were evaluated."""
    return "simulator, best action" if run.judged_in_simulator else "real environment"


def has(curves: Curves, *metrics: str) -> bool:
    """Whether any of these metrics is there."""
    return any(metric in curves.values for metric in metrics)


def metric_chart(
    curves: Curves,
    lines: Sequence[Line],
    title: str,
    *,
    levels: Sequence[float] = (),
    y_axis: dict[str, Any] | None = None,
    height: int = 320,
) -> Chart:
    """Metrics over the updates: their mean over the seeds within the range of all, or one seed alone.

    Args:
        curves: what was recorded; lines whose metric is not there are left out.
        lines: at most three; their names are ours.
        title: of the vertical axis.
        levels: where dotted horizontal lines are drawn.
        y_axis: what else the vertical axis needs.
        height: pixels.
    """
    present = [line for line in lines if line.metric in curves.values]
    chosen = [f"mean of {len(curves.seeds)} seeds, with their range"] if len(curves.seeds) > 1 else []
    single = range(min(len(curves.seeds), SHOWN_SEEDS))
    views = [_range_view(curves, present)] if chosen else []
    views += [_seed_view(curves, present, run) for run in single]
    choices = (Choice("Seeds", [*chosen, *(f"seed {curves.seeds[run]}" for run in single)]),)
    layout = {
        "xaxis": STEPS,
        "yaxis": {"title": {"text": title}} | (y_axis or {}),
        "shapes": [_level(value) for value in levels],
    }
    if len(present) > 1:
        layout |= LEGEND
    ends = [f"{line.name} {rounded(np.nanmean(curves.known(line.metric)[1][-1]))}" for line in present]
    return Chart(f"{title} over the updates; at the end: {', '.join(ends)}.", height, layout, views, choices)


def _range_view(curves: Curves, lines: Sequence[Line]) -> dict[str, Any]:
    data = []
    for number, line in enumerate(lines):
        steps, values = curves.known(line.metric)
        ends = (np.nanmean(values, 1), np.nanmin(values, 1), np.nanmax(values, 1))
        data += banded(Band(line.name, steps, *ends), number, f"{len(curves.seeds)} seeds")
    return view(*data)


def _seed_view(curves: Curves, lines: Sequence[Line], run: int) -> dict[str, Any]:
    data = []
    for number, line in enumerate(lines):
        steps, values = curves.known(line.metric)
        there = np.isfinite(values[:, run])
        data.append(_curve(line.name, steps[there], values[there, run], number))
    return view(*data)


def banded(band: Band, number: int, meaning: str) -> list[dict[str, Any]]:
    """A curve in its band: traces of plotly, in the colour of this ``number``."""
    kept = _thinned(len(band.steps))
    steps, middle, low, high = (part[kept] for part in band[1:])
    colour = COLOURS[number % len(COLOURS)]
    edge = {"type": "scatter", "mode": "lines", "x": steps.tolist(), "line": {"width": 0}}
    edge |= {"hoverinfo": "skip", "showlegend": False}
    fill = {"fill": "tonexty", "fillcolor": "@band" if colour == "accent" else f"@{colour}-band"}
    line = _curve(band.name, steps, middle, number)
    line["hovertext"] = [
        text if np.isnan(a) or a == b else f"{text}<br>{rounded(a)} to {rounded(b)} ({meaning})"
        for text, a, b in zip(line["hovertext"], low, high, strict=True)
    ]
    return [edge | {"y": listed(low)}, edge | {"y": listed(high)} | fill, line]


def _curve(name: str, steps: np.ndarray, values: np.ndarray, number: int) -> dict[str, Any]:
    kept = _thinned(len(steps))
    steps, values = steps[kept], values[kept]
    colour = f"@{COLOURS[number % len(COLOURS)]}"
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(steps) <= 30 else "lines",
        "name": escaped(name),
        "x": steps.tolist(),
        "y": listed(values),
        "line": {"color": colour, "width": 2.2, "dash": DASHES[number % len(DASHES)]},
        "marker": {"color": colour, "size": 6},
        "hovertext": [
            f"{label(name, 60)}: {rounded(y)}<br>after {x:,} updates"
            for x, y in zip(steps.tolist(), values, strict=True)
        ],
        "hoverinfo": "text",
    }


def _thinned(count: int) -> np.ndarray:
    """Indices of at most `POINTS` of so many points, the first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))


def _level(value: float) -> dict[str, Any]:
    line = {"color": "@muted", "dash": "dot", "width": 1.5}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "line": line}


def learning_chart(curves: Curves, judged_in: str) -> Chart:
    """Returns of evaluations, in what ``judged_in`` calls it, and in the simulator; intervals over seeds."""
    names = {"return_mean": judged_in, "simulator_return": "simulator, while collecting"}
    present = [Line(metric, name) for metric, name in names.items() if metric in curves.values]
    chart = metric_chart(curves, present, "return of an episode", height=400)
    if len(curves.seeds) < 2:
        return chart
    data = []
    for number, line in enumerate(present):
        band = return_band(curves, line.metric, line.name)
        data += banded(band, number, "95% interval of the mean")
    choices = (chart.choices[0]._replace(options=["mean with 95% interval", *chart.choices[0].options[1:]]),)
    return chart._replace(views=[view(*data), *chart.views[1:]], choices=choices)


def return_band(curves: Curves, metric: str, name: str) -> Band:
    """The mean over seeds with its 95 % bootstrap interval, at every step that is drawn."""
    steps, values = curves.known(metric)
    kept = _thinned(len(steps))
    intervals = np.array([mean_interval(row) for row in values[kept]]).reshape(-1, len(Interval._fields))
    return Band(name, steps[kept], *intervals.T)


def transfer_chart(curves: Curves) -> Chart:
    """Real against simulated return at every evaluation, one point for each seed."""
    steps, real = curves.known("return_mean")
    points = []
    for index, step in enumerate(steps):
        before = steps[index - 1] if index else -1
        within = (curves.steps > before) & (curves.steps <= step)
        simulated = curves.values["simulator_return"][within]
        there = np.isfinite(simulated)
        mean = np.where(there, simulated, 0).sum(0) / np.where(there.any(0), there.sum(0), np.nan)
        points += [
            (mean[run], real[index, run], step, seed)
            for run, seed in enumerate(curves.seeds)
            if np.isfinite(mean[run]) and np.isfinite(real[index, run])
        ]
    x, y, when, _ = np.array(points, float).reshape(-1, 4).T
    colours = {"type": "scatter", "mode": "markers", "x": listed(x), "y": listed(y), "hoverinfo": "text"}
    bar = {"title": {"text": "updates", "side": "top"}, "orientation": "h", "y": 1.02, "yanchor": "bottom"}
    colours["marker"] = {
        "color": when.tolist(),
        "colorscale": "Viridis",
        "showscale": True,
        "colorbar": bar | {"thickness": 10, "len": 0.9, "outlinewidth": 0, "nticks": 5},
        "size": 10,
        "line": {"color": "@surface", "width": 1},
    }
    colours["hovertext"] = [
        f"seed {seed:.0f}, after {step:,.0f} updates<br>real {rounded(b)}<br>simulator {rounded(a)}"
        for a, b, step, seed in points
    ]
    ends = np.concatenate([x, y]) if len(x) else np.zeros(1)
    diagonal = {"type": "line", "x0": ends.min(), "y0": ends.min(), "x1": ends.max(), "y1": ends.max()}
    layout = {
        "xaxis": {"title": {"text": "return in the simulator"}},
        "yaxis": {"title": {"text": "return in the real environment"}},
        "shapes": [diagonal | {"line": {"color": "@muted", "dash": "dot", "width": 1.5}, "layer": "below"}],
        "margin": {"t": 76},
    }
    return Chart(f"{len(x)} evaluations, real against simulated return.", 420, layout, [view(colours)])


def comparison_chart(run: RunRecord, comparisons: Sequence[Comparison]) -> Chart:
    """The learning curves of the run and of those that it is compared with."""
    data = []
    for number, record in enumerate([run, *(comparison.other for comparison in comparisons)]):
        recipe, folder = record.config.recipe, record.directory.name
        name = (
            f"{recipe} (this run)" if number == 0 else recipe if recipe == folder else f"{recipe}, {folder}"
        )
        band = _curve_or_point(record, name if len(name) <= 30 else f"{name[:29]}…")
        data += banded(band, number, "95% interval of the mean")
    layout = {"xaxis": STEPS, "yaxis": {"title": {"text": f"return, {judged_in(run)}"}}, **LEGEND}
    return Chart("Learning curves of the runs compared.", 400, layout, [view(*data)])


def _curve_or_point(record: RunRecord, name: str) -> Band:
    """The learning curve, or where there was one evaluation at the end alone, that."""
    if has(record.curves, "return_mean"):
        return return_band(record.curves, "return_mean", name)
    final: FinalReturns | None = record.final
    assert final is not None
    return Band(name, np.array([final.step]), *(np.array([part]) for part in mean_interval(final.mean)))


def ratio_chart(curves: Curves) -> Chart:
    """The mean log-ratio of simulated rows, and its bounds."""
    bound = 2 * LOGIT_BOUND
    return metric_chart(curves, [Line("log_ratio", "log-ratio")], "mean log P̂/P", levels=(-bound, bound))


def positive(curves: Curves, lines: Sequence[Line]) -> dict[str, Any]:
    """A logarithmic axis, where every value of these metrics is above 0."""
    values = [curves.known(line.metric)[1] for line in lines if line.metric in curves.values]
    above = all((array[np.isfinite(array)] > 0).all() for array in values)
    return {"type": "log", "dtick": 1} if above and _decades(values) > 1 else {}


def _decades(values: Sequence[np.ndarray]) -> float:
    least = min(float(np.nanmin(array)) for array in values)
    return float(np.log10(max(float(np.nanmax(array)) for array in values) / least)) if least > 0 else 0.0
