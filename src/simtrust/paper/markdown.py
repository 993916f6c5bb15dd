"""Tables in Markdown, and the numbers in them."""

import math
from collections.abc import Iterable, Sequence

from simtrust.evaluation.statistics import Interval


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """One line a row, of as many cells as there are heads."""
    written = [" | ".join(line) for line in (heads, ["---"] * len(heads), *lines)]
    return "\n".join(f"| {line} |" for line in written)


def number(value: float, form: str) -> str:
    """A number by a format such as ``",.0f"``; a dash if it is NaN."""
    return "–" if math.isnan(value) else format(value, form)


def with_interval(interval: Interval, form: str) -> str:
    """A number and, in parentheses, its interval if that is known."""
    mean = number(interval.mean, form)
    if math.isnan(interval.low):
        return mean
    return f"{mean} ({format(interval.low, form)} to {format(interval.high, form)})"
