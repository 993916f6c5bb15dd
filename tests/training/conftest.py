"""Tiny runs on Gymnasium's Pendulum, and simulators that misbehave."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

import simtrust
from simtrust.data import save_dataset
from simtrust.gap.rollouts import random_policy, roll_out
from simtrust.simulators import make_simulator
from simtrust.training import dynamics_model, gap_model

TINY = {
    "hidden_sizes": (16,),
    "batch_size": 16,
    "classifier_hidden_sizes": (16,),
    "classifier_batch_size": 16,
    "rollout_steps": 50,
    "checkpoint_every": 100,
    "evaluate_every": 0,
    "evaluation_episodes": 1,
    "gap_probe_rows": 200,
    "gap_epochs": 1,
    "dynamics_epochs": 1,
    "steps": 100,
}


def record_pendulum(path: Path, *, rows: int = 2_000, seed: int = 0) -> Path:
    """Random torques on Gymnasium's Pendulum, in episodes of 200 rows that a time limit cuts."""
    env = gymnasium.make("Pendulum-v1", disable_env_checker=True)
    torques = np.random.default_rng(seed).uniform(-2, 2, (rows, 1)).astype(np.float32)
    observation, _ = env.reset(seed=seed)
    steps = []
    for torque in torques:
        following, reward, terminated, truncated, _ = env.step(torque)
        steps.append((observation, torque, np.float32(reward), following, terminated, truncated))
        observation = env.reset()[0] if truncated else following
    env.close()
    keys = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    columns = (np.stack(column) for column in zip(*steps, strict=True))
    return save_dataset(path, dict(zip(keys, columns, strict=True)))


def record_rollouts(path: Path, name: str, seed: int) -> Path:
    """400 random actions in a built-in task, in episodes of 50 rows that a time limit cuts."""
    simulator = make_simulator(name, num_envs=2)
    space = simulator.single_action_space
    assert isinstance(space, Box)
    rows = roll_out(simulator, random_policy(space, np.random.default_rng(seed)), 400, seed)
    keys = ("observations", "actions", "rewards", "next_observations", "terminals")
    ends = {"timeouts": np.arange(1, 401) % 50 == 0, "terminals": np.zeros(400, bool)}
    return save_dataset(path, dict(zip(keys, rows, strict=True)) | ends)


@pytest.fixture(scope="session")
def record_built_in() -> Callable[[Path, str, int], Path]:
    return record_rollouts


@pytest.fixture(scope="session")
def record_log() -> Callable[..., Path]:
    return record_pendulum


@pytest.fixture(scope="session")
def log(tmp_path_factory) -> Path:
    """A log of 2,000 real rows, ten episodes."""
    return record_pendulum(tmp_path_factory.mktemp("log") / "pendulum.hdf5")


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """The options of a run that takes a second once it is compiled."""
    return dict(TINY)


@pytest.fixture
def train(tmp_path) -> Callable[..., simtrust.RunResult]:
    """``train(recipe, **options)`` trains a tiny run in ``tmp_path / "run"``."""

    def train(recipe: str = "sac", **options: Any) -> simtrust.RunResult:
        return simtrust.train(recipe, quiet=True, **{**TINY, "out": tmp_path / "run", **options})

    return train


@pytest.fixture
def small_gap_model(monkeypatch) -> None:
    """Gap models of a few units, fitted and compiled at once."""
    small = replace(gap_model.SIMULATOR_GAP_OPTIONS, members=2, elites=2, hidden_sizes=(8, 8))
    monkeypatch.setattr(gap_model, "SIMULATOR_GAP_OPTIONS", small)


@pytest.fixture
def small_dynamics_model(monkeypatch) -> None:
    """Dynamics models of a few units, fitted and compiled at once."""
    small = replace(dynamics_model.REVERSE_GAP_OPTIONS, members=3, elites=2, hidden_sizes=(8, 8))
    monkeypatch.setattr(dynamics_model, "REVERSE_GAP_OPTIONS", small)


@pytest.fixture
def misbehaving(monkeypatch) -> ModuleType:
    """The module of that name, so that ``--sim misbehaving:factory`` finds it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("misbehaving")
