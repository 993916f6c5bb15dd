"""Environments by name: a Gymnasium id, or a function of the user's, named as ``module:factory``."""

import difflib
import importlib
import inspect
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.wrappers import TimeLimit

from simtrust.errors import SimulatorError, describe_error
from simtrust.simulators.built_in import BUILT_IN, find_built_in
from simtrust.simulators.foreign_code import contained, signals_kept

SimulatorLike = str | Callable[[], gymnasium.Env]
"""A simulator by name, or the function or class that makes one."""
MOST_NAMED = 10
"""Functions and classes of a module that are named where one was asked for that it does not have."""


def simulator_name(simulator: SimulatorLike) -> str:
    """The name of a simulator that may be given as the function which makes it.

    ``module:factory`` of a function or class that can be found under it again, so that worker processes and
    a run that is resumed find it too; a name is its own. What a script or notebook defines itself, in
    ``__main__``, is found only from there.

    Raises:
        SimulatorError: it is neither a name nor a function, or one that no module has: a lambda, one defined
            in another function, or a method of an object.
    """
    if isinstance(simulator, str):
        return simulator
    if isinstance(simulator, gymnasium.Env) or not callable(simulator):
        raise SimulatorError(
            f"a simulator is a name or a function that makes a new one, not {type(simulator).__name__}; give "
            "the function or the class itself, without calling it"
        )
    module, attribute = (getattr(simulator, name, "") for name in ("__module__", "__qualname__"))
    with suppress(KeyError, AttributeError):
        # Bound methods of one class are equal, and never the same.
        if operator.attrgetter(attribute)(sys.modules[module]) == simulator:
            return f"{module}:{attribute}"
    raise SimulatorError(
        f"{attribute or type(simulator).__name__} cannot be found again by a name; define a function without "
        "arguments at the top of a module, and give that"
    )


def is_simulator_itself(environment: str, simulator: str | None) -> bool:
    """Whether an environment by name is the simulator by name, so that it says nothing about the machine.

    A built-in simulator that is its own real machine is the machine. Without a simulator nothing is it.
    """
    if simulator is None:
        return False
    known, other = find_built_in(simulator), find_built_in(environment)
    if known is None or other is None:
        return environment == simulator
    return known.name == other.name != known.real


def instance_factory(name: str, max_episode_steps: int | None = None) -> Callable[[], gymnasium.Env]:
    """A function that makes one environment, not guarded, of a Gymnasium id or ``module:factory``.

    Raises:
        SimulatorError: the factory cannot be imported; so does the function, if it cannot make one.
    """
    module, separator, attribute = name.partition(":")
    # Gymnasium's own "module:Id-v0" imports a module that registers the id, and is left to it.
    if separator and all(part.isidentifier() for part in attribute.split(".")):
        factory = _import_factory(name, module, attribute)
        return lambda: _from_factory(name, factory, max_episode_steps)
    return lambda: _from_registry(name, max_episode_steps)


def _import_factory(name: str, module: str, attribute: str) -> Callable[[], Any]:
    try:
        with signals_kept(), contained(), _working_directory_first():
            factory = operator.attrgetter(attribute)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        if module.endswith(".py"):
            told = f"name the module without .py: {module.removesuffix('.py')}:{attribute}"
        else:
            told = "is it installed, or is its folder on PYTHONPATH?"
        raise SimulatorError(f"{name}: {error}; {told}") from error
    except Exception as error:
        raise SimulatorError(
            f"{name}: cannot import the factory: {describe_error(error)}{_what_it_has(module, error)}"
        ) from error
    if not callable(factory):
        raise SimulatorError(f"{name}: {attribute} is {type(factory).__name__}, not a function")
    return factory


def _what_it_has(module: str, error: Exception) -> str:
    """The functions and classes that a module defines, where it lacks the one that was asked for."""
    found = sys.modules.get(module)
    if not isinstance(error, AttributeError) or found is None or error.obj is not found:
        return ""
    own = [
        name
        for name, value in vars(found).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module
    ]
    more = ", ..." if len(own) > MOST_NAMED else ""
    return f"; it has: {', '.join(own[:MOST_NAMED])}{more}" if own else "; it defines no function or class"


@contextmanager
def _working_directory_first() -> Iterator[None]:
    """A module that was asked for is the one beside the user, whatever is installed under its name."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        # The module may have replaced it.
        with suppress(ValueError):
            sys.path.remove(here)


def _from_factory(name: str, factory: Callable[[], Any], max_episode_steps: int | None) -> gymnasium.Env:
    try:
        with signals_kept(), contained():
            env = factory()
    except Exception as error:
        raise SimulatorError(f"{name}: the factory raised {describe_error(error)}") from error
    if not isinstance(env, gymnasium.Env):
        raise SimulatorError(
            f"{name}: the factory must return a gymnasium.Env, got {type(env).__name__}; derive it from "
            "gymnasium.Env (see docs/own_robot.md)"
        )
    return env if max_episode_steps is None else TimeLimit(env, max_episode_steps)


def _from_registry(name: str, max_episode_steps: int | None) -> gymnasium.Env:
    try:
        # Gymnasium's checker only warns, once, of part of what CheckedInstance refuses.
        with signals_kept(), contained():
            return gymnasium.make(name, max_episode_steps=max_episode_steps, disable_env_checker=True)
    except gymnasium.error.UnregisteredEnv as error:
        if (file := _module_file(name)) is not None:
            raise SimulatorError(
                f"unknown simulator {name!r}; {file} lies here, so name the function in it that makes the "
                f"environment, as module:factory, such as {file.stem}:make"
            ) from error
        raise SimulatorError(
            f"unknown simulator {name!r}{_did_you_mean(name)}; built-in are {', '.join(BUILT_IN)}; any "
            f"Gymnasium id or module:factory will do too ({error})"
        ) from error
    except Exception as error:
        raise SimulatorError(f"{name}: Gymnasium cannot make it: {describe_error(error)}") from error


def _module_file(name: str) -> Path | None:
    """The module in the working directory that was named without its factory; it is not read."""
    file = Path(f"{name.removesuffix('.py')}.py")
    if file.stem.isidentifier() and file.name == str(file):
        # An identifier may be longer than names of files.
        with suppress(OSError):
            return file if file.is_file() else None
    return None


def _did_you_mean(name: str) -> str:
    known = {known.lower(): known for known in (*gymnasium.registry, *BUILT_IN)}
    close = difflib.get_close_matches(name.lower(), known, n=3)
    return f" (did you mean {' or '.join(known[match] for match in close)}?)" if close else ""
