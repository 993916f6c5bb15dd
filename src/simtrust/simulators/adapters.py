"""Simulators by name: built-in tasks, Gymnasium ids, and users' own factories, all guarded."""

import difflib
import importlib
import operator
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from simtrust.errors import ConfigError, ShiftError, SimulatorError
from simtrust.simulators.built_in import BUILT_IN, BuiltIn, find_built_in
from simtrust.simulators.guard import CheckedInstance, GuardedSimulator, describe_error
from simtrust.simulators.shifts import Shift, check_distinct


def make_simulator(
    name: str,
    *,
    num_envs: int,
    shifts: Sequence[Shift] = (),
    max_episode_steps: int | None = None,
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

    Raises:
        SimulatorError: the name is unknown, or what it names cannot be made or has unsupported spaces.
        ShiftError: the simulator supports no shifts, or a shift would change nothing.
        ConfigError: a number is not positive.
    """
    num_envs = _positive("num_envs", num_envs)
    if max_episode_steps is not None:
        max_episode_steps = _positive("max_episode_steps", max_episode_steps)
    check_distinct(shifts)
    built_in = find_built_in(name)
    if built_in is not None:
        return _make_built_in(built_in, num_envs, shifts, max_episode_steps)
    if shifts:
        raise ShiftError(
            f"{name!r} supports no shifts ({', '.join(map(str, shifts))}); only {', '.join(BUILT_IN)} do. "
            "Build the shift into a factory of your own instead and name it as module:factory"
        )
    return _make_synchronous(name, num_envs, max_episode_steps)


def _positive(option: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{option} must be a positive integer, got {value!r}")
    return number


def _make_built_in(
    built_in: BuiltIn, num_envs: int, shifts: Sequence[Shift], max_episode_steps: int | None
) -> GuardedSimulator:
    task = built_in.make(num_envs, shifts, max_episode_steps)
    title = f"{built_in.name} ({', '.join(map(str, shifts))})" if shifts else built_in.name
    return GuardedSimulator(task, title, built_in.state_of)


def _make_synchronous(name: str, num_envs: int, max_episode_steps: int | None) -> GuardedSimulator:
    make_env = _factory_of(name, max_episode_steps)
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


def _factory_of(name: str, max_episode_steps: int | None) -> Callable[[], gymnasium.Env]:
    """A function that makes one environment; its errors are `SimulatorError`s."""
    module, separator, attribute = name.partition(":")
    # Gymnasium's own "module:Id-v0" imports a module that registers the id, and is left to it.
    if separator and all(part.isidentifier() for part in attribute.split(".")):
        factory = _import_factory(name, module, attribute)
        return lambda: _from_factory(name, factory, max_episode_steps)
    return lambda: _from_registry(name, max_episode_steps)


def _import_factory(name: str, module: str, attribute: str) -> Callable[[], Any]:
    try:
        factory = operator.attrgetter(attribute)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise SimulatorError(f"{name}: {error}; is it installed, or is its folder on PYTHONPATH?") from error
    except Exception as error:
        raise SimulatorError(f"{name}: cannot import the factory: {describe_error(error)}") from error
    if not callable(factory):
        raise SimulatorError(f"{name}: {attribute} is {type(factory).__name__}, not a function")
    return factory


def _from_factory(name: str, factory: Callable[[], Any], max_episode_steps: int | None) -> gymnasium.Env:
    try:
        env = factory()
    except Exception as error:
        raise SimulatorError(f"{name}: the factory raised {describe_error(error)}") from error
    if not isinstance(env, gymnasium.Env):
        raise SimulatorError(f"{name}: the factory must return a gymnasium.Env, got {type(env).__name__}")
    return env if max_episode_steps is None else TimeLimit(env, max_episode_steps)


def _from_registry(name: str, max_episode_steps: int | None) -> gymnasium.Env:
    try:
        # Gymnasium's checker only warns, once, of part of what CheckedInstance refuses.
        return gymnasium.make(name, max_episode_steps=max_episode_steps, disable_env_checker=True)
    except gymnasium.error.UnregisteredEnv as error:
        raise SimulatorError(
            f"unknown simulator {name!r}{_did_you_mean(name)}; built-in are {', '.join(BUILT_IN)}; any "
            f"Gymnasium id or module:factory will do too ({error})"
        ) from error
    except Exception as error:
        raise SimulatorError(f"{name}: Gymnasium cannot make it: {describe_error(error)}") from error


def _did_you_mean(name: str) -> str:
    known = {known.lower(): known for known in (*gymnasium.registry, *BUILT_IN)}
    close = difflib.get_close_matches(name.lower(), known, n=3)
    return f" (did you mean {' or '.join(known[match] for match in close)}?)" if close else ""
