"""Metrics on disk: ``metrics.jsonl``."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from simtrust.training.storage import storing


class MetricRecord(NamedTuple):
    """One line of ``metrics.jsonl``."""

    step: int
    seed: int
    values: Mapping[str, Any]
    """By name, read-only: numbers as JSON holds them, None where unknown or not finite."""


class MetricsFile:
    """``metrics.jsonl``: one JSON object for each step and run, in order.

    It holds nothing that depends on the clock, so that equal runs write equal bytes.
    """

    def __init__(self, path: Path, keep_bytes: int):
        """Continue the file after its first ``keep_bytes`` bytes; what follows is written again."""
        self.path = path
        with storing(path):
            path.touch()
            os.truncate(path, min(keep_bytes, self.size))

    def write(
        self, step: int, seeds: Sequence[int], metrics: Mapping[str, np.ndarray | Sequence]
    ) -> list[MetricRecord]:
        """Append one line for each run, and return them; ``metrics`` are indexed by run [R, ...].

        Raises `StorageError` if not all could be written; then none is.
        """
        records, lines = [], []
        for run, seed in enumerate(seeds):
            values = {name: plain(value[run]) for name, value in sorted(metrics.items())}
            lines.append(json.dumps({"step": step, "seed": seed, **values}) + "\n")
            records.append(MetricRecord(step, seed, MappingProxyType(values)))
        length = self.size
        with storing(self.path):
            try:
                with self.path.open("ab") as file:
                    file.write("".join(lines).encode())
            except BaseException:
                os.truncate(self.path, length)
                raise
        return records

    def flush(self) -> int:
        """Bring every line to the disk, and return the file's length in bytes; or raise `StorageError`."""
        with storing(self.path), self.path.open("rb") as file:
            os.fsync(file.fileno())
        return self.size

    @property
    def size(self) -> int:
        return self.path.stat().st_size


def plain(value: Any) -> Any:
    """A number or list as JSON can hold it: NaN and infinities become null."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
