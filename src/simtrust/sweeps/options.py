"""From options by name, as a sweep file has them, to the configuration of a run."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from simtrust.algorithms.options import AlgorithmOptions
from simtrust.errors import ConfigError
from simtrust.sweeps.names import closest
from simtrust.training.config import TrainConfig
from simtrust.training.option_types import misfit

ALGORITHM_OPTIONS = frozenset(f.name for f in fields(AlgorithmOptions))
OPTIONS = frozenset(f.name for f in fields(TrainConfig)) - {"algorithm", "out"} | ALGORITHM_OPTIONS
LISTS = ("shifts", "columns", "track", "hidden_sizes", "classifier_hidden_sizes")


def check_option(where: str, option: str, value: Any) -> None:
    """Raise `ConfigError`, beginning with ``where``, for an unknown option or a value of the wrong type."""
    if option == "out":
        raise ConfigError(f"{where}: every run has a folder of its own in that of the sweep, which is --out")
    if option not in OPTIONS:
        raise ConfigError(
            f"{where}: unknown option{closest(option, OPTIONS)}; simtrust train --help lists them, here with "
            "_ for each dash, and shifts for --shift"
        )
    kind = AlgorithmOptions if option in ALGORITHM_OPTIONS else TrainConfig
    try:
        problem = misfit(replace(kind(), **{option: value}))
    except ConfigError:
        # Of the right type, but of no use, or of none beside the defaults: the whole run will tell.
        return
    except (TypeError, OverflowError) as error:
        problem = str(error)
    if problem is not None:
        # In a grid, a list of lists is easily forgotten.
        remedy = "write it as a list, and in the grid as a list of lists" if option in LISTS else ""
        remedy = remedy or "simtrust train --help tells the types"
        raise ConfigError(f"{where} is {str(value)[:80]!r}, a value of the wrong type; {remedy}")


def to_config(where: str, options: Mapping[str, Any]) -> TrainConfig:
    """The configuration with these options, each checked by `check_option` before.

    Raises:
        ConfigError: a value, or several of them together, cannot work; it begins with ``where``.
    """
    own = {key: value for key, value in options.items() if key not in ALGORITHM_OPTIONS}
    try:
        algorithm = AlgorithmOptions(**{k: v for k, v in options.items() if k in ALGORITHM_OPTIONS})
        config = TrainConfig(**own, algorithm=algorithm)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if (problem := misfit(config)) is not None:
        raise ConfigError(f"{where}: {problem}: a value of the wrong type")
    return config
