"""A simulator that takes 5 ms a step, as many do: the pendulum, with a pause in place of the work."""

import time

import gymnasium
from pendulum import Pendulum


class SlowPendulum(Pendulum):
    def step(self, action):
        time.sleep(0.005)
        return super().step(action)


def make():
    return gymnasium.wrappers.TimeLimit(SlowPendulum(), 200)
