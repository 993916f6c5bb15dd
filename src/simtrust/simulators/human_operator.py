"""A human-like operator of the wheel-legged robot.

An onboard stabiliser keeps the robot upright; a person steers the speed that it is to keep. The person sees
late, is not always attentive, judges speed by eye, now and then gives a short push against the error, and
learns within seconds how the robot drifts by itself. Both read what the sensors measure, never the true
state. All numbers were chosen before any training: what a person plausibly does, near balance.
"""

from typing import NamedTuple

import numpy as np

from simtrust.simulators.wheel_legged import (
    CONTROL_RATE,
    MOVING_STRAIGHT,
    STANDING_STILL,
    STATE_NAMES,
    BalancingTask,
)

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
