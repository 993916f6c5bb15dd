"""Figure 3 of the paper, with the truth added: what H2O's gap u says of simulated rows as training goes on.

The paper plots u against Q and against the x-velocity, which its simulator's error grows with. Here the real
machine is a simulator too, so the gap that u estimates is known, row by row.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from simtrust.data import Dataset, load_dataset
from simtrust.errors import ConfigError, RunError
from simtrust.evaluation.statistics import mean_interval
from simtrust.paper.cheetah import (
    COLUMNS,
    RECIPE,
    SHIFT,
    TASK,
    Point,
    load_point,
    measure,
    save_point,
    train_to,
    training_settings,
)
from simtrust.paper.cheetah_claims import CLAIMS, READ, quantities
from simtrust.paper.claims import Finding, claims_csv, claims_section
from simtrust.paper.claims import judge as judge_claim
from simtrust.paper.csv_text import csv_text
from simtrust.paper.figure3_panels import draw
from simtrust.paper.markdown import table as markdown_table
from simtrust.paper.same_runs import check_same
from simtrust.paper.truth import agreement, rank_correlation
from simtrust.training.checkpoint import write_atomically
from simtrust.training.config import TrainConfig, config_from_json

SHARES = (0.1, 0.5, 1.0)
"""Of the updates, at which is measured."""
RANKS = {
    "u, true gap": ("u", "true_gap"),
    "u, x-velocity": ("u", "x_velocity"),
    "true gap, x-velocity": ("true_gap", "x_velocity"),
    "u, Q": ("u", "q"),
}
AREA = "AUC, worst tenth"
LEGEND = """ρ: Spearman's rank correlation over a run's rows. AUC: area under the ROC curve of u for the tenth
of the rows with the largest true gap. True gap: simulated less real next state, root mean square over
dimensions in standard deviations of the logged change. Means over training seeds, with 95 % bootstrap
intervals."""


def figure3(
    out: Path,
    *,
    real: str | Path,
    steps: int = 100_000,
    seeds: int = 3,
    shares: Sequence[float] = SHARES,
    quiet: bool = False,
    command: str = "simtrust.paper.figure3.figure3(...)",
    **options: Any,
) -> list[Point]:
    """Train what is missing, measure it, and write the table and the picture of every point there is.

    Every finished point is kept; a command that was stopped goes on where it was, and one with nothing left
    to do only draws again. Writes ``figure3.md``, ``figure3.csv`` (a line for every row measured),
    ``figure3-claims.csv`` (what the paper says, and whether ours do) and ``figure3.png`` into ``out``,
    whose folder ``run`` is an ordinary run directory. The truth costs seconds; training is all the rest
    (see `simtrust.paper.cheetah`).

    Args:
        out: folder of the run and the results.
        real: the log, of HalfCheetah-v5.
        steps: updates of each run.
        seeds: training runs, side by side.
        shares: of the updates, at which is measured, ascending; the last is 1.
        quiet: show no progress.
        command: what made it, for the record.
        options: of `simtrust.train`, over the study's own, such as ``hidden_sizes``.

    Raises:
        ConfigError: a number cannot work; before any work.
        DataError: the log cannot be used.
        RunError: ``out`` holds a study of another log, or of other steps, seeds or options.
    """
    points = _steps_of_points(steps, seeds, shares, options.get("rollout_steps", TrainConfig.rollout_steps))
    settings = {"seeds": seeds, **training_settings(points, options)}
    dataset = load_dataset(real)
    _refuse_another(out, dataset, points, settings)
    console = Console(quiet=quiet)
    missing = [step for step in points if not _path(out, step).exists()]
    for step in missing:
        console.print(f"to {step:,} of {steps:,} updates:", highlight=False)
        train_to(out / "run", step, str(real), settings, quiet=quiet)
        save_point(measure(out / "run", dataset), _path(out, step))
        write_results(out, command)
    if not missing:
        write_results(out, command)
    found = load_points(out)
    console.print(table(found), highlight=False, soft_wrap=True)
    return found


def _steps_of_points(steps: int, seeds: int, shares: Sequence[float], rollout_steps: int) -> list[int]:
    for option, value in (("seeds", seeds), ("steps", steps)):
        if value < 1:
            raise ConfigError(f"--{option} is {value}; it must be at least 1")
    points = [round(share * steps) for share in shares]
    # Updates come in rounds; a leg that ended within one would not be a part of the whole run.
    smallest = round(rollout_steps / min(shares))
    if any(point % rollout_steps for point in points):
        raise ConfigError(
            f"--steps is {steps:,}; it must be a multiple of {smallest:,}, so that every point of the figure "
            f"ends a round of {rollout_steps:,} updates"
        )
    return points


def _refuse_another(out: Path, dataset: Dataset, points: Sequence[int], settings: dict[str, Any]) -> None:
    """Raise `RunError` if the folder's study is another: a figure must not mix them."""
    finished = [_step(path) for path in _paths(out)]
    if not finished and not (out / "run" / "config.json").exists():
        return
    config, extra = config_from_json(out / "run" / "config.json")
    begun = {*finished, config.steps}
    if not begun <= set(points):
        found, wanted = (", ".join(f"{step:,}" for step in sorted(some)) for some in (begun, points))
        raise RunError(
            f"{out} has points at {found} updates, where these --steps put them at {wanted}; give the "
            "--steps that it was begun with, or choose another --out"
        )
    check_same(out / "run", settings)
    if extra["dataset_sha256"] != dataset.sha256:
        raise RunError(
            f"{out} was begun with another log than {dataset.source}: its SHA-256 was "
            f"{extra['dataset_sha256']}, and is {dataset.sha256}; give that log, or choose another --out"
        )


def _path(out: Path, step: int) -> Path:
    return out / f"point-{step:09d}.npz"


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("point-"))


def _paths(out: Path) -> list[Path]:
    return sorted(out.glob("point-*.npz"))


def load_points(out: Path) -> list[Point]:
    """All finished points of a folder, earliest first."""
    return [load_point(path) for path in _paths(out)]


def write_results(out: Path, command: str) -> None:
    """Table, claims and picture of all finished points."""
    points = load_points(out)
    judged = findings(points)
    write_atomically(out / "figure3-claims.csv", claims_csv({TASK: judged}).encode())
    write_atomically(out / "figure3.csv", _csv(points).encode())
    write_atomically(out / "figure3.md", (_page(points, judged, out / "run", command) + "\n").encode())
    draw(points, [statistics(point) for point in points], out / "figure3.png")


def statistics(point: Point) -> dict[str, np.ndarray]:
    """[R] each: Spearman's correlation of each pair of `RANKS`, and u's area under the curve (`AREA`).

    The area is of finding the tenth of a run's rows with the largest true gap. NaN where there is no gap, or
    a column is constant.
    """
    runs = range(len(point.seeds))
    found = {
        name: np.array([rank_correlation(getattr(point, x)[run], getattr(point, y)[run]) for run in runs])
        for name, (x, y) in RANKS.items()
    }
    areas = [agreement(point.true_gap[run], point.u[run])["auc"] for run in runs]
    return found | {AREA: np.array(areas, float)}


def findings(points: Sequence[Point]) -> list[Finding]:
    """Whether what the paper says of Figure 3 holds at the points there are, earliest first."""
    found = quantities(points)
    return [judge_claim(claim, found) for claim in CLAIMS]


def table(points: Sequence[Point]) -> str:
    """Markdown: means over training seeds with 95 % bootstrap intervals, a line a point of training."""
    columns = (next(iter(RANKS)), AREA, *list(RANKS)[1:])
    heads = ["updates", "seeds", *(name if name == AREA else f"ρ({name})" for name in columns)]
    lines = []
    for point in points:
        found = statistics(point)
        cells = (_cell(found[name]) for name in columns)
        lines.append([f"{point.step:,}", str(len(point.seeds)), *cells])
    return markdown_table(heads, lines)


def _cell(runs: np.ndarray) -> str:
    mean, low, high = mean_interval(runs)
    if np.isnan(mean):
        return "–"
    return f"{mean:.2f}" if np.isnan(low) else f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _page(points: Sequence[Point], judged: Sequence[Finding], run: Path, command: str) -> str:
    """The table, what it is of, what the paper says, and what made it."""
    _, extra = config_from_json(run / "config.json")
    versions = ", ".join(f"{name} {version}" for name, version in extra["versions"].items())
    rows = max(len(point.row) for point in points)
    claims = claims_section({TASK: judged}, READ)
    return f"""Recipe {RECIPE}; the simulator is {TASK} with {SHIFT}, the real machine {TASK}.
Of each run, up to {rows:,} rows spread over its replay buffer.

{table(points)}

{LEGEND}

{claims}

- command: `{command}`
- versions: {versions}
- log: SHA-256 {extra["dataset_sha256"]}"""


def _csv(points: Sequence[Point]) -> str:
    """A line for every row measured: which point, training seed and row, and its `COLUMNS`."""
    lines = (
        (point.step, seed, *line)
        for point in points
        for run, seed in enumerate(point.seeds)
        for line in zip(point.row, *(getattr(point, name)[run] for name in COLUMNS), strict=True)
    )
    return csv_text(("step", "seed", "row", *COLUMNS), lines)
