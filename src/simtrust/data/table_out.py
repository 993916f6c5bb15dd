"""A log as a table, CSV or Parquet, whose columns are known by their names when it is read again."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from simtrust.data.column_map import KEYS, ColumnMap, entry_name, read_header
from simtrust.data.dataset import Dataset, columns_from_rows, defect, episode_numbers

CHUNK_ROWS = 4096
FORBIDDEN = set(',;"\t\n\r\0')


def table_map(dataset: Dataset) -> ColumnMap:
    """The columns' headers by field, with names and units where the log has them.

    An entry is ``observation_theta [rad]``, or ``observation_0`` where nothing is named, the names are not
    all different, or one would be read otherwise than written.
    """
    observation = _headers(
        "observation", dataset.observation_size, dataset.observation_names, dataset.observation_units
    )
    action = _headers("action", dataset.action_size, dataset.action_names, dataset.action_units)
    time = {"time": ("time [s]",)} if dataset.time is not None else {}
    reward = {"reward": ("reward",)} if dataset.has_rewards else {}
    return {
        "episode": ("episode",),
        **time,
        "observation": observation,
        "action": action,
        **reward,
        "terminated": ("terminated",),
        "truncated": ("truncated",),
        "next_observation": tuple(f"next_{header}" for header in observation),
    }


def _headers(
    field: str, width: int, names: Sequence[str] | None, units: Sequence[str] | None
) -> tuple[str, ...]:
    numbers = [str(entry) for entry in range(width)]
    units = units or [""] * width
    for entries, marks in ((names, units), (numbers, units), (numbers, [""] * width)):
        if entries is None:
            continue
        headers = tuple(_header(f"{field}_{entry}", unit) for entry, unit in zip(entries, marks, strict=True))
        read = [read_header(header) for header in headers]
        expected = [(f"{field}_{entry}", unit) for entry, unit in zip(entries, marks, strict=True)]
        named = entries is numbers or all(
            entry_name(header, field) == entry for header, entry in zip(headers, entries, strict=True)
        )
        different = len(set(headers)) == width
        if (
            named
            and different
            and read == expected
            and not any(FORBIDDEN & set(header) for header in headers)
        ):
            return headers
    raise AssertionError("numbers without units can always be read again")


def _header(name: str, unit: str) -> str:
    # An empty unit keeps a name's own brackets from being taken for one.
    return f"{name} [{unit}]" if unit or name.endswith(("]", ")")) else name


def _columns(dataset: Dataset) -> Iterator[tuple[str, np.ndarray]]:
    """Each column's header and its values [T]: float32, time float64, the rest int64."""
    arrays = columns_from_rows(dataset)
    for field, headers in table_map(dataset).items():
        if field == "episode":
            yield headers[0], episode_numbers(dataset.episode_end)
        elif field == "time":
            yield headers[0], np.asarray(dataset.time)
        else:
            values = arrays[KEYS[field]].reshape(len(dataset), -1)
            values = values.astype(np.int64) if values.dtype == bool else values
            yield from zip(headers, values.T, strict=True)


def write_csv(file: Path, dataset: Dataset) -> None:
    """Commas, one line for each row; float32 by nine significant digits, which determine its bits."""
    columns = dict(_columns(dataset))
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for start in range(0, len(dataset), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            writer.writerows(zip(*(_texts(values[rows]) for values in columns.values()), strict=True))


def _texts(values: np.ndarray) -> list[str]:
    if values.dtype == np.float32:
        return [f"{value:.9g}" for value in values.tolist()]
    return [repr(value) for value in values.tolist()]


def write_parquet(file: Path, dataset: Dataset) -> None:
    """The same columns as Parquet's own float, double and int64."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(dict(_columns(dataset))), file)


def check_pyarrow(out: str) -> None:
    """DataError where Parquet cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        problem = f"is Parquet, which needs pyarrow ({error})"
        raise defect(out, problem, "pip install 'simtrust[tables]', or write CSV") from error
