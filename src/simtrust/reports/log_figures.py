"""The charts of a page about a log."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from simtrust.data.log_findings import Column, Log, Place
from simtrust.data.timing_findings import sampling_steps
from simtrust.reports.charts import Chart, Choice, label, listed, rounded, view

BINS = 60
WINDOW = 60
"""Rows shown before and after a place."""
ALIKE = 1e-4
POINTS = 2000
"""Episodes drawn; more are thinned evenly."""


def histogram_chart(log: Log, columns: Sequence[int]) -> Chart:
    """How often the log holds which value of a column, one column at a time, with the action's bounds."""
    views = [_histogram(log, column) for column in columns]
    names = [_titled(log.columns[column]) for column in columns]
    layout = {"yaxis": {"title": {"text": "rows"}, "rangemode": "tozero"}, "bargap": 0.03}
    kind = log.columns[columns[0]].kind
    return Chart(f"Histograms of {len(columns)} {kind}s.", 320, layout, views, (Choice("Column", names),))


def _histogram(log: Log, index: int) -> dict[str, Any]:
    column = log.columns[index]
    limits = []
    if column.kind == "action" and log.bounds is not None:
        limits = [float(log.bounds.low[column.entry]), float(log.bounds.high[column.entry])]
    layout = {
        "xaxis": {"title": {"text": label(_titled(column), 60)}},
        "shapes": [_limit(value) for value in limits],
    }
    return view(_bars(log.values(index)), **layout)


def _bars(values: np.ndarray) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    # Numbers on the page have six digits: what differs by less is one bar.
    if high - low > ALIKE * size:
        edges = np.linspace(low, high, BINS + 1)
    else:
        edges = (low + high) / 2 + np.array([-0.05, 0.05]) * (size or 1.0)
    counts, _ = np.histogram(values, edges)
    return {
        "type": "bar",
        "x": listed((edges[:-1] + edges[1:]) / 2),
        "y": counts.tolist(),
        "width": listed(np.diff(edges)),
        "marker": {"color": "@accent"},
        "hovertext": [
            f"{rounded(first)} to {rounded(last)}<br>{count:,} rows"
            for first, last, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True)
        ],
        "hoverinfo": "text",
    }


def _limit(value: float) -> dict[str, Any]:
    line = {"color": "@second", "dash": "dot", "width": 2}
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": value, "x1": value, "line": line}


def place_chart(log: Log, found: Sequence[tuple[str, Place]]) -> Chart:
    """A column around each place at which something was found, within its episode.

    Args:
        log: the log.
        found: the finding's title and the place, which has a row and a column; at least one.
    """
    views, options = [], []
    for title, place in found:
        assert place.row is not None and place.column is not None
        column = log.columns[place.column]
        views.append(_around(log, place.row, place.column))
        row = log.dataset.row_in_file(place.row)
        options.append(f"{title}: {column.name}, row {row}")
    layout = {"xaxis": {"title": {"text": "row of the file"}}}
    summary = f"Columns around {len(found)} places with findings."
    return Chart(summary, 340, layout, views, (Choice("Place", options),))


def _around(log: Log, row: int, index: int) -> dict[str, Any]:
    ends = np.flatnonzero(log.dataset.episode_end)
    episode = int(np.searchsorted(ends, row))
    rows = np.arange(
        max(row - WINDOW, 0 if episode == 0 else int(ends[episode - 1]) + 1),
        min(row + WINDOW, int(ends[episode])) + 1,
    )
    values = log.values(index)[rows]
    in_file = [log.dataset.row_in_file(int(one)) for one in rows]
    worst = (rows == row) | (rows == row + 1)
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": in_file,
        "y": listed(values),
        "line": {"color": "@accent", "width": 1.5},
        "marker": {"color": "@accent", "size": 4},
        "hovertext": [f"row {one}: {rounded(value)}" for one, value in zip(in_file, values, strict=True)],
        "hoverinfo": "text",
    }
    marked = {
        "type": "scatter",
        "mode": "markers",
        "x": [one for one, chosen in zip(in_file, worst, strict=True) if chosen],
        "y": listed(values[worst]),
        "marker": {"color": "@second", "size": 10},
        "hoverinfo": "skip",
    }
    return view(trace, marked, yaxis={"title": {"text": label(_titled(log.columns[index]), 40)}})


def episode_chart(log: Log) -> Chart:
    """Return, if the log has rewards, and length of every episode, in the log's order."""
    dataset = log.dataset
    shown = np.unique(np.linspace(0, dataset.episode_count - 1, POINTS).round().astype(int))
    terminal = np.asarray(dataset.transitions.terminated)[np.flatnonzero(dataset.episode_end)] > 0
    shown_of = {"return": ("return of the episode", dataset.episode_returns)} if dataset.has_rewards else {}
    shown_of["length"] = ("rows of the episode", dataset.episode_lengths)
    views = [
        view(_episodes(shown, values, terminal), yaxis={"title": {"text": title}})
        for title, values in shown_of.values()
    ]
    layout = {"xaxis": {"title": {"text": "episode, from 0"}}}
    summary = f"{' and '.join(shown_of).capitalize()} of each of {dataset.episode_count:,} episodes."
    return Chart(summary, 320, layout, views, (Choice("Of each episode", list(shown_of)),))


def _episodes(shown: np.ndarray, values: np.ndarray, terminal: np.ndarray) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": shown.tolist(),
        "y": listed(values[shown]),
        "marker": {
            "color": "@accent",
            "size": 6,
            "symbol": ["x" if ended else "circle" for ended in terminal[shown].tolist()],
        },
        "hovertext": [
            f"episode {number}: {rounded(values[number])}, {'terminated' if terminal[number] else 'cut'}"
            for number in shown.tolist()
        ],
        "hoverinfo": "text",
    }


def sampling_chart(log: Log) -> Chart | None:
    """How long the time between rows is; None where the log holds no time."""
    steps = sampling_steps(log)
    if steps is None or not len(steps[0]):
        return None
    milliseconds = steps[1] * 1e3
    bars = _bars(milliseconds)
    # From half a row on, so that a single gap is seen beside all that is regular.
    rows_axis = {"type": "log", "range": [-0.3, float(np.log10(max(bars["y"]))) + 0.2], "dtick": 1}
    layout = {
        "xaxis": {"title": {"text": "milliseconds to the next row"}},
        "yaxis": {"title": {"text": "rows"}} | rows_axis,
    }
    summary = f"Time between {len(milliseconds):,} pairs of rows."
    return Chart(summary, 300, layout, [view(bars)])


def _titled(column: Column) -> str:
    return f"{column.name} ({column.unit})" if column.unit else column.name
