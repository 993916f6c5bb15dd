"""Small logs of built-in simulators that stand for real machines."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from simtrust.data import load_dataset, save_dataset
from simtrust.simulators import make_simulator, parse_shifts

ROBOTS, STEPS = 10, 60


def record(path, name, shifts=()):
    """A log of smooth random actions on a simulator that stands for the real machine."""
    machine = make_simulator(name, num_envs=ROBOTS, shifts=parse_shifts(shifts))
    generator = np.random.default_rng(0)
    keys = ("observations", "actions", "rewards", "next_observations", "terminals")
    columns = {key: [] for key in keys}
    observation, _ = machine.reset(seed=0)
    action = np.zeros((ROBOTS, machine.single_action_space.shape[0]), np.float32)
    for _ in range(STEPS):
        drawn = generator.uniform(-1, 1, action.shape)
        action = (0.7 * action + 0.6 * drawn * machine.single_action_space.high).astype(np.float32)
        action = np.clip(action, machine.single_action_space.low, machine.single_action_space.high)
        following, reward, terminated, _, _ = machine.step(action)
        for column, value in zip(
            columns.values(), (observation, action, reward, following, terminated), strict=True
        ):
            column.append(np.array(value))
        observation = following
        if terminated.any():
            observation, _ = machine.reset(options={"reset_mask": terminated})
    log = {key: np.swapaxes(np.stack(v), 0, 1).reshape(-1, *v[0].shape[1:]) for key, v in columns.items()}
    log = {key: v if key == "terminals" else v.astype(np.float32) for key, v in log.items()}
    timeouts = np.arange(1, ROBOTS * STEPS + 1) % STEPS == 0
    return load_dataset(save_dataset(path, log | {"timeouts": timeouts & ~log["terminals"]}))


@pytest.fixture(scope="session", name="record")
def record_fixture():
    """``record(path, name, shifts=())``."""
    return record


@pytest.fixture(scope="session")
def cheetah(tmp_path_factory):
    return record(tmp_path_factory.mktemp("cheetah") / "log.hdf5", "HalfCheetah-v5")


@pytest.fixture(scope="session")
def known_gaps() -> ModuleType:
    """The module of that name, so that the simulator ``known_gaps:factory`` is found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        return importlib.import_module("known_gaps")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    """MuJoCo writes MUJOCO_LOG.TXT into the working directory when it warns."""
    monkeypatch.chdir(tmp_path)
