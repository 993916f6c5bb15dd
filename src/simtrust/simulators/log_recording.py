"""The log of a human-like operator, recorded on the wheel-legged robot's real twin."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from gymnasium.spaces import Box
from rich.console import Console
from rich.progress import track

from simtrust.data import save_dataset
from simtrust.data.formats import prepare_hdf5
from simtrust.errors import ConfigError
from simtrust.limits import available_memory
from simtrust.simulators.adapters import make_simulator
from simtrust.simulators.built_in import real_machine
from simtrust.simulators.closing import closed_at_end
from simtrust.simulators.guard import GuardedSimulator
from simtrust.simulators.human_operator import BEHAVIOUR, HumanOperator
from simtrust.simulators.wheel_legged import (
    CONTROL_RATE,
    MOVING_STRAIGHT,
    REAL_ROBOT,
    STANDING_STILL,
    STATE_NAMES,
    STATE_UNITS,
    BalancingTask,
)

TaskName = Literal["standing-still", "moving-straight"]
TASKS: dict[TaskName, BalancingTask] = {
    "standing-still": STANDING_STILL,
    "moving-straight": MOVING_STRAIGHT,
}


def generate_wheel_legged_log(
    path: str | os.PathLike[str],
    task: TaskName,
    *,
    rows: int = 100_000,
    seed: int = 0,
    quiet: bool = False,
) -> Path:
    """Record a human-like operator of the robot's real twin as D4RL HDF5, with its provenance.

    This stands for the human's data of the paper's real robot ("When to Trust Your Simulator", Niu et al.
    2022, Appendix B.2), which are not public. Observations are [rows, 4], (tilt, tilt_velocity, position,
    velocity) in rad, rad/s, m and m/s, or [rows, 3] without the position for ``"moving-straight"``; actions
    [rows, 1] are torques within ±4 N m. Falls are terminals. The time limit is a timeout, and so is the
    last row, wherever it cuts its episode. Equal rows and seed give an equal file.

    Args:
        path: ends in ``.hdf5`` or ``.h5``; a file already there is replaced.
        task: ``"standing-still"`` or ``"moving-straight"``.
        rows: control steps of 5 ms.
        seed: of start states, sensor noise and the operator.
        quiet: show no progress; it is shown on terminals only.

    Returns:
        The file written.

    Raises:
        ConfigError: the task is unknown, ``rows`` is below 1, or ``seed`` below 0.
        DataError: the file cannot be written, or its extension is not HDF5's.
    """
    if task not in TASKS:
        raise ConfigError(f"task: {task!r} is none of {', '.join(TASKS)}")
    if rows < 1:
        raise ConfigError(f"rows: {rows} is below 1")
    if seed < 0:
        raise ConfigError(f"seed: {seed} is below 0")
    _check_memory(TASKS[task], rows)
    prepare_hdf5(path)
    log = _record(TASKS[task], rows, seed, quiet=quiet)
    return save_dataset(path, log, metadata=_metadata(TASKS[task], seed))


def _check_memory(task: BalancingTask, rows: int) -> None:
    needed = 4 * rows * (2 * len(task.observed) + 3)
    if 2 * needed > available_memory():
        raise ConfigError(
            f"rows: {rows} take {needed / 2**30:,.1f} GiB, more than half of the free memory; record fewer"
        )


def _record(task: BalancingTask, rows: int, seed: int, *, quiet: bool) -> dict[str, np.ndarray]:
    """Arrays by D4RL key of ``rows`` rows, from as many robots as there are whole episodes in them.

    A robot that falls is set up again and goes on, so that every robot gives the same number of rows.
    """
    limit = round(task.seconds * CONTROL_RATE)
    robots, steps = -(-rows // limit), min(rows, limit)
    operators = HumanOperator(task, num_envs=robots, seed=seed)
    seeds = np.random.SeedSequence(seed).generate_state(robots)
    log = _empty_log(robots, steps, len(task.observed))
    console = Console(stderr=True, quiet=quiet)
    shown = console.is_terminal and not quiet
    with closed_at_end(make_simulator(real_machine(task.name), num_envs=robots)) as simulator:
        observation, ended = simulator.reset(seed=[int(one) for one in seeds])[0], np.ones(robots, bool)
        for step in track(range(steps), f"Recording {task.name}", console=console, disable=not shown):
            observation, ended = _record_step(simulator, operators, observation, ended, log, step)
    log = {key: values.reshape(robots * steps, *values.shape[2:])[:rows] for key, values in log.items()}
    # Where a robot's rows end, its episode does.
    log["timeouts"][steps - 1 :: steps] = True
    log["timeouts"][-1] = True
    log["timeouts"] &= ~log["terminals"]
    return log


def _empty_log(robots: int, steps: int, observation_size: int) -> dict[str, np.ndarray]:
    return {
        "observations": np.empty((robots, steps, observation_size), np.float32),
        "actions": np.empty((robots, steps, 1), np.float32),
        "rewards": np.empty((robots, steps), np.float32),
        "next_observations": np.empty((robots, steps, observation_size), np.float32),
        "terminals": np.zeros((robots, steps), bool),
        "timeouts": np.zeros((robots, steps), bool),
    }


def _record_step(
    simulator: GuardedSimulator,
    operators: HumanOperator,
    observation: np.ndarray,
    ended: np.ndarray,
    log: dict[str, np.ndarray],
    step: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One control step of all robots, written to ``log[:, step]``; what they observe, and which ended.

    ``observation`` ``[S, O]`` is what the step before led to, and ``ended`` bool ``[S]`` are those whose
    episodes ended with it, or have not begun.
    """
    if ended.any():
        if step:
            observation, _ = simulator.reset(options={"reset_mask": ended})
        operators.restart(_as_logged(observation), ended)
    observation = _as_logged(observation)
    limits = simulator.single_action_space
    assert isinstance(limits, Box)
    action = np.clip(operators.torque(observation), limits.low, limits.high)
    following, reward, terminated, truncated, _ = simulator.step(action)
    values = (observation, action, reward, following, terminated, truncated)
    for array, value in zip(log.values(), values, strict=True):
        array[:, step] = value
    return following, terminated | truncated


def _as_logged(observation: np.ndarray) -> np.ndarray:
    """Rounded as in the file, so that the operator acts on nothing that the file does not hold."""
    return observation.astype(np.float32)


def _metadata(task: BalancingTask, seed: int) -> dict[str, str | int | float]:
    units = [STATE_UNITS[STATE_NAMES.index(name)] for name in task.observed]
    packages = ("simtrust", "gymnasium", "mujoco", "numpy", "h5py")
    return {
        "env_id": real_machine(task.name),
        "behaviour": BEHAVIOUR,
        "seed": seed,
        "observation_names": ", ".join(task.observed),
        "observation_units": ", ".join(units),
        "action_name": "torque",
        "action_unit": "N m",
        "control_rate": CONTROL_RATE,
        "control_rate_unit": "Hz",
        "real_robot_shifts": ", ".join(map(str, REAL_ROBOT)),
        **{f"{package}_version": version(package) for package in packages},
    }
