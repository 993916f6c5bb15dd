"""A worker process: instances of an environment, and the calls to them that it answers one by one."""

import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from gymnasium.spaces import Box

from simtrust.errors import SimulatorError, describe_error
from simtrust.simulators.checked_instance import CheckedInstance, make_checked
from simtrust.simulators.factories import instance_factory

UP = "up"
"""The first message of a worker."""


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

    The first message says that the process is up. Each instance is answered for once when it is made, with
    `Facts`, and once for each call to it; either may be a `Failure`. A call is a message of `Call`s by
    instance; None ends the process.
    """
    # Ctrl-C reaches the whole group; the main process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    instances: dict[int, CheckedInstance] = {}
    # What cannot be sent has no reader any more.
    with suppress(EOFError, OSError):
        os.chdir(folder)
        pipe.send(UP)
        for index in indices:
            _send(pipe, _made(instances, name, index, num_envs, limit), SimulatorError)
        while (calls := pipe.recv()) is not None:
            for index, call in calls.items():
                _send(pipe, _answer(instances[index], call), instances[index].here)
    for instance in instances.values():
        with suppress(Exception):
            instance.close()


def _made(
    instances: dict[int, CheckedInstance], name: str, index: int, num_envs: int, limit: int | None
) -> Facts | Failure:
    try:
        instance = make_checked(instance_factory(name, limit), name, index, num_envs, instances.values())
    except Exception as error:
        return _failure(error)
    except KeyboardInterrupt as error:
        return _failure(SimulatorError(f"{name}: making it raised KeyboardInterrupt"), error)
    instances[index] = instance
    observation, action = instance.observation_space, instance.action_space
    assert isinstance(observation, Box)
    assert isinstance(action, Box)
    return Facts(observation, action, dict(instance.metadata), instance.offers_set_observation)


def _answer(instance: CheckedInstance, call: Call) -> Any:
    try:
        return getattr(instance, call.method)(*call.arguments, **call.named)
    except Exception as error:
        return _failure(error)
    except KeyboardInterrupt as error:
        # Of the environment's own making: Ctrl-C is ignored here.
        return _failure(instance.here("the environment raised KeyboardInterrupt"), error)


def _failure(error: Exception, cause: BaseException | None = None) -> Failure:
    message = str(error) if isinstance(error, SimulatorError) else describe_error(error)
    return Failure(message, "".join(traceback.format_exception(cause or error)))


def _send(pipe: Connection, answer: Any, refusal: Callable[[str], SimulatorError]) -> None:
    try:
        pipe.send(answer)
    except OSError:
        raise
    except Exception as error:
        # Nothing was sent yet: only the pickling failed.
        problem = f"its info (or metadata) cannot be sent between processes: {describe_error(error)}; "
        pipe.send(_failure(refusal(problem + "leave out of it what cannot be pickled")))
