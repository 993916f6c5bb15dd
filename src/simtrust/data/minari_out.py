"""Writing a log as a Minari dataset, which the package ``minari`` then reads; it is not needed to write."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from simtrust.data.dataset import Dataset, defect, unknown_next_state
from simtrust.data.extras import NAMES, TIME
from simtrust.data.minari import DATA, DESCRIPTION, PREFIX, check_id, datasets_root, is_minari
from simtrust.errors import ConfigError, DataWarning

MINARI_VERSION = "0.5.0"
"""Whose layout is written; later versions read it."""
PLACEHOLDER = "simtrust_final_observation_unknown"
"""Attribute of an episode's group, and so in Minari's metadata of the episode."""
NAMESPACE = "namespace_metadata.json"


def save_minari(
    dataset: Dataset, id: str, *, root: str | os.PathLike[str] | None = None, overwrite: bool = False
) -> Path:
    """Writes a log as the Minari dataset ``id``, below ``root`` or where Minari keeps its own; its folder.

    Minari stores T + 1 observations for an episode of T steps, so an episode whose rows do not follow one
    another (a next observation is not the following row's observation) becomes several, each cut where the
    next row is missing: no observation is made up and no transition is lost. Where a terminal row's next
    observation was never recorded, the last observation stands twice, as it does in the log, and the
    episode's metadata has ``simtrust_final_observation_unknown``. A DataWarning tells of both. An end that is
    not a termination is a truncation. The spaces are unbounded boxes, since a log does not know its bounds.

    Raises ConfigError for an id that cannot be, or one that exists unless ``overwrite``; DataError for a log
    without rewards, which Minari's layout needs, and where it cannot be written.
    """
    if not dataset.has_rewards:
        remedy = "add them to the log, or write it as HDF5, npz, CSV or Parquet"
        raise defect(dataset.source, "has no rewards, and Minari's layout needs them", remedy)
    folder = minari_target(id, root=root, overwrite=overwrite)
    ends = minari_episode_ends(dataset)
    placeholders = unknown_next_state(dataset.transitions)
    _tell(f"{PREFIX}{id}", int(ends.sum()) - dataset.episode_count, int(placeholders.sum()))
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        (partial / "data").mkdir(parents=True)
        _write_episodes(partial / DATA, dataset, ends, placeholders)
        size = (partial / DATA).stat().st_size
        (partial / DESCRIPTION).write_text(json.dumps(_description(dataset, id, int(ends.sum()), size)))
        _register_namespaces(folder, len(id.split("/")) - 1)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        problem = f"cannot be written at {folder} ({error})"
        raise defect(f"{PREFIX}{id}", problem, "check the folder, its permissions and free space") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
    return folder


def minari_target(id: str, *, root: str | os.PathLike[str] | None = None, overwrite: bool = False) -> Path:
    """The folder that `save_minari` will write: to be called before long work. ConfigError as there."""
    folder = (datasets_root() if root is None else Path(root)) / check_id(id)
    if folder.exists() and not (overwrite and is_minari(folder)):
        what = "a Minari dataset" if is_minari(folder) else "something that is no Minari dataset"
        replace = "replace it with --overwrite (overwrite=True), or " if is_minari(folder) else ""
        raise ConfigError(f"{PREFIX}{id}: {what} lies at {folder}; {replace}name another version")
    return folder


def minari_episode_ends(dataset: Dataset) -> np.ndarray:
    """[T] bool: where an episode of the log ends, or its next row is missing."""
    rows = dataset.transitions
    observation, following = np.asarray(rows.observation), np.asarray(rows.next_observation)
    ends = dataset.episode_end.copy()
    ends[:-1] |= (following[:-1] != observation[1:]).any(axis=1)
    return ends


def _tell(source: str, cuts: int, placeholders: int) -> None:
    if cuts:
        warnings.warn(
            f"{source}: {cuts:,} times the next row of an episode is missing; it is cut there in two.",
            DataWarning,
            stacklevel=3,
        )
    if placeholders:
        warnings.warn(
            f"{source}: {placeholders:,} episodes terminated in a state that nobody recorded. Their last"
            f" observation stands twice, and their metadata has {PLACEHOLDER}.",
            DataWarning,
            stacklevel=3,
        )


def _write_episodes(file: Path, dataset: Dataset, ends: np.ndarray, placeholders: np.ndarray) -> None:
    observation, action, reward, following, terminated = map(np.asarray, dataset.transitions)
    terminations = terminated == 1
    arrays = {
        "actions": action,
        "rewards": reward,
        "terminations": terminations,
        "truncations": ends & ~terminations,
    }
    if dataset.time is not None:
        arrays[TIME] = dataset.time
    lasts = np.flatnonzero(ends)
    with h5py.File(file, "w", track_order=True) as container:
        for number, (start, last) in enumerate(zip(np.append(0, lasts[:-1] + 1), lasts, strict=True)):
            group = container.create_group(f"episode_{number}")
            group.attrs["id"] = number
            group.attrs["total_steps"] = last + 1 - start
            if placeholders[last]:
                group.attrs[PLACEHOLDER] = True
            rows = slice(start, last + 1)
            group["observations"] = np.concatenate([observation[rows], following[last : last + 1]])
            for key, values in arrays.items():
                group[key] = values[rows]
            # Minari cannot print an episode without it.
            group.create_group("infos")


def _description(dataset: Dataset, id: str, episodes: int, size: int) -> dict[str, Any]:
    description: dict[str, Any] = {
        "dataset_id": id,
        "minari_version": MINARI_VERSION,
        "data_format": "hdf5",
        "total_episodes": episodes,
        "total_steps": len(dataset),
        "observation_space": _unbounded_box(dataset.observation_size),
        "action_space": _unbounded_box(dataset.action_size),
        "dataset_size": round(size / 1e6, 1),
        "description": f"A log that simtrust wrote; it came from a file of SHA-256 {dataset.sha256}.",
    }
    if any(dataset.names):
        description[NAMES] = dataset.names._asdict()
    return description


def _unbounded_box(width: int) -> str:
    space = {"type": "Box", "dtype": "float32", "shape": [width]}
    return json.dumps(space | {"low": [-np.inf] * width, "high": [np.inf] * width})


def _register_namespaces(folder: Path, levels: int) -> None:
    """Minari knows a namespace by a file in its folder."""
    for namespace in folder.parents[:levels]:
        if not (namespace / NAMESPACE).exists():
            (namespace / NAMESPACE).write_text("{}")
