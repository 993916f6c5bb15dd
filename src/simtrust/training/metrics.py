"""Metrics on disk and on screen: ``metrics.jsonl``, and what shows how far a run is."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

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


class ProgressDisplay(Protocol):
    """Shows how far a run is."""

    def __enter__(self) -> "ProgressDisplay": ...
    def __exit__(self, *error: object) -> None: ...
    def advance(self, step: int, steps_per_second: float, last_return: str) -> None: ...


class Bar:
    """A live bar with steps/s, time left and the last return, for terminals."""

    def __init__(self, title: str, steps: int, start: int, console: Console):
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps  {task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[last_return]}"),
            console=console,
        )
        self.task = self.progress.add_task(
            title, total=steps, completed=start, rate="compiling", last_return=""
        )

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def advance(self, step: int, steps_per_second: float, last_return: str) -> None:
        rate = f"{steps_per_second:,.0f} steps/s"
        self.progress.update(self.task, completed=step, rate=rate, last_return=last_return)


class Lines:
    """One plain line now and then, for logs and pipes."""

    def __init__(self, title: str, steps: int, start: int, console: Console):
        self.title, self.steps, self.console = title, steps, console
        self.interval = max(steps // 20, 1)
        self.printed = start

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def advance(self, step: int, steps_per_second: float, last_return: str) -> None:
        if step - self.printed < self.interval and step < self.steps:
            return
        self.printed = step
        left = (self.steps - step) / steps_per_second if steps_per_second > 0 else math.inf
        self.console.print(
            f"{self.title}: {step:,}/{self.steps:,} steps, {steps_per_second:,.0f} steps/s, "
            f"{left:,.0f} s left, {last_return or 'no return yet'}",
            highlight=False,
            soft_wrap=True,
        )


def make_progress(title: str, steps: int, start: int, *, quiet: bool = False) -> ProgressDisplay:
    """A bar on a terminal, plain lines elsewhere, nothing at all if ``quiet``."""
    console = Console(stderr=True, quiet=quiet)
    return (Bar if console.is_terminal else Lines)(title, steps, start, console)
