"""Functions in processes of their own, which end with this one."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from simtrust.simulators.worker_handle import how_it_ended

GRACE_SECONDS = 20.0
"""How long a process may take to end after an interrupt."""


class Broken(NamedTuple):
    """What a process left that did not return: how it ended, or the traceback of what its function raised."""

    problem: str


class Running(NamedTuple):
    """A function that runs in a process, and where its value will come from."""

    process: BaseProcess
    pipe: Connection

    def value(self) -> Any:
        """What the function returned, or `Broken`; waits for it."""
        try:
            found = self.pipe.recv()
        except (EOFError, OSError):
            return Broken(how_it_ended(self.process))
        self.process.join()
        return found

    def interrupt(self) -> None:
        """End it as Ctrl-C would; kill it if that takes too long."""
        if self.process.is_alive() and self.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGINT)
            self.process.join(GRACE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def start(function: Callable[..., Any], *arguments: Any) -> Running:
    """Call a function of a module in a new process."""
    # A fork would inherit JAX's threads, which stand still in it.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, function, arguments))
    process.start()
    # So that the end of the process closes the pipe.
    theirs.close()
    return Running(process, ours)


def _serve(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    # What a shell starts in the background ignores interrupts, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(KeyboardInterrupt):
        try:
            value = function(*arguments)
        except Exception:
            value = Broken(traceback.format_exc())
        # Without a reader there is nobody to tell.
        with suppress(OSError):
            pipe.send(value)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGINT)
