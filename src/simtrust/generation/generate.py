"""One log by D4RL's protocol, from the options to the file; what can be refused is refused at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from gymnasium.spaces import Box

from simtrust.algorithms.options import AlgorithmOptions
from simtrust.data import Dataset, load_dataset
from simtrust.errors import ConfigError
from simtrust.generation.behaviour import Behaviour, SampledPolicy, UniformActions
from simtrust.generation.kept_policies import load_kept_policy
from simtrust.generation.levels import (
    DEFAULT_ROWS,
    RECORDED,
    Level,
    Part,
    Score,
    choose_expert,
    choose_medium,
    rows_of_parts,
)
from simtrust.generation.log_file import Format, Metadata, make_target, write_log
from simtrust.generation.provenance import describe_part, provenance
from simtrust.generation.recording import LOG_PROBABILITY, record, stream_count
from simtrust.generation.replay_log import Columns, replay_log
from simtrust.generation.training_run import (
    DEFAULT_STEPS,
    RECIPE,
    check_run,
    check_steps,
    read_scores,
    train_or_go_on,
    training_config,
)
from simtrust.limits import available_memory
from simtrust.simulators import make_simulator
from simtrust.simulators.built_in import BuiltIn, find_built_in
from simtrust.simulators.closing import closed_at_end
from simtrust.simulators.task_specs import TASKS
from simtrust.training.config import LARGEST, TrainConfig
from simtrust.training.policy import Policy

COPIES, REPLAY_COPIES = 2, 4
"""So many times its rows a log takes while it is made; medium-replay's are there as stored and as taken
again, in parts and joined, measured."""


@dataclass(frozen=True)
class Generated:
    """A log that was written."""

    dataset: Dataset
    """As loaded again."""
    task: str
    run: Path | None
    """The training; None for random actions, which need none."""
    policies: dict[Part, Score]
    """What was chosen of it."""


def generate_log(
    task: str,
    level: Level,
    *,
    out: str | Path | None = None,
    rows: int | None = None,
    seed: int = 0,
    steps: int = DEFAULT_STEPS,
    run: str | Path | None = None,
    format: Format = "d4rl",
    overwrite: bool = False,
    algorithm: AlgorithmOptions | None = None,
    quiet: bool = False,
    command: str = "simtrust.generate_log(...)",
) -> Generated:
    """Make a log of a built-in locomotion task by D4RL's protocol (`simtrust.generation.levels`).

    SAC is trained for ``steps`` in the run directory ``run``, unless that has been done, and goes on where it
    was stopped; all levels of equal task, steps and seed share it. Equal arguments give an equal file.

    Args:
        task: ``HalfCheetah-v5``, ``Walker2d-v5``, ``Hopper-v5`` or ``Ant-v5``, also without version.
        level: ``random``, ``medium``, ``medium-replay``, ``medium-expert`` or ``expert``.
        out: the file, or Minari's id. Default: ``TASK_LEVEL-v5.hdf5``, ``simtrust/TASK/LEVEL-v0``.
        rows: to record, 1,000,000 by default; how many medium-replay has, training decides.
        seed: of the training and the recording, apart from one another.
        steps: of the training; random actions need none.
        run: default: beside the file, ``TASK_sac_STEPS_seed_SEED-v5``.
        format: ``d4rl`` or ``minari``.
        overwrite: replace a log that is there already; never a run.
        algorithm: SAC's options; default: the recipe's own.
        quiet: show no progress.
        command: what made the log, for its record.

    Raises:
        ConfigError: an option cannot work, or something lies where the log is to go.
        RunError: the run directory is in use, damaged, or of another training; or the expert earns nothing,
            so that no policy is a medium one.
        DataError: the log cannot be written.
    """
    machine = _machine(task)
    if level not in RECORDED:
        raise ConfigError(f"{level!r} is no level; choose one of {', '.join(RECORDED)}")
    if format not in get_args(Format):
        raise ConfigError(f"--format is {format!r}; choose one of {', '.join(get_args(Format))}")
    if not 0 <= seed < LARGEST - 1:
        raise ConfigError(f"--seed is {seed}; it must be 0 or more, and below {LARGEST - 1:,}")
    check_steps(steps)
    count = _checked_rows(level, rows)
    _check_memory(machine, *((steps, REPLAY_COPIES) if level == "medium-replay" else (count, COPIES)))
    name = None if out is None else str(out)
    if run is not None and not str(run):
        raise ConfigError("--run is empty; name the training's folder, or leave it out")
    target = make_target(format, name, machine.name, level, overwrite=overwrite)
    directory = Path(run) if run is not None else target.folder / _run_name(machine.name, steps, seed)
    config = training_config(machine.name, steps, seed=seed, run=directory, algorithm=algorithm)
    chosen: dict[Part, Score] = {}
    if level != "random":
        check_run(config)
        train_or_go_on(config, command=command, quiet=quiet)
        chosen = _chosen(config, level)
    columns, about = _columns(machine, level, config, chosen, count, quiet=quiet)
    metadata = {**provenance(machine.name, level, config, chosen, command), **about}
    write_log(target, columns, metadata, machine, overwrite=overwrite)
    return Generated(
        load_dataset(target.name), machine.name, None if level == "random" else directory, chosen
    )


def _machine(task: str) -> BuiltIn:
    machine = find_built_in(task)
    if machine is None or machine.name not in TASKS:
        raise ConfigError(f"{task!r} is no task to generate logs of; choose one of {', '.join(TASKS)}")
    return machine


def _checked_rows(level: Level, rows: int | None) -> int:
    if level == "medium-replay":
        if rows is not None:
            raise ConfigError(
                f"--rows is {rows}; medium-replay is all that its policy was trained on: leave it out"
            )
        return 0
    rows = DEFAULT_ROWS if rows is None else rows
    parts = len(RECORDED[level])
    if rows < parts or rows % parts:
        even = ", and even, for two equal halves" if parts > 1 else ""
        raise ConfigError(f"--rows is {rows}; it must be at least {parts}{even}")
    return rows


def _run_name(task: str, steps: int, seed: int) -> str:
    name, _, version = task.lower().rpartition("-")
    return f"{name}_{RECIPE}_{steps}_seed_{seed}-{version}"


def _check_memory(machine: BuiltIn, rows: int, copies: int) -> None:
    observation, action = len(machine.observation_names), len(machine.action_names)
    position, velocity, _ = machine.state_of(np.zeros((1, observation)))
    needed = rows * (4 * (2 * observation + action + 2) + 2 + 8 * (position.size + velocity.size))
    if copies * needed > (available := available_memory()):
        raise ConfigError(
            f"{rows:,} rows take {needed / 2**30:,.1f} GiB, {copies} times that while they are made, and "
            f"{available / 2**30:,.1f} GiB are free; choose fewer --rows (medium-replay: --steps)"
        )


def _chosen(config: TrainConfig, level: Level) -> dict[Part, Score]:
    """The policies that matter for a level, and the expert, by which the medium one is chosen."""
    scores = read_scores(config)
    expert = choose_expert(scores)
    if level == "expert":
        return {"expert": expert}
    return {"medium": choose_medium(scores, expert), "expert": expert}


def _columns(
    machine: BuiltIn,
    level: Level,
    config: TrainConfig,
    chosen: dict[Part, Score],
    rows: int,
    *,
    quiet: bool,
) -> tuple[Columns, Metadata]:
    run, seed = Path(str(config.out)), config.first_seed
    if level == "medium-replay":
        until = chosen["medium"].step
        scaling = Policy(run).scaling
        columns, states = replay_log(run, until, machine, scaling, seed=seed, quiet=quiet)
        unknown = f"{LOG_PROBABILITY}: of policies that changed with every update"
        behaviour = f"{RECIPE} ({until} steps), the whole replay buffer"
        return columns, {"behaviour": behaviour, "infos": states, "left_out": unknown}
    parts = rows_of_parts(level, rows)
    recorded = [_recorded(machine, part, count, config, chosen, quiet=quiet) for part, count in parts.items()]
    columns = {key: np.concatenate([each[key] for each in recorded]) for key in recorded[0]}
    made = (f"{describe_part(part, chosen)} ({count} steps)" for part, count in parts.items())
    return columns, {"behaviour": " + ".join(made), "infos": "as the physics had them, float64"}


def _recorded(
    machine: BuiltIn,
    part: Part,
    rows: int,
    config: TrainConfig,
    chosen: dict[Part, Score],
    *,
    quiet: bool,
) -> Columns:
    # A stream of random numbers that no training, and no other part, draws from.
    entropy = np.random.SeedSequence([config.first_seed, *b"recording", *part.encode()])
    own, *seeds = (int(one) for one in entropy.generate_state(1 + stream_count(rows)))
    with closed_at_end(make_simulator(machine.name, num_envs=len(seeds))) as simulator:
        space = simulator.single_action_space
        assert isinstance(space, Box)
        behaviour: Behaviour = UniformActions(space, own)
        if part != "random":
            policy = Policy(str(config.out))
            actor = load_kept_policy(Path(str(config.out)), chosen[part].step, policy)
            behaviour = SampledPolicy(actor, policy.scaling, own)
        title = f"Recording {machine.name} {part}"
        return record(simulator, behaviour, rows, seeds=seeds, title=title, quiet=quiet)
