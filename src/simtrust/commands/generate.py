"""``simtrust generate``: make a log to begin with."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import tyro
from rich.console import Console
from rich.text import Text

from simtrust.commands.invocation import as_typed
from simtrust.errors import ConfigError
from simtrust.generation.levels import Level

if TYPE_CHECKING:
    from simtrust.data import Dataset
    from simtrust.generation.generate import Generated

LogTask = Literal["standing-still", "moving-straight"]
ROBOT = "wheel-legged"
MACHINES = (ROBOT, "HalfCheetah-v5", "Walker2d-v5", "Hopper-v5", "Ant-v5")
TRAIN_ON_LOG = (
    "train trust --real {log} --sim {simulator} --hidden-sizes 32 32 --batch-size 32"
    " --reward-scale auto --normalise-observations True --beta {beta} --steps {steps}"
)
PAPERS_SETTINGS = {"standing-still": (0.1, 50_000), "moving-straight": (1.0, 100_000)}
"""β and updates, of the paper's Table 3 and Appendix B.2."""
ROBOT_ROWS = 100_000
TRAIN_ON_LEVEL = "train trust --real {log} --sim {task} --shift gravity=2"


def generate(
    machine: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="{" + ",".join(MACHINES) + "}")],
    kind: tyro.conf.Positional[Literal[LogTask, Level]],
    out: str | None = None,
    rows: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    run: str | None = None,
    format: Literal["d4rl", "minari"] | None = None,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Make a log: of a human-like operator of a robot, or by D4RL's protocol of one of Gymnasium's tasks.

    wheel-legged: the operator on the real robot's twin, and a picture of the rewards, LOG-rewards.png.

        simtrust generate wheel-legged standing-still

    HalfCheetah-v5, Walker2d-v5, Hopper-v5, Ant-v5: SAC is trained in the task, in a run directory that all
    levels share, and its policies are recorded. The same command goes on where it was stopped.

        simtrust generate HalfCheetah medium-replay --steps 200000

    Args:
        machine: What acts.
        kind: The robot: what the operator is asked to do, standing-still or moving-straight. A task: how good
            the policies are. random: uniform actions. expert: SAC when training ends. medium: its first
            policy of a third of the expert's return. medium-replay: all that it was trained on by then.
            medium-expert: equal halves.
        out: The log. Default: KIND.hdf5 of the robot, TASK_LEVEL-v5.hdf5 of a task; of Minari, the id,
            simtrust/TASK/LEVEL-v0.
        rows: Rows to record. Default: 100,000 of the robot, 200 of which are a second; 1,000,000 of a task.
        seed: The same seed gives the same log.
        steps: Of SAC's training, in multiples of 1,000. Default: 1,000,000.
        run: The training's run directory. Default: beside the log, TASK_sac_STEPS_seed_SEED-v5.
        format: d4rl, HDF5 with the physics' states, or minari, a dataset where Minari keeps its own.
        overwrite: Replace a log or picture that is already there.
    """
    if machine == ROBOT:
        for name, value in {"steps": steps, "run": run, "format": format}.items():
            if value is not None:
                raise ConfigError(f"{ROBOT} has no option --{name}; leave it out")
        _check_kind(ROBOT, kind, get_args(LogTask))
        rows = ROBOT_ROWS if rows is None else rows
        _generate_operator(cast(LogTask, kind), out, rows=rows, seed=seed, overwrite=overwrite)
        return
    names = {name.lower(): known for known in MACHINES[1:] for name in (known, known.removesuffix("-v5"))}
    if machine.lower() not in names:
        raise ConfigError(f"{machine!r} is nothing to make logs of; choose one of {', '.join(MACHINES)}")
    _check_kind(names[machine.lower()], kind, get_args(Level))
    given = {"rows": rows, "steps": steps, "run": run, "format": format}
    for name in ("steps", "run"):
        if kind == "random" and given[name] is not None:
            raise ConfigError(f"random actions need no training, to which --{name} belongs; leave it out")
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    from simtrust.generation.generate import generate_log

    level = cast(Level, kind)
    _show_level(
        generate_log(machine, level, out=out, seed=seed, overwrite=overwrite, command=as_typed(), **options)
    )


def _check_kind(machine: str, kind: str, kinds: tuple[str, ...]) -> None:
    if kind not in kinds:
        raise ConfigError(f"{machine} has no log {kind!r}; choose one of {', '.join(kinds)}")


def _generate_operator(task: LogTask, out: str | None, *, rows: int, seed: int, overwrite: bool) -> None:
    if out == "":
        raise ConfigError("--out is empty; name what is to be written, or leave it out")
    log = Path(out or f"{task}.hdf5")
    picture = log.with_name(f"{log.stem}-rewards.png")
    for file in (log, picture):
        try:
            found = file.exists()
        except OSError as error:
            raise ConfigError(f"{file} cannot be looked at: {error.strerror}; name another --out") from error
        if found and not overwrite:
            raise ConfigError(f"{file} exists already; replace it with --overwrite, or name another --out")

    from simtrust.data import load_dataset
    from simtrust.reports.plots import reward_distribution
    from simtrust.simulators.log_recording import TASKS, generate_wheel_legged_log

    dataset = load_dataset(generate_wheel_legged_log(log, task, rows=rows, seed=seed))
    title = f"Rewards of a {ROBOT} robot's operator: {task.replace('-', ' ')}"
    reward_distribution(dataset.transitions.reward, title, picture)
    beta, steps = PAPERS_SETTINGS[task]
    command = TRAIN_ON_LOG.format(
        log=shlex.quote(dataset.source), simulator=TASKS[task].name, beta=beta, steps=steps
    )
    _show_log(dataset, picture, command)


def _show_log(dataset: "Dataset", picture: Path, command: str) -> None:
    rewards, terminated = dataset.transitions.reward, dataset.transitions.terminated
    falls = int(terminated.sum())
    lines = (
        ("rows", f"{len(dataset):,}"),
        ("episodes", f"{dataset.episode_count:,}, of which {falls:,} ended in a fall"),
        ("reward", f"{rewards.mean():.3f} on average, from {rewards.min():.3f} to {rewards.max():.3f}"),
        ("log", dataset.source),
        ("picture", str(picture)),
    )
    _show(lines, command)


def _show_level(made: "Generated") -> None:
    from simtrust.generation.log_file import best_decile

    dataset, returns = made.dataset, made.dataset.episode_returns
    falls = int(dataset.transitions.terminated.sum())
    best = best_decile(returns)
    lines = [
        ("rows", f"{len(dataset):,}"),
        ("episodes", f"{dataset.episode_count:,}, of which {falls:,} ended in a fall"),
        ("returns", f"{returns.mean():,.1f} on average, {best:,.1f} in the best tenth of episodes"),
        *(
            (
                part,
                f"return {score.mean:,.1f} ± {score.std:,.1f} with its best action, at step {score.step:,}",
            )
            for part, score in made.policies.items()
        ),
        ("log", dataset.source),
    ]
    if made.run is not None:
        lines.append(("training", str(made.run)))
    _show(lines, TRAIN_ON_LEVEL.format(log=shlex.quote(dataset.source), task=made.task))


def _show(lines: Any, command: str) -> None:
    written = "\n".join(f"{name:<10}{value}" for name, value in lines)
    Console().print(Text(f"{written}\n\nTrain on it:\n\n    simtrust {command}"), soft_wrap=True)
