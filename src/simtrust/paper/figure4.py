"""Figure 4 of the paper on the robot's twin: the single-step rewards in the operator's logs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console

from simtrust.data import load_dataset
from simtrust.paper.files import make_writable
from simtrust.paper.markdown import table as markdown_table
from simtrust.paper.robot import STUDIES, log_of
from simtrust.reports.plots import reward_distribution
from simtrust.training.checkpoint import write_atomically

QUANTILES = (0.05, 0.5, 0.95)


def figure4(
    out: Path, *, quiet: bool = False, command: str = "simtrust.paper.figure4.figure4(...)"
) -> Mapping[str, np.ndarray]:
    """Draw the rewards ``[T]`` of both logs of the robot, and return them by task.

    The logs are those of Figure 2: of the folder ``out`` if they lie there, else recorded there, which takes
    a minute or two. Writes ``figure4.md`` and ``figure4-TASK.png`` into ``out``.

    Raises:
        StorageError: ``out`` cannot be written; before any work.
        DataError: what lies there is no log, or a picture cannot be written.
    """
    make_writable(out)
    rewards = {}
    for name, study in STUDIES.items():
        log = load_dataset(log_of(study, out, quiet=quiet))
        rewards[name] = log.transitions.reward
        title = f"Rewards of the operator: {name.replace('-', ' ')}"
        reward_distribution(rewards[name], title, out / f"figure4-{name}.png")
    text = f"{table(rewards)}\n\n- command: `{command}`\n"
    write_atomically(out / "figure4.md", text.encode())
    Console(quiet=quiet).print(text, highlight=False, soft_wrap=True, markup=False)
    return rewards


def table(rewards: Mapping[str, np.ndarray]) -> str:
    """Markdown: what the rewards ``[T]`` of each log are like."""
    heads = ("log", "rows", "mean", "std", *(f"{q:.0%} quantile" for q in QUANTILES), "at most")
    lines = []
    for name, values in rewards.items():
        values = np.asarray(values, np.float64)
        figures = (values.mean(), values.std(), *np.quantile(values, QUANTILES), STUDIES[name].task.base)
        lines.append([name, f"{len(values):,}", *(f"{figure:.3f}" for figure in figures)])
    return markdown_table(heads, lines)
