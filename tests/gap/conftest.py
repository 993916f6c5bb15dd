"""Small logs of built-in simulators that stand for real machines."""

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
