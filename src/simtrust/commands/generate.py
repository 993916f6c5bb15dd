"""``simtrust generate``: record a log to begin with."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.text import Text

from simtrust.errors import ConfigError

if TYPE_CHECKING:
    from simtrust.data import Dataset

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
