"""A log in memory, and how the columns of a file become its rows and episodes."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simtrust.errors import DataError
from simtrust.types import Transitions


def defect(
    source: str,
    problem: str,
    remedy: str,
    *,
    key: str | None = None,
    column: str | None = None,
    line: int | None = None,
    row: int | None = None,
    dimension: int | None = None,
) -> DataError:
    """The error for one defect of a log, always worded alike: file, key or column, line or row, remedy.

    A table has columns, a text file lines (from 1, the header's); rows and dimensions count from 0.
    """
    place = [f"key '{key}'"] if key is not None else []
    place += [f"column '{column}'"] if column is not None else []
    place += [f"line {line}"] if line is not None else []
    place += [f"row {row}"] if row is not None else []
    place += [f"dimension {dimension}"] if dimension is not None else []
    where = f"{source}: {', '.join(place)}" if place else source
    return DataError(f"{where}: {problem}. Remedy: {remedy}.")


def select_rows(transitions: Transitions[np.ndarray], rows: np.ndarray) -> Transitions[np.ndarray]:
    """Some rows: by number, or where a mask is true."""
    return Transitions(*(np.asarray(field)[rows] for field in transitions))


def unknown_next_state(transitions: Transitions[np.ndarray]) -> np.ndarray:
    """``[T]`` bool: terminal rows that repeat their own state, since nobody recorded the next one."""
    same = (np.asarray(transitions.next_observation) == np.asarray(transitions.observation)).all(-1)
    return (np.asarray(transitions.terminated) > 0) & same


def episode_numbers(episode_end: np.ndarray) -> np.ndarray:
    """``[T]`` int: the episode of each row, counted from 0, from the rows ``[T]`` bool at which one ends."""
    return np.cumsum(episode_end) - episode_end


class DimensionNames(NamedTuple):
    """What the file calls the entries of observation and action; None where it names nothing.

    Units have "" where one entry has none.
    """

    observation_names: tuple[str, ...] | None = None
    action_names: tuple[str, ...] | None = None
    observation_units: tuple[str, ...] | None = None
    action_units: tuple[str, ...] | None = None


def is_text(name: object) -> bool:
    """Whether something is a text that UTF-8 can hold, and so every file and page; JSON may tell others."""
    return isinstance(name, str) and not any("\ud800" <= character <= "\udfff" for character in name)


def made_unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with a number after each that came before: ``x``, ``x 2``, ``x 3``."""
    found: dict[str, None] = {}
    given = set(names)
    for name in names:
        numbered = (f"{name} {number}" for number in itertools.count(2))
        free = (other for other in numbered if other not in given and other not in found)
        found[next(free) if name in found else name] = None
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A checked log of T rows.

    ``next_observation`` of a terminal row is a copy of its ``observation`` if the file does not hold
    next observations: nobody saw it. ``reward`` is NaN in every row if the file does not hold rewards.
    """

    transitions: Transitions  # numpy float32, T rows, C-contiguous
    episode_end: np.ndarray  # [T] bool: the last row of each episode, however it ended
    source: str  # the path as given
    sha256: str  # of the file's bytes
    file_row: np.ndarray | None = None  # [T] int, rows of the file; None where none was dropped
    time: np.ndarray | None = None  # [T] float64, seconds, increasing within an episode
    # Of the entries; units are "" where one has none. None where the file names nothing.
    observation_names: tuple[str, ...] | None = None
    action_names: tuple[str, ...] | None = None
    observation_units: tuple[str, ...] | None = None
    action_units: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.episode_end)

    @property
    def observation_size(self) -> int:
        return self.transitions.observation.shape[-1]

    @property
    def action_size(self) -> int:
        return self.transitions.action.shape[-1]

    @property
    def episode_count(self) -> int:
        return int(self.episode_end.sum())

    @property
    def episode_lengths(self) -> np.ndarray:
        """[episode_count] int."""
        return np.diff(np.flatnonzero(self.episode_end), prepend=-1)

    @property
    def has_rewards(self) -> bool:
        """Whether the file held rewards; without, they and the returns are NaN."""
        return not np.isnan(self.transitions.reward).all()

    @property
    def episode_returns(self) -> np.ndarray:
        """[episode_count] float64: undiscounted sums of rewards."""
        starts = np.flatnonzero(self.episode_end) - self.episode_lengths + 1
        return np.add.reduceat(np.asarray(self.transitions.reward, dtype=np.float64), starts)

    def row_in_file(self, row: int) -> int:
        """The file's number for a row of this dataset."""
        return row if self.file_row is None else int(self.file_row[row])

    @property
    def names(self) -> DimensionNames:
        return DimensionNames(*(getattr(self, field) for field in DimensionNames._fields))


def resolve_dones(columns: dict[str, np.ndarray], dones_mean: str | None) -> dict[str, np.ndarray]:
    """Replaces ``dones`` by the terminals, and where they say so the timeouts, that they stand for.

    Beside ``terminals`` they mark the timeouts, unless those are there. A terminal that is not done is one.
    """
    if "dones" not in columns:
        return columns
    dones = columns.pop("dones")
    if "terminals" in columns:
        cut = dones & ~columns["terminals"]
        # Dones that repeat the terminals know of no timeouts: the chain of observations may show them still.
        return columns if "timeouts" in columns or not cut.any() else columns | {"timeouts": cut}
    if "timeouts" in columns:
        return columns | {"terminals": dones & ~columns["timeouts"]}
    if dones_mean == "terminated":
        return columns | {"terminals": dones}
    return columns | {"terminals": np.zeros_like(dones), "timeouts": dones}


def rows_from_columns(
    source: str, columns: Mapping[str, np.ndarray]
) -> tuple[Transitions, np.ndarray, np.ndarray | None]:
    """Joins checked columns into transitions that never cross an episode's end.

    ``columns`` holds ``observations`` [T, O], ``actions`` [T, A] (float32) and ``terminals`` [T] (bool), and
    may hold ``rewards`` [T], NaN without, ``next_observations`` [T, O] (float32) and ``timeouts`` [T] (bool).
    A row that is both terminal and timeout is terminal. Returns the transitions, the episode ends
    and, if rows were dropped, the file's row of each one kept. Raises DataError if the episodes'
    ends cannot be known, or if next observations cross them.
    """
    terminated = columns["terminals"]
    episode_end = episode_ends(source, columns)
    next_observation = columns.get("next_observations")
    reward = columns.get("rewards")
    if reward is None:
        # No number that could pass for a reward.
        reward = np.full(len(terminated), np.nan, np.float32)
    file_row = None
    if next_observation is None:
        next_observation = _following_rows(columns["observations"], episode_end)
        file_row, episode_end = _drop_unseen(source, terminated, episode_end)
    else:
        _refuse_crossing(source, columns)
    rows = Transitions(
        columns["observations"],
        columns["actions"],
        reward,
        next_observation,
        terminated.astype(np.float32),
    )
    if file_row is not None:
        rows = Transitions(*(field[file_row] for field in rows))
    return Transitions(*map(np.ascontiguousarray, rows)), episode_end, file_row


def columns_from_rows(dataset: Dataset) -> dict[str, np.ndarray]:
    """The dataset under D4RL's keys, as saved; an end that is not a terminal is a timeout."""
    terminals = np.asarray(dataset.transitions.terminated) == 1
    rewards = {"rewards": np.asarray(dataset.transitions.reward)} if dataset.has_rewards else {}
    return {
        "observations": np.asarray(dataset.transitions.observation),
        "actions": np.asarray(dataset.transitions.action),
        **rewards,
        "next_observations": np.asarray(dataset.transitions.next_observation),
        "terminals": terminals,
        "timeouts": dataset.episode_end & ~terminals,
    }


def episode_ends(source: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """[T] bool, of all rows of the file: from timeouts, else from breaks in the chain of observations."""
    episode_end = columns["terminals"].copy()
    if "timeouts" in columns:
        episode_end |= columns["timeouts"]
    elif "next_observations" in columns:
        episode_end[:-1] |= (columns["next_observations"][:-1] != columns["observations"][1:]).any(axis=1)
    elif not episode_end.any():
        raise defect(
            source,
            "no row is a terminal, and without 'timeouts' or 'next_observations' the ends of"
            " fixed-length episodes cannot be seen",
            "add 'timeouts' (true on the last row of each episode that a time limit cut) or"
            " 'next_observations'",
            key="terminals",
        )
    episode_end[-1] = True
    return episode_end


def _following_rows(observations: np.ndarray, episode_end: np.ndarray) -> np.ndarray:
    """[T, O]: the following row's observation; at an episode's end the row's own, as a placeholder."""
    following = np.arange(len(observations)) + ~episode_end
    return observations[following]


def _drop_unseen(
    source: str, terminated: np.ndarray, episode_end: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    """Drops ends that are not terminal, whose next observation nobody recorded.

    Returns the rows kept (None for all) and the ends among them: the row before a dropped one
    becomes its episode's last.
    """
    dropped = episode_end & ~terminated
    if dropped.all():
        raise defect(
            source,
            "every episode is a single row whose next observation is not recorded",
            "add 'next_observations'",
            key="observations",
            row=0,
        )
    if not dropped.any():
        return None, episode_end
    before_dropped = np.append(dropped[1:], False)
    return np.flatnonzero(~dropped), (episode_end | before_dropped)[~dropped]


def _refuse_crossing(source: str, columns: Mapping[str, np.ndarray]) -> None:
    """Refuses a log whose next observations were made by shifting rows, resets included.

    Timeouts and terminals are judged each by themselves: recorders are known to mend one and not the other.
    A coincidence may be honest, so a log is refused only if it happens at *every* one of them, but for those
    that tell nothing: their next observation is also their own. Terminals may all lead to where each episode
    begins, if the task is to come home. Then all episodes begin alike, and the last step is like any other.
    """
    observations, next_observations = columns["observations"], columns["next_observations"]
    terminals = columns["terminals"]
    kinds = {"terminal": terminals}
    if "timeouts" in columns:
        kinds = {"timeout": columns["timeouts"] & ~terminals} | kinds
    for kind, ends in kinds.items():
        cuts = np.flatnonzero(ends[:-1])
        same_as_reset = (next_observations[cuts] == observations[cuts + 1]).all(axis=1)
        moved = (next_observations[cuts] != observations[cuts]).any(axis=1)
        crossing = cuts[same_as_reset & moved]
        if not len(crossing) or not same_as_reset.all():
            continue
        if kind == "terminal" and _comes_home(columns, crossing):
            continue
        raise defect(
            source,
            f"the next observation of a {kind} is the first observation of the next episode"
            f" (row {crossing[0] + 1}), here and at every {kind} before the last row",
            "delete 'next_observations', which is then rebuilt within episodes, or clear the"
            f" {kind}s if the recording ran on without a reset",
            key="next_observations",
            row=int(crossing[0]),
        )


def _comes_home(columns: Mapping[str, np.ndarray], crossing: np.ndarray) -> bool:
    """Whether all episodes begin alike, and ``crossing [N]`` rows get there by steps as others make them."""
    observations, next_observations = columns["observations"], columns["next_observations"]
    end = columns["terminals"] | columns.get("timeouts", columns["terminals"])
    starts = observations[np.append(0, np.flatnonzero(end[:-1]) + 1)]
    if (starts != starts[0]).any():
        return False
    # Other rows that lead to the beginning may be resets that no flag tells.
    other = ~end & (next_observations != starts[0]).any(axis=1)
    step = np.abs(next_observations[crossing] - observations[crossing]).max(axis=0)
    # One entry after the other, since a copy of all the log's steps may not fit into memory.
    usual = [
        np.abs(following[other] - now[other]).max(initial=0.0)
        for following, now in zip(next_observations.T, observations.T, strict=True)
    ]
    return bool((step <= usual).all())
