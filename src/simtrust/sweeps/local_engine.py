"""The runs of a sweep on this machine: one after the other, or some at a time."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import jax

from simtrust.device import Device, choose_device
from simtrust.errors import ConfigError, SimtrustError
from simtrust.sweeps.checking import Check, check_problems
from simtrust.sweeps.plan import PlannedRun
from simtrust.sweeps.processes import Broken, Running, start
from simtrust.sweeps.work import Order, Outcome, carry_out


class Engine(NamedTuple):
    """How runs are checked and trained; outcomes come as they are known, in any order."""

    check: Check
    train: Callable[[Sequence[Order]], Iterator[Outcome]]


def one_after_the_other(*, quiet: bool = False) -> Engine:
    """In this process."""

    def train(orders: Sequence[Order]) -> Iterator[Outcome]:
        return (carry_out(order, quiet=quiet) for order in orders)

    return Engine(check_problems, train)


def side_by_side(jobs: int, device: Device = "auto") -> Engine:
    """So many at a time, each in a process of its own, which computes on ``device``.

    Raises:
        ConfigError: there is no such device.
    """
    _check_device(device)

    def train(orders: Sequence[Order]) -> Iterator[Outcome]:
        waiting = deque(orders)
        running: dict[Connection, tuple[Order, Running]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    order = waiting.popleft()
                    started = start(partial(carry_out, device=device), order)
                    running[started.pipe] = order, started
                ready = wait(list(running))
                for pipe in [pipe for pipe in running if pipe in ready]:
                    yield _outcome(*running.pop(pipe))
        finally:
            for _, interrupted in running.values():
                interrupted.interrupt()

    return Engine(partial(check_elsewhere, jobs=jobs), train)


def _outcome(order: Order, ended: Running) -> Outcome:
    found = ended.value()
    ended.pipe.close()
    if isinstance(found, Broken):
        return Outcome(order.run.name, None, found.problem.strip().splitlines()[-1], found.problem)
    return found


def _check_device(device: Device) -> None:
    """Raise `ConfigError` as `choose_device`, elsewhere."""
    if device == "gpu":
        _asked_elsewhere(f"--device {device}", _refusal, device)


def _refusal(device: Device) -> str | None:
    try:
        choose_device(device)
    except ConfigError as error:
        return str(error)
    return None


def check_elsewhere(runs: Sequence[PlannedRun], jobs: int = 1) -> dict[str, str | None]:
    """`check_problems` in a process that ends, so that this one holds no memory of a GPU meanwhile."""
    return _asked_elsewhere("the runs", _checked, runs, jobs)


def _asked_elsewhere(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own; `ConfigError` if that is a message."""
    checking = start(function, *arguments)
    try:
        found = checking.value()
    finally:
        checking.interrupt()
    if isinstance(found, Broken):
        raise ConfigError(f"{what} cannot be checked: {found.problem}")
    if isinstance(found, str):
        raise ConfigError(found)
    return found


def _checked(runs: Sequence[PlannedRun], jobs: int) -> dict[str, str | None] | str:
    jax.config.update("jax_platforms", "cpu")
    try:
        return check_problems(runs, jobs)
    except SimtrustError as error:
        return str(error)
