"""Processes at the same time: two that want one run, readers of one that trains, runs that share all else."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import filelock
import numpy as np
import pytest

import simtrust
from simtrust.training.checkpoint import CheckpointStore, Manifest

TRAINING_TESTS = runpy.run_path(str(Path(__file__).parents[1] / "training" / "conftest.py"))
RECIPE = "h2o_reg_dr"
"""Reads log and simulator, and compiles quickly."""
STEPS, BEGUN = 1_500, 200
OPTIONS = {
    **TRAINING_TESTS["TINY"], "steps": STEPS, "checkpoint_every": 50, "evaluate_every": 100,
    "buffer_capacity": 250, "sim": "Pendulum-v1",
}  # fmt: skip
PATIENCE = 600.0
"""Seconds until a process that does not do what it should is given up."""

RACE = """
import json, os, sys
import simtrust.cli, simtrust.training.loop
jobs = json.loads(sys.argv[1])
gate, opener = os.pipe()
children = []
for arguments, output in jobs:
    child = os.fork()
    if child == 0:
        os.close(opener)
        os.read(gate, 1)
        file = os.open(output, os.O_CREAT | os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = ["simtrust", *arguments]
        simtrust.cli.main()
        sys.exit()
    children.append(child)
# Its last writer gone, the gate opens for all at once.
os.close(opener)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""
"""Imports everything once, and then runs command lines as processes that begin at the same moment."""


class Ended(tuple):
    """A process that ended: its exit status, and what it said."""

    status = property(lambda self: self[0])
    said = property(lambda self: self[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("side-by-side")


@pytest.fixture(scope="module")
def log(folder) -> Path:
    return TRAINING_TESTS["record_pendulum"](folder / "log.hdf5")


@pytest.fixture(scope="module")
def environment(folder) -> dict[str, str]:
    """Of the processes, which share one compilation cache, empty when the first two begin."""
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}


@pytest.fixture(scope="module")
def race(environment, folder) -> Callable[..., Callable[[], list[Ended]]]:
    """``race(command line, ...)`` starts them at the same moment; what it returns waits for their end."""
    count = 0

    def start(*command_lines: Sequence[str | Path]) -> Callable[[], list[Ended]]:
        nonlocal count
        count += 1
        outputs = [folder / f"output-{count}-{index}" for index in range(len(command_lines))]
        jobs = [([*map(str, line)], str(file)) for line, file in zip(command_lines, outputs, strict=True)]
        process = subprocess.Popen(
            [sys.executable, "-c", RACE, json.dumps(jobs)], env=environment, stdout=subprocess.PIPE, text=True
        )

        def wait() -> list[Ended]:
            statuses = json.loads(process.communicate(timeout=PATIENCE)[0])
            texts = [" ".join(file.read_text().split()) for file in outputs]
            return [Ended(each) for each in zip(statuses, texts, strict=True)]

        return wait

    return start


@pytest.fixture(scope="module")
def training(log) -> list[str]:
    words = ["train", RECIPE, "--real", str(log)]
    for name, value in OPTIONS.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


@pytest.fixture(scope="module")
def raced(race, training, folder) -> list[Ended]:
    """Two that want one folder, and one beside them: the same log, parent folder and empty cache."""
    return race(*([*training, "--out", folder / name] for name in ("contested", "contested", "beside")))()


class KeepsBeginning(simtrust.Callback):
    """Copies a run directory as it is at a checkpoint, as if the run had been killed there."""

    def on_checkpoint(self, step: int, directory: Path) -> None:
        if step == BEGUN:
            shutil.copytree(directory, directory.with_name("begun"))


@pytest.fixture(scope="module")
def alone(raced, log, folder) -> Path:
    """The same run when nothing else runs; beside it lies ``begun``."""
    out = folder / "alone"
    simtrust.train(RECIPE, real=log, out=out, quiet=True, callbacks=[KeepsBeginning()], **OPTIONS)
    return out


def assert_same_run(ours: Path, theirs: Path) -> None:
    state = f"checkpoints/state-{STEPS:012d}.safetensors"
    for name in ("metrics.jsonl", state):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    results = [json.loads((directory / "result.json").read_text()) for directory in (ours, theirs)]
    assert results[0]["runs"] == results[1]["runs"]


def assert_one_refused(ended: Sequence[Ended], directory: Path) -> None:
    assert sorted(each.status for each in ended) == [0, 2], ended
    refused = next(each for each in ended if each.status == 2)
    assert f"error: {directory} is in use by another process; wait for it, or" in refused.said


def test_of_two_that_train_in_one_folder_one_is_refused(raced, alone, folder):
    assert_one_refused(raced[:2], folder / "contested")
    assert_same_run(folder / "contested", alone)


def test_runs_that_share_log_cache_and_parent_folder_are_as_if_alone(raced, alone, folder):
    assert raced[2].status == 0, raced[2].said
    assert_same_run(folder / "beside", alone)


def test_of_two_that_resume_one_run_one_is_refused_and_readers_disturb_nothing(race, alone, folder, tmp_path):
    contested, read = folder / "resumed", folder / "read"
    for copy in (contested, read):
        shutil.copytree(folder / "begun", copy)
    # What takes long the first time must not take the whole of the run's.
    for reader in readers(tmp_path):
        reader(read)
    wait = race(("resume", contested), ("resume", contested), ("resume", read))
    seen = readings(read, tmp_path)
    *two, undisturbed = wait()
    assert_one_refused(two, contested)
    assert_same_run(contested, alone)
    assert undisturbed.status == 0, undisturbed.said
    assert_same_run(read, alone)
    assert seen == sorted(seen)
    assert len(set(seen)) > 1, "it was not read while it trained"


def readings(directory: Path, out: Path) -> list[int]:
    """Read a run in every way until it has ended; the steps at which its policy was found."""
    ways = cycle(readers(out))
    steps = []
    deadline = time.monotonic() + PATIENCE
    while not (directory / "result.json").exists():
        assert time.monotonic() < deadline, "the run did not end in time"
        for _ in range(3):
            policy = simtrust.Policy(directory)
            steps.append(policy.step)
            assert np.isfinite(policy(np.zeros((1, 1, 3), np.float32))).all()
        next(ways)(directory)
    return steps


def readers(out: Path) -> list[Callable[[Path], object]]:
    return [
        lambda directory: simtrust.evaluate(directory, episodes=1),
        lambda directory: simtrust.report_run(directory, out / "page.html", video=False),
        lambda directory: simtrust.export_policy(directory, out / "robot", rate=20.0, overwrite=True),
    ]


def test_readers_of_a_store_that_saves_see_whole_checkpoints(tmp_path):
    """Some hundred checkpoints a second, of which two are kept: a reader always finds one that is whole."""
    store = CheckpointStore(tmp_path)

    def state(step: int) -> dict[str, np.ndarray]:
        return {name: np.full((64, 64), step, np.float32) for name in ("first", "second")}

    def save(step: int, previous: Manifest | None) -> Manifest:
        rows = np.full((1, 5, 3), step, np.float32)
        lengths = {"capacity": 20, "metrics_bytes": 0, "wall_seconds": 0.0, "update_seconds": 0.0}
        return store.save(step, state(step), rows, previous=previous, **lengths)

    last = save(0, None)
    ended = threading.Event()
    found: list[int] = []
    errors: list[Exception] = []

    def read() -> None:
        reader = CheckpointStore(tmp_path)
        while not ended.is_set() and not errors:
            try:
                manifest = reader.latest()
            except Exception as error:
                errors.append(error)
                return
            assert manifest is not None
            found.append(manifest.step)

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(1, 150):
        last = save(step, last)
    ended.set()
    reader.join()
    assert not errors
    assert found == sorted(found)
    assert len(set(found)) > 20


def test_lock_is_free_as_soon_as_its_owner_is_killed(tmp_path, environment):
    """Also while the owner's worker processes still find out that they are alone."""
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "simtrust.cli", "train", "sac", "--sim", "Pendulum-v1"]
    command += ["--sim-workers", "1", "--out", str(directory)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    # It is written once the workers are there.
    while not (directory / "config.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    free = filelock.FileLock(directory / ".lock", blocking=False)
    with pytest.raises(filelock.Timeout):
        free.acquire()
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with free:
        assert free.is_locked
