"""Environments for worker processes, which import them as ``unreliable:Name``."""

import os
import signal
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Cart(gymnasium.Env):
    """A cart whose start, noise and episode's length follow from its seed."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    metadata = {"render_modes": []}  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.last = 0, int(self.np_random.integers(3, 9))
        self.state = self.np_random.normal(size=2)
        return self.observe(), {"last": self.last, "options": str(options)}

    def observe(self):
        # A wider type than declared, as many environments have.
        return self.state.copy()

    def step(self, action):
        self.count += 1
        self.state += 0.1 * np.array([self.state[1], action[0]]) + 0.01 * self.np_random.normal(size=2)
        ended = self.count >= self.last
        odd = self.last % 2 == 1
        return self.observe(), np.float32(self.state[0]), ended and odd, ended and not odd, {"at": self.count}


class Settable(Cart):
    def set_observation(self, observation):
        if observation[0] > 100:
            raise ValueError("off the rails")
        self.state = np.array(observation, np.float64)


class WhenPushed(Cart):
    """Does what ``act`` says when it is pushed with 1 in its third step."""

    def step(self, action):
        if self.count == 2 and action[0] == 1.0:
            self.act()
        return super().step(action)


class Raises(WhenPushed):
    def act(self):
        raise ZeroDivisionError("the motor came off")


class Killed(WhenPushed):
    def act(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Exits(WhenPushed):
    def act(self):
        os._exit(3)


class Hangs(WhenPushed):
    def act(self):
        time.sleep(60)


class Process(Cart):
    """Tells its process and working directory, and writes a file when it is closed."""

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        return observation, {"process": os.getpid(), "folder": str(Path.cwd())}

    def close(self):
        Path(f"closed-{os.getpid()}-{id(self)}").touch()


class Unsendable(WhenPushed):
    def step(self, action):
        answer = super().step(action)
        answer[4]["function"] = lambda: None
        return answer


class DiesWhenMade(Cart):
    def __init__(self):
        os._exit(7)


SAME = Cart()


def same_one():
    return SAME


def of_two_kinds():
    """Environments of which every process makes a wider one first."""
    env = Cart()
    env.observation_space = Box(-np.inf, np.inf, (3 if not MADE else 2,), np.float32)
    MADE.append(env)
    return env


MADE: list[gymnasium.Env] = []
