"""Small logs, and simulators of one's own, named as ``known_gaps:factory``, whose gap to them is known."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from simtrust.data import Dataset
from simtrust.simulators import make_simulator
from simtrust.types import Transitions


def dataset_of(observation, action, next_observation, *, terminated=None, lengths=None):
    rows = len(observation)
    terminated = np.zeros(rows) if terminated is None else terminated
    columns = (observation, action, np.zeros(rows), next_observation, terminated)
    end = np.zeros(rows, bool)
    end[np.cumsum([rows] if lengths is None else lengths, dtype=int) - 1] = True
    transitions = Transitions(*(np.ascontiguousarray(column, np.float32) for column in columns))
    return Dataset(transitions, end, "log.hdf5", "0" * 64)


def record_random(name, *, shifts=(), episodes=6, steps=25, amplitude=0.5):
    """A log of random actions, one episode per instance."""
    simulator = make_simulator(name, num_envs=episodes, shifts=shifts)
    observation, _ = simulator.reset(seed=0)
    high, generator = simulator.single_action_space.high, np.random.default_rng(0)
    running, rows = np.ones(episodes, bool), [[] for _ in range(episodes)]
    for _ in range(steps):
        action = (amplitude * high * generator.uniform(-1, 1, (episodes, high.size))).astype(np.float32)
        following, _, terminated, truncated, _ = simulator.step(action)
        for index in np.flatnonzero(running):
            rows[index].append((observation[index], action[index], following[index], terminated[index]))
        finished = terminated | truncated
        running &= ~finished
        observation = following
        if finished.any():
            observation, _ = simulator.reset(options={"reset_mask": finished})
    columns = [np.array(column) for column in zip(*(row for one in rows for row in one), strict=True)]
    return dataset_of(*columns[:3], terminated=columns[3], lengths=[len(one) for one in rows])


def record_line(size, rows=40, lengths=(10, 30)):
    generator = np.random.default_rng(0)
    observation = generator.normal(size=(rows, size))
    action = generator.uniform(-1, 1, (rows, 1))
    return dataset_of(observation, action, observation + 0.1 * action, lengths=lengths)


# Points on lines that reality moves by 0.1 a, and the simulator by 0.1 more.


class Line(gymnasium.Env):
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    extra = 0.1

    def __init__(self, size):
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.point = np.zeros(self.observation_space.shape)
        return self.point.astype(np.float32), {}

    def set_observation(self, observation):
        self.point = observation.astype(float)

    def step(self, action):
        if abs(self.point[0]) > 50:
            raise FloatingPointError("off the paper")
        self.point = self.point + 0.1 * action[0] + self.extra
        return self.point.astype(np.float32), 0.0, bool(self.point[0] > 9), False, {}


class ConstantLine(Line):
    def step(self, action):
        observation, *rest = super().step(action)
        observation[2] = 1.734
        return observation, *rest


class Unsettable(Line):
    set_observation = None


def Line2AndConstant():
    return ConstantLine(3)


def Unsettable2():
    return Unsettable(2)


def Line1():
    return Line(1)


def Line2():
    return Line(2)


def Line100():
    return Line(100)
