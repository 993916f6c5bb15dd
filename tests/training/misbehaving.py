"""Simulators with known answers, and with faults, named as ``misbehaving:factory``."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Counter(gymnasium.Env):
    """Observes (steps since reset, episodes begun); every episode ends at step 30, as ``ending`` says."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, ending: str):
        self.ending, self.episode = ending, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.episode = 0, self.episode + 1
        return self.observe(), {}

    def observe(self):
        return np.array([self.count, self.episode], np.float32)

    def step(self, action):
        self.count += 1
        ended = self.count == 30
        return (
            self.observe(),
            1.0,
            ended and self.ending == "terminal",
            ended and self.ending == "timeout",
            {},
        )


class Faulty(Counter):
    """A Counter that at its ``at``-th step ever raises, or observes NaN, until it is mended."""

    fault: str | None = None
    at = 170
    steps = 0

    def step(self, action):
        Faulty.steps += 1
        answer = super().step(action)
        if Faulty.steps != self.at or self.fault is None:
            return answer
        if self.fault == "raise":
            raise ZeroDivisionError("the motor came off")
        return (np.full(2, np.nan, np.float32), *answer[1:])


class WeakPendulum(gymnasium.Env):
    """Pendulum-v1's spaces, but half its torque."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)


def truncating() -> gymnasium.Env:
    return Counter("timeout")


def terminating() -> gymnasium.Env:
    return Counter("terminal")


def faulty() -> gymnasium.Env:
    return Faulty("timeout")


def weak_pendulum() -> gymnasium.Env:
    return WeakPendulum()


class Closing(Counter):
    """A Counter that notes which instances are made and closed, and may break at a step or in closing."""

    made = 0
    closed: list[int] = []  # noqa: RUF012 - of all instances
    breaks_closing = False
    breaks_step: type[BaseException] | None = None

    def __init__(self):
        super().__init__("timeout")
        self.number, Closing.made = Closing.made, Closing.made + 1

    def step(self, action):
        if Closing.breaks_step is not None:
            raise Closing.breaks_step("while stepping")
        return super().step(action)

    def close(self):
        Closing.closed.append(self.number)
        if self.breaks_closing:
            raise OSError("the port is gone")


def closing() -> gymnasium.Env:
    return Closing()
