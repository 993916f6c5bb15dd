"""Functions for processes of their own, which import them by this module's name."""

import time
from pathlib import Path

from simtrust.sweeps.processes import start


def raises() -> None:
    raise LookupError("nothing there")


def waits(file: str) -> None:
    """Keeps a file as long as it waits, which is forever."""
    Path(file).touch()
    try:
        time.sleep(600)
    finally:
        Path(file).unlink()


def waits_for_another(file: str) -> None:
    start(waits, file).value()
