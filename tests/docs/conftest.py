"""A place to run the pages' snippets in: tiny logs, tiny networks, few steps."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

import simtrust
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.errors import SimulatorError
from simtrust.export import latency
from simtrust.gap import measure
from simtrust.generation import training_run
from simtrust.paper import figure3, robot
from simtrust.reports import animation, run_report
from simtrust.simulators import log_recording, make_simulator
from simtrust.training import gap_model

TINY = {
    "steps": 80,
    "seeds": 1,
    "rollout_steps": 40,
    "checkpoint_every": 80,
    "evaluate_every": 0,
    "evaluation_episodes": 1,
    "gap_probe_rows": 300,
    "gap_epochs": 1,
    "hidden_sizes": (8,),
    "batch_size": 16,
    "classifier_hidden_sizes": (8,),
    "classifier_batch_size": 16,
}
"""What every training of a page is shrunk to, whatever else it asks for."""
FIGURE = {
    **{name: TINY[name] for name in ("seeds", "hidden_sizes", "batch_size", "evaluation_episodes")},
    "classifier_hidden_sizes": (8,),
    "classifier_batch_size": 16,
    "rollout_steps": 20,
    "shares": (0.5, 1.0),
    "steps": 40,
}
"""What the paper's Fig. 3 is shrunk to."""
ROBOT_ROWS = 1_200
SMALL = {"members": 2, "elites": 2, "hidden_sizes": (8, 8), "epochs": 2, "epoch_updates": 20}


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    """The defaults that a page does not name, and the sizes that it does, small enough for a test."""
    train, generate = simtrust.train, simtrust.generate_wheel_legged_log
    with pytest.MonkeyPatch.context() as patch:
        for options in ("SIMULATOR_GAP_OPTIONS", "TRUST_MODEL_OPTIONS"):
            patch.setattr(measure, options, replace(getattr(measure, options), **SMALL))
        classifier = replace(measure.CLASSIFIER_OPTIONS, hidden_sizes=(8,), updates=250, batch_size=64)
        patch.setattr(measure, "CLASSIFIER_OPTIONS", classifier)
        for name, rows in (("PROBE_ROWS", 600), ("POLICY_ROWS", 200), ("EXPLAINED_ROWS", 60)):
            patch.setattr(measure, name, rows)
        patch.setattr(gap_model, "SIMULATOR_GAP_OPTIONS", replace(gap_model.SIMULATOR_GAP_OPTIONS, **SMALL))
        small = AlgorithmOptions(hidden_sizes=(8,), batch_size=16)
        patch.setattr(training_run, "AlgorithmOptions", lambda: small)
        patch.setattr(latency, "CALLS", 20)
        patch.setattr(run_report, "draw_film", no_film)
        patch.setattr(animation, "animate", no_film)
        brief = {name: replace(task, seconds=1.5) for name, task in log_recording.TASKS.items()}
        patch.setattr(log_recording, "TASKS", brief)
        patch.setattr(simtrust, "train", lambda *given, **more: train(*given, **{**more, **TINY}))
        patch.setattr(
            simtrust,
            "generate_wheel_legged_log",
            lambda *given, **more: generate(*given, **{**more, "rows": ROBOT_ROWS}),
        )
        patch.setattr(robot, "generate_wheel_legged_log", simtrust.generate_wheel_legged_log)
        patch.setattr(robot, "NETWORKS", {**robot.NETWORKS, "hidden_sizes": (8,), "batch_size": 16})
        for name, study in robot.STUDIES.items():
            patch.setitem(robot.STUDIES, name, replace(study, steps=50))
        study = figure3.figure3
        patch.setattr(figure3, "figure3", lambda *given, **more: study(*given, **{**more, **FIGURE}))
        yield


def no_film(*_: Any, **__: Any) -> None:
    raise SimulatorError("no film in a test")


@pytest.fixture(scope="session")
def cheetah(tmp_path_factory) -> Path:
    """A log of random actions on HalfCheetah, as ``halfcheetah.hdf5``."""
    return record(tmp_path_factory.mktemp("cheetah") / "halfcheetah.hdf5", "HalfCheetah-v5")


@pytest.fixture(scope="session")
def walker(tmp_path_factory) -> Path:
    """The same on Walker2d, for as long as none falls."""
    return record(tmp_path_factory.mktemp("walker") / "log.hdf5", "Walker2d-v5", robots=20, steps=6)


def record(path: Path, name: str, *, robots: int = 10, steps: int = 40) -> Path:
    machine = make_simulator(name, num_envs=robots)
    space, generator = machine.single_action_space, np.random.default_rng(0)
    assert isinstance(space, Box)
    rows: list[tuple[Any, ...]] = []
    observation, _ = machine.reset(seed=0)
    for step in range(steps):
        action = generator.uniform(space.low, space.high, (robots, *space.shape)).astype(np.float32)
        following, reward, terminated, _, _ = machine.step(action)
        assert not terminated.any()
        last = np.full(robots, step == steps - 1)
        rows.append((observation.copy(), action, reward, following.copy(), terminated, last))
        observation = following
    machine.close()
    keys = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    columns = {}
    for key, column in zip(keys, zip(*rows, strict=True), strict=True):
        values = np.concatenate(np.stack(column, 1))
        columns[key] = values if values.dtype == bool else values.astype(np.float32)
    return simtrust.save_dataset(path, columns)


@pytest.fixture(scope="session")
def tiny_sweep() -> str:
    """`TINY` for a sweep's file."""
    return "\n".join(f"{k} = {list(v) if isinstance(v, tuple) else v}" for k, v in TINY.items())


@pytest.fixture(scope="session")
def train_options() -> list[str]:
    """`TINY` for the command line; an option given twice has the last value."""
    words = []
    for name, value in TINY.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words
