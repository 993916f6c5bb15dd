"""What shows how far a run is, or several at a time: live bars on a terminal, plain lines elsewhere."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class ProgressDisplay(Protocol):
    """Shows how far a run is."""

    def __enter__(self) -> "ProgressDisplay": ...
    def __exit__(self, *error: object) -> None: ...
    def advance(self, step: int, steps_per_second: float, last_return: str) -> None: ...


MakeDisplay = Callable[[int, int], ProgressDisplay]
"""Called with how many steps a run has, and at which it starts."""


class Row:
    """A line of a live display on a terminal: a bar, steps/s, time left and the last return."""

    def __init__(self, progress: Progress, title: str, steps: int, start: int):
        self.progress = progress
        self.task = progress.add_task(title, total=steps, completed=start, rate="compiling", last_return="")

    def __enter__(self) -> "Row":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def advance(self, step: int, steps_per_second: float, last_return: str) -> None:
        rate = f"{steps_per_second:,.0f} steps/s"
        self.progress.update(self.task, completed=step, rate=rate, last_return=last_return)


class Bar(Row):
    """A live display of one line."""

    def __init__(self, title: str, steps: int, start: int, console: Console):
        super().__init__(_live_display(console), title, steps, start)

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()


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


@contextmanager
def rows_of_progress(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], ProgressDisplay]]:
    """What shows several runs at a time: one live display with a line for each, else as `make_progress`."""
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        yield partial(make_progress, quiet=quiet)
        return
    with _live_display(console) as progress:
        yield partial(Row, progress)


def _live_display(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps  {task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last_return]}"),
        console=console,
    )
