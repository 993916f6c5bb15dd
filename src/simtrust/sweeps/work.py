"""One run of a sweep, as any process on any machine trains it: begun, or taken up where it was saved."""

import json
import os
import re
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from simtrust import __version__
from simtrust.device import Device, choose_device
from simtrust.errors import RunError, SimtrustError, describe_error
from simtrust.sweeps.lease import LEASE_SECONDS, Lease, LeaseLost, leased
from simtrust.sweeps.places import SAME_COMMAND, Place, stored_run
from simtrust.sweeps.plan import PlannedRun, same_run
from simtrust.training.callbacks import Callback, RunStart
from simtrust.training.config import config_from_json
from simtrust.training.loop import resume, train
from simtrust.training.metrics import MetricRecord
from simtrust.training.result import RunResult
from simtrust.training.run_directory import resume_command
from simtrust.training.setup import load_log

DEATHS_MAX = 5
"""So many processes in a row may end without a word between two checkpoints; then it is the run's fault."""


class Order(NamedTuple):
    """What a process needs to know to train one run of a sweep."""

    run: PlannedRun
    place: Place
    command: str
    """What made the sweep, for the record."""
    sha256: str | None
    """Of its log, which must be the same everywhere."""
    lease_seconds: float = LEASE_SECONDS
    version: str = __version__


class Outcome(NamedTuple):
    """How a run ended: with a result, or with an error."""

    name: str
    summary: dict[str, Any] | None
    """As in ``result.json``."""
    error: str | None = None
    details: str = ""
    """What else is known of the error: how to go on, where it was raised."""


def carry_out(order: Order, *, quiet: bool = True, device: Device = "auto") -> Outcome:
    """Train a run to its end, wherever it stands; nothing but an interrupt is raised.

    A ``device`` other than ``auto`` is only for a process in which JAX has computed nothing elsewhere yet.
    """
    try:
        choose_device(device)
        return _outcome(order, quiet)
    except SimtrustError as error:
        return _failed(order, error)
    except Exception as error:
        return Outcome(order.run.name, None, describe_error(error), traceback.format_exc())


def _failed(order: Order, error: SimtrustError, reworded: Callable[[str], str] = str) -> Outcome:
    notes = map(reworded, getattr(error, "__notes__", ()))
    return Outcome(order.run.name, None, reworded(str(error)), "\n".join(notes))


def _outcome(order: Order, quiet: bool) -> Outcome:
    if order.version != __version__:
        raise RunError(f"simtrust {order.version} began the sweep, here is {__version__}; install the same")
    while True:
        # Who lost the lease waits for whoever has it to finish, or to fail.
        with suppress(LeaseLost), leased(order.place, order.run.name, order.lease_seconds) as lease:
            return _under_lease(order, lease, quiet)


def _under_lease(order: Order, lease: Lease, quiet: bool) -> Outcome:
    run, place = order.run, order.place
    if (finished := stored_run(place, run.name).result) is not None:
        return Outcome(run.name, finished.summary)
    if lease.deaths >= DEATHS_MAX:
        raise RunError(
            f"{lease.deaths} processes in a row ended without a word before the run reached another "
            "checkpoint (was memory short?); see to it, and start the sweep again"
        )
    with place.at_hand(run.name, lease.confirm) as (directory, callbacks):
        callbacks = (*callbacks, Holding(lease), Attempts(place, run.name))
        _wait_until_free(directory, order.lease_seconds)
        continued = _go_on if (directory / "config.json").exists() else _begin
        try:
            return Outcome(run.name, continued(order, directory, quiet, callbacks).summary)
        except SimtrustError as error:
            return _failed(order, error, lambda text: _reworded(text, order, directory))
        except KeyboardInterrupt as interrupt:
            notes = getattr(interrupt, "__notes__", [])
            notes[:] = [_reworded(note, order, directory) for note in notes]
            raise


def _reworded(text: str, order: Order, directory: Path) -> str:
    """What a run says of itself, in the words of the sweep: its directory may be a temporary folder."""
    resuming = resume_command(directory, order.run.config, {})
    slower = "another learning_rate in the sweep file, and another name or --out"
    text = re.sub(rf"{re.escape(resuming)} --learning-rate [-+.e0-9]*[0-9]", slower, text)
    return text.replace(resuming, SAME_COMMAND).replace(str(directory), f"{order.place}/{order.run.name}")


def _begin(order: Order, directory: Path, quiet: bool, callbacks: Sequence[Callback]) -> RunResult:
    config = order.run.config
    log = load_log(config)
    found = log.sha256 if log else None
    if found != order.sha256:
        raise RunError(
            f"{config.real} on {socket.gethostname()} is not the log that was checked before the sweep: its "
            f"SHA-256 is {found}, not {order.sha256}; every machine needs the same file under this path"
        )
    del log
    return train(replace(config, out=str(directory)), quiet=quiet, command=order.command, callbacks=callbacks)


def _go_on(order: Order, directory: Path, quiet: bool, callbacks: Sequence[Callback]) -> RunResult:
    config = order.run.config
    begun, _ = config_from_json(directory / "config.json")
    if other := same_run(config, begun):
        raise RunError(f"{directory} was begun with {', '.join(other)}")
    # The names of code are the sweep file's, so the user's; a stored one that differs was refused just now.
    return resume(directory, sim=config.sim, real_env=config.real_env, quiet=quiet, callbacks=callbacks)


def _wait_until_free(directory: Path, seconds: float) -> None:
    """Wait for the directory's own lock: who lost the lease may have a moment to go."""
    if directory.is_dir():
        with (
            suppress(filelock.Timeout, OSError),
            filelock.FileLock(directory / ".lock", timeout=seconds),
        ):
            return


class Holding(Callback):
    """Stops a run as soon as its lease is another's, and says that it gets on."""

    def __init__(self, lease: Lease):
        self.lease = lease

    def on_metrics(self, records: Sequence[MetricRecord]) -> None:
        self.lease.check()

    def on_checkpoint(self, step: int, directory: Path) -> None:
        self.lease.reached_checkpoint()


class Attempts(Callback):
    """Records who trained a run from which step on: ``attempts/NAME.jsonl``, a line for each process."""

    def __init__(self, place: Place, run: str):
        self.place, self.name = place, f"attempts/{run}.jsonl"

    def on_start(self, run: RunStart) -> None:
        attempt = {
            "step": run.step,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        before = self.place.read(self.name) or b""
        self.place.write(self.name, before + json.dumps(attempt).encode() + b"\n")
