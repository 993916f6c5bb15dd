"""The command line: ``simtrust generate | gap | train | resume | evaluate | paper``.

Nothing heavy is imported before a command runs, so that help is instant.
"""

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simtrust.errors import ConfigError, SimtrustError
from simtrust.training.config import TrainConfig

if TYPE_CHECKING:
    from simtrust.data import Dataset
    from simtrust.evaluation.returns import EpisodeReturns
    from simtrust.training.loop import RunResult

DESCRIPTION = """Find out where a simulator can be trusted, and train with it all the same.

A log to begin with, of a wheel-legged robot:

    simtrust generate wheel-legged standing-still

Where can the simulator be trusted:

    simtrust gap --real log.hdf5 --sim HalfCheetah-v5 --shift gravity=2

A first run:

    simtrust train --real log.hdf5 --sim HalfCheetah-v5 --shift gravity=2 --out runs/first

If it was cut short:

    simtrust resume runs/first

How good is it:

    simtrust evaluate runs/first --env HalfCheetah-v5 --episodes 20
"""


LogTask = Literal["standing-still", "moving-straight"]
TRAIN_ON_LOG = (
    "train h2o --real {log} --sim {simulator} --hidden-sizes 32 32 --batch-size 32"
    " --classifier-hidden-sizes 32 --classifier-batch-size 32 --reward-scale auto"
    " --normalise-observations True --beta {beta} --steps {steps}"
)
PAPERS_SETTINGS = {"standing-still": (0.1, 50_000), "moving-straight": (1.0, 100_000)}
"""β and updates, of the paper's Table 3 and Appendix B.2."""


def generate(
    robot: tyro.conf.Positional[Literal["wheel-legged"]],
    task: tyro.conf.Positional[LogTask],
    out: str | None = None,
    rows: int = 100_000,
    seed: int = 0,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Record a log of a human-like operator on the real robot's twin, and a picture of its rewards.

    The picture lies beside the log, as LOG-rewards.png.

    Args:
        robot: What is operated.
        task: What the operator is asked to do.
        out: The log, an HDF5 file. Default: TASK.hdf5 in the working directory.
        rows: Control steps, 200 of which are a second.
        seed: The same seed gives the same log.
        overwrite: Replace a log or picture that is already there.
    """
    log = Path(out or f"{task}.hdf5")
    picture = log.with_name(f"{log.stem}-rewards.png")
    for file in (log, picture):
        if file.exists() and not overwrite:
            raise ConfigError(f"{file} exists already; replace it with --overwrite, or name another --out")

    from simtrust.data import load_dataset
    from simtrust.reports.plots import reward_distribution
    from simtrust.simulators.log_recording import TASKS, generate_wheel_legged_log

    dataset = load_dataset(generate_wheel_legged_log(log, task, rows=rows, seed=seed))
    title = f"Rewards of a {robot} robot's operator: {task.replace('-', ' ')}"
    reward_distribution(dataset.transitions.reward, title, picture)
    beta, steps = PAPERS_SETTINGS[task]
    command = TRAIN_ON_LOG.format(
        log=shlex.quote(dataset.source), simulator=TASKS[task].name, beta=beta, steps=steps
    )
    _show_log(dataset, picture, command)


def gap(
    real: str,
    sim: str,
    shift: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    out: str | None = None,
    dones_mean: Literal["terminated", "timeout"] | None = None,
    policy: str | None = None,
    seed: int = 0,
) -> None:
    """Show where a simulator can be trusted: its dynamics gap to a log of the real machine.

    Trains no policy. Writes report.html, gap.json, pictures and the gap as a function of state and action
    (trust.onnx, and trust.npz with a runner that needs only numpy) into the folder, and says the verdict. A
    simulator that can be put into a logged state (the built-in ones, and environments with a method
    set_observation) is replayed. Any is compared with the log by a model of both, and by H2O's classifiers.

    Args:
        real: The log of real transitions: D4RL HDF5 or npz.
        sim: The simulator: a built-in name, any Gymnasium id, or module:factory.
        shift: What is wrong with a built-in simulator, as KIND=VALUE; repeat for several.
        out: The folder of the report. Default: runs/gap-DATE-TIME.
        dones_mean: What a log's bare dones mean, if it has neither terminals nor timeouts.
        policy: A run directory: how much of its time does its policy spend where the simulator errs?
        seed: Of everything random.
    """
    from simtrust.measuring import measure_gap
    from simtrust.reports.gap_summary import to_text

    folder = out or f"runs/gap-{time.strftime('%Y%m%d-%H%M%S')}"
    command = shlex.join(["simtrust", *sys.argv[1:]])
    report = measure_gap(
        real, sim, shifts=shift, out=folder, dones_mean=dones_mean, policy=policy, seed=seed, command=command
    )
    Console().print(Text(f"{to_text(report)}\nReport: {folder}/report.html"), soft_wrap=True)


def train(config: Annotated[TrainConfig, tyro.conf.arg(name="")]) -> None:
    """Train policies from a log and a simulator at once, several seeds side by side.

    Writes checkpoints, metrics.jsonl and result.json into the run directory; a run that is cut short
    goes on with `simtrust resume`.
    """
    from simtrust.training.loop import train

    _show(train(config, command=shlex.join(["simtrust", *sys.argv[1:]])))


def resume(directory: tyro.conf.Positional[str], sim: str | None = None, real_env: str | None = None) -> None:
    """Go on with an interrupted run; the result is the same as if it had never stopped.

    Args:
        directory: The run directory.
        sim: Name the run's simulator again if it is module:factory, since that imports code.
        real_env: Likewise for the real environment.
    """
    from simtrust.training.loop import resume

    _show(resume(directory, sim=sim, real_env=real_env))


def evaluate(
    directory: tyro.conf.Positional[str],
    env: str | None = None,
    episodes: int = 10,
    seed: int = 0,
    shift: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
) -> None:
    """Run a trained policy for whole episodes, with its best action, and print the returns.

    Args:
        directory: The run directory.
        env: Where to evaluate; default: where the run was evaluated.
        episodes: Episodes for each trained seed.
        seed: Chooses the initial states.
        shift: Shifts of a built-in environment, as KIND=VALUE; repeat for several.
    """
    from simtrust.training.policy import evaluate

    seeds, name, returns = evaluate(directory, env=env, episodes=episodes, seed=seed, shifts=shift)
    _show_returns(f"{directory} in {name}", seeds, returns)


def paper(
    study: tyro.conf.Positional[Literal["figure2", "figure3"]],
    real: str | None = None,
    out: str | None = None,
    seeds: int | None = None,
    episodes: int | None = None,
    recipe: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    task: tyro.conf.UseAppendAction[tuple[LogTask, ...]] = (),
    steps: int | None = None,
) -> None:
    """Make a figure of the paper again: train what is missing, judge it, write tables and pictures.

    figure2: the wheel-legged robot, on its twin. Records its own logs.

        simtrust paper figure2

    figure3: what H2O's gap u says of simulated rows as training goes on, beside the true gap, for a
    HalfCheetah whose simulator errs the more the faster it runs. Takes a log of HalfCheetah-v5.

        simtrust paper figure3 --real log.hdf5

    Everything finished is kept; the same command goes on where it was stopped.

    Args:
        study: Which one.
        real: figure3: the log of real transitions, D4RL HDF5 or npz.
        out: The folder of logs, runs and results. Default: runs/STUDY.
        seeds: Training runs of each recipe, side by side. Default: 5; figure3: 3.
        episodes: figure2: of each policy, on the real robot and in the simulator each. Default: 20.
        recipe: figure2: one of sac, cql, darc, darc_plus, h2o, trust, h2o_layer_norm, h2o_dr, h2o_unscaled,
            h2o_raw, h2o_sensors; repeat for several. Default: all.
        task: figure2: the robot's task; repeat for both. Default: both.
        steps: Updates of each run. Default: the paper's 50,000 and 100,000; figure3: 100,000, a tenth of the
            paper's, in multiples of 10,000.
    """
    options = {
        "real": real,
        "seeds": seeds,
        "episodes": episodes,
        "recipe": recipe,
        "task": task,
        "steps": steps,
    }
    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name in given:
        if name not in PAPER_OPTIONS[study]:
            raise ConfigError(f"{study} has no option --{name}; leave it out")
    folder = Path(out or f"runs/{study}")
    if study == "figure2":
        from simtrust.paper.figure2 import figure2

        names = {"recipe": "recipes", "task": "studies"}
        figure2(folder, **{names.get(name, name): value for name, value in given.items()})
        return
    if real is None:
        raise ConfigError("figure3 learns from a log of HalfCheetah-v5: give --real FILE")
    from simtrust.paper.figure3 import figure3

    figure3(folder, command=shlex.join(["simtrust", *sys.argv[1:]]), **given)


PAPER_OPTIONS = {
    "figure2": ("seeds", "episodes", "recipe", "task", "steps"),
    "figure3": ("real", "seeds", "steps"),
}

COMMANDS = {
    "generate": generate,
    "gap": gap,
    "train": train,
    "resume": resume,
    "evaluate": evaluate,
    "paper": paper,
}


def main() -> None:
    """Entry point. A user's mistake ends with one clear message and exit status 2."""
    # So that module:factory finds a module beside the user, as `python -m` would.
    sys.path.insert(0, str(Path.cwd()))
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="simtrust",
            description=DESCRIPTION,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except SimtrustError as error:
        _tell("error: ", str(error), *getattr(error, "__notes__", ()))
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        _tell("stopped. ", *getattr(interrupt, "__notes__", ()))
        sys.exit(130)


def _tell(label: str, *lines: str) -> None:
    """Print lines to the error stream as they are: a user's path may look like markup."""
    text = Text.assemble((label, "bold red"), "\n".join(lines))
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)


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
    written = "\n".join(f"{name:<10}{value}" for name, value in lines)
    Console().print(Text(f"{written}\n\nTrain on it:\n\n    simtrust {command}"), soft_wrap=True)


def _show(result: "RunResult") -> None:
    import numpy as np

    from simtrust.evaluation.returns import EpisodeReturns

    summary = result.summary
    runs = summary["runs"]
    returns = EpisodeReturns(
        np.array([r["episode_returns"] for r in runs]), np.array([r["episode_lengths"] for r in runs])
    )
    title = f"{summary['recipe']} after {summary['steps']:,} steps, in {summary['evaluation_environment']}"
    _show_returns(title, [r["seed"] for r in runs], returns)
    rate, wall = summary["updates_per_second"], summary["wall_seconds"]
    line = f"{rate:,.0f} updates/s, {wall:,.0f} s in all; result in {result.directory}/result.json"
    Console().print(Text(line), soft_wrap=True)


def _show_returns(title: str, seeds: list[int], returns: "EpisodeReturns") -> None:
    table = Table("seed", "episodes", "return", "std", "length", title=Text(title))
    for seed, values, lengths in zip(seeds, *returns, strict=True):
        row = (len(values), f"{values.mean():,.1f}", f"{values.std():,.1f}", f"{lengths.mean():,.0f}")
        table.add_row(str(seed), *(str(cell) for cell in row))
    if len(seeds) > 1:
        mean = returns.returns.mean(-1)
        table.add_row("all", "", f"{mean.mean():,.1f}", f"{mean.std():,.1f}", "", style="bold")
    Console().print(table)


if __name__ == "__main__":
    main()
