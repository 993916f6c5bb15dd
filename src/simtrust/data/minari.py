"""Minari's datasets: a folder with ``data/main_data.hdf5``, which holds a group of arrays for each episode.

Read with h5py alone. Minari's own reader makes the environment that ``metadata.json`` names if that gives no
spaces, which imports whatever module stands there; it also follows links, and checks no size before reading.
A file of the folder may be a link only to another one of it.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from simtrust.data.checks import Column
from simtrust.data.containers import (
    METADATA,
    Container,
    check_inside,
    first_bytes,
    hdf5_column,
    told_as_damage,
)
from simtrust.data.d4rl import read_d4rl
from simtrust.data.dataset import Dataset, defect
from simtrust.data.extras import NAMES, TIME, read_extras
from simtrust.data.json_file import read_json
from simtrust.errors import ConfigError
from simtrust.types import Transitions

PREFIX = "minari:"
DATA, DESCRIPTION = "data/main_data.hdf5", "data/metadata.json"
ID = re.compile(r"(?:[-\w]{2,}/)*[-\w]+-v\d+")
PER_STEP = ("actions", "rewards", "terminations", "truncations")


def datasets_root() -> Path:
    """Where Minari keeps its datasets: ``MINARI_DATASETS_PATH``, or ``~/.minari/datasets``."""
    named = os.environ.get("MINARI_DATASETS_PATH")
    return Path(named) if named else Path.home() / ".minari" / "datasets"


def check_id(name: str) -> str:
    """The id itself; ConfigError where it is not ``(namespace/)name-vVERSION``."""
    if not ID.fullmatch(name):
        raise ConfigError(
            f"'{name}' is no id of a Minari dataset; write (NAMESPACE/)NAME-vVERSION, such as"
            " my-robot/balance-v0"
        )
    return name


def minari_folder(source: str) -> Path | None:
    """The folder of ``minari:ID``, or of a path that is laid out as Minari's; None for any other path.

    Raises ConfigError for an id that cannot be, DataError for a dataset that is not on this machine.
    """
    if not source.startswith(PREFIX):
        return Path(source) if is_minari(Path(source)) else None
    name = check_id(source.removeprefix(PREFIX))
    folder = datasets_root() / name
    if not is_minari(folder):
        remedy = (
            f"minari download {name} (nothing is downloaded unasked), or set MINARI_DATASETS_PATH to the"
            " folder of your datasets"
        )
        raise defect(source, f"there is no such dataset at {folder}", remedy)
    return folder


def is_minari(folder: Path) -> bool:
    """Whether a path is a folder laid out as Minari's."""
    return any(os.path.isfile(folder / name) for name in (DATA, DESCRIPTION))  # noqa: PTH113 (never raises)


def load_minari(source: str, folder: Path) -> Dataset:
    """Reads a dataset whose observations and actions are flat.

    An episode of T steps has T + 1 observations, so that every next observation is known. Terminations and
    truncations are taken as they are; an episode that ends in neither is cut at its last step. Names, units
    and time are those that `simtrust.data.minari_out.save_minari` wrote; the sum is ``main_data.hdf5``'s.

    Raises DataError for other storage than HDF5, observations that are not one flat array, links, shapes that
    do not fit each other or the memory, and whatever is wrong with the values.
    """
    description = _read_description(source, folder)
    stored_as = description.get("data_format", "hdf5")
    if stored_as != "hdf5":
        raise defect(
            source,
            f"stores its data as {stored_as}, and only hdf5 is read",
            "write it again with Minari's create_dataset_from_buffers(..., data_format='hdf5')",
        )
    with _open(source, folder, description) as (container, lengths):
        columns = read_d4rl(source, container, None)
        names, time = read_extras(source, container, columns)
    terminated = columns["terminals"]
    episode_end = terminated | columns["timeouts"]
    episode_end[np.cumsum(lengths) - 1] = True
    rows = Transitions(
        columns["observations"],
        columns["actions"],
        columns["rewards"],
        columns["next_observations"],
        terminated.astype(np.float32),
    )
    with (folder / DATA).open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return Dataset(rows, episode_end, source, sha256, None, time, *names)


def _read_description(source: str, folder: Path) -> Mapping[str, Any]:
    """``metadata.json``, which datasets of Minari before 0.5 do not have."""
    file = folder / DESCRIPTION
    if not file.exists():
        return {}
    check_inside(source, folder, file)
    first_bytes(str(file), file)
    with told_as_damage(str(file)):
        description = read_json(file)
        if not isinstance(description, dict):
            raise ValueError("not a JSON object")
    return description


@contextmanager
def _open(source: str, folder: Path, description: Mapping[str, Any]) -> Iterator[tuple[Container, list[int]]]:
    """All episodes as one container of D4RL's layout, and how many steps each has, at least one."""
    check_inside(source, folder, folder / DATA)
    first_bytes(str(folder / DATA), folder / DATA)
    with told_as_damage(source):
        file = h5py.File(folder / DATA, "r")
    with file:
        episodes = _episodes(source, file, description.get("total_episodes"))
        claims = [_episode_claims(source, file, name) for name in episodes]
        claims = [claim for claim in claims if claim["actions"].shape[0]]
        columns = {key: _joined(source, key, [claim[key] for claim in claims]) for key in PER_STEP}
        observations = [claim["observations"] for claim in claims]
        steps = [_part(column, slice(None, -1)) for column in observations]
        columns["observations"] = _joined(source, "observations", steps)
        following = [_part(column, slice(1, None)) for column in observations]
        columns["next_observations"] = _joined(source, "next_observations", following)
        extras = {}
        if NAMES in description:
            stored = np.asarray(np.bytes_(json.dumps(description[NAMES]).encode()))
            extras[NAMES] = Column(f"{METADATA}/{NAMES}", stored.shape, stored.dtype, lambda: stored)
        # Minari drops it where it copies episodes from one dataset to another.
        if all(TIME in claim for claim in claims):
            extras[TIME] = _joined(source, TIME, [claim[TIME] for claim in claims])
        lengths = [claim["actions"].shape[0] for claim in claims]
        yield Container(list(columns), columns.__getitem__, extras.get), lengths


def _episodes(source: str, file: h5py.File, claimed: object) -> list[str]:
    """The groups' names in the order of their numbers."""
    with told_as_damage(source):
        found = [match for name in file if (match := re.fullmatch(r"episode_(\d{1,18})", str(name)))]
    if not found:
        raise defect(source, "has no episodes", "record at least one transition")
    if isinstance(claimed, int) and len(found) != claimed:
        raise defect(
            source,
            f"holds {len(found):,} episodes where metadata.json says {claimed:,}",
            "download or record it again",
        )
    return [match[0] for match in sorted(found, key=lambda match: int(match[1]))]


def _episode_claims(source: str, file: h5py.File, name: str) -> dict[str, Column]:
    """What an episode claims to hold, each array with as many rows as the episode has steps."""
    with told_as_damage(source, name):
        linked = not isinstance(file.get(name, getlink=True), h5py.HardLink)
        group = None if linked else file[name]
    if linked:
        raise defect(source, "is a link to other data", "copy the values into this file", key=name)
    if not isinstance(group, h5py.Group):
        raise defect(source, "is not a group of arrays", "download or record it again", key=name)
    claims = {}
    with told_as_damage(source, name):
        for key in ("observations", *PER_STEP, *([TIME] if TIME in group else [])):
            link = group.get(key, getlink=True)
            if link is None:
                raise defect(source, "missing", "download or record it again", key=f"{name}/{key}")
            if isinstance(link, h5py.HardLink) and isinstance(group[key], h5py.Group):
                raise _not_flat(source, f"{name}/{key}")
            claims[key] = hdf5_column(source, file, f"{name}/{key}")
    _check_lengths(source, claims)
    return claims


def _check_lengths(source: str, claims: Mapping[str, Column]) -> None:
    for key, column in claims.items():
        if len(column.shape) == 0 or (key in ("observations", "actions") and len(column.shape) != 2):
            raise _not_flat(source, column.name, column.shape)
    steps = claims["actions"].shape[0]
    for key, column in claims.items():
        expected = steps + 1 if key == "observations" else steps
        if column.shape[0] != expected:
            raise defect(
                source,
                f"has {column.shape[0]} rows where {expected} belong to the {steps} actions",
                "store one observation more than there are actions, and the rest once for each action",
                key=column.name,
            )


def _not_flat(source: str, key: str, shape: tuple[int, ...] | None = None) -> Exception:
    found = "holds several spaces (Dict or Tuple)" if shape is None else f"has shape {shape}"
    return defect(
        source,
        f"{found}; supported are flat Box spaces, one vector for each step",
        "join the entries that a policy needs into one vector (for goals: observation and desired_goal), with"
        " gymnasium.wrappers.FlattenObservation for the simulator, and store the log so, as HDF5 or npz",
        key=key,
    )


def _part(column: Column, rows: slice) -> Column:
    shape = (column.shape[0] - 1, *column.shape[1:])
    return Column(column.name, shape, column.dtype, lambda: column.read()[rows])


def _joined(source: str, key: str, parts: Sequence[Column]) -> Column:
    """The episodes' arrays one after another; of another width or none of them, DataError."""
    if not parts:
        raise defect(source, "has zero rows", "record at least one transition")
    for part in parts:
        if part.shape[1:] != parts[0].shape[1:]:
            raise defect(
                source,
                f"has {part.shape[1:]} numbers a step where '{parts[0].name}' has {parts[0].shape[1:]}",
                "store the same entries in every episode",
                key=part.name,
            )
    with told_as_damage(source, key):
        dtype = np.result_type(*{part.dtype for part in parts})
        if key == "rewards" and dtype.kind in "iu":
            dtype = np.result_type(dtype, np.float32)
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return Column(key, shape, dtype, lambda: np.concatenate([part.read() for part in parts], dtype=dtype))
