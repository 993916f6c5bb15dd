"""A run directory and its copy in storage, which is complete at every moment.

The copy has the same files, so it is a run directory itself. After a checkpoint only what is new is copied:
chunks of simulated rows never change. A manifest is copied after everything that it names, and what is no
longer needed is removed after that; so whoever finds a manifest finds its checkpoint.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from simtrust.errors import RunError
from simtrust.sweeps.remote import PARTIAL, RemoteFiles
from simtrust.training.callbacks import Callback, RunStart
from simtrust.training.result import RunResult

Stamp = tuple[int, int, int]
PART = re.compile(r"[A-Za-z0-9_=+,-][A-Za-z0-9_.=+,-]*")
"""Of a name; what begins with a dot is a lock, or being written."""
NEEDED = re.compile(r"config\.json|result\.json|metrics\.jsonl|checkpoints(/.*)?|\.")
"""What a run consists of. Other files are a tracker's, say, and may vanish while they are looked at."""


class Mirror(Callback):
    """Copies ``directory`` from and to storage; ``confirm`` raises if that is no longer allowed."""

    def __init__(self, remote: RemoteFiles, directory: Path, confirm: Callable[[], None]):
        self.remote, self.directory, self.confirm = remote, directory, confirm
        self.copied: dict[str, Stamp] = {}
        """The files that are the same here and there."""

    def fetch(self) -> None:
        """Copy everything from storage, where the run was saved; remove what nobody finished writing."""
        for name in self.remote.names():
            if name.endswith(PARTIAL):
                self.confirm()
                self.remote.remove(name)
            elif _is_ours(name):
                file = self.directory / name
                self.remote.download(name, file)
                self.copied[name] = _stamp(file)

    def push(self) -> None:
        """Copy what is new to storage, and remove there what is gone here."""
        found = self._files()
        new = [name for name, stamp in found.items() if self.copied.get(name) != stamp]
        for name in sorted(new, key=_turn):
            self.confirm()
            try:
                self.remote.upload(name, self.directory / name)
            except RunError:
                if NEEDED.fullmatch(name) or (self.directory / name).exists():
                    raise
                continue
            self.copied[name] = found[name]
        for name in sorted(self.copied.keys() - found.keys(), key=_turn, reverse=True):
            self.confirm()
            self.remote.remove(name)
            del self.copied[name]

    def on_start(self, run: RunStart) -> None:
        self.push()

    def on_checkpoint(self, step: int, directory: Path) -> None:
        self.push()

    def on_end(self, result: RunResult) -> None:
        self.push()

    def on_stop(self, error: BaseException) -> None:
        # What a failing simulator led to was saved.
        self.push()

    def _files(self) -> dict[str, Stamp]:
        found = {}
        for folder, _, names in os.walk(self.directory, onerror=self._raise_unless_gone):
            for path in (Path(folder, name) for name in names):
                name = path.relative_to(self.directory).as_posix()
                try:
                    if _is_ours(name) and path.is_file() and not path.is_symlink():
                        found[name] = _stamp(path)
                except FileNotFoundError as error:
                    self._raise_unless_gone(error)
        return found

    def _raise_unless_gone(self, error: OSError) -> None:
        name = Path(error.filename).relative_to(self.directory).as_posix()
        if NEEDED.fullmatch(name) or not isinstance(error, FileNotFoundError):
            raise error


def _is_ours(name: str) -> bool:
    return all(PART.fullmatch(part) for part in name.split("/"))


def _turn(name: str) -> int:
    """What is named by another file comes before it."""
    path = PurePosixPath(name)
    if name == "result.json":
        return 3
    if path.parent.name == "checkpoints" and path.suffix == ".json":
        return 2
    return 1 if path.suffix == ".json" else 0


def _stamp(file: Path) -> Stamp:
    """Of a file's content: it changes whenever the file is written anew or gets longer."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
