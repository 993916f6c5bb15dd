"""The charts of a gap report's page."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from simtrust.gap.drift import Drift
from simtrust.gap.findings import Calibration, GapReport, PolicyTrust, ReplayEstimate, WorstEpisode
from simtrust.reports.charts import (
    Chart,
    Choice,
    bars,
    escaped,
    label,
    listed,
    log_ticks,
    order,
    percent,
    rounded,
    span,
    view,
)
from simtrust.reports.gap_map import GapMap

POINTS = 120_000
"""Of all the curves among which a chart lets one choose, which bounds the size of the page."""
BINS = 60
LEGEND = {"showlegend": True, "margin": {"t": 36}}


def dimension_chart(names: Sequence[str], errors: ReplayEstimate) -> Chart:
    """Every dimension's error with its interval, the largest first or in the log's order."""
    summary = errors.summary
    mean = summary.normalised.mean
    hover = [
        f"<b>{label(name, 60)}</b><br>{span(summary.normalised, i)} standard deviations of the change"
        f"<br>{span(summary.absolute, i)} in the log's units<br>bias {span(summary.bias, i)}"
        for i, name in enumerate(names)
    ]
    reach = {
        "type": "data",
        "symmetric": False,
        "array": listed(summary.normalised.high - mean),
        "arrayminus": listed(mean - summary.normalised.low),
        "color": "@ink",
        "thickness": 1.5,
        "width": 3,
    }
    worst = names[int(np.nanargmax(mean))] if np.isfinite(mean).any() else "none"
    chart = bars(names, mean, hover, f"Error of each of {len(names)} dimensions; the largest is {worst}.")
    chart.views[0]["data"][0]["error_x"] = reach
    ordered = [order(np.argsort(-np.nan_to_num(mean, nan=-1.0))), order(np.arange(len(names)))]
    views = [{**chart.views[0], "layout": order} for order in ordered]
    chart.layout["xaxis"] |= {
        "title": {"text": "one-step error, in standard<br>deviations of the logged change"}
    }
    return chart._replace(views=views, choices=(Choice("Order", ["largest first", "as in the log"]),))


def held_out_chart(names: Sequence[str], r_squared: np.ndarray) -> Chart:
    """How well the model of reality predicts each dimension, the worst first; R² ``[O]``."""
    hover = [
        f"{label(name, 60)}<br>held-out R² {rounded(r)}" for name, r in zip(names, r_squared, strict=True)
    ]
    summary = f"Held-out R² of the model of reality for each of {len(names)} dimensions."
    chart = bars(names, r_squared, hover, summary)
    # A few dimensions that no model predicts would squeeze all others.
    lowest = float(np.nanmin(r_squared, initial=0.0))
    chart.layout["xaxis"] |= {"title": {"text": "held-out R²"}, "range": [max(lowest, -1.0), 1.02]}
    chart.views[0]["layout"] = order(np.argsort(np.nan_to_num(r_squared, nan=np.inf)))
    return chart


def correction_chart(replay: ReplayEstimate) -> Chart:
    """The share of the gap that each correction explains alone, the best first."""
    names = [f"{c.kind}: {rounded(c.fitted)} in place of {rounded(c.present)}" for c in replay.corrections]
    shares = [c.explained for c in replay.corrections]
    if replay.actuators is not None:
        names.append("any action error, row by row")
        shares.append(replay.actuators.explained)
    hover = [
        f"{label(name, 60)}<br>explains {percent(share)}" for name, share in zip(names, shares, strict=True)
    ]
    chart = bars(names, np.array(shares), hover, "Share of the gap that each correction explains.")
    chart.layout["xaxis"] |= {
        "title": {"text": "share of the error explained"},
        "tickformat": ".0%",
        "range": [min(0.0, *shares), 1.02],
    }
    chart.views[0]["layout"] = order(np.argsort(-np.array(shares)))
    return chart


def calibration_chart(calibration: Calibration) -> Chart:
    """The reliability curve: how often rows are simulated, by the probability that they were given."""
    filled = calibration.rows > 0
    predicted, observed, rows = (part[filled] for part in calibration[:3])
    size = 7 + 13 * np.sqrt(rows / max(rows.max(initial=1), 1))
    curve = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": listed(predicted),
        "y": listed(observed),
        "marker": {"size": listed(size), "color": "@accent", "opacity": 1},
        "line": {"color": "@accent"},
        "hovertext": [
            f"said {p:.0%}, was {o:.0%}<br>{n:,} rows"
            for p, o, n in zip(predicted, observed, rows, strict=True)
        ],
        "hoverinfo": "text",
    }
    ideal = {"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "layer": "below"}
    axis = {"range": [-0.04, 1.04], "tickformat": ".0%"}
    layout = {
        "xaxis": axis | {"title": {"text": "probability given to “simulated”"}},
        "yaxis": axis | {"title": {"text": "share that is simulated"}},
        "shapes": [ideal | {"line": {"color": "@muted", "dash": "dot", "width": 1.5}}],
    }
    summary = f"Reliability curve of the classifier, expected calibration error {calibration.error:.3g}."
    return Chart(summary, 360, layout, [view(curve)])


def map_chart(maps: Sequence[GapMap]) -> Chart:
    """The maps, one pair of dimensions at a time, in the same colours; thin cells are pale and hatched."""
    medians = np.concatenate([drawn.median.ravel() for drawn in maps])
    positive = medians[medians > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1e-6, 1.0)
    high = max(high, 1.01 * low)
    ticks = log_ticks(low, high)
    bar = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "thickness": 12, "len": 1.0, "outlinewidth": 0}
    bar |= ticks | {"title": {"text": "median one-step gap", "side": "top"}}
    colours = {"colorscale": "Viridis", "cmin": math.log10(low), "cmax": math.log10(high), "colorbar": bar}
    views = [_map_view(drawn, low) for drawn in maps]
    pairs = [drawn.x if drawn.y is None else f"{drawn.x} and {drawn.y}" for drawn in maps]
    layout = {"coloraxis": colours, "plot_bgcolor": "@empty", "margin": {"t": 70}}
    summary = "Map of the gap over pairs of dimensions; thin cells are hatched, empty ones grey."
    return Chart(summary, 520, layout, views, (Choice("Dimensions", pairs),))


def _map_view(drawn: GapMap, least: float) -> dict[str, Any]:
    # A cell without any gap has the colour of the least.
    logarithm = np.log10(np.maximum(drawn.median, least))
    where = f"{escaped(drawn.x)} %{{x:.3g}}<br>"
    where += "" if drawn.y is None else f"{escaped(drawn.y)} %{{y:.3g}}<br>"
    cells = {
        "type": "heatmap",
        "x": listed(drawn.x_edges),
        "y": listed(drawn.y_edges),
        "coloraxis": "coloraxis",
        "hoverongaps": False,
        "customdata": [
            [[m, int(n)] for m, n in zip(listed(medians), rows, strict=True)]
            for medians, rows in zip(drawn.median, drawn.rows, strict=True)
        ],
    }
    told = "median gap %{customdata[0]:.3g}<br>%{customdata[1]} rows<extra></extra>"
    solid = cells | {
        "z": [listed(line) for line in np.where(drawn.thin, np.nan, logarithm)],
        "hovertemplate": where + told,
    }
    thin = cells | {
        "z": [listed(line) for line in np.where(drawn.thin, logarithm, np.nan)],
        "hovertemplate": "<b>few rows</b><br>" + where + told,
        "opacity": 0.45,
    }
    y_axis: dict[str, Any] = {
        "title": {"text": label(drawn.y or "", 44)},
        "showgrid": False,
        "zeroline": False,
    }
    y_axis["visible"] = drawn.y is not None
    x_axis = {"title": {"text": label(drawn.x, 44)}, "showgrid": False, "zeroline": False}
    return view(solid, thin, _hatching(drawn), xaxis=x_axis, yaxis=y_axis)


def _hatching(drawn: GapMap) -> dict[str, Any]:
    """Three strokes across every thin cell."""
    row, column = np.nonzero(drawn.thin)
    stroke = np.array([[0, 1, np.nan], [0, 0.5, np.nan], [0.5, 1, np.nan]])
    left, bottom = drawn.x_edges[column], drawn.y_edges[row]
    x = left[:, None] + stroke.ravel() * np.diff(drawn.x_edges)[0]
    y = bottom[:, None] + stroke[[0, 2, 1]].ravel() * np.diff(drawn.y_edges)[0]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": listed(x.ravel()),
        "y": listed(y.ravel()),
        "line": {"color": "@hatch", "width": 1.2},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def drift_chart(drift: Drift) -> Chart:
    """How far the simulator has gone astray after so many steps on its own, with its interval."""
    error = drift.error
    steps = list(range(len(error.mean)))
    edge = {"type": "scatter", "mode": "lines", "x": steps, "line": {"width": 0}, "hoverinfo": "skip"}
    edge["showlegend"] = False
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": steps,
        "y": listed(error.mean),
        "line": {"color": "@accent", "width": 2.5},
        "hovertext": [f"after {step} steps<br>{span(error, step)}" for step in steps],
        "hoverinfo": "text",
    }
    band = {"y": listed(error.high), "fill": "tonexty", "fillcolor": "@band"}
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "control steps on its own"}},
        "yaxis": {"title": {"text": f"error, standard deviations<br>of the {drift.normalisation}"}},
    }
    layout["yaxis"]["rangemode"] = "tozero"
    summary = f"Error over {len(steps) - 1} control steps on its own, at last {rounded(error.mean[-1])}."
    return Chart(summary, 360, layout, [view(edge | {"y": listed(error.low)}, edge | band, line)])


def episode_chart(report: GapReport) -> Chart:
    """The worst episodes, logged and simulated, one dimension at a time; the worst dimension first."""
    names, episodes = report.observation_names, report.worst_episodes
    error = report.replay.summary.normalised.mean if report.replay else np.zeros(len(names))
    worst_first = list(np.argsort(-np.nan_to_num(error, nan=-1.0), kind="stable"))
    length = max(len(episode.real) for episode in episodes)
    stride = math.ceil(2 * len(episodes) * len(names) * length / POINTS)
    views = [_episode_view(episode, i, names[i], stride) for i in worst_first for episode in episodes]
    choices = (
        Choice("Dimension", [names[i] for i in worst_first]),
        Choice("Episode", [f"episode {e.episode}, gap {rounded(e.gap)}" for e in episodes]),
    )
    summary = "The worst episodes as logged and as simulated from the same state under the same actions."
    return Chart(summary, 380, LEGEND, views, choices)


def _episode_view(episode: WorstEpisode, index: int, name: str, stride: int) -> dict[str, Any]:
    curve = {"type": "scatter", "mode": "lines", "x0": 0, "dx": stride}
    real = curve | {"name": "real (log)", "line": {"color": "@accent", "width": 2.5}}
    simulated = curve | {"name": "simulated", "line": {"color": "@second", "width": 2.5, "dash": "dash"}}
    return view(
        real | {"y": listed(episode.real[::stride, index])},
        simulated | {"y": listed(episode.simulated[::stride, index])},
        xaxis={"title": {"text": f"control steps after row {episode.first_row:,} of the log"}},
        yaxis={"title": {"text": label(name, 36)}},
    )


def policy_chart(policy: PolicyTrust, limit: float) -> Chart:
    """How often the policy meets which expected error, below and above the ``limit`` of trust."""
    gap = policy.gap[np.isfinite(policy.gap)]
    positive = gap[gap > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (limit / 10, limit)
    low, high = min(low, limit / 2), max(high, 2 * limit)
    width = math.log10(high / low) / BINS
    # The limit lies between two bins, and each is on one side of it.
    bins = np.floor(np.log10(np.clip(gap, low, high) / limit) / width).astype(int)
    numbers, counts = np.unique(bins, return_counts=True)
    centre, within = math.log10(limit) + (numbers + 0.5) * width, numbers < 0
    bars = [
        {
            "type": "bar",
            "name": name,
            "x": listed(centre[part]),
            "y": listed(counts[part] / max(len(gap), 1)),
            "width": 0.92 * width,
            "marker": {"color": colour},
            "hovertext": [
                f"error about {rounded(10**c)}<br>{n:,} steps"
                for c, n in zip(centre[part], counts[part], strict=True)
            ],
            "hoverinfo": "text",
        }
        for name, colour, part in (("trusted", "@accent", within), ("low trust", "@second", ~within))
    ]
    line = {
        "type": "line",
        "x0": math.log10(limit),
        "x1": math.log10(limit),
        "yref": "paper",
        "y0": 0,
        "y1": 1,
    }
    layout = {
        "xaxis": log_ticks(low, high) | {"title": {"text": "expected one-step error"}},
        "yaxis": {"title": {"text": "share of the time"}, "tickformat": ".0%"},
        "shapes": [line | {"line": {"color": "@ink", "dash": "dash", "width": 1.5}}],
        **LEGEND,
    }
    return Chart(
        f"Histogram of the expected error, {percent(policy.low_trust)} above the limit.",
        340,
        layout,
        [view(*bars)],
    )
