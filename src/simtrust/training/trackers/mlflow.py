"""MLflow (extra ``mlflow``): one of its runs for each seed, in one experiment."""

import os
import time
from collections.abc import Sequence
from typing import Any

from simtrust.training.callbacks import Callback, RunStart
from simtrust.training.metrics import MetricRecord
from simtrust.training.result import RunResult
from simtrust.training.trackers.common import options, require, scalars, tracking_id

TAG = "simtrust_run"
LONGEST = 500
"""Characters of a parameter's value that every version of MLflow takes."""


class MlflowTracker(Callback):
    """Logs the options as parameters, and every metric at its step.

    ``tracking_uri`` defaults to ``MLFLOW_TRACKING_URI``, or a file ``DIR/mlflow.db``, without any server;
    ``experiment`` to ``MLFLOW_EXPERIMENT_NAME``, or ``simtrust``.

    A resumed run goes on in the same run of MLflow, found by a tag. Of a step that is logged twice MLflow
    keeps both values in the metric's history; the later one counts as the metric's latest.

    Raises:
        ConfigError: mlflow is not installed.
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str | None = None):
        self._package = require("mlflow", extra="mlflow")
        self.tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "simtrust"
        self._client: Any = None
        self._runs: dict[int, str] = {}

    def on_start(self, run: RunStart) -> None:
        uri = self.tracking_uri or f"sqlite:///{run.directory.resolve() / 'mlflow.db'}"
        self._client = self._package.MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(self.experiment)
        place = found.experiment_id if found else self._client.create_experiment(self.experiment)
        identity, name = tracking_id(run.directory), run.directory.resolve().name
        for seed in run.seeds:
            tag = f"{identity}-{seed}"
            earlier = self._client.search_runs([place], filter_string=f"tags.{TAG} = '{tag}'", max_results=1)
            if earlier:
                self._runs[seed] = earlier[0].info.run_id
                self._client.update_run(self._runs[seed], status="RUNNING")
                continue
            begun = self._client.create_run(place, tags={TAG: tag}, run_name=f"{name} seed {seed}")
            self._runs[seed] = begun.info.run_id
            for option, value in {**options(run.config), "seed": seed}.items():
                self._client.log_param(begun.info.run_id, option, str(value)[:LONGEST])

    def on_metrics(self, records: Sequence[MetricRecord]) -> None:
        metric, now = self._package.entities.Metric, int(time.time() * 1_000)
        for record in records:
            metrics = [metric(name, value, now, record.step) for name, value in scalars(record).items()]
            self._client.log_batch(self._runs[record.seed], metrics=metrics)

    def on_end(self, result: RunResult) -> None:
        self._terminate("FINISHED")

    def on_stop(self, error: BaseException) -> None:
        self._terminate("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")

    def _terminate(self, status: str) -> None:
        for run in self._runs.values():
            self._client.set_terminated(run, status=status)
