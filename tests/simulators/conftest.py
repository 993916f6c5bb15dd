"""Gymnasium's own tasks, the reference that ours must equal bit for bit."""

import importlib.util
import sys
import types

import gymnasium
import numpy as np
import pytest

if importlib.util.find_spec("imageio") is None:
    # Gymnasium's MuJoCo package imports it at once but uses it only to save pictures.
    sys.modules["imageio"] = types.ModuleType("imageio")

TASK_NAMES = ["HalfCheetah-v5", "Walker2d-v5", "Hopper-v5", "Ant-v5"]


def pytest_generate_tests(metafunc):
    if "task_name" in metafunc.fixturenames:
        metafunc.parametrize("task_name", TASK_NAMES)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    """MuJoCo writes MUJOCO_LOG.TXT into the working directory when it warns."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def references():
    """A function that makes Gymnasium's envs, with their models edited in memory."""
    made = []

    def make(name, count, edit=None, **kwargs):
        for _ in range(count):
            env = gymnasium.make(name, disable_env_checker=True, **kwargs)
            if edit is not None:
                edit(env.unwrapped.model)
            made.append(env)
        return made[-count:]

    yield make
    for env in made:
        env.close()


def step_references(envs, actions, disturb):
    results = []
    for index, (env, action) in enumerate(zip(envs, actions, strict=True)):
        if disturb is not None:
            action = disturb(action, env.unwrapped.data.qvel[0], index)
        results.append(env.step(action)[:4])
    return [np.array(column) for column in zip(*results, strict=True)]


@pytest.fixture
def first_difference():
    return find_first_difference


def find_first_difference(simulator, envs, *, seeds, steps, disturb=None, dtype=np.float32):
    """The first step at which the simulator's bits are not Gymnasium's, or None, and the episodes ended.

    Actions are drawn within and beyond the bounds; finished instances are reset, the first with a new
    seed each time, the others going on with their generators.
    """
    ended = {"terminated": 0, "truncated": 0}
    start = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])
    if not np.array_equal(simulator.reset(seed=seeds)[0], start):
        return 0, ended
    generator = np.random.default_rng(0)
    high = simulator.single_action_space.high
    for step in range(1, steps + 1):
        actions = (1.5 * high * generator.uniform(-1, 1, (len(envs), high.size))).astype(dtype)
        ours = simulator.step(actions)[:4]
        theirs = step_references(envs, actions, disturb)
        if not all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)):
            return step, ended
        observation, _, terminated, truncated = ours
        ended["terminated"] += int(terminated.sum())
        ended["truncated"] += int(truncated.sum())
        finished = terminated | truncated
        if finished.any():
            new_seeds = [step if index == 0 else None for index in range(len(envs))]
            expected = observation.copy()
            for index in np.flatnonzero(finished):
                expected[index] = envs[index].reset(seed=new_seeds[index])[0]
            restarted, _ = simulator.reset(seed=new_seeds, options={"reset_mask": finished})
            if not np.array_equal(restarted, expected):
                return step, ended
    return None, ended
