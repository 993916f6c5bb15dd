"""Other readings of a log: a sign, a unit or an order of its columns that its file does not tell."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from simtrust.data.log_findings import Kind

Mistake = Literal["opposite", "swapped", "degrees", "radians"]
"""Signs are opposite; two entries in each other's place; degrees for radians; radians for degrees."""
DEGREES = float(np.rad2deg(1.0))
MOST_PAIRS = 15
"""Of entries that are tried in each other's place."""


class Change(NamedTuple):
    """A mistake in some entries of observation or action."""

    mistake: Mistake
    kind: Kind
    entries: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Entries:
    """The simulator's entry e is the log's ``order[e]``, times the log's own ``factor``."""

    order: np.ndarray  # [D] int
    factor: np.ndarray  # [D] float64, by entry of the log

    @classmethod
    def same(cls, size: int) -> "Entries":
        """As logged."""
        return cls(np.arange(size), np.ones(size))

    def to_simulator(self, logged: np.ndarray) -> np.ndarray:
        """``[N, D]``, as the simulator would tell what was ``logged [N, D]``."""
        return (logged * self.factor)[:, self.order]

    def to_log(self, simulated: np.ndarray) -> np.ndarray:
        """``[N, D]``, as the log would tell what was ``simulated [N, D]``."""
        return simulated[:, np.argsort(self.order)] / self.factor

    def changed(self, mistake: Mistake, entries: tuple[int, ...]) -> "Entries":
        """The same with a mistake in some of the log's entries undone."""
        order, factor = self.order.copy(), self.factor.copy()
        if mistake == "swapped":
            places = np.flatnonzero(np.isin(order, entries))
            order[places] = order[places[::-1]]
        else:
            factor[list(entries)] *= {"opposite": -1.0, "degrees": 1 / DEGREES, "radians": DEGREES}[mistake]
        return Entries(order, factor)


@dataclass(frozen=True, eq=False)
class Reading:
    """How observations and actions of a log are handed to the simulator, and how that came about."""

    observation: Entries
    action: Entries
    changes: tuple[Change, ...] = ()

    @classmethod
    def as_logged(cls, observation_size: int, action_size: int) -> "Reading":
        """Nothing changed."""
        return cls(Entries.same(observation_size), Entries.same(action_size))

    def changed(self, change: Change) -> "Reading":
        """The same with one more mistake undone."""
        entries = getattr(self, change.kind).changed(change.mistake, change.entries)
        return replace(self, **{change.kind: entries}, changes=(*self.changes, change))


def candidates(
    poor: np.ndarray, alike: np.ndarray, widths: np.ndarray, action_size: int, *, wider: float
) -> Iterator[Change]:
    """What is worth trying where a simulator does not do what was logged.

    Args:
        poor: ``[O]`` bool: the entries of the observation whose change is not the simulator's.
        alike: ``[O, O]``: how well the logged change of one entry follows the simulated change of another.
        widths: ``[O]``: the log's range as a multiple of the simulator's; NaN where that is not known.
        action_size: entries of the action.
        wider: from which multiple on units are suspected.
    """
    for entry in range(action_size):
        yield Change("opposite", "action", (entry,))
    if action_size > 1:
        yield Change("opposite", "action", tuple(range(action_size)))
    pairs = combinations(range(action_size), 2)
    yield from (Change("swapped", "action", pair) for pair, _ in zip(pairs, range(MOST_PAIRS), strict=False))
    for entry in np.flatnonzero(poor).tolist():
        yield Change("opposite", "observation", (entry,))
    likely = sorted(
        combinations(np.flatnonzero(poor).tolist(), 2), key=lambda pair: -alike[pair] - alike[pair[::-1]]
    )
    yield from (Change("swapped", "observation", pair) for pair in likely[:MOST_PAIRS])
    units: tuple[tuple[Mistake, np.ndarray], ...]
    units = (("degrees", widths > wider), ("radians", widths < 1 / wider))
    for mistake, suspected in units:
        entries = tuple(np.flatnonzero(suspected).tolist())
        if entries:
            yield Change(mistake, "observation", entries)
        if len(entries) > 1:
            yield from (Change(mistake, "observation", (entry,)) for entry in entries)
