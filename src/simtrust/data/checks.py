"""What can be wrong with a log: its claimed shapes, its values, its fit to a simulator."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from simtrust.data.dataset import Dataset, defect
from simtrust.errors import SimulatorError
from simtrust.limits import available_memory

FLAGS = ("terminals", "timeouts", "dones")
PER_ROW = ("rewards", *FLAGS)

# Float32 rounding of an action at its bound, as a share of the bound's range.
ACTION_TOLERANCE = 1e-5

# Of the memory available: reading, converting and checking a column takes copies.
MEMORY_SHARE = 0.5


class Column(NamedTuple):
    """What a file claims about one key, before any of its values is read."""

    name: str  # as spelt in the file
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def check_claims(source: str, columns: Mapping[str, Column]) -> None:
    """Refuses wrong types, ranks, lengths and sizes from metadata alone (DataError)."""
    for key, column in columns.items():
        _check_type(source, key, column)
        _check_rank(source, key, column)
    for key, column in columns.items():
        _check_length(source, key, column, columns["observations"])
    check_memory(source, {column.name: _bytes_needed(column) for column in columns.values()})


def _check_type(source: str, key: str, column: Column) -> None:
    if column.dtype.hasobject:
        raise defect(
            source,
            "holds Python objects or strings, which are never unpickled",
            "store plain numbers, for example array.astype('float32')",
            key=column.name,
        )
    if key in FLAGS and column.dtype.kind not in "biuf":
        raise defect(
            source, f"has type {column.dtype}", "store booleans, or the numbers 0 and 1", key=column.name
        )
    if key not in FLAGS and column.dtype.kind != "f":
        raise defect(
            source,
            f"has type {column.dtype} where floating-point numbers are needed",
            "store it as float32, for example array.astype('float32')",
            key=column.name,
        )


def _check_rank(source: str, key: str, column: Column) -> None:
    shape = column.shape
    if key in PER_ROW:
        if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
            raise defect(
                source, f"has shape {shape}", "store one number per row, shape (rows,)", key=column.name
            )
    elif len(shape) != 2 or shape[1] == 0:
        raise defect(
            source,
            f"has shape {shape}",
            "store one flat vector per row, shape (rows, width) with width at least 1",
            key=column.name,
        )


def _check_length(source: str, key: str, column: Column, observations: Column) -> None:
    rows, expected = column.shape[0], observations.shape[0]
    if rows == 0:
        raise defect(source, "has zero rows", "record at least one transition", key=column.name)
    if rows != expected:
        raise defect(
            source,
            f"has {rows} rows where '{observations.name}' has {expected}",
            "store every key for the same rows; the last observation of an episode goes into"
            " 'next_observations'",
            key=column.name,
            row=min(rows, expected),
        )
    if key == "next_observations" and column.shape != observations.shape:
        raise defect(
            source,
            f"has width {column.shape[1]} where '{observations.name}' has {observations.shape[1]}",
            "store the same entries in both",
            key=column.name,
            row=0,
        )


def _bytes_needed(column: Column) -> int:
    converted_and_checked = 5
    return math.prod(column.shape) * (column.dtype.itemsize + converted_and_checked)


def check_memory(source: str, needed: Mapping[str, int]) -> None:
    """Refuses a log that would take more than half of the free memory; ``needed`` is in bytes by key.

    This is what every reader promises: it announces here what it needs for the values, from what the file
    claims of their number and size, before it reads one of them; it reads no more than was claimed; and
    while it reads, converts and checks, it never holds more than twice what it announced, and so never more
    than is free.
    """
    available = available_memory()
    total = sum(needed.values())
    if total > MEMORY_SHARE * available:
        largest = max(needed, key=lambda name: needed[name])
        raise defect(
            source,
            f"claims {total / 2**30:,.1f} GiB to read ('{largest}' the most), with"
            f" {available / 2**30:,.1f} GiB of memory available",
            "split the log, or check that its shapes are right",
            key=largest,
        )


Place = Callable[[int], dict[str, Any]]
"""How `defect` shall name a row: its file's key and row, or its table's column and line."""


def read_column(source: str, key: str, column: Column) -> np.ndarray:
    """The checked values: float32 [T, width] or [T], or bool [T] for flags (DataError otherwise)."""
    values = column.read()
    if key in PER_ROW:
        values = values.reshape(-1)

    def place(row: int) -> dict[str, Any]:
        return {"key": column.name, "row": row}

    return as_flags(source, values, place) if key in FLAGS else as_float32(source, values, place)


def as_float32(source: str, values: np.ndarray, place: Place) -> np.ndarray:
    """Numbers [T, ...] as contiguous float32 (DataError where one is not finite in it)."""
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(values, dtype=np.float32)
    finite = np.isfinite(converted)
    if not finite.all():
        index = tuple(np.argwhere(~finite)[0].tolist())
        raise defect(
            source,
            f"value {values[index]} is not finite in float32",
            "drop the episode that holds it, or repair the recording",
            **place(index[0]),
            dimension=index[1] if len(index) > 1 else None,
        )
    return converted


def as_flags(source: str, values: np.ndarray, place: Place) -> np.ndarray:
    """Zeros and ones [T] as bool (DataError for any other value)."""
    # A file may hold booleans of any byte, which numpy would carry along.
    values = values.view(np.uint8) if values.dtype == bool else values
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        raise defect(
            source,
            f"value {values[wrong[0]]} is neither 0 nor 1",
            "store booleans, or the numbers 0 and 1",
            **place(int(wrong[0])),
        )
    return values.astype(bool)


def check_against_simulator(
    dataset: Dataset,
    observation_space: gymnasium.Space,
    action_space: gymnasium.Space,
    simulator_name: str,
) -> None:
    """Refuses a log that this simulator cannot have made.

    The spaces are those of one simulator, not batched. Raises SimulatorError if they are not
    one-dimensional boxes of floats, the action's bounded; DataError if a width differs or an action
    lies outside its bounds by more than float32 rounding.
    """
    observation_box = _flat_box(observation_space, "observation space", simulator_name)
    action_box = _flat_box(action_space, "action space", simulator_name)
    _check_bounds(action_box, simulator_name)
    widths = (
        ("observations", dataset.observation_size, observation_box),
        ("actions", dataset.action_size, action_box),
    )
    for key, width, box in widths:
        if width != box.shape[0]:
            raise defect(
                dataset.source,
                f"is {width} wide where simulator '{simulator_name}' has {box.shape[0]}",
                "name the simulator of the task that the log was recorded on",
                key=key,
                row=dataset.row_in_file(0),
            )
    _check_actions(dataset, action_box, simulator_name)


def _flat_box(space: gymnasium.Space, which: str, simulator_name: str) -> gymnasium.spaces.Box:
    is_box = isinstance(space, gymnasium.spaces.Box)
    if is_box and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
        return space
    hint = " (of a VectorEnv, pass the single_… space)" if is_box and len(space.shape) == 2 else ""
    raise SimulatorError(
        f"simulator '{simulator_name}': its {which} is {space}; supported is a one-dimensional Box of"
        f" floats{hint}. Remedy: wrap it, for example in gymnasium.wrappers.FlattenObservation."
    )


def _check_bounds(box: gymnasium.spaces.Box, simulator_name: str) -> None:
    usable = np.isfinite(box.low) & np.isfinite(box.high) & (box.low < box.high)
    if not usable.all():
        first = int(np.flatnonzero(~usable)[0])
        raise SimulatorError(
            f"simulator '{simulator_name}': its action space has bounds [{box.low[first]},"
            f" {box.high[first]}] in dimension {first}; supported are finite bounds with low < high."
            " Remedy: wrap it, for example in gymnasium.wrappers.RescaleAction."
        )


def _check_actions(dataset: Dataset, box: gymnasium.spaces.Box, simulator_name: str) -> None:
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    slack = ACTION_TOLERANCE * (high - low)
    action = np.asarray(dataset.transitions.action)
    outside = (action < low - slack) | (action > high + slack)
    if outside.any():
        row, dimension = (int(index) for index in np.argwhere(outside)[0])
        raise defect(
            dataset.source,
            f"value {action[row, dimension]} lies outside [{low[dimension]}, {high[dimension]}] of"
            f" simulator '{simulator_name}'",
            "record the actions as the simulator receives them, clipped or rescaled to its bounds",
            key="actions",
            row=dataset.row_in_file(row),
            dimension=dimension,
        )


def describe(dataset: Dataset) -> str:
    """One paragraph for people: rows, episodes and how they ended, returns, lengths."""
    returns, lengths = dataset.episode_returns, dataset.episode_lengths
    terminated = int(np.asarray(dataset.transitions.terminated).sum())
    return (
        f"{dataset.source}: {len(dataset):,} rows in {dataset.episode_count:,} episodes, of which"
        f" {terminated:,} terminated and {dataset.episode_count - terminated:,} were cut by a time limit"
        f" or the end of the recording. Observations are {dataset.observation_size} wide, actions"
        f" {dataset.action_size}. Mean return {returns.mean():,.1f} (from {returns.min():,.1f} to"
        f" {returns.max():,.1f}), mean length {lengths.mean():,.1f} (from {lengths.min():,} to"
        f" {lengths.max():,})."
    )
