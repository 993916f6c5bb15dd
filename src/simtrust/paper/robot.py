"""The wheel-legged robot's study (Fig. 2, 4 and 5): settings, training of a cell, and its measures."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from simtrust import __version__
from simtrust.api import train
from simtrust.errors import RunError
from simtrust.evaluation.statistics import Interval, mean_interval
from simtrust.evaluation.traces import Traces, record_episodes
from simtrust.paper.files import make_writable
from simtrust.paper.same_runs import check_same
from simtrust.simulators.built_in import real_machine
from simtrust.simulators.closing import closed_at_end
from simtrust.simulators.log_recording import TaskName, generate_wheel_legged_log
from simtrust.simulators.wheel_legged import (
    CONTROL_RATE,
    MOVING_STRAIGHT,
    REAL_ROBOT,
    STANDING_STILL,
    STATE_NAMES,
    BalancingTask,
)
from simtrust.training.checkpoint import write_atomically
from simtrust.training.loop import resume
from simtrust.training.policy import Policy, evaluation_instances, start_seeds

Kept = TypeVar("Kept")

CELL_FORMAT = 1
CONTROL_SECONDS = 1.0 / CONTROL_RATE

NETWORKS: dict[str, Any] = {
    "hidden_sizes": (32, 32),
    "classifier_hidden_sizes": (32,),
    "batch_size": 32,
    "classifier_batch_size": 32,
    "cql_alpha": 10.0,
    "reward_scale": "auto",
    "normalise_observations": True,
    "evaluate_every": 0,
}
"""Table 3's column for the robot; and ours, the same for every recipe: the reward's scale, and observations
standardised, since a tilt near balance is some hundredths of a radian and a speed some tenths of a metre."""

SENSORS = tuple(str(shift) for shift in REAL_ROBOT if shift.kind in ("sensor-noise", "encoder-step"))


@dataclass(frozen=True)
class Study:
    """One of the paper's two experiments with the robot."""

    task: BalancingTask
    name: TaskName
    beta: float
    steps: int
    error: str
    """The component of the state that the task is about."""

    @property
    def simulator(self) -> str:
        return self.task.name

    @property
    def real(self) -> str:
        return real_machine(self.task.name)

    def root_mean_square_error(self, state: np.ndarray) -> np.ndarray:
        """RMS [...] of x, or of ẋ less its target, over the time upright of true states [..., T, 4]."""
        index = STATE_NAMES.index(self.error)
        return np.sqrt(np.nanmean(np.square(state[..., index] - self.task.targets[index]), axis=-1))


STUDIES = {
    "standing-still": Study(STANDING_STILL, "standing-still", beta=0.1, steps=50_000, error="position"),
    "moving-straight": Study(MOVING_STRAIGHT, "moving-straight", beta=1.0, steps=100_000, error="velocity"),
}

RECIPES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "sac": ("sac", {}),
    "cql": ("cql", {}),
    "darc": ("darc", {}),
    "darc_plus": ("darc_plus", {}),
    "h2o": ("h2o", {}),
    "trust": ("trust", {}),
    "h2o_layer_norm": ("h2o_layer_norm", {}),
    "h2o_dr": ("h2o_dr", {}),
    "h2o_unscaled": ("h2o", {"reward_scale": 1.0}),
    "h2o_raw": ("h2o", {"normalise_observations": False}),
    "h2o_sensors": ("h2o", {"shifts": SENSORS}),
}
"""What is compared: the paper's five, ours, and `h2o` with stable critics, without the dynamics ratio, with
the reward as published, with observations as they are, and with a simulator that has the real robot's
sensors."""


@dataclass(frozen=True)
class Cell:
    """One recipe on one study: what its policies did on the real robot and in the simulator."""

    study: str
    recipe: str
    seeds: tuple[int, ...]
    steps: int
    """Updates of each training run."""
    measures: dict[str, list[list[float]]]
    """``real`` or ``simulator``, then ``return``, ``seconds`` or ``error``: [R][n], a row a training seed."""

    @property
    def episodes(self) -> int:
        """Of each run's policy, in each fidelity."""
        return len(self.measures["real return"][0])

    def per_run(self, measure: str) -> np.ndarray:
        """The mean over episodes [R] of one measure, such as ``"real return"``; NaN episodes left out."""
        return np.nanmean(np.asarray(self.measures[measure], float), axis=1)

    def interval(self, measure: str) -> Interval:
        return mean_interval(self.per_run(measure))


def of_study(kept: Mapping[tuple[str, str], Kept], study: str) -> dict[str, Kept]:
    """What is kept by study and recipe, of one study by recipe."""
    return {recipe: one for (name, recipe), one in kept.items() if name == study}


def log_of(study: Study, out: Path, *, rows: int = 100_000, quiet: bool = False) -> Path:
    """The study's log in the folder ``out``, recorded there if it is not.

    Raises `StorageError` if nothing can be written there.
    """
    make_writable(out)
    path = out / f"{study.name}.hdf5"
    if not path.exists():
        generate_wheel_legged_log(path, study.name, rows=rows, quiet=quiet)
    return path


def train_cell(
    study: Study, recipe: str, out: Path, log: Path, *, quiet: bool = False, **options: Any
) -> Path:
    """Train one recipe of `RECIPES`, or go on where it was; returns its run directory.

    ``options`` are those of `simtrust.train`, over the study's own. Raises `RunError` if the directory
    holds a run of other settings.
    """
    name, own = RECIPES[recipe]
    directory = out / study.name / recipe
    settings = {**NETWORKS, "beta": study.beta, "steps": study.steps, **own, **options}
    if (directory / "config.json").exists():
        check_same(directory, settings)
        return resume(directory, quiet=quiet).directory
    # SAC and DARC train in the simulator alone; the log is given to all for the reward's scale.
    return train(
        name,
        real=str(log),
        sim=study.simulator,
        real_env=study.real,
        out=directory,
        quiet=quiet,
        **settings,
    ).directory


def judge(
    study: Study, recipe: str, directory: Path, *, episodes: int, seed: int = 0
) -> tuple[Cell, dict[str, Traces]]:
    """Run the policies of a run directory on the real robot and in the simulator.

    Every policy meets the same initial states. The traces are by fidelity, ``real`` and ``simulator``.
    """
    policy = Policy(directory)
    measures, traces = {}, {}
    for fidelity, name in (("real", study.real), ("simulator", study.simulator)):
        starts = start_seeds(policy, episodes=episodes, seed=seed)
        with closed_at_end(evaluation_instances(policy, name, episodes=episodes)) as environment:
            returns, recorded = record_episodes(environment, policy, runs=len(policy.seeds), seeds=starts)
        traces[fidelity] = recorded
        measures[f"{fidelity} return"] = returns.returns.tolist()
        measures[f"{fidelity} seconds"] = (returns.lengths * CONTROL_SECONDS).tolist()
        measures[f"{fidelity} error"] = study.root_mean_square_error(recorded.state).tolist()
    return Cell(study.name, recipe, tuple(policy.seeds), policy.step, measures), traces


def save_cell(cell: Cell, path: Path) -> None:
    """Keep a cell's measures as JSON."""
    write_atomically(
        path,
        (
            json.dumps({"format": CELL_FORMAT, "simtrust_version": __version__, **asdict(cell)}) + "\n"
        ).encode(),
    )


def load_cell(path: Path) -> Cell:
    """Read `save_cell`'s file; `RunError` if a version with another format wrote it."""
    stored = json.loads(path.read_text())
    version, writer = stored.pop("format", 1), stored.pop("simtrust_version", "unknown")
    if version != CELL_FORMAT:
        raise RunError(
            f"{path} has format {version}, this version of simtrust reads {CELL_FORMAT}; "
            f"use the version that wrote it: {writer}"
        )
    return Cell(**{**stored, "seeds": tuple(stored["seeds"])})
