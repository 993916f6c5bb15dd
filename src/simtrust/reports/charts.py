"""Charts that plotly draws on a page of ours: what they consist of, and text and numbers as they need them.

A colour that begins with ``@`` is one of the page's own, so that charts follow its light and dark scheme.
"""

import html
import math
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsFloat

import numpy as np

from simtrust.gap.step_errors import Intervals

BAR, FRAME = 30, 110
"""Pixels: the height of a bar, and of what is around the bars."""


class Choice(NamedTuple):
    """Something that the reader selects; the first option is shown at first."""

    name: str
    options: list[str]


class Chart(NamedTuple):
    """One chart: a view for every combination of its choices, the last choice running fastest."""

    summary: str
    """What a reader is told who cannot see it."""
    height: int  # pixels
    layout: dict[str, Any]  # what all views share
    views: list[dict[str, Any]]  # each with "data" and "layout"
    choices: tuple[Choice, ...] = ()


def view(*data: dict[str, Any], **layout: Any) -> dict[str, Any]:
    """What one combination of choices shows."""
    return {"data": list(data), "layout": layout}


def bars(names: Sequence[str], values: np.ndarray, hover: list[str], summary: str) -> Chart:
    """Horizontal bars, numbered from 0; a value that is NaN has none."""
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": listed(values),
        "y": [str(index) for index in range(len(names))],
        "marker": {"color": "@accent"},
        "hovertext": hover,
        "hoverinfo": "text",
    }
    ticks = [
        label(name, 24) + ("" if np.isfinite(v) else "<br>(constant)")
        for name, v in zip(names, values, strict=True)
    ]
    y_axis = {
        "type": "category",
        "tickvals": trace["y"],
        "ticktext": ticks,
        "tickfont": {"size": 11},
        "showgrid": False,
    }
    layout = {"xaxis": {"rangemode": "tozero"}, "yaxis": y_axis, "bargap": 0.35}
    return Chart(summary, BAR * len(names) + FRAME, layout, [view(trace)])


def order(order: np.ndarray) -> dict[str, Any]:
    """The bars numbered ``order``, from above."""
    categories = [str(index) for index in order[::-1]]
    return {"yaxis": {"categoryorder": "array", "categoryarray": categories}}


def rounded(value: SupportsFloat) -> str:
    """Three significant digits, as people write them."""
    number = float(value)
    if math.isnan(number):
        return "unknown"
    short = f"{number:.3g}"
    if math.isfinite(number) and 1000 <= abs(number) < 1e7:
        short = f"{float(short):,.0f}"
    return short.replace("-", "−").replace("inf", "∞")


def percent(share: float) -> str:
    """Whole per cent; all and nothing are said only where it is so."""
    if 0 < share < 0.005:
        return "<1%"
    if 0.995 <= share < 1:
        return ">99%"
    return f"{share:.0%}"


def span(intervals: Intervals, index: int) -> str:
    """A mean with its interval, in words."""
    mean, low, high = (float(np.asarray(part)[index]) for part in intervals)
    return rounded(mean) if math.isnan(low) else f"{rounded(mean)} ({rounded(low)} to {rounded(high)})"


def listed(values: Any) -> list[float | None]:
    """Numbers as JSON has them, with six significant digits; null where they are not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in np.ravel(values).tolist()]


def escaped(text: str) -> str:
    """A text that plotly shows as it is: it knows some HTML, and placeholders as in ``%{x}``."""
    return html.escape(text, quote=False).replace("%", "&#37;")


def label(text: str, width: int) -> str:
    """The same in at most two lines of ``width`` characters."""
    lines = textwrap.wrap(text, width, max_lines=2, placeholder="…") or [text]
    return "<br>".join(map(escaped, lines))


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Round ticks of an axis that shows logarithms to base 10, from ``low`` to ``high``, above 0."""
    steps = (1, 2, 5) if high / low < 200 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [step * 10.0**decade for decade in decades for step in steps]
    values = [value for value in values if low <= value <= high] or [low, high]
    return {"tickvals": [math.log10(value) for value in values], "ticktext": [*map(rounded, values)]}
