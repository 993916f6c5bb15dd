"""The files that hold arrays by key: HDF5 and NumPy's npz, opened without executing or following anything."""

import io
import math
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from simtrust.data.checks import Column, check_memory
from simtrust.data.dataset import defect
from simtrust.data.hdf5_packing import check_packing
from simtrust.errors import SimtrustError

METADATA = "metadata"
NPY_HEADER_BYTES = 2**16
"""Of which numpy itself reads 10,000."""
ZIP_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those that numpy writes. Others are unpacked by Python without a limit on what a few bytes become."""


class Container(NamedTuple):
    """An open file of arrays."""

    names: list[str]
    column: Callable[[str], Column]
    metadata: Callable[[str], Column | None]
    """An array of the group ``metadata``, if the file has it."""


def first_bytes(source: str, file: Path) -> bytes:
    """Four bytes of a regular file that can be opened; DataError otherwise."""
    try:
        # Opening a pipe or a device could wait forever.
        if not stat.S_ISREG(file.stat().st_mode):
            raise defect(source, "is a directory or a device, not a file", "name the log file itself")
        with file.open("rb") as stream:
            return stream.read(4)
    except FileNotFoundError as error:
        raise defect(source, "no such file", "check the path") from error
    except (OSError, ValueError) as error:
        raise defect(source, f"cannot be opened ({error})", "check its name and permissions") from error


def check_inside(source: str, folder: Path, file: Path) -> None:
    """Refuses a file of a folder that is a link out of it (DataError); the folder itself may be one.

    Hugging Face's cache keeps the files of ``REPOSITORY/snapshots/REVISION`` in ``REPOSITORY/blobs``.
    """
    try:
        root, target = folder.resolve(), file.resolve()
        allowed = [root, *([root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [])]
        inside = any(target.is_relative_to(place) for place in allowed)
    except (OSError, RuntimeError) as error:
        raise defect(source, f"cannot be opened ({error})", "check its name and permissions") from error
    if not inside:
        raise defect(
            source,
            f"'{file.relative_to(folder)}' is a link that leads out of the folder, which is not followed",
            "copy the folder with what its links lead to (cp -rL)",
        )


@contextmanager
def told_as_damage(source: str, name: str | None = None) -> Iterator[None]:
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
def open_hdf5(source: str, file: Path) -> Iterator[Container]:
    with told_as_damage(source):
        container = h5py.File(file, "r")
    with container:
        with told_as_damage(source):
            names = [name for name in container if isinstance(name, str)]
        yield Container(
            names,
            lambda name: hdf5_column(source, container, name),
            lambda name: _hdf5_metadata(source, container, name),
        )


def _hdf5_metadata(source: str, container: h5py.File, name: str) -> Column | None:
    with told_as_damage(source, METADATA):
        # A linked group is passed over: its values would come from elsewhere.
        if not isinstance(container.get(METADATA, getlink=True), h5py.HardLink):
            return None
        group = container[METADATA]
        if not isinstance(group, h5py.Group) or name not in group:
            return None
    return hdf5_column(source, container, f"{METADATA}/{name}")


def hdf5_column(source: str, container: h5py.File, name: str) -> Column:
    with told_as_damage(source, name):
        link = container.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise _stored_elsewhere(source, name, f"is a {type(link).__name__} to other data")
        dataset = container[name]
        if not isinstance(dataset, h5py.Dataset):
            raise _no_array(source, name)
        stored = dataset.id.get_create_plist()
        # Before its shape, for which HDF5 opens the files that a virtual array names.
        if stored.get_layout() == h5py.h5d.VIRTUAL or stored.get_external_count():
            raise _stored_elsewhere(source, name, "keeps its values in other files")
        if dataset.shape is None:
            raise _no_array(source, name)
        shape, dtype = dataset.shape, dataset.dtype

    def read() -> np.ndarray:
        with told_as_damage(source, name):
            check_packing(source, name, dataset)
            return dataset[()]

    return Column(name, shape, dtype, read)


def _no_array(source: str, name: str) -> SimtrustError:
    return defect(source, "is not an array", "store one array per key at the top level", key=name)


def _stored_elsewhere(source: str, name: str, problem: str) -> SimtrustError:
    return defect(source, problem, "copy the values into this file", key=name)


@contextmanager
def open_npz(source: str, file: Path) -> Iterator[Container]:
    with told_as_damage(source):
        archive = zipfile.ZipFile(file)
    with archive:
        names = [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise defect(source, "is there more than once", "save the archive again", key=twice)

        def metadata(name: str) -> Column | None:
            path = f"{METADATA}/{name}"
            return _npz_column(source, archive, path) if path in names else None

        yield Container(names, lambda name: _npz_column(source, archive, name), metadata)


def _npz_column(source: str, archive: zipfile.ZipFile, name: str) -> Column:
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in ZIP_PACKINGS:
        problem = f"is packed by method {member.compress_type} of zip, where numpy stores or deflates"
        raise defect(source, problem, "save the archive with numpy.savez_compressed", key=name)
    # Before its header: a member may unpack to far more than the archive's size.
    check_memory(source, {name: member.file_size})
    with told_as_damage(source, name), archive.open(member) as stream:
        beginning = io.BytesIO(stream.read(NPY_HEADER_BYTES))
        version = np.lib.format.read_magic(beginning)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(beginning)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(beginning)
        if min(shape, default=0) < 0:
            raise ValueError(f"negative shape {shape}")
        values_bytes = member.file_size - beginning.tell()

    def read() -> np.ndarray:
        with told_as_damage(source, name), archive.open(member) as stream:
            claimed = math.prod(shape) * dtype.itemsize
            # numpy would make room for all that is claimed before it reads.
            if claimed != values_bytes:
                raise ValueError(f"{values_bytes:,} bytes where the header claims {claimed:,}")
            return np.lib.format.read_array(stream, allow_pickle=False)

    return Column(name, shape, dtype, read)
