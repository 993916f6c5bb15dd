"""What all built-in tasks share: instances in one MuJoCo batch, stepped together, restarted on request."""

# MuJoCo ships no type stubs.
# pyright: reportAttributeAccessIssue=false

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from mujoco.batch import Batch

from simtrust.errors import ConfigError, SimulatorError
from simtrust.simulators.actuation import Actuation, noise_generator
from simtrust.simulators.legacy_inertia import with_legacy_inertia
from simtrust.simulators.model_edits import shifted_model
from simtrust.simulators.model_files import load_model_file
from simtrust.simulators.shifts import LEGACY_INERTIA, Shift

INSTANCES_PER_THREAD = 16
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


@dataclass(frozen=True)
class Group:
    """Neighbouring instances that have the same shifts, and so a model and an actuation of their own."""

    instances: slice
    shifts: tuple[Shift, ...]
    model: mujoco.MjModel
    actuation: Actuation


def _make_groups(
    name: str, model_file: Path, shifts_of_groups: Sequence[Sequence[Shift]], num_envs: int
) -> list[Group]:
    """As few groups as there can be, because every one costs time of its own at each step."""
    wanted = [tuple(shifts) for shifts in shifts_of_groups]
    if not wanted or num_envs % len(wanted):
        raise ConfigError(f"{name}: {num_envs} instances cannot be {len(wanted)} groups of one size")
    model = load_model_file(model_file, name)
    models = {shifts: _with_shifts(model, model_file, shifts, name) for shifts in dict.fromkeys(wanted)}
    groups, stop = [], 0
    for shifts, neighbours in groupby(wanted):
        start, stop = stop, stop + len(list(neighbours)) * (num_envs // len(wanted))
        actuation = Actuation(shifts, stop - start, model.nu)
        groups.append(Group(slice(start, stop), shifts, models[shifts], actuation))
    return groups


def _with_shifts(
    model: mujoco.MjModel, model_file: Path, shifts: tuple[Shift, ...], name: str
) -> mujoco.MjModel:
    # First, because the other shifts scale and move what bodies weigh.
    if any(shift.kind == LEGACY_INERTIA for shift in shifts):
        model = with_legacy_inertia(model, model_file, name)
    return shifted_model(model, shifts, name)


class BatchedTask(VectorEnv):
    """S instances of a task in one MuJoCo batch; subclasses say what a task observes and rewards.

    Instances never restart by themselves: call ``reset(options={"reset_mask": mask})``. Arrays
    returned are the caller's own. Wrap it in a `GuardedSimulator`, as `make_simulator` does: by
    itself it does not look for NaN in actions, which MuJoCo would accept in silence.

    Args:
        name: what errors call the task.
        model_file: the XML file of the unshifted model.
        num_envs: S; many are stepped on as many threads as there are CPUs.
        substeps: physics steps of one control step.
        groups: the shifts of each of G groups, applied in order; S/G instances after one another are a
            group. An instance moves and answers as in a task of its group alone, bit for bit.
        max_episode_steps: an episode is truncated, not terminated, after so many steps.
        persistent: keep each instance's contacts between steps.

    Raises:
        ShiftError: a shift would change nothing in this task.
        ConfigError: S is not a multiple of G.
        SimulatorError: the model's file is missing or unreadable.
    """

    def __init__(
        self,
        name: str,
        model_file: Path,
        *,
        num_envs: int,
        substeps: int,
        groups: Sequence[Sequence[Shift]],
        max_episode_steps: int,
        persistent: bool = False,
    ) -> None:
        self.name = name
        self.num_envs = num_envs
        self.substeps = substeps
        self.max_episode_steps = max_episode_steps
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}
        self.groups = _make_groups(name, model_file, groups, num_envs)
        self.model = self.groups[0].model
        """The first group's; what no shift changes is the same in all."""
        self._models = [group.model for group in self.groups for _ in range(num_envs)[group.instances]]
        self.time_step: float = self.model.opt.timestep * substeps
        """Seconds of one control step."""
        # Threads wait for one another at every step, which costs more than it saves with few instances.
        threads = max(1, min(num_envs // INSTANCES_PER_THREAD, os.cpu_count() or 1))
        self.batch = Batch(self.model, num_envs, threads, persistent=persistent)
        if len(self.groups) > 1:
            self.batch.set_models(self._models)
        self._control = self.batch.bind("ctrl")
        self._position = self.batch.bind("qpos")
        self._velocity = self.batch.bind("qvel")
        self._warning_counts = self.batch.warning[..., 1]
        self._elapsed = np.zeros(num_envs, np.int64)
        self._reset_generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._noise_generators = [noise_generator(None) for _ in range(num_envs)]

    @abstractmethod
    def _observe(self) -> np.ndarray:
        """Latest observations ``[S, O]`` float64, the caller's own."""

    @abstractmethod
    def _draw_start(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Start position ``[nq]`` and velocity ``[nv]`` of one instance."""

    @abstractmethod
    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every instance once with `_step_physics`; rewards ``[S]``, terminated ``[S]``, info."""

    def _begin_episodes(self, chosen: np.ndarray) -> None:
        """Whatever else starts with an episode of the instances ``chosen``; their state is set."""

    def _define_spaces(self, observation_size: int) -> None:
        """Unbounded observations, and actions within the bounds of the model's controls."""
        low, high = self.model.actuator_ctrlrange.astype(np.float32).T
        self.single_observation_space = Box(-np.inf, np.inf, (observation_size,), np.float64)
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
        return self._observe(), {}

    def _seed(self, chosen: np.ndarray, seeds: Sequence[int | None]) -> None:
        for index in map(int, chosen):
            seed = seeds[index]
            if seed is not None:
                self._reset_generators[index] = seeding.np_random(seed)[0]
                self._noise_generators[index] = noise_generator(seed)

    def _restart(self, chosen: np.ndarray, position: np.ndarray, velocity: np.ndarray) -> None:
        self.batch.reset(chosen)
        self._position[chosen] = position
        self._velocity[chosen] = velocity
        self.batch.forward(chosen)
        self._elapsed[chosen] = 0
        for group in self.groups:
            here = group.instances
            first, last = np.searchsorted(chosen, (here.start, here.stop))
            group.actuation.restart(chosen[first:last] - here.start, self._noise_generators[here])
        self._begin_episodes(chosen)

    @property
    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of generalised positions ``[S, nq]`` and velocities ``[S, nv]``."""
        return self._position.copy(), self._velocity.copy()

    def set_state(self, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Start an episode of every instance in a state given; return its observations ``[S, O]``.

        What a state leaves out (solver warm start, contact forces, elapsed steps, delayed actions)
        starts afresh, so that what follows depends on the state and the actions alone.

        Args:
            position: ``[S, nq]``.
            velocity: ``[S, nv]``.

        Raises:
            SimulatorError: a shape is wrong or a number not finite.
        """
        for name, given, held in zip(("position", "velocity"), (position, velocity), self.state, strict=True):
            if np.shape(given) != held.shape or not np.isfinite(given).all():
                raise SimulatorError(
                    f"{self.name}: a {name} to set must be finite and of shape {held.shape}, "
                    f"got shape {np.shape(given)}"
                )
        self._restart(np.arange(self.num_envs), position, velocity)
        return self._observe()

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every instance; a finished one must have been restarted before.

        Args:
            actions: ``[S, A]``, C-contiguous; may exceed the action space, the model's control
                range then acts.

        Returns:
            Observations ``[S, O]`` float64, rewards ``[S]`` float64, terminated and truncated
            ``[S]`` bool, and info.

        Raises:
            Diverged: MuJoCo reset an instance in the middle of the step.
        """
        reward, terminated, info = self._advance(actions)
        self._elapsed += 1
        return self._observe(), reward, terminated, self._elapsed >= self.max_episode_steps, info

    def _disturbed(self, actions: np.ndarray) -> list[np.ndarray]:
        """The actions ``[n, A]`` as each group's simulated task receives them, in a precision of its own."""
        return [
            group.actuation.disturb(
                actions[group.instances],
                self._velocity[group.instances, 0],
                self._noise_generators[group.instances],
            )
            for group in self.groups
        ]

    def _step_physics(self, actions: Sequence[np.ndarray]) -> None:
        """Advance the physics by one control step under the disturbed actions of each group."""
        for group, disturbed in zip(self.groups, actions, strict=True):
            self._control[group.instances] = group.actuation.drive(disturbed)
        self.batch.step(nstep=self.substeps)
        diverged = self._warning_counts[:, _DIVERGED].any(axis=1)
        if diverged.any():
            raise Diverged(np.flatnonzero(diverged))
