"""What a run takes up again from its last checkpoint, beside the agents."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from simtrust.data.replay import ReplayBuffer, insert
from simtrust.errors import RunError
from simtrust.training.checkpoint import CheckpointStore, Manifest


def restore_buffer(
    store: CheckpointStore, manifest: Manifest, buffer: ReplayBuffer, *, rollout_steps: int, recipe: str
) -> ReplayBuffer:
    """``buffer`` with the checkpoint's simulated rows, each where it was; ``buffer`` is given up.

    Raises `RunError` if the rows are of another width: those of a recipe that was another then.
    """
    for start, rows in store.load_rows(manifest):
        if rows.shape[-1] != buffer.rows.shape[-1]:
            raise RunError(
                f"{store.directory.parent} was begun when recipe {recipe} was another: its simulated "
                f"rows hold {rows.shape[-1]} numbers, not {buffer.rows.shape[-1]}; train anew"
            )
        # The oldest chunk kept may begin anywhere in the ring: its rows go where they were.
        position = jnp.asarray(start % buffer.capacity, jnp.int32)
        size = jnp.asarray(min(start, buffer.capacity), jnp.int32)
        buffer = ReplayBuffer(buffer.rows, size, position)
        for first in range(0, rows.shape[1], rollout_steps):
            buffer = insert(buffer, jnp.asarray(rows[:, first : first + rollout_steps]))
    return buffer


class Unfinished(NamedTuple):
    """The lines of a step whose evaluation failed: they lie behind those that the checkpoint counts."""

    metrics: dict[str, list[Any]]
    """By name and run [R]; what the failed evaluation did find is among them."""
    size: int
    """Bytes."""


def unfinished_lines(path: Path, manifest: Manifest, seeds: Sequence[int]) -> Unfinished | None:
    """The lines of the checkpoint's own step behind its end in ``metrics.jsonl``; None if there are none."""
    try:
        with path.open("rb") as file:
            file.seek(manifest.metrics_bytes)
            content = [file.readline() for _ in seeds]
        lines = [json.loads(line) for line in content]
        if [(line.pop("step"), line.pop("seed")) for line in lines] != [(manifest.step, s) for s in seeds]:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    names = {name: None for line in lines for name in line}
    metrics = {name: [line.get(name) for line in lines] for name in names}
    return Unfinished(metrics, sum(map(len, content)))
