"""What is written: the rows and where they are from, as D4RL's HDF5 or as a Minari dataset."""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from simtrust.data.dataset import Dataset, rows_from_columns
from simtrust.data.extras import extras_of
from simtrust.data.formats import prepare_hdf5, save_dataset
from simtrust.data.minari import PREFIX
from simtrust.data.minari_out import minari_target, save_minari
from simtrust.errors import ConfigError
from simtrust.simulators.built_in import BuiltIn
from simtrust.training.storage import check_writable

Format = Literal["d4rl", "minari"]
Metadata = dict[str, str | int | float]
BEST_SHARE = 0.1
NAME_BYTES_MAX = 220
"""File systems allow 255, and what is being written has a longer name."""


class Target(NamedTuple):
    """Where a log goes."""

    format: Format
    name: str
    """Of the file; or the id, with ``minari:`` before it."""

    @property
    def folder(self) -> Path:
        """Beside what is written; the working directory for Minari, which has a place of its own."""
        return Path(self.name).parent if self.format == "d4rl" else Path()


def make_target(format: Format, out: str | None, task: str, level: str, *, overwrite: bool) -> Target:
    """Where the log of a level of a task goes: ``out``, or a name that follows from these.

    Raises `ConfigError`, `DataError` or `StorageError` if nothing can be written there, or something is there
    already and ``overwrite`` is not given.
    """
    if out == "":
        raise ConfigError("--out is empty; name what is to be written, or leave it out")
    name, _, version = task.lower().rpartition("-")
    if format == "minari":
        id = (out or f"simtrust/{name}/{level}-v0").removeprefix(PREFIX)
        minari_target(id, overwrite=overwrite)
        return Target(format, PREFIX + id)
    file = out or f"{name}_{level.replace('-', '_')}-{version}.hdf5"
    if len(os.fsencode(Path(file).name)) > NAME_BYTES_MAX:
        raise ConfigError(f"the name of {file[:60]}... has more than {NAME_BYTES_MAX} bytes; shorten --out")
    try:
        status = Path(file).stat()
    except (FileNotFoundError, NotADirectoryError):
        status = None
    except OSError as error:
        raise ConfigError(f"{file} cannot be looked at: {error.strerror}; name another --out") from error
    if status and stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{file} is a folder; name a file with --out")
    if status and not overwrite:
        raise ConfigError(f"{file} exists already; replace it with --overwrite, or name another --out")
    path = prepare_hdf5(file)
    check_writable(path.parent)
    return Target(format, str(path))


def write_log(
    target: Target,
    columns: Mapping[str, np.ndarray],
    metadata: Metadata,
    machine: BuiltIn,
    *,
    overwrite: bool,
) -> None:
    """Write a log after all of it was checked; an older one is replaced at once.

    HDF5 holds the columns, and a group ``metadata`` with the returns and the SHA-256 of the content besides
    what is given; Minari's layout has the transitions, their names, and that sum in its description.

    Raises `ConfigError` if something has appeared there since `make_target`, unless ``overwrite`` is given.
    """
    sha256 = content_sha256(columns)
    transitions, ends, rows = rows_from_columns(target.name, columns)
    names = machine.observation_names, machine.action_names
    dataset = Dataset(transitions, ends, target.name, sha256, rows, None, *names)
    if target.format == "minari":
        save_minari(dataset, target.name.removeprefix(PREFIX), overwrite=overwrite)
        return
    returns = dataset.episode_returns
    about = {
        "episodes": dataset.episode_count,
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "best_decile_return": best_decile(returns),
        "content_sha256": sha256,
    }
    if Path(target.name).exists() and not overwrite:
        raise ConfigError(
            f"{target.name} has appeared meanwhile, and is not replaced without --overwrite; the same "
            "command with another --out beside it finds the training as it is"
        )
    save_dataset(target.name, columns, metadata={**metadata, **about, **extras_of(dataset)})


def content_sha256(columns: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the arrays by name: of each its name, type, shape, and values, in C order, little-endian."""
    total = hashlib.sha256()
    for key in sorted(columns):
        values = np.ascontiguousarray(columns[key])
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        total.update(f"{key} {values.dtype.str} {values.shape}\n".encode())
        total.update(values.data)
    return total.hexdigest()


def best_decile(returns: np.ndarray) -> float:
    """Mean of the highest tenth of episodes' returns [n], of one episode at least."""
    count = max(1, round(BEST_SHARE * len(returns)))
    return float(np.sort(returns)[-count:].mean())
