"""Simulators by name: built-in tasks, Gymnasium ids, and users' own factories, all guarded."""

import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

from gymnasium.vector import AutoresetMode

from simtrust.errors import ConfigError, ShiftError, SimulatorError
from simtrust.simulators.built_in import BUILT_IN, BuiltIn, find_built_in
from simtrust.simulators.checked_instance import CheckedInstance, make_checked
from simtrust.simulators.closing import close_instances
from simtrust.simulators.factories import SimulatorLike, instance_factory, simulator_name
from simtrust.simulators.guard import GuardedSimulator
from simtrust.simulators.shifts import Shift, check_distinct
from simtrust.simulators.side_by_side import SideBySide
from simtrust.simulators.workers import WorkerInstances

_STEP_TIMEOUT: ContextVar[float | None] = ContextVar("step_timeout", default=None)


@contextmanager
def steps_limited(step_timeout: float | None) -> Iterator[None]:
    """Within the block, `make_simulator` sets this limit where it is given none, to what is not built in.

    For estimates of the gap, which make the simulator by its name in many places.
    """
    before = _STEP_TIMEOUT.set(None if step_timeout is None else positive_seconds(step_timeout))
    try:
        yield
    finally:
        _STEP_TIMEOUT.reset(before)


def make_simulator(
    name: SimulatorLike,
    *,
    num_envs: int,
    shifts: Sequence[Shift] = (),
    max_episode_steps: int | None = None,
    workers: int = 0,
    step_timeout: float | None = None,
) -> GuardedSimulator:
    """Make S guarded instances of a simulator, which restart only on request.

    ``step(actions [S, A])`` returns observations ``[S, O]``, rewards ``[S]``, terminated and
    truncated ``[S]`` bool, and info; the observations are always those that the actions led to.
    Finished instances must be restarted by ``reset(options={"reset_mask": finished})``, which
    leaves the others alone, before the next step.

    Args:
        name: a built-in task (``HalfCheetah-v5``, ``walker2d``, ...), a Gymnasium id, or
            ``module:factory`` where ``factory()`` returns a new ``gymnasium.Env``, or that function itself.
            If its class has a method ``set_observation(observation)`` that puts it into the state which an
            observation ``[O]`` tells, logs can be replayed in it; it is called right after ``reset()``.
        num_envs: S.
        shifts: what makes the simulator imperfect; built-in tasks only.
        max_episode_steps: truncate episodes there; None: the task's own limit, if it has one.
        workers: processes among which the instances of an environment that is not built in are shared out,
            which pays where a step takes longer than about 1 ms; 0: all in this process. The rows are the
            same. Close the simulator to end them.
        step_timeout: seconds that a reset or a step of one instance may take if it is not built in; making
            one may take as long, or a minute if that is more. Then it is killed, and the call raises; for
            that the instances are in at least one worker process. None: that of `steps_limited`, or none.

    Raises:
        SimulatorError: the name is unknown, a function has none by which it is found again, or what it names
            cannot be made or has unsupported spaces.
        ShiftError: the simulator supports no shifts, or a shift would change nothing.
        ConfigError: a number is not positive, or workers or a time limit are asked for a built-in task.
    """
    name = simulator_name(name)
    num_envs = positive("num_envs", num_envs)
    if max_episode_steps is not None:
        max_episode_steps = positive("max_episode_steps", max_episode_steps)
    workers = positive("workers", workers, least=0)
    if step_timeout is not None:
        step_timeout = positive_seconds(step_timeout)
    check_distinct(shifts)
    built_in = find_built_in(name)
    if built_in is not None:
        if workers:
            raise ConfigError(
                f"{built_in.name} is built in and steps its instances on several cores by itself; leave out "
                f"workers (--sim-workers {workers})"
            )
        if step_timeout is not None:
            raise ConfigError(
                f"{built_in.name} is built in and waits for nothing; leave out the time limit "
                f"(--step-timeout {step_timeout:g})"
            )
        return guarded_built_in(built_in, num_envs, [shifts], max_episode_steps)
    if shifts:
        raise ShiftError(
            f"{name!r} supports no shifts ({', '.join(map(str, shifts))}); only {', '.join(BUILT_IN)} do. "
            "Build the shift into a factory of your own instead and name it as module:factory"
        )
    step_timeout = _STEP_TIMEOUT.get() if step_timeout is None else step_timeout
    if step_timeout is not None:
        # Nothing can stop code in this process that does not return.
        workers = max(workers, 1)
    if workers:
        shared = WorkerInstances(name, num_envs, workers, max_episode_steps, step_timeout)
        return GuardedSimulator(shared, name)
    return _make_synchronous(name, num_envs, max_episode_steps)


def positive(option: str, value: int, least: int = 1) -> int:
    """The integer given; `ConfigError` naming the option if it is none, or less than ``least``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        wanted = "a positive integer" if least else "an integer of at least 0"
        raise ConfigError(f"{option} must be {wanted}, got {value!r}")
    return number


def positive_seconds(value: float) -> float:
    """The time limit given; `ConfigError` if it is no positive number."""
    if not isinstance(value, float | int) or not 0 < value < math.inf:
        raise ConfigError(f"step_timeout (--step-timeout) must be a positive number, got {value!r}")
    return float(value)


def guarded_built_in(
    built_in: BuiltIn, num_envs: int, groups: Sequence[Sequence[Shift]], max_episode_steps: int | None
) -> GuardedSimulator:
    """S instances of a built-in simulator, in groups that each have their shifts, with their guard."""
    task = built_in.make(num_envs, groups, max_episode_steps)
    return GuardedSimulator(task, built_in.name + _told(groups), built_in.state_of)


def _told(groups: Sequence[Sequence[Shift]]) -> str:
    """The shifts in words, each list of them once: runs of one simulator may differ in their recipes."""
    lists = dict.fromkeys(", ".join(map(str, shifts)) for shifts in groups)
    if len(groups) > 1:
        return f" ({len(groups)} groups: {'; '.join(told or 'unshifted' for told in lists)})"
    return "".join(f" ({told})" for told in lists if told)


def _make_synchronous(name: str, num_envs: int, max_episode_steps: int | None) -> GuardedSimulator:
    make_env = instance_factory(name, max_episode_steps)
    checked: list[CheckedInstance] = []
    with ExitStack() as opened:
        opened.callback(close_instances, name, checked)
        for index in range(num_envs):
            checked.append(make_checked(make_env, name, index, num_envs, checked))
        try:
            # The default argument binds each instance now, not when the loop is over.
            environments = SideBySide(
                [lambda instance=instance: instance for instance in checked],
                autoreset_mode=AutoresetMode.DISABLED,
            )
        except Exception as error:
            raise SimulatorError(f"{name}: the instances cannot be run side by side: {error}") from error
        opened.pop_all()
    return GuardedSimulator(environments, name)
