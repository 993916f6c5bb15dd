"""Gymnasium's locomotion tasks on MuJoCo's batched engine, bit for bit, with shifts.

One class steps any number of instances of any task of `simtrust.simulators.task_specs`.
"""

# MuJoCo ships no type stubs.
# pyright: reportAttributeAccessIssue=false

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from mujoco.batch import Batch

from simtrust.errors import SimulatorError
from simtrust.simulators.shifts import Shift, disturbed_actions, noise_generator, shifted_model
from simtrust.simulators.task_specs import Physics, TaskSpec, uniform_noise

MAX_EPISODE_STEPS = 1000
_DIVERGED = [
    int(warning)
    for warning in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
        mujoco.mjtWarning.mjWARN_BADCTRL,
    )
]


class Diverged(RuntimeError):
    """MuJoCo found a state or control that is not finite, or huge, and replaced it by itself."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids
        super().__init__(
            "the physics diverged (a state or control not finite, or huge) and MuJoCo reset it in the middle "
            "of the step, so there is no true next observation; use milder shifts or smaller actions"
        )


def load_model(spec: TaskSpec) -> mujoco.MjModel:
    """The task's model as installed with Gymnasium.

    Raises:
        SimulatorError: Gymnasium's model file is missing or unreadable.
    """
    # By path: importing gymnasium.envs.mujoco would need the renderer's dependencies.
    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / spec.model_file
    try:
        with _mujoco_warnings_raised_in_python():
            return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise SimulatorError(f"{spec.name}: cannot load Gymnasium's model {path}: {error}") from error


@contextmanager
def _mujoco_warnings_raised_in_python() -> Iterator[None]:
    """Keep MuJoCo from writing MUJOCO_LOG.TXT into the working directory while it loads a model."""

    def report(message: str) -> None:
        # Gymnasium's half_cheetah.xml uses it, which no user of ours can change.
        if "settotalmass" not in message:
            warnings.warn(message, stacklevel=2)

    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(report)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)


class MujocoTask(VectorEnv):
    """S instances of a built-in task; without shifts, the same bits as S of Gymnasium's.

    Instances never restart by themselves: call ``reset(options={"reset_mask": mask})``. Arrays
    returned are the caller's own. Wrap it in a `GuardedSimulator`, as `make_simulator` does: by
    itself it does not look for NaN in actions, which MuJoCo would accept in silence.

    Args:
        spec: the task.
        num_envs: S; instances are stepped on up to as many threads as there are CPUs.
        shifts: applied to all instances, in order.
        max_episode_steps: an episode is truncated, not terminated, after so many steps.

    Raises:
        ShiftError: a shift would change nothing in this task.
    """

    def __init__(
        self,
        spec: TaskSpec,
        *,
        num_envs: int,
        shifts: Sequence[Shift] = (),
        max_episode_steps: int = MAX_EPISODE_STEPS,
    ) -> None:
        self.task_spec = spec
        self.shifts = tuple(shifts)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}
        self.model = shifted_model(load_model(spec), shifts, spec.name)
        self._time_step = self.model.opt.timestep * spec.frame_skip
        self._start_batch()
        self._elapsed = np.zeros(num_envs, np.int64)
        self._reset_generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._noise_generators = [noise_generator(None) for _ in range(num_envs)]
        self._define_spaces()

    def _start_batch(self) -> None:
        reads_contacts = self.task_spec.contact_weight is not None
        threads = min(self.num_envs, os.cpu_count() or 1)
        # Contact forces are computed from each instance's contacts, which only persist if asked to.
        self._batch = Batch(self.model, self.num_envs, threads, persistent=reads_contacts)
        self._scratch = mujoco.MjData(self.model)
        self._control = self._batch.bind("ctrl")
        self._warning_counts = self._batch.warning[..., 1]
        self._physics = Physics(
            position=self._batch.bind("qpos"),
            velocity=self._batch.bind("qvel"),
            body_position=self._batch.bind("xpos"),
            contact_force=np.zeros((self.num_envs, self.model.nbody, 6)),
        )

    def _define_spaces(self) -> None:
        size = self.task_spec.observe(self._physics).shape[1]
        low, high = self.model.actuator_ctrlrange.astype(np.float32).T
        self.single_observation_space = Box(-np.inf, np.inf, (size,), np.float64)
        self.single_action_space = Box(low, high, dtype=np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Restart the instances of ``options["reset_mask"]`` ``[S]`` bool, or all.

        Args:
            seed: one per instance (None: go on with the generators as they are), or an int n for
                n, n+1, ..., n+S−1. Seeds of instances that are not restarted are ignored.
            options: may hold ``reset_mask``; the rest is ignored.

        Returns:
            Observations ``[S, O]`` float64, with the latest one where nothing was restarted; and {}.
        """
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        chosen = np.flatnonzero(mask)
        if seeds is not None:
            self._seed(chosen, seeds)
        starts = [self._draw_start(self._reset_generators[index]) for index in chosen]
        self._restart(chosen, *(np.stack(part) for part in zip(*starts, strict=True)))
        return self.task_spec.observe(self._physics), {}

    def _seed(self, chosen: np.ndarray, seeds: Sequence[int | None]) -> None:
        for index in map(int, chosen):
            seed = seeds[index]
            if seed is not None:
                self._reset_generators[index] = seeding.np_random(seed)[0]
                self._noise_generators[index] = noise_generator(seed)

    def _draw_start(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        scale, model = self.task_spec.reset_scale, self.model
        position = model.qpos0 + uniform_noise(generator, scale, model.nq)
        return position, self.task_spec.velocity_noise(generator, scale, model.nv)

    def _restart(self, chosen: np.ndarray, position: np.ndarray, velocity: np.ndarray) -> None:
        self._batch.reset(chosen)
        self._physics.position[chosen] = position
        self._physics.velocity[chosen] = velocity
        self._batch.forward(chosen)
        self._physics.contact_force[chosen] = 0.0
        self._elapsed[chosen] = 0

    @property
    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of generalised positions ``[S, nq]`` and velocities ``[S, nv]``."""
        return self._physics.position.copy(), self._physics.velocity.copy()

    def set_state(self, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Start an episode of every instance in a state given; return its observations ``[S, O]``.

        What a state leaves out (solver warm start, contact forces, elapsed steps) starts afresh, so
        that what follows depends on the state and the actions alone.

        Args:
            position: ``[S, nq]``.
            velocity: ``[S, nv]``.

        Raises:
            SimulatorError: a shape is wrong or a number not finite.
        """
        for name, given, held in zip(("position", "velocity"), (position, velocity), self.state, strict=True):
            if np.shape(given) != held.shape or not np.isfinite(given).all():
                raise SimulatorError(
                    f"{self.task_spec.name}: a {name} to set must be finite and of shape {held.shape}, "
                    f"got shape {np.shape(given)}"
                )
        self._restart(np.arange(self.num_envs), position, velocity)
        return self.task_spec.observe(self._physics)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every instance; a finished one must have been restarted before.

        Args:
            actions: ``[S, A]``, C-contiguous; may exceed the action space, the model's control
                range then acts. The control cost is that of the action given, plus disturbances.

        Returns:
            Observations ``[S, O]`` float64, rewards ``[S]`` float64, terminated and truncated
            ``[S]`` bool, and {}.

        Raises:
            Diverged: MuJoCo reset an instance in the middle of the step.
        """
        spec, physics = self.task_spec, self._physics
        applied = disturbed_actions(actions, self.shifts, physics.velocity[:, 0], self._noise_generators)
        x_before = spec.x_position(physics).copy()
        self._control[:] = applied
        self._batch.step(nstep=spec.frame_skip)
        self._check_convergence()
        if spec.contact_weight is not None:
            self._compute_contact_forces()
        self._elapsed += 1
        x_velocity = (spec.x_position(physics) - x_before) / self._time_step
        reward, terminated = self._judge(x_velocity, applied)
        return spec.observe(physics), reward, terminated, self._elapsed >= self.max_episode_steps, {}

    def _judge(self, x_velocity: np.ndarray, applied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rewards and termination flags ``[S]``; terms are added in Gymnasium's order, which rounds alike."""
        spec, physics = self.task_spec, self._physics
        # In the action's own precision, as Gymnasium: float32 if the caller's is.
        cost = spec.control_weight * np.square(applied).sum(axis=1)
        if spec.contact_weight is not None:
            forces = physics.contact_force.reshape(self.num_envs, -1)
            cost = cost + spec.contact_weight * np.square(forces).sum(axis=1)
        if spec.healthy is None:
            return x_velocity - cost, np.zeros(self.num_envs, bool)
        healthy = spec.healthy(physics)
        return x_velocity + healthy - cost, ~healthy

    def _compute_contact_forces(self) -> None:
        """cfrc_ext of each instance, of the contacts of its last substep."""
        for index, force in enumerate(self._physics.contact_force):
            self._batch.get_data(index, self._scratch)
            mujoco.mj_rnePostConstraint(self.model, self._scratch)
            np.clip(self._scratch.cfrc_ext, -1.0, 1.0, out=force)

    def _check_convergence(self) -> None:
        diverged = self._warning_counts[:, _DIVERGED].any(axis=1)
        if diverged.any():
            raise Diverged(np.flatnonzero(diverged))
