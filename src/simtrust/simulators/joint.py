"""Instances of one built-in simulator for several runs that differ in their shifts, stepped in one call."""

from collections.abc import Sequence

from simtrust.errors import ConfigError
from simtrust.simulators.adapters import guarded_built_in, positive
from simtrust.simulators.built_in import BUILT_IN, find_built_in
from simtrust.simulators.guard import GuardedSimulator
from simtrust.simulators.shifts import Shift, check_distinct


def make_joint_simulator(
    name: str,
    shifts_of_groups: Sequence[Sequence[Shift]],
    *,
    num_envs_each: int,
    max_episode_steps: int | None = None,
) -> GuardedSimulator:
    """Make G groups of N guarded instances of a built-in simulator, each group with its own shifts.

    Group g's instances are g·N, ..., g·N+N−1. Each answers what it would in `make_simulator` with the
    group's shifts alone and the same seeds, bit for bit. Neighbours with the same shifts are stepped as one
    group, which is faster: put them side by side.

    Args:
        name: a built-in task, such as ``HalfCheetah-v5``.
        shifts_of_groups: the shifts of each group; ``()`` for none.
        num_envs_each: N.
        max_episode_steps: truncate episodes there; None: the task's own limit.

    Raises:
        ShiftError: a shift would change nothing, or a group has a kind of shift twice.
        ConfigError: the simulator is not built in, there is no group, or a number is not positive.
    """
    num_envs_each = positive("num_envs_each", num_envs_each)
    if max_episode_steps is not None:
        max_episode_steps = positive("max_episode_steps", max_episode_steps)
    if not shifts_of_groups:
        raise ConfigError("shifts_of_groups is empty; give the shifts of at least one group, () for none")
    for shifts in shifts_of_groups:
        check_distinct(shifts)
    built_in = find_built_in(name)
    if built_in is None:
        raise ConfigError(
            f"{name!r} is not built in; only built-in simulators can share a batch: {', '.join(BUILT_IN)}. "
            "Make a simulator for each group with make_simulator"
        )
    num_envs = num_envs_each * len(shifts_of_groups)
    return guarded_built_in(built_in, num_envs, shifts_of_groups, max_episode_steps)
