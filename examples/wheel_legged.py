"""The wheel-legged robot in two minutes: two logs of it, a simulator too ideal, and two policies each.

    python examples/wheel_legged.py [--out runs/demo]

The real robot is a detailed twin in MuJoCo (docs/wheel_legged.md). A human-like operator steers it for 500
seconds; that is the log. The simulator knows nothing of dead zone, friction, delay, noise or a tired battery.
`h2o` learns from both and weighs simulated rows by their dynamics; `sac` believes the simulator. Both are
then judged on the real robot.
"""

import argparse
import json
import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

RECIPES = ("h2o", "sac")
EPISODES = 10
# The longest first, so that two processes finish together.
CELLS = [
    ("moving-straight", "h2o"),
    ("moving-straight", "sac"),
    ("standing-still", "h2o"),
    ("standing-still", "sac"),
]


def work(out: Path, study: str, recipe: str) -> str:
    """In a process of its own: train one policy, judge it, keep its measures and its first episodes."""
    from simtrust.paper.robot import STUDIES, judge, log_of, save_cell, train_cell

    log = log_of(STUDIES[study], out, quiet=True)
    directory = train_cell(STUDIES[study], recipe, out, log, quiet=True, evaluation_episodes=1)
    cell, traces = judge(STUDIES[study], recipe, directory, episodes=EPISODES)
    real, simulated = (traces[name].state[0, :3] for name in ("real", "simulator"))
    np.savez(directory / "traces.npz", real=real, simulator=simulated)
    save_cell(cell, directory / "measures.json")
    return study


def steps_done(directory: Path) -> int:
    """How far a run is, by the last line of its metrics."""
    path = directory / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    # The last line may be half written.
    return next((json.loads(line)["step"] for line in reversed(lines) if line.endswith("}")), 0)


def train_all(out: Path, console: Console) -> None:
    """All four policies, two at a time, with a bar each."""
    from simtrust.paper.robot import STUDIES

    columns = (TextColumn("{task.description:24}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    spawn = multiprocessing.get_context("spawn")
    with Progress(*columns, console=console) as progress, ProcessPoolExecutor(2, mp_context=spawn) as pool:
        # The last percents are the episodes on which a policy is judged.
        bars = {
            cell: progress.add_task(" ".join(cell[::-1]), total=1.1 * STUDIES[cell[0]].steps)
            for cell in CELLS
        }
        futures = {cell: pool.submit(work, out, *cell) for cell in CELLS}
        while not all(future.done() for future in futures.values()):
            for cell, bar in bars.items():
                done = steps_done(out / cell[0] / cell[1])
                progress.update(bar, completed=1.1 * STUDIES[cell[0]].steps if futures[cell].done() else done)
            time.sleep(0.5)
        for cell, future in futures.items():
            future.result()
            progress.update(bars[cell], completed=1.1 * STUDIES[cell[0]].steps)


def summarise(out: Path, console: Console) -> None:
    """The table: what each policy does on the real robot, and what the simulator promised."""
    import simtrust
    from simtrust.paper.robot import CONTROL_SECONDS, STUDIES, load_cell
    from simtrust.simulators.wheel_legged import STATE_NAMES

    title = f"On the real robot, {EPISODES} episodes each, and what the simulator promised"
    table = Table("task", "policy", "upright", "RMS error", "return", "in simulator", title=title)
    for name, study in STUDIES.items():
        unit = "m" if study.error == "position" else "m/s"
        whole = f"/ {study.task.seconds:.0f} s"
        log = simtrust.load_dataset(out / f"{name}.hdf5")
        # The last episode is cut where the log ends.
        seconds, earned = CONTROL_SECONDS * log.episode_lengths[:-1].mean(), log.episode_returns[:-1].mean()
        observed = log.transitions.observation[:, study.task.observed.index(study.error)]
        target = study.task.targets[STATE_NAMES.index(study.error)]
        error = np.sqrt(np.square(observed - target).mean())
        table.add_row(
            name.split("-")[0], "operator", f"{seconds:.1f} {whole}", f"{error:.2f} {unit}", f"{earned:,.0f}"
        )
        for recipe in RECIPES:
            cell = load_cell(out / name / recipe / "measures.json")
            seconds, error, real, simulated = (
                float(cell.per_run(m)[0])
                for m in ("real seconds", "real error", "real return", "simulator return")
            )
            cells = (f"{seconds:.1f} {whole}", f"{error:.2f} {unit}", f"{real:,.0f}", f"{simulated:,.0f}")
            table.add_row("", recipe, *cells)
    console.print(table)
    console.print(
        "The operator is the log's. One training run each, and runs differ widely: docs/results.md has five.",
        highlight=False,
    )


def draw(out: Path, console: Console) -> None:
    """The state over time, and a film of both policies side by side."""
    from simtrust.errors import SimulatorError
    from simtrust.paper.figure2 import LIMITS, ROWS
    from simtrust.paper.robot import CONTROL_SECONDS, STUDIES
    from simtrust.reports.animation import animate
    from simtrust.reports.trajectories import draw_states
    from simtrust.simulators.wheel_legged import STATE_NAMES, WheelLegged

    for name, study in STUDIES.items():
        traces = {
            recipe: np.load(out / name / recipe / "traces.npz", allow_pickle=False) for recipe in RECIPES
        }
        columns = {
            recipe: {
                "real robot": traces[recipe]["real"],
                "in the simulator": traces[recipe]["simulator"][:1],
            }
            for recipe in RECIPES
        }
        target = {"tilt": 0.0, study.error: study.task.targets[STATE_NAMES.index(study.error)]}
        picture = draw_states(
            columns,
            time_step=CONTROL_SECONDS,
            rows=[(label, STATE_NAMES.index(state), target.get(state)) for label, state in ROWS],
            limits=LIMITS[name],
            path=out / f"{name}.png",
        )
        console.print(f"θ, x and ẋ over time: {picture}", highlight=False)
        model = WheelLegged(study.task, num_envs=1).model
        episodes = {f"{recipe}, real robot": traces[recipe]["real"][0] for recipe in RECIPES}
        try:
            film = animate(model, episodes, time_step=CONTROL_SECONDS, seconds=6.0, path=out / f"{name}.gif")
            console.print(f"film, {' and '.join(RECIPES)} on the real robot: {film}", highlight=False)
        except SimulatorError as error:
            console.print(f"no film: {error}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    out = parser.parse_args().out
    mark = out / ".simtrust-demo"
    if out.exists() and not mark.exists():
        parser.error(f"{out} exists and is not an earlier demo; choose another --out")
    began, console = time.monotonic(), Console(markup=False, highlight=False)
    from simtrust.paper.robot import STUDIES, log_of

    # The demo may be run again and again; only what an earlier one made is deleted.
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    mark.touch()
    for study in STUDIES.values():
        log_of(study, out)
    train_all(out, console)
    summarise(out, console)
    draw(out, console)
    console.print(
        f"{time.monotonic() - began:.0f} s. Everything is in {out}. With more seeds and the paper's other "
        "recipes: simtrust paper figure2. Your own log and simulator: see README.md.",
        highlight=False,
    )


if __name__ == "__main__":
    main()
