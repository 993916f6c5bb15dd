"""What D4RL's layout has no key for: time, and the names and units of the entries, kept in ``metadata``."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from simtrust import __version__
from simtrust.data.checks import check_memory
from simtrust.data.containers import METADATA, Container
from simtrust.data.dataset import Dataset, DimensionNames, defect, is_text
from simtrust.data.json_file import parse_json
from simtrust.errors import DataError

# Not to be mistaken for what others keep in such a group.
NAMES, TIME = "simtrust_names", "simtrust_time"
FORMAT, WRITER = "simtrust_format", "simtrust_version"
EXTRAS_FORMAT = 1
NAMES_BYTES_MAX = 2**24


def extras_of(dataset: Dataset) -> dict[str, Any]:
    """What is written into ``metadata``: JSON as bytes of fixed length, and time [T] float64."""
    extras: dict[str, Any] = {}
    if any(dataset.names):
        extras[NAMES] = np.bytes_(json.dumps(dataset.names._asdict()).encode())
    if dataset.time is not None:
        extras[TIME] = dataset.time
    return {**extras, FORMAT: EXTRAS_FORMAT, WRITER: np.bytes_(__version__)} if extras else extras


def read_extras(
    source: str, container: Container, columns: Mapping[str, np.ndarray]
) -> tuple[DimensionNames, np.ndarray | None]:
    """Names and time [T] as `extras_of` gave them; DataError where they do not fit the file's rows."""
    _check_format(source, container)
    rows, observations = columns["observations"].shape
    widths = (observations, columns["actions"].shape[1])
    return _names(source, container, widths), _time(source, container, rows)


def _check_format(source: str, container: Container) -> None:
    """Files of before there was a version are of the first."""
    column, writer = container.metadata(FORMAT), container.metadata(WRITER)
    if column is None:
        return
    if column.shape != () or column.dtype.kind not in "iu":
        raise _unreadable(source, FORMAT)
    found = int(np.asarray(column.read()))
    if found != EXTRAS_FORMAT:
        told = "unknown"
        if writer is not None and writer.shape == () and writer.dtype.kind == "S":
            told = np.asarray(writer.read()).item().decode(errors="replace")[:40]
        raise defect(
            source,
            f"holds names and time in format {found}, this version of simtrust reads {EXTRAS_FORMAT}",
            f"use the version that wrote it, {told}, or delete '{METADATA}/{FORMAT}', '{METADATA}/{NAMES}' "
            f"and '{METADATA}/{TIME}'",
            key=f"{METADATA}/{FORMAT}",
        )


def _names(source: str, container: Container, widths: tuple[int, int]) -> DimensionNames:
    column = container.metadata(NAMES)
    if column is None:
        return DimensionNames()
    if column.shape != () or column.dtype.kind != "S" or column.dtype.itemsize > NAMES_BYTES_MAX:
        raise _unreadable(source, NAMES)
    try:
        stored = parse_json(np.asarray(column.read()).item())
        found = [stored.get(field) for field in DimensionNames._fields]
    except (ValueError, AttributeError) as error:
        raise _unreadable(source, NAMES) from error
    for value, width in zip(found, 2 * widths, strict=True):
        listed = isinstance(value, list) and all(is_text(name) for name in value)
        if value is not None and not (listed and len(value) == width):
            raise _unreadable(source, NAMES)
    return DimensionNames(*(None if value is None else tuple(value) for value in found))


def _time(source: str, container: Container, rows: int) -> np.ndarray | None:
    column = container.metadata(TIME)
    if column is None:
        return None
    if column.shape != (rows,) or column.dtype != np.float64:
        raise _unreadable(source, TIME)
    check_memory(source, {TIME: column.dtype.itemsize * rows})
    time = column.read()
    if not np.isfinite(time).all():
        raise _unreadable(source, TIME)
    return time


def _unreadable(source: str, name: str) -> DataError:
    key = f"{METADATA}/{name}"
    return defect(source, "does not fit the file's rows", f"delete '{key}', or save the log again", key=key)
