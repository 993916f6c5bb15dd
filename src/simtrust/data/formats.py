"""Reading and writing logs: D4RL's layout in HDF5 or npz, tables in CSV or Parquet, folders of LeRobot and
Minari.

Nothing in a file is executed or followed: no pickle, no plugin, no link that leaves the path given, no
storage outside of the file; and before any value is read, what the file claims is checked against the free
memory (`simtrust.data.checks.check_memory` has the promise).
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np

from simtrust.data.column_map import (
    ColumnMap,
    conventional_columns,
    parse_columns,
    required_fields,
    resolve_columns,
)
from simtrust.data.containers import METADATA, Container, first_bytes, open_hdf5, open_npz
from simtrust.data.csv_table import open_csv
from simtrust.data.d4rl import DonesMean, read_d4rl
from simtrust.data.dataset import Dataset, columns_from_rows, defect, episode_ends, rows_from_columns
from simtrust.data.extras import extras_of, read_extras
from simtrust.data.lerobot import files_of, is_lerobot, lerobot_columns, open_lerobot
from simtrust.data.mapped import Mapped, check_time, read_mapped
from simtrust.data.minari import load_minari, minari_folder
from simtrust.data.parquet_table import open_parquet
from simtrust.data.tables import Table, table_of
from simtrust.errors import ConfigError, SimtrustError

HDF5_SUFFIXES = (".hdf5", ".h5")
CSV_SUFFIXES = (".csv", ".tsv")
SUFFIXES = (*HDF5_SUFFIXES, ".npz", *CSV_SUFFIXES, ".parquet")


def load_dataset(
    path: str | os.PathLike[str],
    *,
    dones_mean: DonesMean | None = None,
    columns: Sequence[str] | None = None,
    rewards_required: bool = True,
) -> Dataset:
    """Reads a log: D4RL's layout in HDF5 or npz, a table in CSV or Parquet, LeRobot's or Minari's folder.

    ``minari:ID`` is a dataset that Minari has on this machine (`simtrust.data.minari`); none is downloaded.

    D4RL's keys are ``observations`` [T, O], ``actions`` [T, A], ``rewards`` and ``terminals`` [T], and if
    recorded ``next_observations`` [T, O] and ``timeouts`` [T]; other keys and groups are ignored.

    - With ``timeouts`` an episode ends at those and at terminals; without them, where the next
      observation is not the following row's; without either, at terminals only.
    - Without ``next_observations`` it is the following row's observation. The last row of an episode
      that did not terminate is dropped; that of one that did keeps its own as a placeholder.
    - A row that is both terminal and timeout is terminal.
    - ``dones`` beside ``timeouts`` are terminals where they are not timeouts, beside ``terminals`` timeouts
      where they are not terminals; beside both they are ignored. Alone they are read as ``dones_mean`` says,
      which other files ignore.

    A table has a row for each step. ``columns`` says which column is what, as texts FIELD=NAME[,NAME...] with
    the fields ``observation``, ``action``, ``reward``, ``episode``, ``terminated``, ``truncated``, ``done``,
    ``next_observation``, ``time``: ``columns=["observation=theta,theta_dot", "action=tau", "reward=r",
    "episode=ep"]``. Without it, columns are known by names such as ``observation_*``, ``action_*`` and
    ``reward``. With ``episode``, an episode ends where the id changes, by timeout unless it is terminal. A
    header ``theta [rad]`` names the unit as well. Time is in seconds unless its header says otherwise.

    A log without rewards is refused, unless ``rewards_required`` is False: then they are NaN
    (`Dataset.has_rewards`), and nothing can be trained on it. Minari's layout has them always.

    Raises DataError, naming file, key or column, row or line, and remedy, for every file that cannot be used;
    ConfigError for options that cannot. Warns with DataWarning of a table that marks no end of the task.
    """
    if dones_mean not in (None, *get_args(DonesMean)):
        raise ConfigError(f"dones_mean: '{dones_mean}' is none of {', '.join(get_args(DonesMean))}")
    required = required_fields(rewards_required=rewards_required)
    wanted = parse_columns(columns, required) if columns else None
    source, file = os.fspath(path), Path(path)
    if (minari := minari_folder(source)) is not None:
        if wanted is not None:
            raise ConfigError(f"--map: {source} is Minari's, whose layout says what is what; leave --map out")
        return load_minari(source, minari)
    folder = is_lerobot(file)
    with open_lerobot(source, file) if folder else _open(source, file) as opened:
        if isinstance(opened, Container) and wanted is None:
            return _from_container(source, opened, dones_mean, required, sha256_of(file))
        table = table_of(source, opened) if isinstance(opened, Container) else opened
        if wanted is not None:
            fields = resolve_columns(source, wanted, table.names)
        else:
            fields = (lerobot_columns if folder else conventional_columns)(source, table.names, required)
        mapped = read_mapped(source, table, fields, dones_mean)
    sha256 = sha256_of(*files_of(source, file)) if folder else sha256_of(file)
    return _from_mapped(source, fields, mapped, sha256)


def _open(source: str, file: Path) -> AbstractContextManager[Container | Table]:
    """A file opened as what it is, after all that can be wrong with the file itself."""
    beginning = first_bytes(source, file)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise defect(
            source, f"has the unknown extension '{file.suffix}'", f"store the log as {', '.join(SUFFIXES)}"
        )
    if not beginning:
        raise defect(source, "is empty (0 bytes)", "copy or record it again")
    if beginning.startswith(b"PK"):
        return open_npz(source, file)
    if h5py.is_hdf5(file):
        return open_hdf5(source, file)
    if beginning == b"PAR1":
        return open_parquet(source, [file])
    if suffix in CSV_SUFFIXES:
        return open_csv(source, file)
    raise defect(
        source,
        "is neither an HDF5 file nor an npz archive, nor Parquet",
        "store the log as one of these or as CSV, under a name that says which",
    )


def _from_container(
    source: str, container: Container, dones_mean: DonesMean | None, required: Sequence[str], sha256: str
) -> Dataset:
    columns = read_d4rl(source, container, dones_mean, required)
    names, time = read_extras(source, container, columns)
    transitions, episode_end, file_row = rows_from_columns(source, columns)
    if time is not None and file_row is not None:
        time = time[file_row]
    return Dataset(transitions, episode_end, source, sha256, file_row, time, *names)


def _from_mapped(source: str, fields: ColumnMap, mapped: Mapped, sha256: str) -> Dataset:
    columns, time = mapped.columns, mapped.time
    transitions, ends, file_row = rows_from_columns(source, columns)
    if time is not None:
        check_time(source, fields["time"][0], mapped, episode_ends(source, columns))
        time = time if file_row is None else time[file_row]
    return Dataset(transitions, ends, source, sha256, file_row, time, *mapped.names)


def sha256_of(*files: Path) -> str:
    """SHA-256 of a file's bytes; of several, of the sums of each. Raises `OSError`."""
    sums = []
    for file in files:
        with file.open("rb") as stream:
            sums.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def save_dataset(
    path: str | os.PathLike[str],
    rows: Dataset | Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str | int | float] | None = None,
) -> Path:
    """Writes rows, or arrays by D4RL key, as D4RL HDF5; a file already there is replaced at once.

    ``metadata`` goes into a group of that name, which loading ignores, save what a dataset puts there itself:
    its time, names and units. Raises DataError if the extension is not HDF5's or the file cannot be written.
    """
    file = prepare_hdf5(path)
    arrays = columns_from_rows(rows) if isinstance(rows, Dataset) else rows
    extras = extras_of(rows) if isinstance(rows, Dataset) else {}
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        _write_hdf5(partial, arrays, {**extras, **(metadata or {})})
        partial.replace(file)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return file


def prepare_hdf5(path: str | os.PathLike[str]) -> Path:
    """The file that `save_dataset` will write, its folder made: to be called before long work.

    Raises DataError if the extension is not HDF5's or the folder cannot be made.
    """
    file = Path(path)
    if file.suffix.lower() not in HDF5_SUFFIXES:
        raise defect(os.fspath(path), "is not a name for HDF5", f"end it in {' or '.join(HDF5_SUFFIXES)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    return file


def _unwritable(path: str | os.PathLike[str], error: OSError) -> SimtrustError:
    problem = f"cannot be written ({error})"
    return defect(os.fspath(path), problem, "check the folder, its permissions and free space")


def _write_hdf5(file: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    with h5py.File(file, "w") as container:
        for key, values in arrays.items():
            container.create_dataset(key, data=values, compression="gzip")
        for name, value in metadata.items():
            container[f"{METADATA}/{name}"] = value
