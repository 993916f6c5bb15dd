"""Reading and writing logs: D4RL's layout, in HDF5 or NumPy's npz.

Nothing in a file is executed or followed: no pickle, no link, no storage outside of the file; and
shapes are checked against the memory available before any value is read.
"""

import difflib
import hashlib
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import h5py
import numpy as np

from simtrust.data.checks import Column, check_claims, check_memory, read_column
from simtrust.data.dataset import Dataset, columns_from_rows, defect, resolve_dones, rows_from_columns
from simtrust.errors import ConfigError, SimtrustError

DonesMean = Literal["terminated", "timeout"]

# Our key, D4RL's spelling first, then the others in use.
SPELLINGS = {
    "observations": ("observations", "observation", "obs"),
    "actions": ("actions", "action", "acts"),
    "rewards": ("rewards", "reward"),
    "next_observations": ("next_observations", "next_observation", "next_obs"),
    "terminals": ("terminals", "terminal", "terminations", "termination", "terminated"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncation", "truncated"),
    "dones": ("dones", "done"),
}
HDF5_SUFFIXES = (".hdf5", ".h5")
SUFFIXES = (*HDF5_SUFFIXES, ".npz")


def load_dataset(path: str | os.PathLike[str], *, dones_mean: DonesMean | None = None) -> Dataset:
    """Reads a log in D4RL's layout from HDF5 or npz, told apart by content.

    Keys: ``observations`` [T, O], ``actions`` [T, A], ``rewards`` and ``terminals`` [T], and if
    recorded ``next_observations`` [T, O] and ``timeouts`` [T]; other keys and groups are ignored.

    - With ``timeouts`` an episode ends at those and at terminals; without them, where the next
      observation is not the following row's; without either, at terminals only.
    - Without ``next_observations`` it is the following row's observation. The last row of an episode
      that did not terminate is dropped; that of one that did keeps its own as a placeholder.
    - A row that is both terminal and timeout is terminal.
    - ``dones`` beside ``timeouts`` are terminals where they are not timeouts. Alone they are read as
      ``dones_mean`` says, which other files ignore.

    Raises DataError, naming file, key, row and remedy, for every file that cannot be used.
    """
    if dones_mean not in (None, *get_args(DonesMean)):
        raise ConfigError(f"dones_mean: '{dones_mean}' is none of {', '.join(get_args(DonesMean))}")
    source, file = os.fspath(path), Path(path)
    open_container = _container_of(source, file)
    with open_container(source, file) as container:
        names = _names_by_key(source, container.names, dones_mean)
        claims = {key: container.column(name) for key, name in names.items()}
        check_claims(source, claims)
        columns = {key: read_column(source, key, claim) for key, claim in claims.items()}
    transitions, episode_end, file_row = rows_from_columns(source, resolve_dones(columns, dones_mean))
    return Dataset(transitions, episode_end, source, _sha256(file), file_row)


class _Container(NamedTuple):
    names: list[str]
    column: Callable[[str], Column]


def _container_of(source: str, file: Path) -> Callable[[str, Path], AbstractContextManager[_Container]]:
    """The reader for a file's content, after all that can be wrong with the file itself."""
    beginning = _first_bytes(source, file)
    if file.suffix.lower() not in SUFFIXES:
        raise defect(
            source, f"has the unknown extension '{file.suffix}'", f"store the log as {', '.join(SUFFIXES)}"
        )
    if not beginning:
        raise defect(source, "is empty (0 bytes)", "copy or record it again")
    if beginning.startswith(b"PK"):
        return _open_npz
    if h5py.is_hdf5(file):
        return _open_hdf5
    raise defect(
        source, "is neither an HDF5 file nor an npz archive", "store the log as HDF5 or with numpy.savez"
    )


def _first_bytes(source: str, file: Path) -> bytes:
    try:
        # Opening a pipe or a device could wait forever.
        if not stat.S_ISREG(file.stat().st_mode):
            raise defect(source, "is a directory or a device, not a file", "name the log file itself")
        with file.open("rb") as stream:
            return stream.read(4)
    except FileNotFoundError as error:
        raise defect(source, "no such file", "check the path") from error
    except OSError as error:
        raise defect(source, f"cannot be opened ({error})", "check its name and permissions") from error


@contextmanager
def _told_as_damage(source: str, name: str | None = None) -> Iterator[None]:
    """HDF5, zip and zlib raise a dozen kinds of error for a damaged file; the user needs one."""
    try:
        yield
    except SimtrustError:
        raise
    except Exception as error:
        raise defect(
            source,
            f"is damaged or cut short ({type(error).__name__}: {error})",
            "copy or record the file again",
            key=name,
        ) from error


@contextmanager
def _open_hdf5(source: str, file: Path) -> Iterator[_Container]:
    with _told_as_damage(source):
        container = h5py.File(file, "r")
    with container:
        with _told_as_damage(source):
            names = [name for name in container if isinstance(name, str)]
        yield _Container(names, lambda name: _hdf5_column(source, container, name))


def _hdf5_column(source: str, container: h5py.File, name: str) -> Column:
    with _told_as_damage(source, name):
        link = container.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise _stored_elsewhere(source, name, f"is a {type(link).__name__} to other data")
        dataset = container[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            raise defect(source, "is not an array", "store one array per key at the top level", key=name)
        if dataset.is_virtual or dataset.external:
            raise _stored_elsewhere(source, name, "keeps its values in other files")
        shape, dtype = dataset.shape, dataset.dtype

    def read() -> np.ndarray:
        with _told_as_damage(source, name):
            return dataset[()]

    return Column(name, shape, dtype, read)


def _stored_elsewhere(source: str, name: str, problem: str) -> SimtrustError:
    return defect(source, problem, "copy the values into this file", key=name)


@contextmanager
def _open_npz(source: str, file: Path) -> Iterator[_Container]:
    with _told_as_damage(source):
        archive = zipfile.ZipFile(file)
    with archive:
        names = [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]
        yield _Container(names, lambda name: _npz_column(source, archive, name))


def _npz_column(source: str, archive: zipfile.ZipFile, name: str) -> Column:
    member = f"{name}.npy"
    # Before its header: a member may unpack to far more than the archive's size.
    check_memory(source, {name: archive.getinfo(member).file_size})
    with _told_as_damage(source, name), archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        if min(shape, default=0) < 0:
            raise ValueError(f"negative shape {shape}")

    def read() -> np.ndarray:
        with _told_as_damage(source, name), archive.open(member) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    return Column(name, shape, dtype, read)


def _names_by_key(source: str, present: list[str], dones_mean: DonesMean | None) -> dict[str, str]:
    """The file's spelling of each key to be read; raises DataError for keys missing or unclear."""
    names: dict[str, str] = {}
    for key, spellings in SPELLINGS.items():
        found = [name for name in spellings if name in present]
        if len(found) > 1:
            raise defect(source, f"'{found[1]}' means the same", "keep one of the two", key=found[0])
        if found:
            names[key] = found[0]
    for key in ("observations", "actions", "rewards"):
        if key not in names:
            raise _missing(source, key, present, names)
    if "terminals" in names:
        names.pop("dones", None)
    elif "dones" not in names:
        raise _missing(source, "terminals", present, names)
    elif "timeouts" not in names and dones_mean is None:
        raise defect(
            source,
            "does not say whether an episode terminated or was cut by a time limit",
            "pass dones_mean= ('terminated' or 'timeout'; --dones-mean on the command line), or store"
            " 'terminals' and 'timeouts'",
            key=names["dones"],
        )
    _refuse_misspelt(source, present, names)
    return names


def _missing(source: str, key: str, present: list[str], names: Mapping[str, str]) -> SimtrustError:
    close = _close_to(key, set(present) - set(names.values()), cutoff=0.6)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    remedy = "store 'terminals', all false if the task never ends" if key == "terminals" else f"store '{key}'"
    return defect(
        source, f"missing; the file has {', '.join(sorted(present)) or 'none'}{hint}", remedy, key=key
    )


def _refuse_misspelt(source: str, present: list[str], names: Mapping[str, str]) -> None:
    """A misspelt optional key must not pass for an absent one: episodes would run together."""
    for key in ("next_observations", "timeouts"):
        close = [] if key in names else _close_to(key, set(present) - set(names.values()), cutoff=0.85)
        if close:
            raise defect(source, f"looks like a misspelt '{key}'", f"rename it to '{key}'", key=close[0])


def _close_to(key: str, present: Iterable[str], cutoff: float) -> list[str]:
    close = (difflib.get_close_matches(name, sorted(present), 1, cutoff) for name in SPELLINGS[key])
    return [matches[0] for matches in close if matches]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save_dataset(
    path: str | os.PathLike[str],
    rows: Dataset | Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str | int | float] | None = None,
) -> Path:
    """Writes rows, or arrays by D4RL key, as D4RL HDF5; a file already there is replaced at once.

    ``metadata`` goes into a group of that name, which loading ignores. Raises DataError if the
    extension is not HDF5's or the file cannot be written.
    """
    file = prepare_hdf5(path)
    arrays = columns_from_rows(rows) if isinstance(rows, Dataset) else rows
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        _write_hdf5(partial, arrays, metadata or {})
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


def _write_hdf5(
    file: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str | int | float]
) -> None:
    with h5py.File(file, "w") as container:
        for key, values in arrays.items():
            container.create_dataset(key, data=values, compression="gzip")
        for name, value in metadata.items():
            container[f"metadata/{name}"] = value
