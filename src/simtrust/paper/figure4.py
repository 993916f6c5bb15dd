"""Figure 4 of the paper on the robot's twin: the single-step rewards in the operator's logs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console

from simtrust.data import load_dataset
from simtrust.paper.claims import claims_csv, claims_section, judge
from simtrust.paper.csv_text import csv_text
from simtrust.paper.files import make_writable
from simtrust.paper.markdown import table as markdown_table
from simtrust.paper.robot import STUDIES, log_of
from simtrust.paper.robot_claims import CLAIMS_OF_FIGURE_4, quantities_of_figure_4
from simtrust.reports.plots import reward_bars, reward_distribution
from simtrust.training.checkpoint import write_atomically

QUANTILES = (0.05, 0.5, 0.95)


def figure4(
    out: Path, *, quiet: bool = False, command: str = "simtrust.paper.figure4.figure4(...)"
) -> Mapping[str, np.ndarray]:
    """Draw the rewards ``[T]`` of both logs of the robot, and return them by task.

    The logs are those of Figure 2: of the folder ``out`` if they lie there, else recorded there, which takes
    a minute or two. Writes ``figure4.md``, ``figure4.csv`` (the bars that are drawn), ``figure4-claims.csv``
    (what the paper says, and whether the logs do) and ``figure4-TASK.png`` into ``out``.

    Raises:
        StorageError: ``out`` cannot be written; before any work.
        DataError: what lies there is no log, or a picture cannot be written.
    """
    make_writable(out)
    rewards, judged = {}, {}
    for name, study in STUDIES.items():
        log = load_dataset(log_of(study, out, quiet=quiet))
        rewards[name] = log.transitions.reward
        found = quantities_of_figure_4(study.task.observed, log.transitions.observation, rewards[name])
        judged[name] = [judge(claim, found) for claim in CLAIMS_OF_FIGURE_4[name]]
        title = f"Rewards of the operator: {name.replace('-', ' ')}"
        reward_distribution(rewards[name], title, out / f"figure4-{name}.png")
    text = f"{table(rewards)}\n\n{claims_section(judged)}\n\n- command: `{command}`\n"
    write_atomically(out / "figure4.csv", bars_csv(rewards).encode())
    write_atomically(out / "figure4-claims.csv", claims_csv(judged).encode())
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


def bars_csv(rewards: Mapping[str, np.ndarray]) -> str:
    """A line for each bar of each log: from which reward to which, how many rows, their share in per cent.

    A bar holds its lower edge, and the last one its upper edge too.
    """
    lines = []
    for name, values in rewards.items():
        rows, edges = reward_bars(values)
        shares = 100.0 * rows / rows.sum()
        lines += [[name, *bar] for bar in zip(edges[:-1], edges[1:], rows, shares, strict=True)]
    return csv_text(("log", "from", "to", "rows", "share_percent"), lines)
