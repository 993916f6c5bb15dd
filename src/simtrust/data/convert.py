"""A log written in another format, so that reading it again gives the same transitions and episodes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from simtrust.data.containers import METADATA
from simtrust.data.dataset import Dataset, columns_from_rows, defect, rows_from_columns
from simtrust.data.extras import extras_of
from simtrust.data.formats import HDF5_SUFFIXES, save_dataset
from simtrust.data.minari import PREFIX
from simtrust.data.minari_out import minari_target, save_minari
from simtrust.data.table_out import check_pyarrow, write_csv, write_parquet
from simtrust.errors import ConfigError


def check_out(out: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuses a place that `convert` cannot write to: to be called before the log is read.

    Raises ConfigError for an unknown ending, a folder, what is already there unless ``overwrite``, and an id
    that is not Minari's; DataError for Parquet without pyarrow.
    """
    name = os.fspath(out)
    if name.startswith(PREFIX):
        minari_target(name.removeprefix(PREFIX), overwrite=overwrite)
        return
    file = Path(out)
    if file.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"{name}: nothing is written under this ending; choose {', '.join(ENDINGS)}, or minari:ID"
        )
    if file.suffix.lower() == ".parquet":
        check_pyarrow(name)
    if file.is_dir():
        raise ConfigError(f"{name} is a folder; name a file")
    if file.exists() and not overwrite:
        raise ConfigError(f"{name} exists already; replace it with --overwrite, or name another file")


def convert(dataset: Dataset, out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Writes a log in the format that the ending of ``out`` names, or as ``minari:ID``; file or folder.

    Reading it again gives equal transitions, ends of episodes, time, names and units, bit for bit (Minari:
    but for what `save_minari` says of gaps). CSV has nine significant digits, which determine a float32.
    Names that a table's header cannot carry are left out of CSV and Parquet (`simtrust.data.table_out`).

    Raises ConfigError as `check_out`; DataError for a log that could not be read again, and where nothing can
    be written.
    """
    check_out(out, overwrite=overwrite)
    name = os.fspath(out)
    if name.startswith(PREFIX):
        return save_minari(dataset, name.removeprefix(PREFIX), overwrite=overwrite)
    # Minari may cut a recording that runs on, which the other formats take for rows shifted by one.
    rows_from_columns(name, columns_from_rows(dataset))
    file = Path(out)
    if file.suffix.lower() in HDF5_SUFFIXES:
        return save_dataset(file, dataset)
    with _replacing(file) as partial:
        WRITERS[file.suffix.lower()](partial, dataset)
    return file


def _write_npz(file: Path, dataset: Dataset) -> None:
    extras = {f"{METADATA}/{name}": np.asarray(value) for name, value in extras_of(dataset).items()}
    # Given a name, numpy would add an ending to it.
    with file.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **columns_from_rows(dataset), **extras)


WRITERS: dict[str, Callable[[Path, Dataset], object]] = {
    ".npz": _write_npz,
    ".csv": write_csv,
    ".parquet": write_parquet,
}
ENDINGS = (*HDF5_SUFFIXES, *WRITERS)


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """A name to write to, which takes the file's own at once when all is written."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(file)
    except OSError as error:
        problem = f"cannot be written ({error})"
        raise defect(str(file), problem, "check the folder, its permissions and free space") from error
    finally:
        with suppress(OSError):
            partial.unlink()
