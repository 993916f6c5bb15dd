"""Where a sweep lies: a folder that every process sees, or storage from which runs are copied and to which.

Either holds the same: a run directory for each run, as ``simtrust train`` writes it, and beside them
``sweep.csv``, ``leases``, ``attempts`` and ``errors``.
"""

import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

from simtrust.data.json_file import BYTES_MAX
from simtrust.errors import RunError
from simtrust.sweeps.mirror import Mirror
from simtrust.sweeps.remote import RemoteFiles, at_most
from simtrust.training.callbacks import Callback
from simtrust.training.config import TrainConfig, config_from_json
from simtrust.training.result import RunResult, read_result
from simtrust.training.storage import storing, write_atomically

Confirm = Callable[[], None]
"""Raises if the run is no longer this process's to write."""
SAME_COMMAND = "the same simtrust sweep command"
"""What goes on with a run of a sweep, wherever it lies."""


class Place(Protocol):
    """Small files by name, and run directories to work in. It can be sent to other processes."""

    def read(self, name: str, most: int = BYTES_MAX) -> bytes | None:
        """What a file holds; None if there is none.

        Raises `RunError` if it holds more than so many bytes, is a pipe or a device, or cannot be read.
        """
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all (`RunError`)."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; it need not be there."""
        ...

    def at_hand(self, run: str, confirm: Confirm) -> AbstractContextManager[tuple[Path, Sequence[Callback]]]:
        """The run's directory on this machine, which is not there if the run was not begun.

        With it the callbacks that training needs, so that what it saves reaches this place.
        """
        ...


@dataclass(frozen=True)
class SharedFolder:
    """A folder that every process sees under this path: runs train in it, and nothing is copied."""

    root: str

    def __str__(self) -> str:
        return self.root

    def read(self, name: str, most: int = BYTES_MAX) -> bytes | None:
        path = Path(self.root, name)
        try:
            # Opening a pipe could wait forever; a device has no end.
            if not stat.S_ISREG(path.stat().st_mode):
                raise RunError(f"{path} cannot be read: it is a directory or a device, not a file; remove it")
            with path.open("rb") as file:
                content = file.read(most + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}") from error
        return at_most(content, most, str(path))

    def write(self, name: str, content: bytes) -> None:
        path = Path(self.root, name)
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)

    def remove(self, name: str) -> None:
        with suppress(OSError):
            Path(self.root, name).unlink()

    @contextmanager
    def at_hand(self, run: str, confirm: Confirm) -> Iterator[tuple[Path, Sequence[Callback]]]:
        yield Path(self.root, run), ()


@dataclass(frozen=True)
class RemoteFolder:
    """Any storage of fsspec: a run trains in a temporary folder, copied from here and, as it saves, back."""

    url: str

    def __str__(self) -> str:
        return self.url

    def read(self, name: str, most: int = BYTES_MAX) -> bytes | None:
        return RemoteFiles(self.url).read(name, most)

    def write(self, name: str, content: bytes) -> None:
        RemoteFiles(self.url).write(name, content)

    def remove(self, name: str) -> None:
        with suppress(RunError):
            RemoteFiles(self.url).remove(name)

    @contextmanager
    def at_hand(self, run: str, confirm: Confirm) -> Iterator[tuple[Path, Sequence[Callback]]]:
        with TemporaryDirectory(prefix="simtrust-", ignore_cleanup_errors=True) as scratch:
            mirror = Mirror(RemoteFiles(f"{self.url.rstrip('/')}/{run}"), Path(scratch, run), confirm)
            mirror.fetch()
            yield mirror.directory, (mirror,)


def place_of(out: str) -> Place:
    """The place that ``--out`` names.

    Raises:
        ConfigError: it is a URL of storage that fsspec does not know, or whose package is missing.
    """
    if "://" not in out:
        return SharedFolder(str(Path(out).absolute()))
    RemoteFiles(out)
    return RemoteFolder(out)


class Stored(NamedTuple):
    """What a place holds of a run."""

    config: TrainConfig | None
    """None if it was not begun."""
    result: RunResult | None
    """None if it has not finished."""
    sha256: str | None
    """Of the log that it was begun with."""


def stored_run(place: Place, run: str) -> Stored:
    """How far a run is. Raises `RunError` if its files are damaged."""
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        found = [
            name
            for name in ("config.json", "result.json")
            if _copied(place, f"{run}/{name}", directory / name)
        ]
        try:
            config, extra = config_from_json(directory / "config.json") if found else (None, {})
            result = read_result(directory)
        except RunError as error:
            problem = str(error).replace(f"simtrust resume {folder}", SAME_COMMAND)
            raise RunError(problem.replace(folder, f"{place}/{run}")) from error
        return Stored(config, result, extra.get("dataset_sha256"))


def _copied(place: Place, name: str, to: Path) -> bool:
    content = place.read(name)
    if content is not None:
        to.write_bytes(content)
    return content is not None
