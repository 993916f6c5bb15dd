"""The same command with the same seed gives the same files, whatever else differs between two processes."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.numpy import load_file

TRAINING_TESTS = runpy.run_path(str(Path(__file__).parents[1] / "training" / "conftest.py"))
TINY = {**TRAINING_TESTS["TINY"], "steps": 200, "evaluate_every": 100}
# As wide as the paper's, so that several threads share the work.
WIDE = {**TINY, "hidden_sizes": (256, 256), "batch_size": 256, "steps": 50}
STEPS = {"h2o": 200, "trust": 200, "sac": 50}

PROCESS = """
import json, sys
from dataclasses import replace
import simtrust
from simtrust import measuring
from simtrust.cli import main
from simtrust.gap import measure
from simtrust.training import gap_model

small = {"members": 2, "elites": 2, "hidden_sizes": (16, 16), "epochs": 2}
measure.SIMULATOR_GAP_OPTIONS = replace(measure.SIMULATOR_GAP_OPTIONS, **small)
gap_model.SIMULATOR_GAP_OPTIONS = replace(gap_model.SIMULATOR_GAP_OPTIONS, **small)
measure.TRUST_MODEL_OPTIONS = replace(measure.TRUST_MODEL_OPTIONS, **small)
quick = {"hidden_sizes": (16,), "updates": 250, "batch_size": 64}
measure.CLASSIFIER_OPTIONS = replace(measure.CLASSIFIER_OPTIONS, **quick)
measure.PROBE_ROWS = 600
# Pages and pictures take long, and say what gap.json says.
measuring.write_html = measuring.draw_report = lambda *_: None

command_lines, python = json.loads(sys.argv[1])
for line in command_lines:
    sys.argv = ["simtrust", *line]
    main()
if python:
    simtrust.train("h2o", quiet=True, **python)
"""
"""Runs command lines one after the other, with small models of the gap, and the last run from Python."""

TELL_THE_TIME = {
    "result.json": ("wall_seconds", "updates_per_second"),
    "checkpoint": ("wall_seconds", "update_seconds"),
}


def words(options: dict) -> list[str]:
    found = []
    for name, value in options.items():
        found += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """The same command lines in two processes, which differ in all that should not matter."""
    folder = tmp_path_factory.mktemp("same-bits")
    log = str(TRAINING_TESTS["record_pendulum"](folder / "log.hdf5", rows=1_000))
    sources = ["--real", log, "--sim", "Pendulum-v1"]
    gap = ["gap", *sources, "--out", "gap"]
    trust = ["train", "trust", *sources, *words(TINY), "--out", "trust"]
    h2o = ["train", "h2o", *sources, *words(TINY), "--out", "h2o"]
    export = ["export", "h2o", "--rate", "20", "--out", "robot"]
    sac = ["train", "sac", *sources[2:], *words(WIDE), "--out", "sac"]
    python = {**TINY, "real": log, "sim": "Pendulum-v1", "out": "python"}
    first, second = folder / "first", folder / "another place"
    in_process(first, [h2o, export, sac, trust, gap], {}, TZ="UTC", LC_ALL="C", PYTHONHASHSEED="1")
    # By now compiled programs are there to be loaded.
    in_process(
        second,
        [gap, trust, sac, h2o, export],
        python,
        TZ="Asia/Kathmandu",
        LC_ALL=other_locale(),
        PYTHONHASHSEED="2",
    )
    return first, second


def in_process(place: Path, command_lines: Sequence[Sequence[str]], python: dict, **environment: str) -> None:
    place.mkdir()
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(place.parent / "compiled")}
    command = [sys.executable, "-c", PROCESS, json.dumps([command_lines, python])]
    ended = subprocess.run(
        command, cwd=place, env={**os.environ, **compiled, **environment}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def other_locale() -> str:
    """One that writes numbers with a comma, if this machine has it."""
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.split()
    return next((name for name in known if name.startswith(("de_", "fr_"))), "C.UTF-8")


def computed(path: Path) -> object:
    """What a file says, without how long it took."""
    kind = "checkpoint" if path.name.startswith("checkpoint-") else path.name
    if kind not in TELL_THE_TIME:
        return path.read_bytes()
    stored = json.loads(path.read_text())
    return {name: value for name, value in stored.items() if name not in TELL_THE_TIME[kind]}


def assert_same_files(ours: Path, theirs: Path, *, but: Sequence[str] = ()) -> list[str]:
    """Every file is there in both folders, and says the same; their names."""
    names = {
        folder: sorted(
            str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name not in but
        )
        for folder in (ours, theirs)
    }
    assert names[ours] == names[theirs]
    for name in names[ours]:
        assert computed(ours / name) == computed(theirs / name), name
    return names[ours]


@pytest.mark.parametrize("recipe", ["h2o", "trust", "sac"])
def test_training_gives_the_same_files(folders, recipe):
    first, second = (folder / recipe for folder in folders)
    names = assert_same_files(first, second)
    state = f"checkpoints/state-{STEPS[recipe]:012d}.safetensors"
    assert {state, "metrics.jsonl", "config.json", "result.json"} <= set(names)
    assert ("gap_model.safetensors" in names) == (recipe == "trust")


def test_python_gives_the_same_run_as_the_command_line(folders):
    names = assert_same_files(folders[0] / "h2o", folders[1] / "python", but=("config.json", "result.json"))
    assert len(names) > 3
    runs = [
        json.loads((path / "result.json").read_text())["runs"]
        for path in (folders[0] / "h2o", folders[1] / "python")
    ]
    assert runs[0] == runs[1]


def test_gap_report_has_the_same_numbers(folders):
    names = assert_same_files(folders[0] / "gap", folders[1] / "gap")
    assert {"gap.json", "trust.onnx", "trust.npz"} <= set(names)


def test_exported_policies_are_the_same(folders):
    names = assert_same_files(folders[0] / "robot", folders[1] / "robot", but=("latency.json", "README.md"))
    assert {"policy.onnx", "policy.npz", "metadata.json", "parity.npz"} <= set(names)


def test_training_did_something(folders):
    """Equal files are not equal because nothing happened."""
    before, after = (
        load_file(folders[0] / "h2o" / "checkpoints" / f"state-{n:012d}.safetensors") for n in (100, 200)
    )
    name = ".actor.network.layers[0].weight"
    assert (before[name] != after[name]).all()
