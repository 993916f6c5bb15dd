"""Callbacks that hand a run's metrics to experiment trackers: TensorBoard, Weights & Biases, MLflow."""

from collections.abc import Iterable
from importlib import import_module

from simtrust.training.callbacks import Callback

HOMES = {
    "tensorboard": ("simtrust.training.trackers.tensorboard", "TensorBoardTracker"),
    "wandb": ("simtrust.training.trackers.wandb", "WandbTracker"),
    "mlflow": ("simtrust.training.trackers.mlflow", "MlflowTracker"),
}


def make_trackers(names: Iterable[str]) -> list[Callback]:
    """The trackers of these names, as `TrainConfig.track` has them, with their defaults.

    Raises:
        ConfigError: the package of one is not installed. The message names the extra to install.
    """
    homes = [HOMES[name] for name in dict.fromkeys(names)]
    return [getattr(import_module(module), tracker)() for module, tracker in homes]
