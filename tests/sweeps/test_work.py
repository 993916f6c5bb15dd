"""What a process refuses before it trains a run: another log, another version, another run under its name."""

import importlib
import os
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from simtrust.errors import ConfigError, RunError
from simtrust.sweeps.local_engine import one_after_the_other
from simtrust.sweeps.options import to_config
from simtrust.sweeps.places import RemoteFolder, SharedFolder
from simtrust.sweeps.plan import PlannedRun
from simtrust.sweeps.processes import Broken, start
from simtrust.sweeps.sweep import sweep
from simtrust.sweeps.work import Order, carry_out
from simtrust.training.config import TrainConfig, config_to_json
from simtrust.training.run_directory import resume_command


@pytest.fixture
def order(common, tmp_path) -> Order:
    options = tomllib.loads(common)["common"]
    config = to_config("", {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
    return Order(PlannedRun("a", config), SharedFolder(str(tmp_path / "out")), "", "not this log's", 1.0)


def test_a_log_that_is_another_on_this_machine_is_refused(order, tmp_path):
    outcome = carry_out(order)
    assert "is not the log that was checked before the sweep" in (outcome.error or "")
    assert not (tmp_path / "out" / "a").exists()


@pytest.mark.parametrize("kind", ["folder", "storage"])
def test_what_fails_goes_on_with_the_sweep_and_names_no_temporary_folder(order, tmp_path, monkeypatch, kind):
    if kind == "storage":
        pytest.importorskip("fsspec")
        order = order._replace(place=RemoteFolder(f"file://{tmp_path}/out"))
    config = replace(order.run.config, real=None, sim="mine:make it")

    def failing(config: TrainConfig, **_) -> None:
        out = Path(str(config.out))
        command = resume_command(out, config, {})
        error = RunError(f"not finite. Go on with a lower rate: {command} --learning-rate 1.5e-05")
        error.add_note(f"Step 3 is saved; go on with: {command}")
        error.add_note(f"What led there is in {out}/diagnosis-3")
        raise error

    monkeypatch.setattr(sys.modules[carry_out.__module__], "train", failing)
    outcome = carry_out(order._replace(run=PlannedRun("a", config), sha256=None))
    assert outcome.error == (
        "not finite. Go on with a lower rate: another learning_rate in the sweep file, and another name or "
        "--out"
    )
    assert outcome.details == (
        "Step 3 is saved; go on with: the same simtrust sweep command\n"
        f"What led there is in {order.place}/a/diagnosis-3"
    )


def test_another_version_is_refused(order):
    outcome = carry_out(order._replace(version="99.0"))
    assert "simtrust 99.0 began the sweep" in (outcome.error or "")


def test_another_run_under_the_name_is_refused(order, tmp_path):
    """As where it was begun between the check and this."""
    other = replace(order.run.config, steps=7, rollout_steps=7, checkpoint_every=7)
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "config.json").write_text(config_to_json(other))
    assert "was begun with steps 7 and not 100" in (carry_out(order).error or "")


def test_a_log_that_changed_since_the_run_was_begun_is_refused(common, written, log, tmp_path):
    file = written(f"{common}[[variants]]\nname = 'a'\nrecipe = 'h2o'\n")
    (tmp_path / "out" / "a").mkdir(parents=True)
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in tomllib.loads(common)["common"].items()}
    config: TrainConfig = to_config("", {**options, "recipe": "h2o"})
    stored = config_to_json(config, dataset_sha256="another's")
    (tmp_path / "out" / "a" / "config.json").write_text(stored)
    with pytest.raises(ConfigError, match=f"run a: {log} is not the log that it was begun with"):
        sweep(file, str(tmp_path / "out"), one_after_the_other(quiet=True))


@pytest.fixture
def tried(monkeypatch) -> ModuleType:
    """The module of that name, which other processes find as well."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("tried")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_a_process_returns_or_how_it_ends(tried):
    assert start(abs, -3).value() == 3
    broken = start(tried.raises).value()
    assert isinstance(broken, Broken) and "LookupError: nothing there" in broken.problem
    assert start(os._exit, 7).value() == Broken("its worker process ended with exit status 7")


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_an_interrupted_process_ends_in_order(tried, tmp_path, handler):
    """Also if it was started by one that ignores interrupts, as in the background of a shell's script."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        running = start(tried.waits, str(tmp_path / "here"))
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until((tmp_path / "here").exists)
    running.interrupt()
    assert not (tmp_path / "here").exists() and not running.process.is_alive()


def test_a_process_ends_with_the_one_that_started_it(tried, tmp_path):
    started = start(tried.waits_for_another, str(tmp_path / "here"))
    wait_until((tmp_path / "here").exists)
    started.process.kill()
    started.process.join()
    wait_until(lambda: not (tmp_path / "here").exists())
