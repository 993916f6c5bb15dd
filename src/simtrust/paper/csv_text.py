"""Tables as CSV."""

import csv
import io
import math
from collections.abc import Iterable, Sequence

import numpy as np


def csv_text(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """One line a row; numbers to six digits, and nothing for NaN."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(map(_plain, line) for line in lines)
    return text.getvalue()


def _plain(value: object) -> str:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)
