"""Begin a run, or go on with an interrupted one: what is checked before `training.running` works."""

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from simtrust.algorithms.agent import Algorithm
from simtrust.device import device_kind
from simtrust.errors import RunError, RunWarning
from simtrust.evaluation.evaluators import Evaluator
from simtrust.limits import usable_processors
from simtrust.simulators.factories import SimulatorLike, simulator_name
from simtrust.training.callbacks import Callback, Callbacks
from simtrust.training.config import (
    TrainConfig,
    config_from_json,
    config_to_json,
    with_learning_rate,
    with_step_timeout,
)
from simtrust.training.fleet import Fleet
from simtrust.training.judging import check_evaluators
from simtrust.training.out_of_memory import telling_out_of_memory
from simtrust.training.result import RunResult, read_result
from simtrust.training.run_directory import confirm_code, confirm_evaluators, lock
from simtrust.training.running import Training
from simtrust.training.setup import observed_range, prepare, versions
from simtrust.training.storage import write_atomically
from simtrust.training.trackers import make_trackers

FleetOf = Callable[[Algorithm], Fleet]
RECORDED = {"command", "dataset_sha256", "scaling", "evaluation_environment"}
"""What the configuration of every run says besides its options."""


def train(
    config: TrainConfig,
    *,
    quiet: bool = False,
    command: str = "simtrust.train(...)",
    callbacks: Sequence[Callback] = (),
    evaluators: Mapping[str, Evaluator] | None = None,
) -> RunResult:
    """Train as ``config`` says into its new directory, and evaluate the result.

    ``command`` is what made the run, for the record in ``result.json``; ``callbacks`` are told after the
    trackers that ``config`` names.

    Raises a `SimtrustError` before any work if something in the configuration, the log or the
    simulator cannot be used, and `RunError` if the directory already holds a run. `CallbackError` if a
    callback or an evaluator raises, once the state is saved. `NonFiniteError` if a number of the run is no
    longer finite, `RunError` if disk or memory do not suffice.
    """
    with beginning(config, command=command, callbacks=callbacks, evaluators=evaluators) as training:
        return training.run(quiet=quiet)


@contextmanager
def beginning(
    config: TrainConfig,
    *,
    command: str,
    callbacks: Sequence[Callback] = (),
    evaluators: Mapping[str, Evaluator] | None = None,
    fleet_of: FleetOf = Fleet,
) -> Iterator[Training]:
    """The training that `train` runs, checked, its directory locked; nothing is trained yet.

    ``fleet_of`` gives the fleet that updates it, which several trainings may share.
    """
    listeners, evaluators = _listeners(config, callbacks, evaluators)
    directory = Path(config.out or f"runs/{config.recipe}-{time.strftime('%Y%m%d-%H%M%S')}")
    config = replace(config, out=str(directory))
    try:
        made = _made(directory)
    except OSError as error:
        raise RunError(f"{directory} cannot be made: {error.strerror}; choose another --out") from error
    keep_compiled()
    # The lock is the outer one: only who holds it may remove anything.
    with telling_out_of_memory(), lock(directory), _removed_if_refused(directory, made):
        if (directory / "config.json").exists():
            raise RunError(f"{directory} already holds a run; go on with: simtrust resume {directory}")
        with closing(prepare(config)) as problem:
            extra = {
                "command": command,
                "versions": versions(),
                "processors": usable_processors(),
                "device": device_kind(),
                "dataset_sha256": problem.dataset.sha256 if problem.dataset else None,
                "scaling": problem.scaling.to_json(),
                **observed_range(problem.dataset),
                "evaluation_environment": problem.evaluation_name,
            }
            if evaluators:
                extra["evaluators"] = sorted(evaluators)
            fleet = fleet_of(problem.algorithm)
            write_atomically(directory / "config.json", config_to_json(config, **extra).encode())
            yield Training(problem, directory, extra, listeners, evaluators, fleet)


def _made(directory: Path) -> bool:
    """Whether the directory had to be made, which one of several processes at a time is told."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        directory.mkdir()
    except FileExistsError:
        if not directory.is_dir():
            raise
        return False
    return True


@contextmanager
def _removed_if_refused(directory: Path, made: bool) -> Iterator[None]:
    """Leave nothing of a directory that was made for a run which then was not begun."""
    try:
        yield
    except BaseException:
        if made and not (directory / "config.json").exists():
            shutil.rmtree(directory, ignore_errors=True)
        raise


def resume(
    directory: str | Path,
    *,
    sim: SimulatorLike | None = None,
    real_env: SimulatorLike | None = None,
    step_timeout: float | None = None,
    learning_rate: float | None = None,
    quiet: bool = False,
    command: str | None = None,
    callbacks: Sequence[Callback] = (),
    evaluators: Mapping[str, Evaluator] | None = None,
) -> RunResult:
    """Go on with an interrupted run from its last checkpoint; a finished run is only reported.

    A simulator or real environment that is code of yours (``module:factory``) must be given again, as
    ``sim`` and ``real_env``, by its name or as the function: no file of a run directory may decide which
    code is imported. Its evaluators must be given again too, and its callbacks if they are to be told of
    the rest. ``step_timeout`` is in place of the run's own until this call ends, which changes no number.

    A ``learning_rate`` other than the run's is that of every network from the checkpoint on; Adam's moments
    are kept. It is recorded in ``config.json`` and ``result.json``, with ``command``, which asked for it, and
    stays if the run is resumed again.

    Raises `RunError` if the directory holds no run, is in use, if the log has changed since, if the
    run's own code is not confirmed, or if the run has finished and its learning rate is to be another;
    `ConfigError` for a learning rate that cannot work; the others as `train`.
    """
    directory = Path(directory)
    begun, _ = config_from_json(directory / "config.json")
    if (finished := read_result(directory)) is not None:
        if with_learning_rate(begun, learning_rate) != begun:
            raise RunError(
                f"{directory} has finished; its learning rate can no longer be another: train anew with "
                f"--learning-rate {learning_rate} and another --out"
            )
        return finished
    with going_on(
        directory,
        sim=sim,
        real_env=real_env,
        step_timeout=step_timeout,
        learning_rate=learning_rate,
        command=command,
        callbacks=callbacks,
        evaluators=evaluators,
    ) as training:
        return training.run(quiet=quiet)


@contextmanager
def going_on(
    directory: Path,
    *,
    sim: SimulatorLike | None = None,
    real_env: SimulatorLike | None = None,
    step_timeout: float | None = None,
    learning_rate: float | None = None,
    command: str | None = None,
    callbacks: Sequence[Callback] = (),
    evaluators: Mapping[str, Evaluator] | None = None,
    fleet_of: FleetOf = Fleet,
) -> Iterator[Training]:
    """The training that `resume` runs, of an unfinished run, checked, its directory locked."""
    begun, extra = config_from_json(directory / "config.json")
    config = with_learning_rate(begun, learning_rate)
    listeners, evaluators = _listeners(config, callbacks, evaluators)
    confirm_evaluators(directory, extra.get("evaluators", []), evaluators)
    sim, real_env = (None if given is None else simulator_name(given) for given in (sim, real_env))
    confirm_code(directory, {"sim": (config.sim, sim), "real-env": (config.real_env, real_env)})
    if missing := sorted(RECORDED - extra.keys()):
        raise RunError(f"{directory}/config.json is damaged: it lacks {', '.join(missing)}")
    keep_compiled()
    here = config if step_timeout is None else with_step_timeout(config, step_timeout)
    with telling_out_of_memory(), lock(directory), closing(prepare(here)) as problem:
        found = problem.dataset.sha256 if problem.dataset else None
        if found != extra.get("dataset_sha256"):
            raise RunError(
                f"{config.real} is not the log that this run began with: its SHA-256 is {found}, "
                f"the run's {extra.get('dataset_sha256')}; restore the file"
            )
        _tell_if_elsewhere(directory, extra)
        training = Training(problem, directory, extra, listeners, evaluators, fleet_of(problem.algorithm))
        if config != begun:
            change = {
                "step": training.step,
                "learning_rate": config.algorithm.learning_rate,
                "was": begun.algorithm.learning_rate,
                "command": command or f"simtrust.resume({str(directory)!r}, learning_rate={learning_rate})",
            }
            before = extra.get("changes")
            extra["changes"] = [*(before if isinstance(before, list) else []), change]
            write_atomically(directory / "config.json", config_to_json(config, **extra).encode())
        yield training


def _tell_if_elsewhere(directory: Path, extra: Mapping[str, Any]) -> None:
    """Warn where the rest of a run may round differently from what it would have been."""
    kept = extra.get("versions")
    begun = {
        **{name: extra.get(name) for name in ("processors", "device")},
        **(kept if isinstance(kept, dict) else {}),
    }
    now = {"processors": usable_processors(), "device": device_kind(), **versions()}
    changed = [name for name, value in now.items() if begun.get(name) not in (None, value)]
    if changed:
        was, differs = (", ".join(f"{name} {found[name]}" for name in changed) for found in (begun, now))
        warnings.warn(
            f"{directory} was begun with {was}, and goes on with {differs}: its numbers may differ in their "
            "last digits from those of a run that was never interrupted, and then more and more",
            RunWarning,
            # Through the context manager to who called `resume`.
            stacklevel=5,
        )


def _listeners(
    config: TrainConfig, callbacks: Sequence[Callback], evaluators: Mapping[str, Evaluator] | None
) -> tuple[Callbacks, Mapping[str, Evaluator]]:
    """The trackers and callbacks as one, and the evaluators, checked."""
    check_evaluators(evaluators or {})
    return Callbacks([*make_trackers(config.track), *callbacks]), evaluators or {}


def keep_compiled() -> None:
    """Keep compiled updates between processes, unless the user chose a place for them already."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simtrust" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
