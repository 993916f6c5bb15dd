"""Sweeps on this machine: checked first, trained once, gone on with after any end."""

import csv
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import simtrust
from simtrust.commands.sweep import sweep as command
from simtrust.errors import ConfigError, RunError, RunWarning
from simtrust.sweeps.checking import check_problems
from simtrust.sweeps.local_engine import one_after_the_other, side_by_side
from simtrust.sweeps.summary import Summary
from simtrust.sweeps.sweep import sweep
from simtrust.training.config import TrainConfig, config_to_json

LEASE = 3.0
HERE = Path(__file__).parent


@pytest.fixture
def counting(tmp_path, monkeypatch) -> Callable[[str], list[int]]:
    """``counting(name)``: the steps of each simulator ``counting:name`` that there was, in their order."""
    folder = tmp_path / "counting"
    folder.mkdir()
    monkeypatch.setenv("COUNTING", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    # What a killed process leaves there goes with it.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.syspath_prepend(str(HERE))

    def counting(name: str) -> list[int]:
        from counting import counts  # pyright: ignore[reportMissingImports]

        return counts(folder, name)

    return counting


def three_runs(common: str, *names: str) -> str:
    """A sweep of sac for 400 steps, in a simulator that counts, for each name."""
    shared = common.replace("\nsteps = 100", "\nsteps = 400").replace("\nsim =", "\nreal_env =")
    variants = (f"[[variants]]\nname = '{name}'\nsim = 'counting:{name}'\n" for name in names)
    return "".join([shared, "recipe = 'sac'\n", *variants])


def rows(summary: Summary) -> list[dict[str, str]]:
    content = summary.place.read("sweep.csv")
    assert content is not None
    return list(csv.DictReader(content.decode().splitlines()))


def test_every_run_is_trained_once_and_summed_up(common, written, tmp_path, counting, computed):
    file = written(three_runs(common, "a", "b"))
    said: list[str] = []
    first = sweep(
        file, str(tmp_path / "out"), one_after_the_other(quiet=True), tell=said.append, lease_seconds=LEASE
    )
    assert counting("a") == counting("b") == [400]
    assert [line.split(":")[0] for line in said] == ["a", "b"]
    for name in "ab":
        result = json.loads((tmp_path / "out" / name / "result.json").read_text())
        found = [row for row in rows(first) if row["name"] == name]
        assert [row["seed"] for row in found] == ["0"]
        assert [float(row["return_mean"]) for row in found] == [run["return_mean"] for run in result["runs"]]
        assert {(row["state"], row["sim"], row["steps"]) for row in found} == {
            ("finished", f"counting:{name}", "400")
        }
    # The same alone, which is what a run of a sweep is.
    options = tomllib.loads(three_runs(common))["common"]
    alone = simtrust.train(sim="counting:a", out=tmp_path / "alone", quiet=True, **options)
    assert computed(alone.directory) == computed(tmp_path / "out" / "a") == computed(tmp_path / "out" / "b")

    before = computed(tmp_path / "out" / "a")
    second = sweep(
        file, str(tmp_path / "out"), one_after_the_other(quiet=True), tell=said.append, lease_seconds=LEASE
    )
    assert said[2:] == ["2 of 2 runs had finished before"]
    assert counting("b") == [400] and computed(tmp_path / "out" / "a") == before
    assert rows(second) == rows(first)
    console = Console(width=100, record=True, file=StringIO())
    console.print(second.table())
    assert console.export_text().count("finished") == 2
    assert not [*(tmp_path / "out" / "leases").iterdir()]


def test_one_that_fails_ends_no_other_and_goes_on_when_mended(common, written, tmp_path, counting):
    file = written(three_runs(common, "fails", "works"))
    summary = sweep(file, str(tmp_path / "out"), one_after_the_other(quiet=True), lease_seconds=LEASE)
    assert summary.failed == ["fails"]
    assert [(row["name"], row["state"]) for row in rows(summary)] == [
        ("fails", "failed"),
        ("works", "finished"),
    ]
    assert "the cable is loose" in rows(summary)[0]["error"]
    told = (tmp_path / "out/errors/fails.txt").read_text()
    assert "at step 150 is saved" in told and "go on with: the same simtrust sweep command" in told
    assert counting("fails") == [150]
    (tmp_path / "counting" / "mended").touch()
    again = sweep(file, str(tmp_path / "out"), one_after_the_other(quiet=True), lease_seconds=LEASE)
    assert again.failed == [] and not (tmp_path / "out/errors/fails.txt").exists()
    # Nothing that was saved is trained again.
    assert counting("fails") == [150, 250] and counting("works") == [400]
    attempts = (tmp_path / "out/attempts/fails.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in attempts] == [0, 150]


def test_some_at_a_time_in_processes_of_their_own(common, written, tmp_path, counting, computed):
    """To storage, so that it is tried as well; one process ends without a word."""
    pytest.importorskip("fsspec")
    file, url = written(three_runs(common, "a", "dies")), f"file://{tmp_path}/far"
    # Checked here: another process takes seconds to start.
    engine = side_by_side(2)._replace(check=check_problems)
    summary = sweep(file, url, engine, lease_seconds=LEASE)
    assert summary.failed == ["dies"]
    assert "killed by SIGKILL" in rows(summary)[1]["error"]
    assert counting("a") == [400] and counting("dies") == [150]
    (tmp_path / "counting" / "mended").touch()
    # Here: bits do not depend on the process.
    again = sweep(file, url, one_after_the_other(quiet=True), lease_seconds=LEASE)
    assert again.failed == []
    assert counting("a") == [400] and counting("dies") == [150, 300], "step 100 was the last that was saved"
    assert computed(tmp_path / "far" / "a") == computed(tmp_path / "far" / "dies")


def test_a_sweep_that_was_killed_goes_on(common, written, tmp_path, counting, monkeypatch):
    monkeypatch.setenv("COUNTING_SECONDS", "0.002")
    file, out = written(three_runs(common, "a", "b")), tmp_path / "out"
    code = "import sys; from simtrust.sweeps.sweep import sweep; sweep(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, file, out], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "a/checkpoints/checkpoint-000000000200.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    trained = counting("a")[0]
    assert 200 <= trained < 400
    # At once: its holder was a process of this machine.
    began = time.monotonic()
    summary = sweep(file, str(out), one_after_the_other(quiet=True), lease_seconds=LEASE)
    saved = [json.loads(line)["step"] for line in (out / "attempts/a.jsonl").read_text().splitlines()]
    assert saved[0] == 0 and saved[1] in (200, 300)
    assert counting("a") == [trained, 400 - saved[1]] and counting("b") == [400]
    assert summary.failed == [] and time.monotonic() - began < 60


def test_a_run_that_always_ends_its_process_is_given_up(common, written, tmp_path, counting):
    file = written(three_runs(common, "a"))
    out = tmp_path / "out"
    (out / "leases").mkdir(parents=True)
    (out / "leases/a.json").write_text(json.dumps({"deaths": 4, "token": "x"}))
    with pytest.warns(RunWarning, match="no sign of life"):
        summary = sweep(file, str(out), one_after_the_other(quiet=True), lease_seconds=1.0)
    assert summary.failed == ["a"] and "5 processes in a row" in rows(summary)[0]["error"]
    assert counting("a") == []


WRONG = [
    ({"real": "/none.hdf5"}, "/none.hdf5"),
    ({"sim": "Pendulun-v1"}, "did you mean Pendulum-v1"),
    ({"sim": "counting_nothing:a"}, "counting_nothing"),
    ({"shifts": ["gravity=2"]}, "shift"),
    ({"track": ["wandb"]}, "wandb"),
    ({"real_env": "MountainCarContinuous-v0"}, "observation"),
]


@pytest.mark.parametrize(
    ("engine", "wrong", "words"),
    [*((one_after_the_other(quiet=True), *case) for case in WRONG), (side_by_side(2), *WRONG[0])],
)
def test_nothing_trains_before_everything_is_checked(
    common, written, tmp_path, monkeypatch, engine, wrong, words
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    good = tomllib.loads(common)["common"]
    variants = {"good": good, "bad": good | wrong}
    lines = [
        f"[[variants]]\nname = '{name}'\nrecipe = 'h2o'\n"
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
        for name, options in variants.items()
    ]
    file = written("".join(lines))
    with pytest.raises(ConfigError) as caught:
        sweep(file, str(tmp_path / "out"), engine)
    for word in (str(file), "run bad", words):
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_run_begun_with_other_options_is_refused(common, written, tmp_path):
    """Also where the stored ones name code: it is not imported, and the message tells it."""
    file = written(f"{common}[[variants]]\nname = 'a'\n")
    (tmp_path / "out" / "a").mkdir(parents=True)
    stored = config_to_json(TrainConfig(sim="no_module_of_ours:make"), command="")
    (tmp_path / "out" / "a" / "config.json").write_text(stored)
    with pytest.raises(ConfigError, match=r"run a was begun in .*sim 'no_module_of_ours:make' and not"):
        sweep(file, str(tmp_path / "out"), one_after_the_other(quiet=True), lease_seconds=LEASE)
    assert not (tmp_path / "out" / "sweep.csv").exists()


def test_the_command_fails_in_the_end_if_a_run_did(common, written, tmp_path, counting, capsys, monkeypatch):
    monkeypatch.setattr("simtrust.sweeps.lease.SETTLES", 600)
    file = written(three_runs(common, "fails"))
    with pytest.raises(RunError, match="1 of 1 runs failed: fails"):
        command(str(file), out=str(tmp_path / "out"))
    assert "sweep.csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        {"jobs": 0},
        {"address": "auto"},
        {"gpus": 1.0},
        {"engine": "ray", "jobs": 2},
        {"engine": "ray", "cpus": -1.0},
        {"engine": "ray", "gpus": float("nan")},
    ],
)
def test_options_that_say_nothing_are_refused(options):
    name = next(name for name in options if name != "engine")
    with pytest.raises(ConfigError, match=f"--{name}"):
        command("none.toml", **options)
