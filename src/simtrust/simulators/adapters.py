"""Simulators by name: built-in tasks, Gymnasium ids, and users' own factories, all guarded."""

import operator
from collections.abc import Sequence

from gymnasium.vector import AutoresetMode, SyncVectorEnv

from simtrust.errors import ConfigError, ShiftError, SimulatorError
from simtrust.simulators.built_in import BUILT_IN, BuiltIn, find_built_in
from simtrust.simulators.factories import instance_factory
from simtrust.simulators.guard import CheckedInstance, GuardedSimulator
from simtrust.simulators.shifts import Shift, check_distinct
from simtrust.simulators.workers import WorkerInstances


def make_simulator(
    name: str,
    *,
    num_envs: int,
    shifts: Sequence[Shift] = (),
    max_episode_steps: int | None = None,
    workers: int = 0,
) -> GuardedSimulator:
    """Make S guarded instances of a simulator, which restart only on request.

    ``step(actions [S, A])`` returns observations ``[S, O]``, rewards ``[S]``, terminated and
    truncated ``[S]`` bool, and info; the observations are always those that the actions led to.
    Finished instances must be restarted by ``reset(options={"reset_mask": finished})``, which
    leaves the others alone, before the next step.

    Args:
        name: a built-in task (``HalfCheetah-v5``, ``walker2d``, ...), a Gymnasium id, or
            ``module:factory`` where ``factory()`` returns a new ``gymnasium.Env``. If its class has a
            method ``set_observation(observation)`` that puts it into the state which an observation
            ``[O]`` tells, logs can be replayed in it; it is called right after ``reset()``.
        num_envs: S.
        shifts: what makes the simulator imperfect; built-in tasks only.
        max_episode_steps: truncate episodes there; None: the task's own limit, if it has one.
        workers: processes among which the instances of an environment that is not built in are shared out,
            which pays where a step takes longer than about 1 ms; 0: all in this process. The rows are the
            same. Close the simulator to end them.

    Raises:
        SimulatorError: the name is unknown, or what it names cannot be made or has unsupported spaces.
        ShiftError: the simulator supports no shifts, or a shift would change nothing.
        ConfigError: a number is not positive, or workers are asked for a built-in task.
    """
    num_envs = _positive("num_envs", num_envs)
    if max_episode_steps is not None:
        max_episode_steps = _positive("max_episode_steps", max_episode_steps)
    workers = _positive("workers", workers, least=0)
    check_distinct(shifts)
    built_in = find_built_in(name)
    if built_in is not None:
        if workers:
            raise ConfigError(
                f"{built_in.name} is built in and steps its instances on several cores by itself; leave out "
                f"workers (--sim-workers {workers})"
            )
        return _make_built_in(built_in, num_envs, shifts, max_episode_steps)
    if shifts:
        raise ShiftError(
            f"{name!r} supports no shifts ({', '.join(map(str, shifts))}); only {', '.join(BUILT_IN)} do. "
            "Build the shift into a factory of your own instead and name it as module:factory"
        )
    if workers:
        return GuardedSimulator(WorkerInstances(name, num_envs, workers, max_episode_steps), name)
    return _make_synchronous(name, num_envs, max_episode_steps)


def _positive(option: str, value: int, least: int = 1) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        wanted = "a positive integer" if least else "an integer of at least 0"
        raise ConfigError(f"{option} must be {wanted}, got {value!r}")
    return number


def _make_built_in(
    built_in: BuiltIn, num_envs: int, shifts: Sequence[Shift], max_episode_steps: int | None
) -> GuardedSimulator:
    task = built_in.make(num_envs, shifts, max_episode_steps)
    title = f"{built_in.name} ({', '.join(map(str, shifts))})" if shifts else built_in.name
    return GuardedSimulator(task, title, built_in.state_of)


def _make_synchronous(name: str, num_envs: int, max_episode_steps: int | None) -> GuardedSimulator:
    make_env = instance_factory(name, max_episode_steps)
    checked = [CheckedInstance(make_env(), name, index, num_envs) for index in range(num_envs)]
    if len({id(instance.unwrapped) for instance in checked}) < num_envs:
        raise SimulatorError(f"{name}: the factory must return a new environment at every call")
    try:
        # The default argument binds each instance now, not when the loop is over.
        environments = SyncVectorEnv(
            [lambda instance=instance: instance for instance in checked],
            autoreset_mode=AutoresetMode.DISABLED,
        )
    except Exception as error:
        raise SimulatorError(f"{name}: the instances cannot be run side by side: {error}") from error
    return GuardedSimulator(environments, name)
