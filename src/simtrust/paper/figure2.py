"""Figure 2 of the paper on the robot's twin: five recipes and ours, on two tasks, real and simulated."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from simtrust.errors import ConfigError, RunError
from simtrust.paper.claims import Finding, claims_csv
from simtrust.paper.claims import judge as judge_claim
from simtrust.paper.csv_text import csv_text
from simtrust.paper.figure2_text import claims_page, overview, page, statistics_csv
from simtrust.paper.files import make_writable, save_picture
from simtrust.paper.robot import (
    CONTROL_SECONDS,
    RECIPES,
    STUDIES,
    Cell,
    Study,
    judge,
    load_cell,
    log_of,
    of_study,
    save_cell,
    train_cell,
)
from simtrust.paper.robot_claims import CLAIMS_OF_FIGURE_2, quantities_of_figure_2
from simtrust.reports.trajectories import draw_states
from simtrust.simulators.wheel_legged import STATE_NAMES
from simtrust.training.checkpoint import write_atomically

ROWS = (("tilt θ (rad)", "tilt"), ("position x (m)", "position"), ("velocity ẋ (m/s)", "velocity"))
LIMITS = {
    "standing-still": ((-0.3, 0.3), (-1.5, 1.5), (-1.0, 1.0)),
    "moving-straight": ((-0.3, 0.3), (-1.0, 8.0), (-0.4, 0.8)),
}
FIDELITIES = ("real", "simulator")
MEASURES = ("return", "seconds", "error")
"""Of every episode, in either fidelity."""


def figure2(
    out: Path,
    *,
    seeds: int = 5,
    episodes: int = 20,
    recipes: Sequence[str] = tuple(RECIPES),
    studies: Sequence[str] = tuple(STUDIES),
    quiet: bool = False,
    **options: Any,
) -> dict[tuple[str, str], Cell]:
    """Train what is missing, judge it, and write the table and the pictures of everything there is.

    Every finished cell is kept; a command that was stopped goes on where it was. Writes ``figure2.md``,
    ``figure2.csv`` (every episode), ``figure2-statistics.csv`` (every measure over training seeds),
    ``figure2-claims.csv`` (what the paper says, and whether ours do), ``figure2-STUDY.png`` and
    ``figure2-returns.png`` into ``out``.

    Args:
        out: folder of logs, runs and results.
        seeds: training runs of each recipe, side by side.
        episodes: of each run's policy, on the real robot and in the simulator each.
        recipes: names of `RECIPES`.
        studies: names of `STUDIES`.
        quiet: show no progress.
        options: of `simtrust.train`, over the study's own, such as ``steps``.

    Raises:
        ConfigError: a name is unknown, or a number too small; before any work.
        RunError: ``out`` holds a cell of other seeds, episodes or steps, or one without its recorded
            episodes or one of its measures, or cannot be written.
    """
    _check({"seeds": seeds, "episodes": episodes, "steps": options.get("steps", 1)}, recipes, studies)
    make_writable(out)
    console = Console(quiet=quiet)
    for name in studies:
        log = log_of(STUDIES[name], out, quiet=quiet)
        for recipe in recipes:
            if _measured(out, name, recipe).exists():
                _check_cell(out, name, recipe, seeds, episodes, options)
            else:
                console.print(f"{name}, {recipe}:", highlight=False)
                _run_cell(STUDIES[name], recipe, out, log, seeds, episodes, quiet, options)
            write_results(out)
    cells = load_cells(out)
    text = f"{overview(cells)}\n\n{claims_page(findings(cells, load_states(out, cells)))}"
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    return cells


def _check(counts: dict[str, int], recipes: Sequence[str], studies: Sequence[str]) -> None:
    for option, value in counts.items():
        if value < 1:
            raise ConfigError(f"--{option} is {value}; it must be at least 1")
    for option, names, known in (("recipe", recipes, RECIPES), ("task", studies, STUDIES)):
        for name in names:
            if name not in known:
                raise ConfigError(f"--{option} {name!r} is none of {', '.join(known)}")


def _check_cell(
    out: Path, study: str, recipe: str, seeds: int, episodes: int, options: dict[str, Any]
) -> None:
    """Raise `RunError` if a finished cell is of other numbers: a table must not mix them."""
    cell = _whole_cell(_measured(out, study, recipe))
    found = {"seeds": len(cell.seeds), "episodes": cell.episodes, "steps": cell.steps}
    wanted = {"seeds": seeds, "episodes": episodes, "steps": options.get("steps", STUDIES[study].steps)}
    for name, value in wanted.items():
        if found[name] != value:
            raise RunError(
                f"{out}: {study}, {recipe} was made with --{name} {found[name]}, not {value}; "
                "give the same, or choose another --out"
            )


def _measured(out: Path, study: str, recipe: str) -> Path:
    return out / study / recipe / "measures.json"


def _run_cell(
    study: Study,
    recipe: str,
    out: Path,
    log: Path,
    seeds: int,
    episodes: int,
    quiet: bool,
    options: dict[str, Any],
) -> None:
    directory = train_cell(study, recipe, out, log, quiet=quiet, seeds=seeds, **options)
    cell, traces = judge(study, recipe, directory, episodes=episodes)
    # Every policy's first episode on the real robot, for the pictures.
    np.savez_compressed(directory / "traces.npz", real=traces["real"].state[:, 0])
    save_cell(cell, _measured(out, study.name, recipe))


def load_cells(out: Path) -> dict[tuple[str, str], Cell]:
    """All finished cells of a folder, by study and recipe, in the order of `RECIPES`.

    Raises `RunError` if one was kept without a measure.
    """
    paths = ((study, recipe, _measured(out, study, recipe)) for study in STUDIES for recipe in RECIPES)
    return {(study, recipe): _whole_cell(path) for study, recipe, path in paths if path.exists()}


def _whole_cell(path: Path) -> Cell:
    cell = load_cell(path)
    wanted = (f"{fidelity} {measure}" for fidelity in FIDELITIES for measure in MEASURES)
    missing = [name for name in wanted if name not in cell.measures]
    if missing:
        raise RunError(
            f"{path} was kept without {', '.join(missing)}; remove it and repeat simtrust paper figure2 "
            "to have the policies beside it judged again"
        )
    return cell


def load_states(out: Path, cells: Iterable[tuple[str, str]]) -> dict[tuple[str, str], np.ndarray]:
    """Of cells by study and recipe, the true states ``[R, T, 4]`` of every run's first real episode.

    Raises `RunError` if a cell was kept without them.
    """
    found = {}
    for study, recipe in cells:
        path = out / study / recipe / "traces.npz"
        if not path.exists():
            raise RunError(
                f"{path} is not there, which Figure 2 draws; remove measures.json beside it to have the "
                "policies judged again"
            )
        with np.load(path, allow_pickle=False) as stored:
            found[study, recipe] = stored["real"]
    return found


def findings(
    cells: Mapping[tuple[str, str], Cell], states: Mapping[tuple[str, str], np.ndarray]
) -> dict[str, list[Finding]]:
    """Whether what the paper says holds among the cells, by study; of those that have a cell."""
    found = {}
    for study in dict.fromkeys(study for study, _ in cells):
        quantities = quantities_of_figure_2(of_study(cells, study), of_study(states, study))
        found[study] = [judge_claim(claim, quantities) for claim in CLAIMS_OF_FIGURE_2[study]]
    return found


def write_results(out: Path) -> None:
    """Tables, claims and pictures of all finished cells."""
    cells = load_cells(out)
    states = load_states(out, cells)
    found = findings(cells, states)
    write_atomically(out / "figure2.md", page(cells, found).encode())
    write_atomically(out / "figure2.csv", _csv(cells).encode())
    write_atomically(out / "figure2-statistics.csv", statistics_csv(cells).encode())
    write_atomically(out / "figure2-claims.csv", claims_csv(found).encode())
    for study in found:
        draw_study(of_study(states, study), STUDIES[study], out / f"figure2-{study}.png")
    draw_returns(cells, out / "figure2-returns.png")


def _csv(cells: dict[tuple[str, str], Cell]) -> str:
    """One line for each study, recipe, training seed, fidelity and episode."""
    lines = []
    for (study, recipe), cell in cells.items():
        for run, seed in enumerate(cell.seeds):
            for fidelity in FIDELITIES:
                columns = (cell.measures[f"{fidelity} {measure}"][run] for measure in MEASURES)
                for episode, values in enumerate(zip(*columns, strict=True)):
                    lines.append((study, recipe, seed, fidelity, episode, *values))
    return csv_text(("study", "recipe", "seed", "fidelity", "episode", *MEASURES), lines)


def draw_study(states: Mapping[str, np.ndarray], study: Study, path: Path) -> Path:
    """θ, x and ẋ on the real robot over time: a column a recipe, a line a training seed.

    ``states`` are by recipe, ``[R, T, 4]``.
    """
    columns = {recipe: {"real robot": one} for recipe, one in states.items()}
    target = {"tilt": None, study.error: study.task.targets[STATE_NAMES.index(study.error)]}
    return draw_states(
        columns,
        time_step=CONTROL_SECONDS,
        rows=[(label, STATE_NAMES.index(name), target.get(name)) for label, name in ROWS],
        limits=LIMITS[study.name],
        path=path,
    )


def draw_returns(cells: dict[tuple[str, str], Cell], path: Path) -> Path:
    """Return in the simulator against return on the real robot, a point a training seed."""
    figure = Figure(figsize=(5 * len(STUDIES), 4.2), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(STUDIES)), STUDIES, strict=True):
        for number, recipe in enumerate(RECIPES):
            if (name, recipe) in cells:
                cell = cells[name, recipe]
                simulated, real = (cell.per_run(f"{fidelity} return") for fidelity in ("simulator", "real"))
                axis.scatter(simulated, real, s=24, color=f"C{number}", label=recipe, alpha=0.85)
        axis.set(title=name, xlabel="return in the simulator", ylabel="return on the real robot")
        # A policy that drives off earns minus millions; the others should stay apart.
        axis.set_xscale("symlog", linthresh=1e4)
        axis.set_yscale("symlog", linthresh=1e4)
        axis.grid(alpha=0.25)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize="small")
    return save_picture(figure, path)
