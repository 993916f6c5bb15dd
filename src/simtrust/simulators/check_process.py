"""Checks of a simulator in a process of their own, which is killed where a call takes longer than it may."""

import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from simtrust.errors import SimulatorError
from simtrust.simulators.checked_instance import when
from simtrust.simulators.factories import instance_factory
from simtrust.simulators.probing import Check
from simtrust.simulators.worker_handle import WorkerFault, end, gather, start
from simtrust.simulators.worker_process import UP, Failure
from simtrust.simulators.workers import MAKING_SECONDS, InWorker

Spaces = tuple[gymnasium.Space, gymnasium.Space]
"""Of observations and actions."""
Findings = Generator[Check, None, Spaces | None]
"""Checks as they are made; at the end the spaces, or None where they cannot be used."""


class Beginning(NamedTuple):
    """What an instance is about to do, in words, and whether it may take longer than a step."""

    place: str
    lasting: bool = False


class Stepping(NamedTuple):
    """A step or reset that begins: the steps since the last reset, and the action, None at a reset."""

    step: int
    action: np.ndarray | None


class Done(NamedTuple):
    """All checks were made."""

    spaces: Spaces | None


MAKING = Beginning(", while it was made", lasting=True)


def findings_in_process(
    check: Callable[[str, Callable[[], gymnasium.Env]], Findings], name: str, step_timeout: float
) -> Findings:
    """What ``check(name, make)`` finds in a worker process; where a call hangs, that is the last finding.

    Every call is announced, which takes some 0.02 ms of what a step is found to take.

    Args:
        check: a function of a module.
        name: a Gymnasium id or ``module:factory``.
        step_timeout: seconds that one reset or step of one instance may take, and to make or close it if they
            are more than `MAKING_SECONDS`.

    Raises:
        SimulatorError: the checks raised it.
    """
    worker = start(serve_checks, (0,), check, name, str(Path.cwd()), title=f"simtrust {name}")
    place, longest = MAKING.place, max(step_timeout, MAKING_SECONDS)
    limit = longest
    try:
        # That Python and this package are up it says first, which no limit is set to.
        gather({0: worker})
        while not isinstance(message := gather({0: worker}, limit)[0], Done):
            limit = step_timeout
            if isinstance(message, Failure):
                raise SimulatorError(message.message) from InWorker(message.trace)
            if isinstance(message, Beginning):
                place, limit = message.place, longest if message.lasting else step_timeout
            elif isinstance(message, Stepping):
                place = when(*message)
            else:
                place = f", after the check '{message.name}'"
                yield message
        return message.spaces
    except WorkerFault as error:
        yield Check("answers", "failed", f"{name}{place}: {error}", "nothing else was checked")
        return None
    finally:
        end([worker])


def serve_checks(
    pipe: Connection,
    check: Callable[[str, Callable[[], gymnasium.Env]], Findings],
    name: str,
    folder: str,
) -> None:
    """Make the checks; a first message says that the process is up, then one comes before each call."""
    # Ctrl-C reaches the whole group; the main process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def make() -> gymnasium.Env:
        pipe.send(MAKING)
        return _announced(instance_factory(name)(), pipe.send)

    # What cannot be sent has no reader any more.
    with suppress(EOFError, OSError):
        os.chdir(folder)
        pipe.send(UP)
        try:
            for message in _to_the_end(check(name, make)):
                pipe.send(message)
        except SimulatorError as error:
            pipe.send(Failure(str(error), "".join(traceback.format_exception(error))))


def _to_the_end(findings: Findings) -> Iterator[Check | Done]:
    yield Done((yield from findings))


def _announced(env: gymnasium.Env, announce: Callable[[Beginning | Stepping], object]) -> gymnasium.Env:
    """The environment, each call to whose own class is announced.

    A wrapper would not do: Gymnasium's checker takes what is within all wrappers.
    """
    bare, steps = env.unwrapped, 0
    reset, step, close = bare.reset, bare.step, bare.close

    @wraps(reset)
    def announced_reset(*arguments: Any, **named: Any) -> tuple[Any, dict[str, Any]]:
        nonlocal steps
        steps = 0
        announce(Stepping(0, None))
        return reset(*arguments, **named)

    @wraps(step)
    def announced_step(action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        nonlocal steps
        steps += 1
        announce(Stepping(steps, np.array(action)))
        return step(action)

    @wraps(close)
    def announced_close() -> None:
        announce(Beginning(", while it was closed", lasting=True))
        close()

    vars(bare).update(reset=announced_reset, step=announced_step, close=announced_close)
    if callable(set_observation := getattr(bare, "set_observation", None)):

        @wraps(set_observation)
        def announced_set_observation(observation: np.ndarray) -> None:
            announce(Beginning(", in set_observation"))
            set_observation(observation)

        vars(bare).update(set_observation=announced_set_observation)
    return env
