"""A worker process: instances of an environment, and the calls to them that it answers one by one."""

import os
import signal
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from gymnasium.spaces import Box, Space

from simtrust.errors import SimulatorError, describe_error
from simtrust.simulators.factories import instance_factory
from simtrust.simulators.guard import CheckedInstance


class Call(NamedTuple):
    """A method of `CheckedInstance`, and its arguments."""

    method: str
    arguments: tuple[Any, ...] = ()
    named: Mapping[str, Any] = {}


class Facts(NamedTuple):
    """What the main process needs to know of an instance."""

    observation: Box
    action: Box
    metadata: dict[str, Any]
    offers_set_observation: bool


class Failure(NamedTuple):
    """What went wrong, and its traceback."""

    message: str
    trace: str


def serve(
    pipe: Connection, name: str, indices: Sequence[int], num_envs: int, limit: int | None, folder: str
) -> None:
    """Make instances, answer calls to them, and close them when told to or when the main process ends.

    Each instance is answered for once when it is made, with `Facts`, and once for each call to it; either
    may be a `Failure`. A call is a message of `Call`s by instance; None ends the process.
    """
    # Ctrl-C reaches the whole group; the main process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    instances: dict[int, CheckedInstance] = {}
    # What cannot be sent has no reader any more.
    with suppress(EOFError, OSError):
        os.chdir(folder)
        for index in indices:
            _send(pipe, _made(instances, name, index, num_envs, limit))
        while (calls := pipe.recv()) is not None:
            for index, call in calls.items():
                _send(pipe, _answer(instances[index], call))
    for instance in instances.values():
        with suppress(Exception):
            instance.close()


def _made(
    instances: dict[int, CheckedInstance], name: str, index: int, num_envs: int, limit: int | None
) -> Facts | Failure:
    try:
        instance = CheckedInstance(instance_factory(name, limit)(), name, index, num_envs)
        if any(instance.unwrapped is other.unwrapped for other in instances.values()):
            raise SimulatorError(f"{name}: the factory must return a new environment at every call")
    except Exception as error:
        return _failure(error)
    instances[index] = instance
    spaces = _plain(instance.observation_space), _plain(instance.action_space)
    return Facts(*spaces, dict(instance.metadata), instance.offers_set_observation)


def _plain(space: Space) -> Box:
    """The same box, but no class of the user's own, which might not be sent."""
    assert isinstance(space, Box)
    return Box(space.low, space.high, space.shape, space.dtype.type)


def _answer(instance: CheckedInstance, call: Call) -> Any:
    try:
        return getattr(instance, call.method)(*call.arguments, **call.named)
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> Failure:
    message = str(error) if isinstance(error, SimulatorError) else describe_error(error)
    return Failure(message, "".join(traceback.format_exception(error)))


def _send(pipe: Connection, answer: Any) -> None:
    try:
        pipe.send(answer)
    except OSError:
        raise
    except Exception as error:
        # Nothing was sent yet: only the pickling failed.
        problem = (
            f"its info cannot be sent between processes ({describe_error(error)}); leave out the workers"
        )
        pipe.send(Failure(problem, ""))
