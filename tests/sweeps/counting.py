"""Simulators that keep count: ``counting:NAME`` is a pendulum that writes a byte for each of its steps.

The bytes are in a file of the folder ``$COUNTING``, named after the pendulum, its process and when it began,
so that what was trained twice is counted twice. A step takes ``$COUNTING_SECONDS``. A pendulum whose name has
``fail`` raises in its 151st step, as long as the folder holds no file ``mended``; one with ``die`` ends its
process there.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium


class Counting(gymnasium.Wrapper):
    def __init__(self, name: str) -> None:
        super().__init__(gymnasium.make("Pendulum-v1", disable_env_checker=True))
        self.name, self.file, self.steps = name, None, 0
        self.folder = Path(os.environ["COUNTING"])
        self.seconds = float(os.environ.get("COUNTING_SECONDS", "0"))

    def step(self, action: Any) -> tuple:
        if self.file is None:
            self.file = self.folder / f"{self.name} {time.time_ns():020d} {os.getpid()}"
        self.steps += 1
        if self.steps > 150 and not (self.folder / "mended").exists():
            if "fail" in self.name:
                raise RuntimeError("the cable is loose")
            if "die" in self.name:
                os.kill(os.getpid(), signal.SIGKILL)
        with self.file.open("ab") as file:
            file.write(b".")
        time.sleep(self.seconds)
        return super().step(action)


def __getattr__(name: str) -> Callable[[], Counting]:
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda: Counting(name)


def counts(folder: Path, name: str) -> list[int]:
    """The steps of each pendulum of that name, in the order in which they began."""
    return [file.stat().st_size for file in sorted(folder.glob(f"{name} *"))]
