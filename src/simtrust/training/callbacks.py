"""What a run tells while it trains, for trackers and for whatever a user wants to do with it.

A callback only listens: no random number, batch or weight of the run depends on it. Every callback of a run
is told everything, also when another one raises. An exception in one stops the run, but first every
callback has been told and the training state is saved, so that nothing computed is lost; what is raised then
is a `CallbackError` that names the callback and the hook. (The simulator's episode is cut where that state is
saved, as at any checkpoint; so the rest differs in its bits from a run that was never stopped.)

In one process a callback sees every line of metrics once. A run resumed after a crash goes on from its last
checkpoint, and its callbacks see the lines after that again: they follow from the same state, and on CPU
are the same. A run that has finished tells nothing more, whoever resumes it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from simtrust.errors import ConfigError, SimtrustError, describe_error
from simtrust.training.config import TrainConfig
from simtrust.training.metrics import MetricRecord
from simtrust.training.result import RunResult


class CallbackError(SimtrustError, RuntimeError):
    """A callback or an evaluator of the user's raised. The message names it, and says what it raised."""


class RunStart(NamedTuple):
    """The run that begins, or goes on."""

    directory: Path
    config: TrainConfig
    step: int
    """0, or that of the checkpoint from which the run goes on."""
    record: Mapping[str, Any]
    """What ``config.json`` holds beside the configuration: command, versions, dataset_sha256 and so on."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.config.run_seeds


class Callback:
    """Inherit from this, and write those of its methods that you need; here they do nothing."""

    def on_start(self, run: RunStart) -> None:
        """Before the first step of this process; data and simulators are checked and loaded."""

    def on_metrics(self, records: Sequence[MetricRecord]) -> None:
        """After every ``rollout_steps`` steps: the lines just written to ``metrics.jsonl``, one a seed."""

    def on_checkpoint(self, step: int, directory: Path) -> None:
        """A regular checkpoint is on the disk: ``simtrust.Policy(directory)`` loads the policies of ``step``.

        ``directory`` is the run's.
        """

    def on_end(self, result: RunResult) -> None:
        """The run has finished, and ``result.json`` is written."""

    def on_stop(self, error: BaseException) -> None:
        """In place of `on_end`: the run stops early, by this error, a ``KeyboardInterrupt`` for example.

        It may be resumed, in this process or another. What is raised here is only noted on ``error``.
        """


class Callbacks(Callback):
    """Several callbacks as one.

    Raises:
        ConfigError: one of them is no `Callback`.
    """

    def __init__(self, callbacks: Sequence[Callback]):
        for index, callback in enumerate(callbacks):
            if not isinstance(callback, Callback):
                raise ConfigError(
                    f"callbacks[{index}] is {callback!r}; give an instance of a class derived from "
                    "simtrust.training.callbacks.Callback"
                )
        self.callbacks = tuple(callbacks)

    def on_start(self, run: RunStart) -> None:
        self._tell("on_start", run)

    def on_metrics(self, records: Sequence[MetricRecord]) -> None:
        self._tell("on_metrics", records)

    def on_checkpoint(self, step: int, directory: Path) -> None:
        self._tell("on_checkpoint", step, directory)

    def on_end(self, result: RunResult) -> None:
        self._tell("on_end", result)

    def on_stop(self, error: BaseException) -> None:
        for message, _ in self._call("on_stop", error):
            error.add_note(f"Also: {message}")

    def _tell(self, hook: str, *event: Any) -> None:
        """Call the hook of every callback, then raise the first error, with the others in its notes."""
        if failures := self._call(hook, *event):
            (message, cause), *others = failures
            raised = CallbackError(message)
            for other, _ in others:
                raised.add_note(f"Also: {other}")
            raise raised from cause

    def _call(self, hook: str, *event: Any) -> list[tuple[str, Exception]]:
        failures = []
        for callback in self.callbacks:
            try:
                getattr(callback, hook)(*event)
            except Exception as error:
                failures.append((f"{type(callback).__name__}.{hook} raised {describe_error(error)}", error))
        return failures
