"""How files are written: whole or not at all, and where that fails, what is wrong and what to do about it.

Until it is whole, what is written has a temporary name of ours, and is locked by who writes it. So what a
killed process leaves behind can be told from what another one is writing at this moment, and be swept.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simtrust.errors import RunError

TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.simtrust", re.DOTALL)
PROBE_BYTES = 2**16
REMEDIES = {
    errno.ENOSPC: "free some space on its disk",
    errno.EDQUOT: "free some of your disk quota",
    errno.EROFS: "have its file system mounted for writing, or choose another place",
    errno.EACCES: "get the right to write there, or choose another place",
    errno.EPERM: "get the right to write there, or choose another place",
    errno.EIO: "its disk may be failing: copy what is there to another one",
}


class StorageError(RunError, OSError):
    """A file cannot be written; nothing of it is left. The message names the file and the remedy.

    It is an OSError too, and has its ``errno``, ``strerror`` and ``filename``.
    """

    def __init__(self, path: Path, error: OSError):
        problem = error.strerror or str(error)
        remedy = REMEDIES.get(error.errno or 0, "see to it that its folder is there and can be written")
        self.message = f"{path} cannot be written: {problem}; {remedy}"
        super().__init__(self.message)
        self.errno, self.strerror, self.filename = error.errno, problem, str(path)

    def __str__(self) -> str:
        return self.message


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """What fails in here because of the disk becomes a `StorageError` about ``path``."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(path, error) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either the old one or the new one, whatever happens meanwhile.

    Raises `StorageError`; then nothing of the new one is left. What killed processes left of earlier
    attempts is removed.
    """
    with storing(path):
        sweep(path.parent, path.name)
        with _temporary_file(path) as (temporary, descriptor):
            _write(descriptor, content)
            temporary.replace(path)
        _flush_folder(path.parent)


def make_folder(path: Path) -> None:
    """A folder that is there, and stays there if the power fails. Raises `StorageError`."""
    with storing(path):
        path.mkdir(parents=True, exist_ok=True)
        _flush_folder(path.parent)


def check_writable(directory: Path) -> None:
    """Raise `StorageError` if a small file cannot be written into a directory; it is not left there."""
    with storing(directory), _temporary_file(directory / "probe") as (_, descriptor):
        _write(descriptor, bytes(PROBE_BYTES))


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target``, in which it is made ready; gone at the end, with what is still in it.

    What killed processes left of earlier attempts goes too, once this one has succeeded.
    """
    folder, descriptor = _claim(target, _new_folder)
    try:
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)
    sweep(target.parent, target.name)


def sweep(directory: Path, name: str | None = None) -> None:
    """Remove the temporary files and folders that killed processes left in a directory.

    Nothing of another name is touched, nor what a process has locked. Only those of the file ``name``, if
    given. What cannot be removed stays, and is tried again another time.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in directory.iterdir():
            match = TEMPORARY.fullmatch(path.name)
            if match and name in (None, match["name"]):
                with suppress(OSError):
                    _remove_unless_in_use(path)


@contextmanager
def _temporary_file(path: Path) -> Iterator[tuple[Path, int]]:
    """A new locked file for ``path`` and its descriptor; if it has not got its name by the end, it goes."""
    temporary, descriptor = _claim(path, _new_file)
    try:
        yield temporary, descriptor
    finally:
        os.close(descriptor)
        with suppress(OSError):
            temporary.unlink()


def _claim(path: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A new file or folder of a temporary name beside ``path``, locked, and its descriptor."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.simtrust")
        descriptor = make(temporary)
        # A file system without locks cannot be swept either, which takes the lock first.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        # Another process swept it before it was locked.
        os.close(descriptor)


def _new_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def _new_folder(path: Path) -> int:
    path.mkdir(mode=0o700)
    return os.open(path, os.O_RDONLY)


def _flush_folder(directory: Path) -> None:
    """See to it that the names in a directory outlast a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _remove_unless_in_use(path: Path) -> None:
    kind = path.lstat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISDIR(kind):
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(descriptor)
