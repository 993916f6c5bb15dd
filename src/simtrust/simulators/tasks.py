"""Gymnasium's locomotion tasks on MuJoCo's batched engine, bit for bit, with shifts.

One class steps any number of instances of any task of `simtrust.simulators.task_specs`.
"""

# MuJoCo ships no type stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np

from simtrust.simulators.batched import BatchedTask
from simtrust.simulators.shifts import Shift, refuse_robot_only
from simtrust.simulators.task_specs import Physics, TaskSpec, uniform_noise

MAX_EPISODE_STEPS = 1000


def model_file(spec: TaskSpec) -> Path:
    """The task's model as installed with Gymnasium."""
    # By path: importing gymnasium.envs.mujoco would need the renderer's dependencies.
    return Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / spec.model_file


class MujocoTask(BatchedTask):
    """S instances of a locomotion task; without shifts, the same bits as S of Gymnasium's.

    The control cost is that of the action given, plus disturbances.

    Args:
        spec: the task.
        num_envs: S.
        shifts: of all instances.
        groups: the shifts that each group has besides; see `BatchedTask`.
        max_episode_steps: an episode is truncated after so many steps.
    """

    def __init__(
        self,
        spec: TaskSpec,
        *,
        num_envs: int,
        shifts: Sequence[Shift] = (),
        groups: Sequence[Sequence[Shift]] = ((),),
        max_episode_steps: int = MAX_EPISODE_STEPS,
    ) -> None:
        groups = [(*shifts, *besides) for besides in groups]
        for shifts_of_group in groups:
            refuse_robot_only(shifts_of_group, spec.name)
        self.task_spec = spec
        super().__init__(
            spec.name,
            model_file(spec),
            num_envs=num_envs,
            substeps=spec.frame_skip,
            groups=groups,
            max_episode_steps=max_episode_steps,
            # Contact forces are computed from each instance's contacts, which only persist if asked to.
            persistent=spec.contact_weight is not None,
        )
        self._scratch = mujoco.MjData(self.model)
        self._physics = Physics(
            position=self._position,
            velocity=self._velocity,
            body_position=self.batch.bind("xpos"),
            contact_force=np.zeros((num_envs, self.model.nbody, 6)),
        )
        self._define_spaces(spec.observe(self._physics).shape[1])

    def _observe(self) -> np.ndarray:
        return self.task_spec.observe(self._physics)

    def _draw_start(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        scale, model = self.task_spec.reset_scale, self.model
        position = model.qpos0 + uniform_noise(generator, scale, model.nq)
        return position, self.task_spec.velocity_noise(generator, scale, model.nv)

    def _begin_episodes(self, chosen: np.ndarray) -> None:
        self._physics.contact_force[chosen] = 0.0

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        spec, physics = self.task_spec, self._physics
        applied = self._disturbed(actions)
        x_before = spec.x_position(physics).copy()
        self._step_physics(applied)
        if spec.contact_weight is not None:
            self._compute_contact_forces()
        x_velocity = (spec.x_position(physics) - x_before) / self.time_step
        return *self._judge(x_velocity, applied), {}

    def _judge(self, x_velocity: np.ndarray, applied: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Rewards and termination flags ``[S]``; terms are added in Gymnasium's order, which rounds alike."""
        spec, physics = self.task_spec, self._physics
        # In the action's own precision, as Gymnasium: float32 if the caller's is.
        cost = np.concatenate([spec.control_weight * np.square(given).sum(axis=1) for given in applied])
        if spec.contact_weight is not None:
            forces = physics.contact_force.reshape(self.num_envs, -1)
            cost = cost + spec.contact_weight * np.square(forces).sum(axis=1)
        if spec.healthy is None:
            return x_velocity - cost, np.zeros(self.num_envs, bool)
        healthy = spec.healthy(physics)
        return x_velocity + healthy - cost, ~healthy

    def _compute_contact_forces(self) -> None:
        """cfrc_ext of each instance, of the contacts of its last substep."""
        for index, (model, force) in enumerate(zip(self._models, self._physics.contact_force, strict=True)):
            self.batch.get_data(index, self._scratch)
            mujoco.mj_rnePostConstraint(model, self._scratch)
            np.clip(self._scratch.cfrc_ext, -1.0, 1.0, out=force)
