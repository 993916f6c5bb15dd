"""Your simulator, as Gymnasium wants it: a pendulum that a motor holds upright. Replace the physics by yours.

`simtrust ... --sim pendulum:make` finds `make` here, in the working directory.
"""

import gymnasium
import numpy as np

RATE = 50.0  # Hz
GRAVITY, LENGTH, MASS = 9.81, 0.5, 1.0  # m/s², m, kg
FALLEN = 0.6  # rad


class Pendulum(gymnasium.Env):
    """Observed are the angle from upright (rad) and its velocity (rad/s); the action is a torque (N m)."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform((-0.2, -0.5), (0.2, 0.5))
        return self.state.copy(), {}

    def step(self, action):
        angle, velocity = self.state
        torque = self.torque(float(np.clip(action[0], -2.0, 2.0)), velocity)
        acceleration = GRAVITY / LENGTH * np.sin(angle) + torque / (MASS * LENGTH**2)
        reward = 1.0 - 10.0 * angle**2 - 0.1 * velocity**2 - 0.01 * float(action[0]) ** 2
        velocity += acceleration / RATE
        self.state = np.array([angle + velocity / RATE, velocity])
        return self.state.copy(), reward, bool(abs(self.state[0]) > FALLEN), False, {}

    def torque(self, commanded, velocity):
        """What reaches the axis: in this simulator, all of it."""
        return commanded

    def set_observation(self, observation):
        """Optional: lets `simtrust gap` put the simulator into every state of the log."""
        self.state = np.array(observation, dtype=np.float64)


def make():
    return gymnasium.wrappers.TimeLimit(Pendulum(), 200)
