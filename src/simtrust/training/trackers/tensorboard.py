"""TensorBoard files in ``DIR/tensorboard``, one sub-folder a seed (extra ``tensorboard``)."""

from collections.abc import Sequence

from simtrust.training.callbacks import Callback, RunStart
from simtrust.training.metrics import MetricRecord
from simtrust.training.result import RunResult
from simtrust.training.trackers.common import require, scalars


class TensorBoardTracker(Callback):
    """Writes every metric as a scalar.

    A resumed run begins another event file, and tells TensorBoard to drop what came after its checkpoint.

    Raises:
        ConfigError: tensorboardX is not installed.
    """

    def __init__(self) -> None:
        self._package = require("tensorboardX", extra="tensorboard")
        self._writers = {}

    def on_start(self, run: RunStart) -> None:
        for seed in run.seeds:
            folder = run.directory / "tensorboard" / f"seed-{seed}"
            self._writers[seed] = self._package.SummaryWriter(str(folder), purge_step=run.step + 1)

    def on_metrics(self, records: Sequence[MetricRecord]) -> None:
        for record in records:
            writer = self._writers[record.seed]
            for name, value in scalars(record).items():
                writer.add_scalar(name, value, record.step)
            writer.flush()

    def on_end(self, result: RunResult) -> None:
        self._close()

    def on_stop(self, error: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
