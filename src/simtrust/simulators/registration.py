"""The wheel-legged robot as Gymnasium environments.

    import simtrust.simulators
    env = gymnasium.make("simtrust/StandingStill-v0", fidelity="real", render_mode="rgb_array")

or, without the import, ``gymnasium.make("simtrust.simulators:simtrust/StandingStill-v0")``.
"""

# MuJoCo ships no type stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from simtrust.simulators.guard import GuardedSimulator
from simtrust.simulators.rendering import Renderer
from simtrust.simulators.shifts import parse_shifts
from simtrust.simulators.wheel_legged import BALANCING_TASKS, Fidelity, WheelLegged

NAMESPACE = "simtrust/"


class WheelLeggedEnv(gymnasium.Env):
    """One instance of `WheelLegged`, which see for observations, actions and rewards.

    Args:
        task: ``"StandingStill-v0"`` or ``"MovingStraight-v0"``.
        fidelity: ``"simulator"`` is ideal, ``"real"`` has every effect of the real robot.
        shifts: further effects by name and amount, such as ``["dead-zone=0.3"]``.
        render_mode: ``"rgb_array"`` or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 200}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        fidelity: Fidelity = "simulator",
        shifts: Sequence[str] = (),
        render_mode: str | None = None,
    ) -> None:
        spec = BALANCING_TASKS[task]
        self._robot = WheelLegged(spec, num_envs=1, fidelity=fidelity, shifts=parse_shifts(shifts))
        self._guarded = GuardedSimulator(self._robot, f"{NAMESPACE}{task}")
        self.observation_space = self._robot.single_observation_space
        self.action_space = self._robot.single_action_space
        self.render_mode = render_mode
        self._renderer: Renderer | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        # The robot has generators of its own, and unseeded goes on with them.
        seeds = None if seed is None else [seed]
        observation, _ = self._guarded.reset(seed=seeds)
        return observation[0], {"state": self._robot.true_state[0]}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._guarded.step(np.asarray(action)[None])
        return (
            observation[0],
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {"state": info["state"][0]},
        )

    def render(self) -> np.ndarray | None:
        """The robot from the side, [480, 640, 3] uint8."""
        if self.render_mode != "rgb_array":
            return None
        if self._renderer is None:
            self._renderer = Renderer(self._robot.model, width=640, height=480, camera="side")
        return self._renderer.frame(self._robot.state[0][0])

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def register() -> None:
    """Make the robot's tasks known to Gymnasium, once."""
    for name in BALANCING_TASKS:
        if NAMESPACE + name not in gymnasium.registry:
            gymnasium.register(
                NAMESPACE + name,
                entry_point="simtrust.simulators.registration:WheelLeggedEnv",
                # Truncation is the task's own.
                kwargs={"task": name},
            )
