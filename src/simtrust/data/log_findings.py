"""What may be wrong with a log that could be read: how findings are told, and what they are looked for in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from simtrust.data.column_map import read_header
from simtrust.data.dataset import Dataset

Severity = Literal["error", "warning", "note"]
"""Training cannot work; it may go wrong; it may be meant so, and is to be known."""
Kind = Literal["observation", "action"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

FEW_VALUES = 100
"""A column with fewer distinct values is taken for discrete, or coarsely quantised."""
MOST_PLACES = 5
"""Of one finding that are named."""


class Place(NamedTuple):
    """Where a finding was made; None where it concerns all rows, or no single column."""

    detail: str
    row: int | None = None
    """Of the dataset; see `Dataset.row_in_file`."""
    column: int | None = None
    """Of `Log.columns`."""


class Finding(NamedTuple):
    """Something that a practitioner would look into before training."""

    severity: Severity
    found: str
    meaning: str
    remedy: str
    places: tuple[Place, ...] = ()
    """The worst first."""


class NotChecked(NamedTuple):
    """A check could not be made."""

    reason: str


NO_REWARDS = NotChecked("the log has no rewards")
Outcome = Finding | NotChecked | None
"""None: checked, and nothing was found."""


class Column(NamedTuple):
    """An entry of the observation or the action."""

    kind: Kind
    entry: int  # its number within the observation or the action
    name: str
    unit: str  # "" where unknown
    low: float
    mean: float
    high: float
    std: float
    distinct: int  # different values

    @property
    def varies(self) -> bool:
        return self.high > self.low

    @property
    def is_discrete(self) -> bool:
        return self.distinct < FEW_VALUES


class Bounds(NamedTuple):
    """Of the simulator's actions."""

    low: np.ndarray  # [A]
    high: np.ndarray  # [A]


@dataclass(frozen=True, eq=False)
class Log:
    """A dataset with a summary of its columns: the observation's entries, then the action's."""

    dataset: Dataset
    columns: tuple[Column, ...]
    bounds: Bounds | None = None
    """None without a simulator."""

    @property
    def observations(self) -> list[int]:
        """Columns of the observation that vary."""
        return [i for i, c in enumerate(self.columns) if c.kind == "observation" and c.varies]

    @property
    def actions(self) -> list[int]:
        """Columns of the action that vary."""
        return [i for i, c in enumerate(self.columns) if c.kind == "action" and c.varies]

    def values(self, column: int) -> np.ndarray:
        """``[T]`` float32, contiguous."""
        transitions, (kind, index, *_) = self.dataset.transitions, self.columns[column]
        source = transitions.observation if kind == "observation" else transitions.action
        return np.ascontiguousarray(source[:, index])

    def next_values(self, column: int) -> np.ndarray:
        """``[T]`` float32, of an entry of the next observation."""
        return np.ascontiguousarray(self.dataset.transitions.next_observation[:, self.columns[column].entry])

    @property
    def starts(self) -> np.ndarray:
        """[episode_count] int: the first row of each episode."""
        return np.flatnonzero(self.dataset.episode_end) - self.dataset.episode_lengths + 1


class Check(NamedTuple):
    """One check: its name, the threshold in words, and the function that decides."""

    title: str
    threshold: str
    find: Callable[[Log], Outcome]


def summarised(
    dataset: Dataset, names: tuple[Sequence[str], Sequence[str]], bounds: Bounds | None = None
) -> Log:
    """The log with its columns' summaries.

    Args:
        dataset: at least one row.
        names: of the entries of observation and action, with units where the dataset holds none:
            ``"torso angle (rad)"``.
        bounds: of the simulator's actions.
    """
    transitions = dataset.transitions
    fields: tuple[tuple[Kind, np.ndarray, Sequence[str], tuple[str, ...] | None], ...] = (
        ("observation", transitions.observation, names[0], dataset.observation_units),
        ("action", transitions.action, names[1], dataset.action_units),
    )
    columns = [
        _column(kind, index, values[:, index], name, units)
        for kind, values, named, units in fields
        for index, name in enumerate(named)
    ]
    return Log(dataset, tuple(columns), bounds)


def _column(
    kind: Kind,
    index: int,
    values: np.ndarray,
    name: str,
    units: tuple[str, ...] | None,
) -> Column:
    header = read_header(name) if units is None else None
    ordered = np.sort(values)
    mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    return Column(
        kind,
        index,
        name if header is None else header.name,
        units[index] if units is not None else header.unit if header is not None else "",
        float(ordered[0]),
        float(mean),
        float(ordered[-1]),
        float(std) if ordered[-1] > ordered[0] else 0.0,
        1 + int(np.count_nonzero(ordered[1:] != ordered[:-1])),
    )


def where(log: Log, place: Place) -> str:
    """A place in words: episode, row of the file, column; rows and episodes count from 0."""
    parts = []
    if place.row is not None:
        ends = np.flatnonzero(log.dataset.episode_end)
        parts.append(f"episode {int(np.searchsorted(ends, place.row))}")
        parts.append(f"row {log.dataset.row_in_file(place.row)}")
    if place.column is not None:
        column = log.columns[place.column]
        number = f"{column.kind} {column.entry}"
        parts.append(number if column.name == number else f"{number} '{column.name}'")
    return f"{', '.join(parts)}: {place.detail}" if parts else place.detail


def runs_of(flags: np.ndarray, cut: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First indices and lengths of the stretches where ``flags [T]`` bool holds.

    A stretch also ends after each index where ``cut [T]`` bool holds.
    """
    before = np.append(False, flags[:-1] & ~cut[:-1])
    after = np.append(flags[1:], False) & ~cut
    start = np.flatnonzero(flags & ~before)
    return start, np.flatnonzero(flags & ~after) - start + 1
