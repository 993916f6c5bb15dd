"""Weights & Biases (extra ``wandb``): one of its runs for each seed, grouped by the run directory's name."""

import os
from collections.abc import Sequence
from typing import Any

from simtrust.errors import ConfigError, describe_error
from simtrust.training.callbacks import Callback, RunStart
from simtrust.training.metrics import MetricRecord
from simtrust.training.result import RunResult
from simtrust.training.trackers.common import options, require, scalars, tracking_id


class WandbTracker(Callback):
    """Logs every metric at its step, and the final returns as the summary; files lie in ``DIR/wandb``.

    ``project`` defaults to ``WANDB_PROJECT``, or ``simtrust``; ``mode`` to ``WANDB_MODE``, or ``online``.
    ``offline`` needs neither network nor account; ``wandb sync`` uploads such a run later.

    A resumed run goes on in the same run of W&B, which is append-only: of a step that is logged twice it
    keeps the first value and warns of the other. Offline, resuming begins another folder of the same id.

    Raises:
        ConfigError: wandb is not installed; from ``on_start``: W&B cannot begin, since nobody is logged in.
    """

    def __init__(self, project: str | None = None, mode: str | None = None):
        self._package = require("wandb", extra="wandb")
        self.project = project or os.environ.get("WANDB_PROJECT") or "simtrust"
        self.mode = mode
        self._runs: dict[int, Any] = {}

    def on_start(self, run: RunStart) -> None:
        wandb, name = self._package, run.directory.resolve().name
        identity = tracking_id(run.directory)
        for seed in run.seeds:
            try:
                self._runs[seed] = wandb.init(
                    project=self.project,
                    mode=self.mode,
                    dir=str(run.directory),
                    id=f"{identity}-{seed}",
                    resume="allow",
                    reinit="create_new",
                    name=f"{name} seed {seed}",
                    group=name,
                    config={**options(run.config), **run.record, "seed": seed},
                    settings=wandb.Settings(console="off"),
                )
            except wandb.Error as error:
                raise ConfigError(
                    f"W&B cannot begin ({describe_error(error)}); log in with `wandb login`, or set "
                    "WANDB_MODE=offline, which needs neither account nor network"
                ) from error

    def on_metrics(self, records: Sequence[MetricRecord]) -> None:
        for record in records:
            self._runs[record.seed].log(scalars(record), step=record.step, commit=True)

    def on_end(self, result: RunResult) -> None:
        for final in result.summary["runs"]:
            run = self._runs[final["seed"]]
            run.summary.update({f"final/{k}": v for k, v in final.items() if isinstance(v, int | float)})
            run.finish()

    def on_stop(self, error: BaseException) -> None:
        for run in self._runs.values():
            run.finish(exit_code=1)
