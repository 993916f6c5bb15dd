"""Who trains a run: one process at a time, on whatever machine, for as long as it lives.

A lease is a small file that its holder writes again every few seconds. Whoever wants it waits until it is
gone, or until it has not changed for ``seconds`` by his own clock, so that the clocks of two machines need
not agree; if the holder was a process of this machine that is gone, he need not wait. Storage has no
operation that writes a file only if nobody else has, so whoever takes a lease reads it again a moment later:
of two who take it at once, the later one has it. The other finds that out before it writes to the storage,
at the latest at its next sign of life.
"""

import json
import os
import secrets
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from simtrust.data.json_file import parse_json
from simtrust.errors import RunError, RunWarning
from simtrust.sweeps.places import Place

LEASE_SECONDS = 60.0
"""How long a holder may give no sign of life."""
SIGNS, LOOKS, SETTLES = 5, 20, 30
"""In this time: signs of life, looks of those who wait, and moments until a lease that was taken is sure."""


class LeaseLost(BaseException):
    """Another process trains this run now.

    No `Exception`, since after one of a callback's the training state is saved, which is no longer ours.
    """


class Lease:
    """The right to train a run; made by `leased`."""

    def __init__(self, place: Place, run: str, seconds: float):
        self.place, self.run, self.seconds = place, run, seconds
        self.name = f"leases/{run}.json"
        self.token = secrets.token_hex(8)
        self.deaths = 0
        """How many holders in a row ended without giving the lease back or reaching a checkpoint."""
        self.lost = False
        self.signs = 0
        self.last_sign = time.monotonic()
        self._writing = threading.Lock()

    def take(self) -> None:
        """Wait until nobody else has it, then have it."""
        seen, since, told = None, time.monotonic(), False
        while True:
            found = self.place.read(self.name)
            if found != seen:
                seen, since = found, time.monotonic()
            holder = _parsed(found)
            if found is None or _is_gone(holder) or time.monotonic() - since >= self.seconds:
                deaths = holder.get("deaths")
                self.deaths = 0 if found is None else 1 + (deaths if isinstance(deaths, int) else 0)
                self.sign()
                time.sleep(self.seconds / SETTLES)
                if self._is_ours():
                    return
                continue
            if not told:
                warnings.warn(
                    f"{self.run} is being trained by process {holder.get('pid')} of {holder.get('host')}; "
                    f"waiting until it ends, or has given no sign of life for {self.seconds:g} s",
                    RunWarning,
                    stacklevel=2,
                )
                told = True
            time.sleep(self.seconds / LOOKS)

    def sign(self) -> None:
        """Give a sign of life."""
        with self._writing:
            self.signs += 1
            holder = {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "process": _process(os.getpid()),
                "deaths": self.deaths,
                "token": self.token,
                "signs": self.signs,
            }
            self.place.write(self.name, json.dumps(holder).encode())
            self.last_sign = time.monotonic()

    def confirm(self) -> None:
        """Raise `LeaseLost` if it is another's by now."""
        if not self.lost and not self._is_ours():
            self.lost = True
        self.check()

    def check(self) -> None:
        """The same, as far as it is known without a look."""
        if self.lost:
            raise LeaseLost(f"another process trains {self.run} now")

    def reached_checkpoint(self) -> None:
        self.deaths = 0
        self.confirm()
        self.sign()

    def keep(self, end: threading.Event) -> None:
        """Give signs of life until the end, or until it is lost."""
        while not end.wait(self.seconds / SIGNS) and not self.lost:
            # Storage may be out of reach for a while; but not so long that others may think us dead.
            with suppress(RunError):
                if self._is_ours():
                    self.sign()
                else:
                    self.lost = True
            self.lost = self.lost or time.monotonic() - self.last_sign > self.seconds

    def give_back(self) -> None:
        with suppress(RunError):
            if not self.lost and self._is_ours():
                self.place.remove(self.name)

    def _is_ours(self) -> bool:
        return _parsed(self.place.read(self.name)).get("token") == self.token


@contextmanager
def leased(place: Place, run: str, seconds: float = LEASE_SECONDS) -> Iterator[Lease]:
    """Have the lease of a run, once nobody else has it; warns with `RunWarning` while it waits."""
    lease, end = Lease(place, run, seconds), threading.Event()
    lease.take()
    keeper = threading.Thread(target=lease.keep, args=(end,), daemon=True, name=f"lease of {run}")
    keeper.start()
    try:
        yield lease
    finally:
        end.set()
        keeper.join()
        lease.give_back()


def _parsed(content: bytes | None) -> dict[str, Any]:
    try:
        found = parse_json(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that has ended."""
    name, pid = holder.get("process"), holder.get("pid")
    own = _process(os.getpid())
    if not (isinstance(name, str) and isinstance(pid, int) and own is not None and pid > 0):
        return False
    # A process of another machine or container has a number that means nothing here.
    return name.rpartition("/")[0] == own.rpartition("/")[0] and _process(pid) != name


def _process(pid: int) -> str | None:
    """A process as nobody else ever was: machine since its start, numbering, number, and time of start.

    None where the system does not tell; for a process that has ended, as one that has not begun.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        numbering = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return None
    try:
        # Its name, in brackets, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        started = "ended" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        started = "ended"
    return f"{boot}/{numbering}/{pid} {started}"
