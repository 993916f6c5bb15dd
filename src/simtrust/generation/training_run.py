"""The training whose policies make the logs: SAC in the real task, in a run that all levels share."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from simtrust.algorithms.options import AlgorithmOptions
from simtrust.errors import ConfigError, RunError, SimtrustError
from simtrust.generation.kept_policies import KeepPolicies
from simtrust.generation.levels import Score
from simtrust.reports.run_record import read_run
from simtrust.training.config import LARGEST, TrainConfig, config_from_json
from simtrust.training.loop import resume, train
from simtrust.training.run_directory import resume_command

RECIPE = "sac"
ROUND = 1_000
"""Steps of a round of training; policies are kept at multiples of it."""
POLICIES_WANTED = 100
EVALUATION_EVERY_MAX = 10_000
EVALUATION_EPISODES = 10
KEEPER = "kept_policies"
"""What the run calls the evaluator that keeps its policies."""
DEFAULT_STEPS = 1_000_000


def check_steps(steps: int) -> None:
    """Raise `ConfigError` unless a training can be of so many steps: a positive multiple of 1,000."""
    if steps < ROUND or steps % ROUND or steps >= LARGEST:
        raise ConfigError(
            f"--steps is {steps}; it must be a multiple of {ROUND:,}, at least that, and below {LARGEST:,}"
        )


def training_config(
    task: str, steps: int, *, seed: int, run: Path, algorithm: AlgorithmOptions | None = None
) -> TrainConfig:
    """The training: SAC in ``task`` as it is, with every row that it collects kept.

    Evaluated, saved and its policy kept about a hundred times, at most every 10,000 steps, and at the last.

    Raises `ConfigError` as `check_steps`.
    """
    check_steps(steps)
    every = min(max(steps // POLICIES_WANTED, ROUND), EVALUATION_EVERY_MAX)
    every = next(each for each in range(every // ROUND * ROUND, 0, -ROUND) if steps % each == 0)
    return TrainConfig(
        RECIPE,
        sim=task,
        out=str(run),
        steps=steps,
        first_seed=seed,
        evaluate_every=every,
        checkpoint_every=every,
        evaluation_episodes=EVALUATION_EPISODES,
        buffer_capacity=steps,
        algorithm=algorithm or AlgorithmOptions(),
    )


def check_run(config: TrainConfig) -> None:
    """Raise `RunError` if the run directory holds a run that is not this one."""
    run = Path(str(config.out))
    try:
        found = (run / "config.json").exists()
        if not found and run.is_dir() and any(run.iterdir()) and not (run / ".lock").exists():
            raise RunError(f"{run} is a folder that holds no run; name another with --run")
    except OSError as error:
        raise RunError(f"{run} cannot be looked at: {error.strerror}; name another with --run") from error
    if not found:
        return
    begun, _ = config_from_json(run / "config.json")
    stored, wanted = (asdict(replace(each, out=None)) for each in (begun, config))
    for name, value in wanted.items():
        if stored[name] != value:
            raise RunError(f"{run} was begun with {name} {stored[name]}, not {value}; name another --run")


def train_or_go_on(config: TrainConfig, *, command: str, quiet: bool = False) -> None:
    """Train the run to its end, from wherever it is; nothing is done for one that has finished.

    Whatever stops it says that ``command`` goes on with it. Raises as `simtrust.training.loop.train`.
    """
    run = Path(str(config.out))
    evaluators = {KEEPER: KeepPolicies(run)}
    try:
        if (run / "config.json").exists():
            resume(run, quiet=quiet, evaluators=evaluators)
        else:
            train(config, quiet=quiet, command=command, evaluators=evaluators)
    except (KeyboardInterrupt, SimtrustError) as error:
        # In general a run with evaluators goes on in Python alone.
        in_python = resume_command(run, config, {"evaluators": [KEEPER]})
        notes = getattr(error, "__notes__", [])
        notes[:] = [note.replace(in_python, command) for note in notes]
        raise


def read_scores(config: TrainConfig) -> list[Score]:
    """The evaluations of a finished run, in their order; `RunError` if any is missing."""
    run, every = Path(str(config.out)), config.evaluate_every
    curves = read_run(run).curves
    steps, means = curves.known("return_mean")
    if not np.array_equal(steps, np.arange(every, config.steps + 1, every)):
        raise RunError(f"{run}/metrics.jsonl lacks evaluations; train anew in another --run")
    spread = curves.known("return_std")[1]
    return [Score(int(s), float(m), float(d)) for s, (m,), (d,) in zip(steps, means, spread, strict=True)]
