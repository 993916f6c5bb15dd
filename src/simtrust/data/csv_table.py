"""CSV, read by the standard library in a streaming way, with every defect named by line and column."""

import csv
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from simtrust.data.dataset import defect
from simtrust.data.tables import EpisodeCodes, Kind, Read, Table, check_table_memory, check_unique
from simtrust.errors import DataError

SEPARATORS = ",;\t"
LINE_MAX = 2**20
CHUNK_CELLS = 200_000
CHUNK_CHARACTERS = 2**25
SAMPLE_BYTES = 2**16
FLAG_WORDS = {"true": 1.0, "false": 0.0}
LINE_BYTES = 16


@contextmanager
def open_csv(source: str, file: Path) -> Iterator[Table]:
    """A table with names in its first line, separated by comma, semicolon or tab; UTF-8, with or without BOM.

    Raises DataError for a first line that names no columns, or the same one twice.
    """
    with file.open(encoding="utf-8-sig", newline="") as stream:
        lines = _BoundedLines(source, stream)
        with _told_as_text(source, lambda: 1):
            first = next(lines, "")
            separator = _separator(source, first)
            reader = csv.reader(itertools.chain([first], lines), delimiter=separator, strict=True)
            names = [name.strip() for name in next(reader)]
        _check_header(source, names)
        lines.row_ends()
        yield Table(names, lambda wanted: _read(source, file, lines, reader, names, wanted))


class _BoundedLines:
    """Lines, none so long that a file without line ends would fill the memory, nor so a row of many lines."""

    def __init__(self, source: str, stream: TextIO) -> None:
        self._source, self._stream, self._characters = source, stream, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(LINE_MAX)
        if not line:
            raise StopIteration
        self._characters += len(line)
        if self._characters >= LINE_MAX:
            what = "line" if len(line) == LINE_MAX else "row within quotation marks"
            problem = f"has a {what} of {LINE_MAX:,} characters or more"
            raise defect(self._source, problem, "check that it is a CSV file")
        return line

    def row_ends(self) -> int:
        """How many characters the row had that ends here."""
        characters, self._characters = self._characters, 0
        return characters


@contextmanager
def _told_as_text(source: str, line: Callable[[], int]) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise defect(
            source, f"is not UTF-8 text ({error.reason})", "save it as CSV in UTF-8", line=line()
        ) from error
    except csv.Error as error:
        raise defect(
            source, f"is damaged or cut short ({error})", "close every quotation mark", line=line()
        ) from error


def _separator(source: str, first: str) -> str:
    if not first.strip():
        raise defect(source, "is empty", "name the columns in the first line", line=1)
    unquoted = re.sub(r'"[^"]*"', "", first)
    separator = max(SEPARATORS, key=unquoted.count)
    if separator not in unquoted:
        raise defect(
            source,
            f"names a single column, '{first.strip()[:80]}'",
            "separate columns by comma, semicolon or tab",
            line=1,
        )
    return separator


def _check_header(source: str, names: Sequence[str]) -> None:
    named = [name for name in names if name]
    if all(_is_number(name) for name in named):
        raise defect(
            source, "holds numbers where the columns' names are needed", "name them in the first line", line=1
        )
    check_unique(source, named)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read(
    source: str,
    file: Path,
    lines: _BoundedLines,
    reader: Any,
    names: Sequence[str],
    wanted: Mapping[str, Kind],
) -> Read:
    index = {name: names.index(name) for name in wanted}
    codes = EpisodeCodes()
    chunks: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    line_numbers: list[np.ndarray] = []
    expected, characters = _expected_rows(file), SAMPLE_BYTES
    _check_rows(source, wanted, expected, characters)
    rows = 0
    for numbers, cells in _chunks(source, lines, reader, len(names)):
        rows += len(cells)
        columns = list(zip(*cells, strict=True))
        for name, kind in wanted.items():
            chunks[name].append(_convert(source, name, kind, columns[index[name]], numbers, codes))
        # The sample at the beginning may have had the longest lines, or the fewest ids.
        while rows > expected or codes.characters > characters:
            expected = 2 * expected if rows > expected else expected
            characters = 2 * characters if codes.characters > characters else characters
            _check_rows(source, wanted, expected, characters)
        line_numbers.append(np.array(numbers, np.int64))
    if not rows:
        raise defect(source, "has zero rows, only a header", "record at least one transition")
    line = np.concatenate(line_numbers)
    values = {name: np.concatenate(parts) for name, parts in chunks.items()}
    return Read(values, lambda row: {"line": int(line[row])}, codes.ids)


def _expected_rows(file: Path) -> int:
    with file.open("rb") as stream:
        sample = stream.read(SAMPLE_BYTES)
    ends = max(sample.count(b"\n"), sample.count(b"\r"), 1)
    return file.stat().st_size * ends // len(sample) + 1


def _check_rows(source: str, wanted: Mapping[str, Kind], rows: int, characters: int) -> None:
    """``characters`` is how many the different ids have together."""
    numbers = dict.fromkeys(wanted, rows + rows * LINE_BYTES // (21 * len(wanted)))
    check_table_memory(source, wanted, numbers, dict.fromkeys(wanted, characters))


def _chunks(
    source: str, lines: _BoundedLines, reader: Any, width: int
) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Rows, each with its line, by the thousands; empty lines may only end the file."""
    most = max(1, CHUNK_CELLS // width)
    numbers: list[int] = []
    cells: list[list[str]] = []
    blank, characters = None, 0
    with _told_as_text(source, lambda: reader.line_num):
        for row in reader:
            characters += lines.row_ends()
            if not row:
                blank = blank or reader.line_num
                continue
            if blank is not None:
                raise defect(source, "is empty, with more below", "delete it", line=blank)
            if len(row) != width:
                raise defect(
                    source,
                    f"has {len(row)} cells where the header has {width}",
                    "write one cell per column, and numbers with a decimal point",
                    line=reader.line_num,
                )
            numbers.append(reader.line_num)
            cells.append(row)
            if len(cells) == most or characters >= CHUNK_CHARACTERS:
                yield numbers, cells
                numbers, cells, characters = [], [], 0
    if cells:
        yield numbers, cells


def _convert(
    source: str, name: str, kind: Kind, cells: Sequence[str], lines: Sequence[int], codes: EpisodeCodes
) -> np.ndarray:
    if kind == "episode":
        ids = [cell.strip() for cell in cells]
        if "" in ids:
            raise _not_a_number(source, name, "", lines[ids.index("")])
        return codes.encode(ids)
    texts = [FLAG_WORDS.get(cell.strip().lower(), cell) for cell in cells] if kind == "flag" else cells
    try:
        # Python also reads 1_000 as a number, which no recorder writes.
        if "_" in "".join(cells):
            raise ValueError
        return np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:
        readable = set(FLAG_WORDS) if kind == "flag" else set()
        number, text = next(
            (number, cell.strip())
            for number, cell in zip(lines, cells, strict=True)
            if cell.strip().lower() not in readable and ("_" in cell or not _is_number(cell))
        )
        raise _not_a_number(source, name, text, number) from None


def _not_a_number(source: str, name: str, text: str, line: int) -> DataError:
    if not text:
        problem, remedy = "the cell is empty", "drop the episode that holds it, or repair the recording"
    elif re.fullmatch(r"[-+]?\d*,\d+([eE][-+]?\d+)?", text):
        problem, remedy = f"'{text}' has a decimal comma", "write numbers with a decimal point"
    else:
        problem = f"'{text[:80]}' is not a number"
        remedy = (
            "map another column, or repair the recording; ids of episodes may be text, flags true or false"
        )
    return defect(source, problem, remedy, column=name, line=line)
