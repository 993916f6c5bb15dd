"""The simulators that come with simtrust, by name."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from simtrust.simulators.batched import BatchedTask
from simtrust.simulators.shifts import Shift
from simtrust.simulators.task_specs import TASKS, TaskSpec
from simtrust.simulators.tasks import MAX_EPISODE_STEPS, MujocoTask
from simtrust.simulators.wheel_legged import BALANCING_TASKS, BalancingTask, Fidelity, WheelLegged


class BuiltIn(NamedTuple):
    """A simulator of ours: its name, how to make S instances, and where its policies are judged."""

    name: str
    make: Callable[[int, Sequence[Shift], int | None], BatchedTask]
    """Called with S, shifts, and max_episode_steps or None."""
    real: str
    """The name of the real machine that it simulates; its own, if that is itself without shifts."""


def _locomotion(
    spec: TaskSpec, num_envs: int, shifts: Sequence[Shift], max_episode_steps: int | None
) -> BatchedTask:
    limit = max_episode_steps or MAX_EPISODE_STEPS
    return MujocoTask(spec, num_envs=num_envs, shifts=shifts, max_episode_steps=limit)


def _balancing(
    task: BalancingTask,
    fidelity: Fidelity,
    num_envs: int,
    shifts: Sequence[Shift],
    max_episode_steps: int | None,
) -> BatchedTask:
    return WheelLegged(
        task, num_envs=num_envs, fidelity=fidelity, shifts=shifts, max_episode_steps=max_episode_steps
    )


def _twins(task: BalancingTask) -> tuple[BuiltIn, BuiltIn]:
    real = task.name.replace("-v0", "Real-v0")
    return (
        BuiltIn(task.name, partial(_balancing, task, "simulator"), real),
        BuiltIn(real, partial(_balancing, task, "real"), real),
    )


BUILT_IN = {
    built_in.name: built_in
    for built_in in (
        *(BuiltIn(spec.name, partial(_locomotion, spec), spec.name) for spec in TASKS.values()),
        *(twin for task in BALANCING_TASKS.values() for twin in _twins(task)),
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
