"""The same simulator from a MuJoCo model, pendulum.xml. Replace the file by your robot's."""

from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

RATE, FALLEN = 50, 0.6  # Hz, rad


class MuJoCoPendulum(MujocoEnv):
    """Observed are the joint's angle (rad) and its velocity (rad/s); the action is a torque (N m)."""

    # MujocoEnv wants these four, and the rate of its control steps.
    metadata = {  # noqa: RUF012
        "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
        "render_fps": RATE,
    }

    def __init__(self, render_mode=None):
        super().__init__(
            str(Path(__file__).with_name("pendulum.xml")),
            frame_skip=4,  # of 5 ms each: 50 Hz
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
            render_mode=render_mode,
            camera_name="side",
        )

    def reset_model(self):
        start = self.np_random.uniform((-0.2, -0.5), (0.2, 0.5))
        return self.set_observation(start)

    def step(self, action):
        angle, velocity = self.observe()
        self.do_simulation(action, self.frame_skip)
        reward = 1.0 - 10.0 * angle**2 - 0.1 * velocity**2 - 0.01 * float(action[0]) ** 2
        observation = self.observe()
        return observation, reward, bool(abs(observation[0]) > FALLEN), False, {}

    def observe(self):
        return np.concatenate([self.data.qpos, self.data.qvel])

    def set_observation(self, observation):
        self.set_state(np.array(observation[:1]), np.array(observation[1:]))
        return self.observe()


def make():
    return gymnasium.wrappers.TimeLimit(MuJoCoPendulum(), 200)
