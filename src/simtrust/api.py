"""Training from Python: keyword arguments instead of nested configuration."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar, cast, get_args

from simtrust.algorithms.options import AlgorithmOptions
from simtrust.errors import ConfigError
from simtrust.evaluation.evaluators import Evaluator
from simtrust.simulators.factories import simulator_name
from simtrust.training.callbacks import Callback
from simtrust.training.config import RecipeName, TrainConfig
from simtrust.training.loop import train as train_config
from simtrust.training.option_types import misfit
from simtrust.training.result import RunResult

T = TypeVar("T")
TRAIN_OPTIONS = {f.name for f in fields(TrainConfig)} - {"recipe", "algorithm"}
ALGORITHM_OPTIONS = {f.name for f in fields(AlgorithmOptions)}


def train(
    recipe: str = "trust",
    *,
    quiet: bool = False,
    callbacks: Sequence[Callback] = (),
    evaluators: Mapping[str, Evaluator] | None = None,
    **options: Any,
) -> RunResult:
    """Train ``recipe``; every option of ``simtrust train --help`` is a keyword argument.

    ``train("h2o", real="log.hdf5", sim="Ant-v5", shifts=["gravity=2"], seeds=5, beta=0.02)``. Dashes
    become underscores, a repeated ``--shift`` becomes the list ``shifts``, and ``sim`` and ``real_env`` may
    be the functions that make the environments instead of their names. ``quiet`` shows no progress.
    ``callbacks`` are told of metrics and checkpoints as they come (`simtrust.training.callbacks`);
    ``evaluators`` are functions of a policy, by name, whose values join the metrics at every evaluation
    (`simtrust.training.judging`). Raises `ConfigError` for an unknown option or a value of the wrong type,
    and whatever `simtrust.training.loop.train` raises.
    """
    config, command = configured(recipe, **options)
    return train_config(config, quiet=quiet, command=command, callbacks=callbacks, evaluators=evaluators)


def configured(recipe: str, **options: Any) -> tuple[TrainConfig, str]:
    """The configuration that these arguments of `train` stand for, and the call itself, for the record."""
    name = recipe.replace("-", "_")
    if name not in get_args(RecipeName):
        raise ConfigError(f"unknown recipe {recipe!r}; choose one of {', '.join(get_args(RecipeName))}")
    for option in options:
        if option not in TRAIN_OPTIONS | ALGORITHM_OPTIONS:
            close = difflib.get_close_matches(option, TRAIN_OPTIONS | ALGORITHM_OPTIONS, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"train() has no option {option!r}{hint}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    values |= {k: str(values[k]) for k in ("real", "out") if values.get(k) is not None}
    values |= {k: simulator_name(values[k]) for k in ("sim", "real_env") if callable(values.get(k))}
    algorithm = _built(AlgorithmOptions, {k: v for k, v in values.items() if k in ALGORITHM_OPTIONS})
    own = {k: v for k, v in values.items() if k in TRAIN_OPTIONS}
    config = _built(partial(TrainConfig, recipe=cast(RecipeName, name), algorithm=algorithm), own)
    if (problem := misfit(config)) is not None:
        raise ConfigError(f"{problem}: a value of the wrong type; simtrust train --help tells the types")
    arguments = ", ".join([repr(recipe), *(f"{k}={values[k]!r}" for k in options)])
    return config, f"simtrust.train({arguments})"


def _built(kind: Callable[..., T], options: Mapping[str, Any]) -> T:
    """``kind(**options)``; `ConfigError` names the option whose value has a type that cannot work."""
    try:
        return kind(**options)
    except TypeError as error:
        wrong = [option for option in options if _has_wrong_type(kind, option, options[option])]
        named = ", ".join(f"{option} is {options[option]!r}" for option in wrong or options)
        raise ConfigError(
            f"{named}: a value of the wrong type ({error}); simtrust train --help tells the types"
        ) from error


def _has_wrong_type(kind: Callable[..., Any], option: str, value: Any) -> bool:
    try:
        kind(**{option: value})
    except TypeError:
        return True
    except ConfigError:
        # Of the right type, but of no use beside the defaults.
        return False
    return False
