"""The main process's hold on its worker processes: waiting for their answers, and ending them."""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import psutil

from simtrust.errors import describe_error

GRACE_SECONDS = 5.0
"""How long a worker may take to finish its step and close its instances."""
KILL_SECONDS = 1.0
"""How long a worker may take to end once it is told to by SIGTERM; then by SIGKILL."""
LOOK_SECONDS = 0.5
"""How often is looked whether a worker that is silent still lives.

Its end closes its pipe, which ends the waiting at once; but not if a process that it forked has the pipe too.
"""


class Worker(NamedTuple):
    """A worker process, the pipe to it, and the instances in it."""

    process: BaseProcess
    pipe: Connection
    instances: tuple[int, ...]


def start(target: Callable[..., None], instances: tuple[int, ...], *task: object, title: str) -> Worker:
    """Start a worker process that runs ``target(pipe, *task)``, a function of a module."""
    # Spawned, not forked: JAX and MuJoCo have threads, which a fork would leave in the middle of things.
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *task), daemon=True, name=title)
    try:
        process.start()
    finally:
        # Else nobody would hear when the worker ends.
        theirs.close()
    return Worker(process, pipe, instances)


class WorkerFault(RuntimeError):
    """A worker process gave no answer that can be used; ``ids`` has the instance that it was at."""

    def __init__(self, instance: int, problem: str) -> None:
        self.ids = [instance]
        super().__init__(f"{problem}; all workers were ended")


class WorkerDied(WorkerFault):
    """A worker process ended by itself."""


class WorkerLate(WorkerFault):
    """An instance took longer than it may; its worker process was killed."""


def gather(asked: Mapping[int, Worker], limit: float | None = None) -> dict[int, Any]:
    """The next answer of each instance, by instance, as the workers give them.

    A worker answers for one of its instances after the other, in the order of ``asked``.

    Args:
        asked: the worker of each instance that was asked.
        limit: seconds for each answer, counted from the one before it of the same worker; None: no limit.
            The time in which this process itself was stopped does not count.

    Raises:
        WorkerDied: a worker ended.
        WorkerLate: an answer took longer than ``limit``. Its worker is dead by then.
        WorkerFault: an answer cannot be unpickled here.
    """
    workers = {worker.pipe: worker for worker in asked.values()}
    owed: dict[Connection, deque[int]] = {pipe: deque() for pipe in workers}
    for index, worker in asked.items():
        owed[worker.pipe].append(index)
    waited = dict.fromkeys(owed, 0.0)
    answers: dict[int, Any] = {}
    while owed:
        patience = LOOK_SECONDS if limit is None else min(LOOK_SECONDS, limit - max(waited.values()))
        began = time.monotonic()
        ready = wait(list(owed), patience)
        taken = time.monotonic() - began
        if taken > patience + LOOK_SECONDS:
            # Who overslept was stopped, and perhaps the workers with it: that time is nobody's.
            taken = 0.0
        for pipe in list(owed):
            index, worker = owed[pipe][0], workers[pipe]
            if pipe in ready:
                answers[index] = _received(worker, index)
                owed[pipe].popleft()
                waited[pipe] = 0.0
                if not owed[pipe]:
                    del owed[pipe], waited[pipe]
                continue
            waited[pipe] += taken
            if not ready and worker.process.exitcode is not None and not pipe.poll():
                raise WorkerDied(index, how_it_ended(worker.process))
            if limit is not None and waited[pipe] >= limit:
                kill(worker.process)
                problem = f"no answer within {limit:g} s, so its worker process was killed (raise "
                problem += "--step-timeout if it may take longer, else see what it waits for)"
                raise WorkerLate(index, problem)
    return {index: answers[index] for index in asked}


def _received(worker: Worker, index: int) -> Any:
    try:
        return worker.pipe.recv()
    except (EOFError, OSError):
        raise WorkerDied(index, how_it_ended(worker.process)) from None
    except Exception as error:
        problem = f"its answer cannot be read in the main process ({describe_error(error)})"
        raise WorkerFault(index, problem) from error


def how_it_ended(process: BaseProcess) -> str:
    """A process's exit status or signal, in words."""
    process.join(GRACE_SECONDS)
    status = process.exitcode
    if status is None:
        return "its worker process closed its connection"
    if status >= 0:
        return f"its worker process ended with exit status {status}"
    try:
        told = signal.Signals(-status).name
    except ValueError:
        told = f"signal {-status}"
    return f"its worker process was killed by {told}" + (" (was memory short?)" if told == "SIGKILL" else "")


def kill(process: BaseProcess) -> None:
    """End a process that does not end by itself, and those that it has started."""
    started: list[psutil.Process] = []
    with suppress(psutil.Error):
        started = psutil.Process(process.pid).children(recursive=True)
    for stop in (process.terminate, process.kill):
        if process.is_alive():
            stop()
            process.join(KILL_SECONDS)
    for one in started:
        with suppress(psutil.Error):
            one.kill()


def end(workers: Sequence[Worker]) -> None:
    """Tell workers to close their instances and end, and kill those that do not within a grace.

    They are waited for, so that none is left as a zombie.
    """
    for worker in workers:
        with suppress(OSError):
            worker.pipe.send(None)
        worker.pipe.close()
    limit = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.process.join(max(limit - time.monotonic(), 0.0))
        if worker.process.is_alive():
            kill(worker.process)
