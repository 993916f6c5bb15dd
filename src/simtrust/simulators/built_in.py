"""The simulators that come with simtrust, by name."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, get_args

import numpy as np

from simtrust.simulators.batched import BatchedTask
from simtrust.simulators.shifts import Shift
from simtrust.simulators.task_specs import TASKS, States, TaskSpec
from simtrust.simulators.tasks import MAX_EPISODE_STEPS, MujocoTask
from simtrust.simulators.wheel_legged import (
    ACTION_NAMES,
    BALANCING_TASKS,
    BalancingTask,
    Fidelity,
    WheelLegged,
    robot_shifts,
)


class BuiltIn(NamedTuple):
    """A simulator of ours: its name, how to make S instances, and where its policies are judged."""

    name: str
    make: Callable[[int, Sequence[Sequence[Shift]], int | None], BatchedTask]
    """Called with S, the shifts of each group of the instances, and max_episode_steps or None."""
    real: str
    """The name of the real machine that it simulates; its own, if that is itself without shifts."""
    state_of: Callable[[np.ndarray], States]
    """The states behind observations ``[N, O]``."""
    observation_names: tuple[str, ...]
    """With units, in the order of an observation: ``"front thigh angle (rad)"``."""
    action_names: tuple[str, ...]
    """With units, in the order of an action."""
    ideal: str
    """The name of the same simulator without any shifts of its own; its own, if it has none."""
    fidelity: Fidelity = "simulator"

    def all_shifts(self, shifts: Sequence[Shift] = ()) -> tuple[Shift, ...]:
        """Its own shifts and those given: with these, `ideal` is this simulator."""
        return robot_shifts(self.fidelity, shifts)


def _locomotion(
    spec: TaskSpec, num_envs: int, groups: Sequence[Sequence[Shift]], max_episode_steps: int | None
) -> BatchedTask:
    limit = max_episode_steps or MAX_EPISODE_STEPS
    return MujocoTask(spec, num_envs=num_envs, groups=groups, max_episode_steps=limit)


def _balancing(
    task: BalancingTask,
    fidelity: Fidelity,
    num_envs: int,
    groups: Sequence[Sequence[Shift]],
    max_episode_steps: int | None,
) -> BatchedTask:
    return WheelLegged(
        task, num_envs=num_envs, fidelity=fidelity, groups=groups, max_episode_steps=max_episode_steps
    )


def _from_spec(spec: TaskSpec) -> BuiltIn:
    return BuiltIn(
        name=spec.name,
        make=partial(_locomotion, spec),
        real=spec.name,
        state_of=spec.state_of,
        observation_names=spec.observation_names,
        action_names=spec.action_names,
        ideal=spec.name,
    )


def _twin(task: BalancingTask, fidelity: Fidelity) -> BuiltIn:
    real = task.name.replace("-v0", "Real-v0")
    return BuiltIn(
        name=real if fidelity == "real" else task.name,
        make=partial(_balancing, task, fidelity),
        real=real,
        state_of=task.state_of,
        observation_names=task.observation_names,
        action_names=ACTION_NAMES,
        ideal=task.name,
        fidelity=fidelity,
    )


BUILT_IN = {
    built_in.name: built_in
    for built_in in (
        *map(_from_spec, TASKS.values()),
        *(
            _twin(task, fidelity)
            for task in BALANCING_TASKS.values()
            for fidelity in get_args(Fidelity)[::-1]
        ),
    )
}


def find_built_in(name: str) -> BuiltIn | None:
    """The built-in simulator of this name, with or without its version and in any case, or None.

    Gymnasium's ids of the robot, such as ``simtrust/StandingStill-v0``, are names too.
    """
    wanted = name.lower().removeprefix("simtrust/")
    for built_in in BUILT_IN.values():
        full = built_in.name.lower()
        if wanted in (full, full.rpartition("-")[0]):
            return built_in
    return None


def real_machine(simulator: str) -> str:
    """What a simulator by name simulates: the robot's twin, or the unshifted simulator itself."""
    built_in = find_built_in(simulator)
    return simulator if built_in is None else built_in.real
