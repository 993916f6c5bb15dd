"""``sweep.csv``: a line for each seed that has finished, and one for each run that has not."""

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

from simtrust.errors import RunError

BYTES_MAX = 2**25
"""10,000 runs of twenty seeds each."""
PER_SEED = ("seed", "return_mean", "return_std")
DONE = ("steps", "wall_seconds")
"""Of a whole run, once it has finished."""
STATES = WAITING, FINISHED, FAILED = "waiting", "finished", "failed"
FIRST, LAST = ("name", "state"), (*PER_SEED, *DONE, "error")
"""Columns; those between are the options that vary."""

Line = dict[str, Any]


def table_text(lines: Sequence[Line], others: Sequence[Line]) -> str:
    """The file's content: lines by column, and those of other sweep files, with options of their own."""
    every = dict.fromkeys(key for line in (*lines, *others) for key in line)
    options = [key for key in every if key not in FIRST and key not in LAST]
    text = StringIO()
    writer = csv.DictWriter(text, (*FIRST, *options, *LAST), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*lines, *others])
    return text.getvalue()


def read_table(content: bytes, where: str) -> list[Line]:
    """The lines of such a file.

    Raises:
        RunError: it is another table, which begins with ``where``; nothing of it would be kept.
    """
    try:
        reader = csv.DictReader(StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        if missing := [name for name in (*FIRST, *LAST) if name not in (reader.fieldnames or ())]:
            raise _no_table(where, f"it lacks {', '.join(missing)}")
        lines = []
        for line in reader:
            # A file that is none of ours shall not fill the memory.
            if None in line or None in line.values() or line["state"] not in STATES:
                raise _no_table(where, f"line {reader.line_num} is none of a run")
            lines.append(line)
        return lines
    except (csv.Error, UnicodeDecodeError) as error:
        raise _no_table(where, str(error)) from error


def _no_table(where: str, problem: str) -> RunError:
    return RunError(f"{where} is no table of a sweep: {problem}; move it elsewhere, or choose another --out")
