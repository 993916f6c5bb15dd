"""Tables: what CSV, Parquet and files of arrays have in common once their columns are asked for by name."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np

from simtrust.data.checks import check_memory
from simtrust.data.containers import Container
from simtrust.data.dataset import defect

Kind = Literal["number", "flag", "episode"]
"""What a column must hold: finite numbers; booleans or 0 and 1; ids of episodes."""

NUMBER_BYTES = 8 + 8 + 5
"""For a value while it is read, joined, converted and checked."""
EPISODE_BYTES = 120
"""For an id of few characters, if every row had another one."""
TEXT_COPIES = 3
"""Of an id's characters: as read, as Python's text, and among those known."""


class Read(NamedTuple):
    """The columns asked for."""

    values: dict[str, np.ndarray]
    """By the file's name: [T], or [T, width] where each row holds a list; ids as codes (`EpisodeCodes`)."""
    place: Callable[[int], dict[str, Any]]
    """How `defect` shall name a row: by line or row."""
    ids: list[str]
    """The id of each code of the column of kind ``episode``."""


class Table(NamedTuple):
    """An open file whose columns have names."""

    names: list[str]
    read: Callable[[Mapping[str, Kind]], Read]
    """Reads columns by name, each without missing values (DataError otherwise)."""
    entry_names: Mapping[str, tuple[str, ...]] = {}
    """Names of the entries of columns that hold lists, where the file tells them."""


class EpisodeCodes:
    """Ids of any kind as integers, counted from 0 in order of first appearance."""

    def __init__(self) -> None:
        self._codes: dict[Any, int] = {}
        self.characters = 0
        """Of all different ids together."""

    def encode(self, ids: Iterable[Any]) -> np.ndarray:
        """[rows] int64, given in the order of the file."""
        codes, known = self._codes, len(self._codes)
        found = np.array([codes.setdefault(name, len(codes)) for name in ids], np.int64)
        self.characters += sum(len(str(name)) for name in islice(codes, known, None))
        return found

    def encode_coded(self, names: Sequence[Any], index: np.ndarray) -> np.ndarray:
        """[rows] int64: the same for ids ``names[index]``, index [rows], without making a list of them."""
        used, first = np.unique(index, return_index=True)
        used = used[np.argsort(first)]
        code = np.zeros(len(names), np.int64)
        code[used] = self.encode(names[place] for place in used.tolist())
        return code[index]

    @property
    def ids(self) -> list[str]:
        return [str(name) for name in self._codes]


def check_unique(source: str, names: Sequence[str]) -> None:
    """Refuses a table in which two columns have one name (DataError)."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise defect(source, "is the name of more than one column", "rename one of them", column=twice[0])


def check_table_memory(
    source: str, wanted: Mapping[str, Kind], numbers: Mapping[str, int], text: Mapping[str, int]
) -> None:
    """Refuses columns that do not fit into memory (DataError).

    ``numbers`` is how many values each holds, ``text`` how many bytes the ids of a column are at most.
    """
    cost = {"number": NUMBER_BYTES, "flag": NUMBER_BYTES, "episode": EPISODE_BYTES}
    ids = {name: TEXT_COPIES * text[name] for name, kind in wanted.items() if kind == "episode"}
    check_memory(
        source, {name: numbers[name] * cost[kind] + ids.get(name, 0) for name, kind in wanted.items()}
    )


def table_of(source: str, container: Container) -> Table:
    """A file of arrays as a table: each key of shape [T] or [T, width] is a column."""

    def read(wanted: Mapping[str, Kind]) -> Read:
        columns = {name: container.column(name) for name in wanted}
        first = next(iter(columns.values()))
        for name, column in columns.items():
            # Bytes of fixed length may be ids; objects would have to be unpickled.
            if column.dtype.kind not in ("biufSU" if wanted[name] == "episode" else "biuf"):
                raise defect(source, f"has type {column.dtype}", "store plain numbers", key=name)
            if len(column.shape) not in ((1, 2) if wanted[name] == "number" else (1,)):
                raise defect(source, f"has shape {column.shape}", "store one number per row", key=name)
            if column.shape[0] == 0:
                raise defect(source, "has zero rows", "record at least one transition", key=name)
            if 0 in column.shape:
                remedy = "store at least one number per row"
                raise defect(source, f"has shape {column.shape}", remedy, key=name)
            if column.shape[0] != first.shape[0]:
                raise defect(
                    source,
                    f"has {column.shape[0]} rows where '{first.name}' has {first.shape[0]}",
                    "store every key for the same rows",
                    key=name,
                )
        numbers = {name: math.prod(column.shape) for name, column in columns.items()}
        text = {name: numbers[name] * column.dtype.itemsize for name, column in columns.items()}
        check_table_memory(source, wanted, numbers, text)
        codes = EpisodeCodes()
        values = {name: column.read() for name, column in columns.items()}
        for name, kind in wanted.items():
            if kind == "episode":
                values[name] = codes.encode(values[name].tolist())
        return Read(values, lambda row: {"row": row}, codes.ids)

    return Table(container.names, read)
