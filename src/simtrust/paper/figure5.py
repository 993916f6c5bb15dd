"""Figure 5 of the paper on the robot's twin: the reward gathered along one episode, recipe beside recipe.

It is of the policies that Figure 2 trains, on the real robot, all from the same initial state for each
training seed.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from simtrust.errors import RunError
from simtrust.evaluation.returns import episode_steps
from simtrust.paper.claims import Finding, claims_csv, claims_section, judge
from simtrust.paper.csv_text import csv_text
from simtrust.paper.figure2 import load_cells
from simtrust.paper.files import make_writable, save_picture
from simtrust.paper.markdown import table as markdown_table
from simtrust.paper.robot import CONTROL_SECONDS, RECIPES, STUDIES, Cell, Study, of_study
from simtrust.paper.robot_claims import CLAIMS_OF_FIGURE_5, gathered, quantities_of_figure_5
from simtrust.simulators.closing import closed_at_end
from simtrust.training.checkpoint import write_atomically
from simtrust.training.policy import Policy, evaluation_instances, start_seeds

EVERY = 20
"""Control steps from one point of a curve to the next: a tenth of a second."""


def figure5(
    out: Path, *, quiet: bool = False, command: str = "simtrust.paper.figure5.figure5(...)"
) -> Mapping[tuple[str, str], np.ndarray]:
    """Draw the cumulative reward of every finished recipe of Figure 2's folder ``out``.

    Returns it by study and recipe, as `cumulative_reward` does. Writes ``figure5.md``, ``figure5.csv``,
    ``figure5-claims.csv`` (what the paper says, and whether ours do) and ``figure5-STUDY.png`` into
    ``out``.

    Raises:
        RunError: the folder holds no finished recipe, or one without a measure, or cannot be written.
    """
    cells = load_cells(out)
    if not cells:
        raise RunError(
            f"{out} holds no finished recipe of figure2, whose policies figure5 is about; train them with "
            f"simtrust paper figure2 --out {out}"
        )
    make_writable(out)
    curves = {
        (study, recipe): cumulative_reward(STUDIES[study], out / study / recipe) for study, recipe in cells
    }
    write_atomically(out / "figure5.csv", _csv(curves).encode())
    judged = {}
    for study in dict.fromkeys(study for study, _ in curves):
        own = of_study(curves, study)
        draw(own, study, out / f"figure5-{study}.png")
        judged[study] = findings(of_study(cells, study), own)
    write_atomically(out / "figure5-claims.csv", claims_csv(judged).encode())
    text = f"{table(curves)}\n\n{claims_section(judged)}\n\n- command: `{command}`\n"
    write_atomically(out / "figure5.md", text.encode())
    Console(quiet=quiet).print(text, highlight=False, soft_wrap=True, markup=False)
    return curves


def findings(cells: Mapping[str, Cell], curves: Mapping[str, np.ndarray]) -> list[Finding]:
    """Whether what the paper says of Figure 5 holds among one study's cells and curves, by recipe."""
    found = quantities_of_figure_5(cells, curves)
    return [judge(claim, found) for claim in CLAIMS_OF_FIGURE_5]


def table(curves: Mapping[tuple[str, str], np.ndarray]) -> str:
    """Markdown: the reward of a whole episode and how long it was, means over runs."""
    lines = []
    for (study, recipe), curve in curves.items():
        seconds = np.isfinite(curve).sum(1).mean() * CONTROL_SECONDS
        total = gathered(curve).mean()
        lines.append([study, recipe, str(len(curve)), f"{seconds:.1f}", f"{total:,.0f}"])
    return markdown_table(("study", "recipe", "runs", "seconds", "cumulative reward"), lines)


def cumulative_reward(study: Study, run: Path, *, seed: int = 0) -> np.ndarray:
    """[R, T] float64: the reward gathered up to each control step of one episode on the real robot.

    A row for each training seed; NaN after its episode's end.
    """
    policy = Policy(run)
    starts = start_seeds(policy, episodes=1, seed=seed)
    with closed_at_end(evaluation_instances(policy, study.real, episodes=1)) as environment:
        steps = episode_steps(environment, policy, runs=len(policy.seeds), seeds=starts)
        rewards = [np.where(step.running, step.reward, np.nan) for step in steps]
    return np.cumsum(np.stack(rewards, axis=1), axis=1)


def _csv(curves: Mapping[tuple[str, str], np.ndarray]) -> str:
    """A line for each study, recipe, run and point of its curve."""
    lines = (
        (study, recipe, run, (step + 1) * CONTROL_SECONDS, values[step])
        for (study, recipe), curve in curves.items()
        for run, values in enumerate(curve)
        for step in _shown(values)
    )
    return csv_text(("study", "recipe", "run", "seconds", "cumulative_reward"), lines)


def _shown(values: np.ndarray) -> np.ndarray:
    """The steps of a curve that are written: every `EVERY`-th, and the last of the episode."""
    length = int(np.isfinite(values).sum())
    return np.unique(np.append(np.arange(EVERY - 1, length, EVERY), length - 1))


def draw(curves: Mapping[str, np.ndarray], study: str, path: Path) -> Path:
    """The curves ``[R, T]`` of each recipe over time: a line a run, which ends where its episode does."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.add_subplot()
    for recipe, curve in curves.items():
        for run, values in enumerate(curve):
            steps = _shown(values)
            seconds, colour = (steps + 1) * CONTROL_SECONDS, f"C{list(RECIPES).index(recipe)}"
            axis.plot(seconds, values[steps], color=colour, alpha=0.8, label="" if run else recipe)
            axis.plot(seconds[-1], values[steps[-1]], "o", color=colour, markersize=4)
    axis.set(title=study, xlabel="seconds", ylabel="cumulative reward on the real robot")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize="small")
    return save_picture(figure, path)
