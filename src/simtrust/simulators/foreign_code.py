"""What code of the user's may not do to the program around it, in whose process it runs."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what ends a program: whoever takes these over decides whether a run can be stopped."""


class CalledExit(RuntimeError):
    """The code called ``sys.exit`` (or raised `SystemExit`), which would have ended the program."""


@contextmanager
def contained() -> Iterator[None]:
    """Run code of the user's, and put the working directory back, whither relative paths of ours lead.

    A `KeyboardInterrupt` passes, since nobody can tell it from Ctrl-C.

    Raises:
        CalledExit: in place of `SystemExit`.
    """
    folder = _working_directory()
    try:
        yield
    except SystemExit as error:
        raise CalledExit(f"it called sys.exit({error.code!r})") from error
    finally:
        if folder is not None and _working_directory() != folder:
            with suppress(OSError):
                os.chdir(folder)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Put the handlers of `SIGNALS` back at the end; too slow for every step, and steps hardly set any."""
    # Other threads can set none.
    main = threading.current_thread() is threading.main_thread()
    before = {one: signal.getsignal(one) for one in SIGNALS if main}
    try:
        yield
    finally:
        for one, handler in before.items():
            # None is a handler that was not set from Python, and cannot be.
            if handler is not None and signal.getsignal(one) is not handler:
                signal.signal(one, handler)


def _working_directory() -> str | None:
    try:
        # At every step: pathlib takes several times as long.
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return None
