"""Checkpoints: safetensors and a JSON manifest, written so that a crash at any moment loses nothing.

A checkpoint is complete once its manifest is there: the manifest is written last, and every file goes
to a temporary name, is flushed to the disk, and takes its name in one step. The replay buffer is kept
as immutable chunks of rows, so that a checkpoint writes only what is new.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as dump_tensors

from simtrust.errors import RunError

CHECKPOINT_FORMAT = 1
Tree = TypeVar("Tree")


class NewerFormatError(RunError):
    """A checkpoint was written by a newer version; an older one beside it would lose its progress."""


@dataclass(frozen=True)
class StoredFile:
    """A file of the checkpoint directory, and what it must contain."""

    name: str
    sha256: str


@dataclass(frozen=True)
class ReplayChunk:
    """Simulated rows [R, count, row] that were collected from row number ``start`` on."""

    file: StoredFile
    start: int
    count: int


@dataclass(frozen=True)
class Manifest:
    """What belongs to one checkpoint."""

    step: int
    state: StoredFile
    chunks: tuple[ReplayChunk, ...]
    metrics_bytes: int
    """Length of ``metrics.jsonl`` at this step: what follows was written later."""
    wall_seconds: float
    update_seconds: float
    format: int = CHECKPOINT_FORMAT


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either the old one or the new one, whatever happens meanwhile."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def tree_to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """A pytree of arrays as a flat dictionary, keyed by the path to each leaf."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf, order="C") for path, leaf in leaves}


def arrays_to_tree(arrays: dict[str, np.ndarray], like: Tree, source: Path) -> Tree:
    """The inverse of `tree_to_arrays`, checked against a tree of the same structure and shapes."""
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = []
    for path, expected in paths:
        key = jax.tree_util.keystr(path)
        found = arrays.get(key)
        if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
            have = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise RunError(f"{source}: {key} is {have}, expected {expected.dtype}{list(expected.shape)}")
        leaves.append(found)
    return jax.tree_util.tree_unflatten(structure, [jax.numpy.array(leaf) for leaf in leaves])


def write_tensors(directory: Path, name: str, arrays: dict[str, np.ndarray]) -> StoredFile:
    """Write arrays as safetensors, and say what the file must contain from now on."""
    # What is not contiguous would be stored in the order of memory, in silence.
    content = dump_tensors({key: np.ascontiguousarray(array) for key, array in arrays.items()})
    write_atomically(directory / name, content)
    return StoredFile(name, hashlib.sha256(content).hexdigest())


def read_tensors(directory: Path, file: StoredFile) -> dict[str, np.ndarray]:
    """The arrays of a file of `write_tensors`; `RunError` if it is not what was written."""
    # No manifest may point outside of its directory.
    path = directory / Path(file.name).name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise RunError(f"{path} is damaged: its SHA-256 is not the one of its manifest")
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise RunError(f"{path} is damaged: {error}") from error


class CheckpointStore:
    """The checkpoints of one run directory; the latest is kept, and the one that it went on from."""

    def __init__(self, directory: Path):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def save(
        self,
        step: int,
        state: Any,
        new_rows: np.ndarray | None,
        *,
        previous: Manifest | None,
        capacity: int,
        metrics_bytes: int,
        wall_seconds: float,
        update_seconds: float,
    ) -> Manifest:
        """Write the training state (a pytree) and the rows [R, n, row] collected since ``previous``."""
        chunks = previous.chunks if previous else ()
        if new_rows is not None and new_rows.shape[1]:
            start = chunks[-1].start + chunks[-1].count if chunks else 0
            stored = write_tensors(self.directory, f"replay-{start:012d}.safetensors", {"rows": new_rows})
            chunks = (*chunks, ReplayChunk(stored, start, new_rows.shape[1]))
            end = start + new_rows.shape[1]
            chunks = tuple(c for c in chunks if c.start + c.count > end - capacity)
        stored = write_tensors(self.directory, f"state-{step:012d}.safetensors", tree_to_arrays(state))
        manifest = Manifest(step, stored, chunks, metrics_bytes, wall_seconds, update_seconds)
        content = json.dumps(asdict(manifest), indent=1).encode()
        write_atomically(self._manifest_path(step), content)
        self._sweep([manifest] if previous is None else [manifest, previous])
        return manifest

    def latest(self) -> Manifest | None:
        """The newest checkpoint whose files are whole; None if there is none.

        Raises `RunError` if checkpoints exist but none is usable, or if a newer version wrote them.
        """
        problems: list[str] = []
        for step in reversed(self._steps()):
            try:
                manifest = self._read_manifest(step)
                for file in _files(manifest):
                    read_tensors(self.directory, file)
                return manifest
            except NewerFormatError:
                raise
            except RunError as error:
                problems.append(str(error))
        if problems:
            raise RunError("no checkpoint can be used: " + "; ".join(problems))
        return None

    def load_state(self, manifest: Manifest, like: Tree) -> Tree:
        """The training state, of the structure and shapes of ``like``."""
        path = self.directory / manifest.state.name
        return arrays_to_tree(read_tensors(self.directory, manifest.state), like, path)

    def load_rows(self, manifest: Manifest) -> Iterable[tuple[int, np.ndarray]]:
        """Every chunk of simulated rows, oldest first: its first row's number, rows [R, n, row]."""
        for chunk in manifest.chunks:
            yield chunk.start, read_tensors(self.directory, chunk.file)["rows"]

    def _manifest_path(self, step: int) -> Path:
        return self.directory / f"checkpoint-{step:012d}.json"

    def _read_manifest(self, step: int) -> Manifest:
        path = self._manifest_path(step)
        try:
            stored = json.loads(path.read_text())
            if stored["format"] > CHECKPOINT_FORMAT:
                raise NewerFormatError(f"{path} has format {stored['format']}: a newer simtrust wrote it")
            chunks = tuple(
                ReplayChunk(StoredFile(**c["file"]), int(c["start"]), int(c["count"]))
                for c in stored.pop("chunks")
            )
            return Manifest(state=StoredFile(**stored.pop("state")), chunks=chunks, **stored)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise RunError(f"{path} is damaged: {error}") from error

    def _steps(self) -> Sequence[int]:
        numbers = (path.stem.removeprefix("checkpoint-") for path in self.directory.glob("checkpoint-*.json"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def _sweep(self, kept: Sequence[Manifest]) -> None:
        """Remove what no kept checkpoint refers to, manifests first, and stale temporary files."""
        for step in set(self._steps()) - {manifest.step for manifest in kept}:
            self._manifest_path(step).unlink()
        wanted = {file.name for manifest in kept for file in _files(manifest)}
        for path in self.directory.iterdir():
            stale = path.name.endswith(".tmp") or path.suffix == ".safetensors"
            if stale and path.name not in wanted:
                path.unlink()


def _files(manifest: Manifest) -> list[StoredFile]:
    return [manifest.state, *(chunk.file for chunk in manifest.chunks)]
