"""From a table's columns to what every log holds: checked arrays by D4RL key, names, units and time."""

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simtrust.data.checks import as_flags, as_float32
from simtrust.data.column_map import KEYS, VECTORS, ColumnMap, entry_name, read_header
from simtrust.data.dataset import DimensionNames, defect, made_unique, resolve_dones
from simtrust.data.tables import Kind, Read, Table
from simtrust.errors import DataWarning

KINDS: dict[str, Kind] = {"episode": "episode", "terminated": "flag", "truncated": "flag", "done": "flag"}
SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Mapped(NamedTuple):
    """A table's T rows."""

    columns: dict[str, np.ndarray]
    """As `rows_from_columns` takes them."""
    names: DimensionNames
    time: np.ndarray | None
    """[T] float64, seconds, not yet checked against the episodes."""
    read: Read


def read_mapped(source: str, table: Table, fields: ColumnMap, dones_mean: str | None) -> Mapped:
    """Reads and checks the columns of each field, which are in the file's spelling.

    With ``episode``, an episode ends where the id changes, and an end that is not terminal is a timeout.
    Without ``terminated`` and ``done`` no row is terminal, which a DataWarning says.

    Raises DataError for values that are no numbers, ids that come back, flags inside of an episode.
    """
    if "done" in fields and not {"terminated", "truncated"} & set(fields) and dones_mean is None:
        raise defect(
            source,
            "does not say whether an episode terminated or was cut by a time limit",
            "pass dones_mean= ('terminated' or 'timeout'; --dones-mean on the command line), or map"
            " 'terminated' and 'truncated'",
            column=fields["done"][0],
        )
    wanted: dict[str, Kind] = {
        name: KINDS.get(field, "number") for field, names in fields.items() for name in names
    }
    read = table.read(wanted)
    columns: dict[str, np.ndarray] = {}
    for field, key in KEYS.items():
        if field in VECTORS and field in fields:
            columns[key] = _vectors(source, fields[field], read)
        elif field in fields:
            columns[key] = _scalars(source, fields[field][0], read, flags=KINDS.get(field) == "flag")
    _check_same_width(source, columns, fields)
    if {"terminated", "episode"} <= set(fields):
        columns.pop("dones", None)
    columns = resolve_dones(columns, dones_mean)
    if "terminals" not in columns:
        columns["terminals"] = np.zeros(len(columns["observations"]), bool)
        warnings.warn(
            f"{source}: no column says where the task ended for good ('terminated'), so no row counts as"
            " terminal and every episode as cut short. If an episode can end by success or failure, name the"
            " column: --map terminated=NAME.",
            DataWarning,
            stacklevel=3,
        )
    if "episode" in fields:
        columns["timeouts"] = _timeouts(source, fields, columns, read)
    time = _seconds(source, fields["time"][0], read) if "time" in fields else None
    return Mapped(columns, _names(fields, table, read), time, read)


def _vectors(source: str, names: Sequence[str], read: Read) -> np.ndarray:
    checked = [_numbers(source, name, read) for name in names]
    return np.ascontiguousarray(np.column_stack(checked))


def _numbers(source: str, name: str, read: Read) -> np.ndarray:
    return as_float32(source, read.values[name], lambda row: {"column": name, **read.place(row)})


def _scalars(source: str, name: str, read: Read, *, flags: bool) -> np.ndarray:
    values = read.values[name]
    if values.ndim != 1:
        raise defect(source, f"holds lists of {values.shape[1]}", "store one number per row", column=name)
    if flags:
        return as_flags(source, values, lambda row: {"column": name, **read.place(row)})
    return _numbers(source, name, read)


def _check_same_width(source: str, columns: dict[str, np.ndarray], fields: ColumnMap) -> None:
    following = columns.get("next_observations")
    if following is not None and following.shape != columns["observations"].shape:
        raise defect(
            source,
            f"is {following.shape[1]} wide where '{fields['observation'][0]}' is"
            f" {columns['observations'].shape[1]}",
            "store the same entries in both",
            column=fields["next_observation"][0],
        )


def _timeouts(source: str, fields: ColumnMap, columns: dict[str, np.ndarray], read: Read) -> np.ndarray:
    """[T] bool: the ends of episodes that are not terminal."""
    name = fields["episode"][0]
    code = read.values[name]
    step = np.diff(code)
    # Codes count up in order of appearance, so that one which comes back is a step down.
    back = np.flatnonzero(step < 0)
    if len(back):
        row = int(back[0]) + 1
        raise defect(
            source,
            f"id '{read.ids[code[row]]}' comes back after another episode",
            "sort the rows by episode and time, or give each episode an id of its own",
            column=name,
            **read.place(row),
        )
    end = np.append(step != 0, True)
    for key, meant in (("terminals", ("terminated", "done")), ("timeouts", ("truncated", "done"))):
        name = next((fields[field][0] for field in meant if field in fields), None)
        inside = np.flatnonzero(columns[key] & ~end) if key in columns else np.empty(0)
        if name is not None and len(inside):
            row = int(inside[0])
            raise defect(
                source,
                f"is true inside of episode '{read.ids[code[row]]}', which goes on after it",
                "mark only an episode's last row, or give what follows an id of its own",
                column=name,
                **read.place(row),
            )
    return end & ~columns["terminals"]


def _seconds(source: str, name: str, read: Read) -> np.ndarray:
    unit = read_header(name).unit
    if unit not in SECONDS:
        raise defect(
            source, f"is in '{unit}'", f"give time in one of {', '.join(filter(None, SECONDS))}", column=name
        )
    values = read.values[name].astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if values.ndim != 1 or len(wrong):
        place = read.place(int(wrong[0])) if len(wrong) else {}
        problem = "holds a time that is not finite" if len(wrong) else "holds lists"
        raise defect(source, problem, "store one number of seconds per row", column=name, **place)
    return values * SECONDS[unit]


def check_time(source: str, name: str, mapped: Mapped, episode_end: np.ndarray) -> None:
    """Refuses time [T] that does not increase within an episode (DataError); ``episode_end`` is [T] bool."""
    time = mapped.time
    if time is None:
        return
    wrong = np.flatnonzero((np.diff(time) <= 0) & ~episode_end[:-1])
    if len(wrong):
        row = int(wrong[0]) + 1
        episode = int(episode_end[:row].sum())
        raise defect(
            source,
            f"goes from {time[row - 1]:.9g} to {time[row]:.9g} s within episode {episode} (counted from 0)",
            "sort the rows by time, or map episode=NAME if an episode ends there",
            column=name,
            **mapped.read.place(row),
        )


def _names(fields: ColumnMap, table: Table, read: Read) -> DimensionNames:
    observation, observation_units = _entries("observation", fields["observation"], table, read)
    action, action_units = _entries("action", fields["action"], table, read)
    return DimensionNames(observation, action, observation_units, action_units)


def _entries(
    field: str, headers: Sequence[str], table: Table, read: Read
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Names and units; names that would be equal are their column's whole header, or ``header[name]``."""
    names: list[str] = []
    full: list[str] = []
    units: list[str] = []
    named = False
    for header in headers:
        width = 1 if read.values[header].ndim == 1 else read.values[header].shape[1]
        known = table.entry_names.get(header)
        name = entry_name(header, field)
        if known is not None and len(known) == width:
            names += known
            full += [f"{header}[{name}]" for name in known]
            named = True
        elif read.values[header].ndim == 1:
            names.append(name or read_header(header).name)
            full.append(header)
            named |= name is not None
        else:
            names += [f"{read_header(header).name}[{i}]" for i in range(width)]
            full += [f"{header}[{i}]" for i in range(width)]
        units += [read_header(header).unit] * width
    count = Counter(names)
    unique = made_unique(
        [long if count[short] > 1 else short for short, long in zip(names, full, strict=True)]
    )
    return unique if named else None, tuple(units) if any(units) else None
