"""A human-like operator of the wheel-legged robot, and the log recorded of it on the robot's real twin.

An onboard stabiliser keeps the robot upright; a person steers the speed that it is to keep. The person sees
late, is not always attentive, judges speed by eye, now and then gives a short push against the error, and
learns within seconds how the robot drifts by itself. Both read what the sensors measure, never the true
state. All numbers were chosen before any training: what a person plausibly does, near balance.
"""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from rich.console import Console
from rich.progress import track

from simtrust.data import save_dataset
from simtrust.data.formats import prepare_hdf5
from simtrust.errors import ConfigError
from simtrust.simulators.adapters import make_simulator
from simtrust.simulators.built_in import real_machine
from simtrust.simulators.guard import GuardedSimulator
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

TILT_GAIN = 22.0
"""N m per rad: somewhat less than twice the 11.8 N m per rad with which gravity topples the body."""
TILT_VELOCITY_GAIN = 3.5
"""N m s per rad: enough that the body does not keep swinging."""
SPEED_GAIN = 3.0
"""N m s per m: a change of 0.2 m/s leans the body by a few hundredths of a radian, no more."""

REACTION_TIME = 0.2
"""s, of a person to something seen, at the quick end of what is measured (0.2 to 0.3 s)."""
ATTENTION, ATTENTION_SPREAD = 0.8, 0.2
"""Mean and standard deviation of the share of a correction that is made; it stays within 0 and 1."""
ATTENTION_TIME = 4.0
"""s, over which attention drifts: people's wanders within seconds."""
LAPSE_EVERY, LAPSE_TIME = 12.0, 1.0
"""s between lapses on average, and of one, during which nothing is corrected: a glance elsewhere."""
PUSH_EVERY, PUSH_TIME = 4.0, 0.3
"""s between pushes on average, and of one: about as short as a deliberate movement of the hand is."""
PUSH_SPEED = 0.15
"""m/s at most, at least half of it: a push is felt, and does not topple the robot."""
WANDER, WANDER_TIME = 0.05, 2.0
"""m/s and s: standard deviation and memory of the error of the speed asked, which is judged by eye."""
JITTER, JITTER_TIME = 0.15, 0.05
"""N m and s: standard deviation and memory of the torque's jitter, a few hundredths of the motors' limit."""


class Steering(NamedTuple):
    """How a person turns what is seen of a task into a speed."""

    watched: str
    """The component of the state that the person tries to keep at the task's target."""
    gain: float
    """m/s per unit of error."""
    trim_rate: float
    """m/s per unit of error and second: how quickly a lasting error is learnt."""


STEERING = {
    STANDING_STILL.name: Steering("position", gain=0.6, trim_rate=0.15),
    MOVING_STRAIGHT.name: Steering("velocity", gain=0.6, trim_rate=1.0),
}
"""Away from its place the robot is driven back within about two seconds; of a wrong speed rather more than
half is corrected at once. An error that lasts is learnt within a few seconds."""

BEHAVIOUR = (
    "human-like operator: a state-feedback stabiliser, whose speed a person steers with a reaction time of"
    f" {REACTION_TIME} s, drifting attention with lapses, short pushes, and motor jitter"
)
TASKS: dict[TaskName, BalancingTask] = {
    "standing-still": STANDING_STILL,
    "moving-straight": MOVING_STRAIGHT,
}


class Drift:
    """An Ornstein–Uhlenbeck process of S instances, stationary from its start.

    Args:
        spread: its standard deviation.
        time: seconds over which it forgets.
        generator: where its normals come from.
    """

    def __init__(self, spread: float, time: float, num_envs: int, generator: np.random.Generator) -> None:
        self._kept = np.exp(-1.0 / (CONTROL_RATE * time))
        self._added = spread * np.sqrt(1.0 - self._kept**2)
        self._generator = generator
        self._value = spread * generator.standard_normal(num_envs)

    def next(self) -> np.ndarray:
        """The values ``[S]`` one control step later."""
        noise = self._generator.standard_normal(len(self._value))
        self._value = self._kept * self._value + self._added * noise
        return self._value


class Events:
    """Events of S instances that begin at random, and last for a while, during which none begins.

    Args:
        every: mean seconds from the end of one to the beginning of the next.
        time: seconds of one.
        generator: where their beginnings come from.
    """

    def __init__(self, every: float, time: float, num_envs: int, generator: np.random.Generator) -> None:
        self._chance = 1.0 / (CONTROL_RATE * every)
        self._steps = round(CONTROL_RATE * time)
        self._generator = generator
        self._left = np.zeros(num_envs, np.int64)

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """Which events begin at this control step and which are under way, bool ``[S]`` each."""
        drawn = self._generator.random(len(self._left)) < self._chance
        begins = drawn & (self._left == 0)
        self._left = np.where(begins, self._steps, self._left)
        under_way = self._left > 0
        self._left = self._left - under_way
        return begins, under_way


class HumanOperator:
    """S operators side by side, each at an instance of the robot of its own.

    The same observations and seed give the same torques.

    Args:
        task: what the operators are asked to do.
        num_envs: S.
        seed: of everything that is random about them.
    """

    def __init__(self, task: BalancingTask, *, num_envs: int, seed: int) -> None:
        self.steering = STEERING[task.name]
        self._columns = {name: task.observed.index(name) for name in task.observed}
        self._target = task.targets[STATE_NAMES.index(self.steering.watched)]
        self._speed = task.targets[STATE_NAMES.index("velocity")]
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
        self._generator = generator
        self._attention = Drift(ATTENTION_SPREAD, ATTENTION_TIME, num_envs, generator)
        self._wander = Drift(WANDER, WANDER_TIME, num_envs, generator)
        self._jitter = Drift(JITTER, JITTER_TIME, num_envs, generator)
        self._lapses = Events(LAPSE_EVERY, LAPSE_TIME, num_envs, generator)
        self._pushes = Events(PUSH_EVERY, PUSH_TIME, num_envs, generator)
        self._not_yet_seen = np.zeros((num_envs, round(CONTROL_RATE * REACTION_TIME)))
        self._trim = np.zeros(num_envs)
        self._push = np.zeros(num_envs)

    def restart(self, observation: np.ndarray, chosen: np.ndarray) -> None:
        """Begin episodes of the instances ``chosen``, bool ``[S]``, at observations ``[S, O]``.

        The robot has stood as it stands for longer than a reaction takes; nothing is known of its drift.
        """
        self._not_yet_seen[chosen] = self._error(observation)[chosen, None]
        self._trim[chosen] = 0.0

    def torque(self, observation: np.ndarray) -> np.ndarray:
        """The torques ``[S, 1]`` float32, N m, for observations ``[S, O]``; not bounded."""
        tilt, tilt_velocity, velocity = (
            observation[:, self._columns[name]] for name in ("tilt", "tilt_velocity", "velocity")
        )
        torque = TILT_GAIN * tilt + TILT_VELOCITY_GAIN * tilt_velocity
        # Forward torque leans the body back: too high a speed needs more of it, not less.
        torque = torque + SPEED_GAIN * (velocity - self._steered_speed(observation))
        return (torque + self._jitter.next())[:, None].astype(np.float32)

    def _steered_speed(self, observation: np.ndarray) -> np.ndarray:
        """The speeds ``[S]`` that the persons ask of the stabiliser, m/s."""
        seen = self._not_yet_seen[:, 0]
        self._not_yet_seen = np.column_stack((self._not_yet_seen[:, 1:], self._error(observation)))
        _, lapsing = self._lapses.next()
        attention = np.where(lapsing, 0.0, np.clip(ATTENTION + self._attention.next(), 0.0, 1.0))
        begins, pushing = self._pushes.next()
        strength = PUSH_SPEED * self._generator.uniform(0.5, 1.0, len(seen))
        self._push = np.where(begins, np.sign(seen) * strength, self._push)
        self._trim = self._trim + attention * self.steering.trim_rate * seen / CONTROL_RATE
        corrections = attention * (self.steering.gain * seen + np.where(pushing, self._push, 0.0))
        return self._speed + self._trim + corrections + self._wander.next()

    def _error(self, observation: np.ndarray) -> np.ndarray:
        return self._target - observation[:, self._columns[self.steering.watched]]


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
    prepare_hdf5(path)
    log = _record(TASKS[task], rows, seed, quiet=quiet)
    return save_dataset(path, log, metadata=_metadata(TASKS[task], seed))


def _record(task: BalancingTask, rows: int, seed: int, *, quiet: bool) -> dict[str, np.ndarray]:
    """Arrays by D4RL key of ``rows`` rows, from as many robots as there are whole episodes in them.

    A robot that falls is set up again and goes on, so that every robot gives the same number of rows.
    """
    limit = round(task.seconds * CONTROL_RATE)
    robots, steps = -(-rows // limit), min(rows, limit)
    simulator = make_simulator(real_machine(task.name), num_envs=robots)
    operators = HumanOperator(task, num_envs=robots, seed=seed)
    seeds = np.random.SeedSequence(seed).generate_state(robots)
    log = _empty_log(robots, steps, len(task.observed))
    observation, ended = simulator.reset(seed=[int(one) for one in seeds])[0], np.ones(robots, bool)
    console = Console(stderr=True, quiet=quiet)
    shown = console.is_terminal and not quiet
    for step in track(range(steps), f"Recording {task.name}", console=console, disable=not shown):
        observation, ended = _record_step(simulator, operators, observation, ended, log, step)
    simulator.close()
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
