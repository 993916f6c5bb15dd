"""Checkpoints: safetensors and a JSON manifest, written so that a crash at any moment loses nothing.

A checkpoint is complete once its manifest is there: the manifest is written last, and every file is
written atomically (`training.storage`). The replay buffer is kept as immutable chunks of rows, so that a
checkpoint writes only what is new.
"""

import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as dump_tensors

from simtrust import __version__
from simtrust.data.json_file import read_json
from simtrust.errors import RunError, describe_error
from simtrust.limits import available_memory
from simtrust.training.storage import make_folder, sweep, write_atomically

CHECKPOINT_FORMAT = 1
TENSORS = re.compile(r"(state|replay)-\d{12}\.safetensors")
ACTOR = ".actor"
"""Where the policy lies in the training state."""
Tree = TypeVar("Tree")


class NewerFormatError(RunError):
    """A checkpoint was written by a newer version; an older one beside it would lose its progress."""


@dataclass(frozen=True)
class StoredFile:
    """A file of the checkpoint directory, and what it must contain."""

    name: str
    sha256: str

    @classmethod
    def from_json(cls, stored: Any) -> "StoredFile":
        """What a manifest says; ``ValueError`` or ``TypeError`` for anything else."""
        file = cls(**stored)
        if not (isinstance(file.name, str) and isinstance(file.sha256, str)):
            raise TypeError("a name or sum is no text")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", file.name):
            raise ValueError("it names no file of ours")
        return file


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
    versions: dict[str, str] = field(default_factory=lambda: {"simtrust": __version__})


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
        status = path.stat()
        # Opening a pipe could wait forever; the content and its arrays are in memory together.
        if not stat.S_ISREG(status.st_mode) or 2 * status.st_size > available_memory():
            raise RunError(f"{path} is no file, or its {status.st_size:,} bytes do not fit into memory twice")
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise RunError(f"{path} is damaged: its SHA-256 is not the one of its manifest")
    try:
        return load_tensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        # Of its types safetensors knows more than numpy does.
        raise RunError(f"{path} is damaged: {describe_error(error)}") from error


class CheckpointStore:
    """The checkpoints of one run directory; the latest is kept, and the one that it went on from.

    Reading changes nothing on the disk: the directory is made by the first `save`.
    """

    def __init__(self, directory: Path):
        self.directory = directory

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
        """Write the training state (a pytree) and the rows [R, n, row] collected since ``previous``.

        Raises `StorageError` if that fails; then nothing of it is left, and ``previous`` is as it was.
        """
        make_folder(self.directory)
        chunks = previous.chunks if previous else ()
        state_name, written = f"state-{step:012d}.safetensors", []
        try:
            if new_rows is not None and new_rows.shape[1]:
                start = chunks[-1].start + chunks[-1].count if chunks else 0
                rows_name = f"replay-{start:012d}.safetensors"
                written.append(self.directory / rows_name)
                stored = write_tensors(self.directory, rows_name, {"rows": new_rows})
                chunks = (*chunks, ReplayChunk(stored, start, new_rows.shape[1]))
                end = start + new_rows.shape[1]
                chunks = tuple(c for c in chunks if c.start + c.count > end - capacity)
            written.append(self.directory / state_name)
            stored = write_tensors(self.directory, state_name, tree_to_arrays(state))
            manifest = Manifest(step, stored, chunks, metrics_bytes, wall_seconds, update_seconds)
            content = json.dumps(asdict(manifest), indent=1).encode()
            written.append(self._manifest_path(step))
            write_atomically(self._manifest_path(step), content)
        except BaseException:
            # What was written counts for nothing without its manifest, and may be what fills the disk.
            for path in reversed(written):
                _remove(path)
            raise
        self._sweep([manifest] if previous is None else [manifest, previous])
        return manifest

    def latest(self) -> Manifest | None:
        """The newest checkpoint whose files are whole; None if there is none.

        Raises `RunError` if checkpoints exist but none is usable, or if a newer version wrote them.
        """
        return self._newest(_files)

    def latest_state(self) -> Manifest | None:
        """The newest checkpoint whose training state is whole, for those who need no simulated rows.

        Raises `RunError` as `latest`.
        """
        return self._newest(lambda manifest: [manifest.state])

    def load_state(self, manifest: Manifest, like: Tree) -> Tree:
        """The training state, of the structure and shapes of ``like``."""
        path = self.directory / manifest.state.name
        return arrays_to_tree(read_tensors(self.directory, manifest.state), like, path)

    def load_actor(self, manifest: Manifest, like: Tree) -> Tree:
        """The policies of the training state alone, of the structure and shapes of ``like``."""
        arrays = read_tensors(self.directory, manifest.state)
        actor = {key.removeprefix(ACTOR): array for key, array in arrays.items() if key.startswith(ACTOR)}
        return arrays_to_tree(actor, like, self.directory / manifest.state.name)

    def newest_actor(self, like: Tree) -> tuple[Manifest, Tree] | None:
        """The newest checkpoint and its policies, also while a run goes on that sweeps older ones."""
        while (manifest := self.latest_state()) is not None:
            try:
                return manifest, self.load_actor(manifest, like)
            except RunError:
                if manifest.step in self._steps():
                    raise
        return None

    def load_rows(self, manifest: Manifest) -> Iterable[tuple[int, np.ndarray]]:
        """Every chunk of simulated rows, oldest first: its first row's number, rows [R, n, row]."""
        for chunk in manifest.chunks:
            rows = read_tensors(self.directory, chunk.file).get("rows")
            if rows is None or rows.ndim != 3 or rows.shape[1] != chunk.count:
                path = self.directory / chunk.file.name
                raise RunError(f"{path} is damaged: it does not hold {chunk.count} rows")
            yield chunk.start, rows

    def _newest(self, needed: Callable[[Manifest], Iterable[StoredFile]]) -> Manifest | None:
        while True:
            steps, problems = self._steps(), []
            for step in reversed(steps):
                try:
                    manifest = self._read_manifest(step)
                    for file in needed(manifest):
                        read_tensors(self.directory, file)
                    return manifest
                except NewerFormatError:
                    raise
                except RunError as error:
                    problems.append(str(error))
            if not problems:
                return None
            if self._steps() == steps:
                raise RunError("no checkpoint can be used: " + "; ".join(problems))
            # A run saved meanwhile, and swept what was about to be read.

    def _manifest_path(self, step: int) -> Path:
        return self.directory / f"checkpoint-{step:012d}.json"

    def _read_manifest(self, step: int) -> Manifest:
        path = self._manifest_path(step)
        try:
            stored = read_json(path)
            if stored["format"] > CHECKPOINT_FORMAT:
                writer = stored.get("versions", {}).get("simtrust", "unknown")
                raise NewerFormatError(
                    f"{path} has format {stored['format']}: a newer simtrust wrote it; "
                    f"use the version that wrote it: {writer}"
                )
            chunks = tuple(
                ReplayChunk(StoredFile.from_json(c["file"]), c["start"], c["count"])
                for c in stored.pop("chunks")
            )
            manifest = Manifest(state=StoredFile.from_json(stored.pop("state")), chunks=chunks, **stored)
            counts = [n for c in chunks for n in (c.start, c.count)]
            for number in (manifest.step, manifest.metrics_bytes, *counts):
                if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**53:
                    raise ValueError(f"{number!r} is no count")
            for seconds in (manifest.wall_seconds, manifest.update_seconds):
                if not 0 <= float(seconds) < float("inf"):
                    raise ValueError(f"{seconds!r} is no time")
            return manifest
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
            raise RunError(f"{path} is damaged: {error}") from error

    def _steps(self) -> Sequence[int]:
        numbers = (path.stem.removeprefix("checkpoint-") for path in self.directory.glob("checkpoint-*.json"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def _sweep(self, kept: Sequence[Manifest]) -> None:
        """Remove what no kept checkpoint refers to, manifests first, and what killed processes left.

        What cannot be removed now stays for the next time: the new checkpoint is complete.
        """
        for step in set(self._steps()) - {manifest.step for manifest in kept}:
            _remove(self._manifest_path(step))
        wanted = {file.name for manifest in kept for file in _files(manifest)}
        for path in self.directory.iterdir():
            if TENSORS.fullmatch(path.name) and path.name not in wanted:
                _remove(path)
        sweep(self.directory)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _files(manifest: Manifest) -> list[StoredFile]:
    return [manifest.state, *(chunk.file for chunk in manifest.chunks)]
