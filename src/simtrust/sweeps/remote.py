"""Files of any storage that fsspec knows, by URL: written whole or not at all, and every failure told."""

import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simtrust.errors import ConfigError, RunError, describe_error

PARTIAL = ".partial"
"""How what is being written ends, until it has its name."""


class RemoteFiles:
    """The files below a URL. Every thread makes its own.

    Raises:
        ConfigError: fsspec, or its package for this kind of URL, is missing.
    """

    def __init__(self, url: str):
        try:
            from fsspec.core import url_to_fs

            filesystem, root = url_to_fs(url)
        except ImportError as error:
            raise ConfigError(
                f"{url}: such storage needs a missing package ({error}); pip install 'simtrust[sweep]'"
                ", and fsspec's own for the kind of storage, such as s3fs or gcsfs"
            ) from error
        except Exception as error:
            raise ConfigError(f"{url}: no storage that fsspec can open: {describe_error(error)}") from error
        self.url, self.root = url.rstrip("/"), str(root).rstrip("/")
        self.filesystem: Any = filesystem

    def read(self, name: str, most: int) -> bytes | None:
        """What a file holds; None if there is none. Raises `RunError` if that is more than so many bytes."""
        with self._telling(name, "read"):
            self.filesystem.invalidate_cache()
            try:
                with self.filesystem.open(self._regular(name), "rb") as file:
                    content = file.read(most + 1)
            except FileNotFoundError:
                return None
        return at_most(content, most, f"{self.url}/{name}")

    def write(self, name: str, content: bytes) -> None:
        with self._telling(name, "written"), self._replacing(name) as partial:
            self.filesystem.pipe_file(partial, content)

    def upload(self, name: str, file: Path) -> None:
        with self._telling(name, "written"), self._replacing(name) as partial:
            self.filesystem.put_file(str(file), partial)

    def download(self, name: str, file: Path) -> None:
        with self._telling(name, "read"):
            file.parent.mkdir(parents=True, exist_ok=True)
            self.filesystem.get_file(self._regular(name), str(file))

    def remove(self, name: str) -> None:
        with self._telling(name, "removed"):
            try:
                self.filesystem.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def names(self) -> list[str]:
        """Every file, relative to the URL, those being written among them."""
        with self._telling("", "listed"):
            self.filesystem.invalidate_cache()
            try:
                found = self.filesystem.find(self.root)
            except FileNotFoundError:
                return []
            return sorted(path[len(self.root) + 1 :] for path in found if path.startswith(f"{self.root}/"))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _regular(self, name: str) -> str:
        """The path of what is to be read; on a disk, opening a pipe could wait forever."""
        from fsspec.implementations.local import LocalFileSystem

        path = self._path(name)
        if isinstance(self.filesystem, LocalFileSystem) and not stat.S_ISREG(Path(path).stat().st_mode):
            raise ValueError("it is a directory or a device, not a file; remove it")
        return path

    @contextmanager
    def _replacing(self, name: str) -> Iterator[str]:
        """A path to write to; what is there in the end takes the name, and no reader sees a part of it."""
        path = self._path(name)
        self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        partial = f"{path}.{secrets.token_hex(4)}{PARTIAL}"
        yield partial
        self.filesystem.mv(partial, path)

    @contextmanager
    def _telling(self, name: str, done: str) -> Iterator[None]:
        # Every kind of storage has errors of its own.
        try:
            yield
        except Exception as error:
            raise RunError(f"{self.url}/{name} cannot be {done}: {describe_error(error)}") from error


def at_most(content: bytes, most: int, name: str) -> bytes:
    """The content of a file, of which at most one byte too many was read; `RunError` if it was."""
    if len(content) > most:
        raise RunError(f"{name} cannot be read: it is larger than {most:,} bytes, which no file of ours is")
    return content
