"""Metrics on disk and on screen: ``metrics.jsonl``, TensorBoard, and what shows how far a run is."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from simtrust.errors import ConfigError


class MetricsFile:
    """``metrics.jsonl``: one JSON object for each step and run, in order.

    It holds nothing that depends on the clock, so that equal runs write equal bytes.
    """

    def __init__(self, path: Path, keep_bytes: int):
        """Continue the file after its first ``keep_bytes`` bytes; what follows is written again."""
        self.path = path
        path.touch()
        with path.open("r+b") as file:
            file.truncate(min(keep_bytes, self.size))

    def write(self, step: int, seeds: Sequence[int], metrics: Mapping[str, np.ndarray | Sequence]) -> None:
        """Append one line for each run; ``metrics`` are indexed by run [R, ...]."""
        with self.path.open("a") as file:
            for run, seed in enumerate(seeds):
                values = {name: plain(value[run]) for name, value in sorted(metrics.items())}
                file.write(json.dumps({"step": step, "seed": seed, **values}) + "\n")

    def flush(self) -> int:
        """Bring every line to the disk, and return the file's length in bytes."""
        with self.path.open("rb") as file:
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


class TensorBoard:
    """The same metrics for TensorBoard, one sub-folder a run."""

    def __init__(self, directory: Path, seeds: Sequence[int], purge_step: int):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ConfigError(
                "--tensorboard needs tensorboardX: pip install 'simtrust[tensorboard]'"
            ) from None
        self.writers = [
            SummaryWriter(str(directory / f"seed-{seed}"), purge_step=purge_step + 1) for seed in seeds
        ]

    def write(self, step: int, metrics: Mapping[str, np.ndarray | Sequence]) -> None:
        for run, writer in enumerate(self.writers):
            for name, value in metrics.items():
                if np.ndim(value[run]) == 0 and value[run] is not None:
                    writer.add_scalar(name, float(value[run]), step)
            writer.flush()

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


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
