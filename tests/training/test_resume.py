"""A run that was killed goes on to the same bits as one that never stopped."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import filelock
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import simtrust
from simtrust.errors import RunError, RunWarning, SimtrustError
from simtrust.training import loop
from simtrust.training.config import TrainConfig, config_to_json
from simtrust.training.metrics import MetricsFile

STEPS = 600
PATIENCE = 600.0
"""Seconds until a process that does not do what it should is given up."""


@pytest.fixture(scope="module")
def options(tiny, log) -> dict:
    """The ring of 250 rows is overwritten twice, so that old chunks are dropped."""
    own = {"steps": STEPS, "seeds": 2, "evaluate_every": 200, "buffer_capacity": 250}
    return {**tiny, **own, "real": str(log), "sim": "Pendulum-v1"}


@pytest.fixture(scope="module")
def uninterrupted(options, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    return simtrust.train("h2o", quiet=True, **options, out=out).directory


@pytest.fixture(scope="module")
def start() -> Callable[..., subprocess.Popen]:
    """Starts ``simtrust ARGUMENTS`` as a process of its own; what it leaves running is killed."""
    processes: list[subprocess.Popen] = []

    def start(*arguments: str | Path, program: Sequence[str] = ("-m", "simtrust.cli")) -> subprocess.Popen:
        command = [sys.executable, *program, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
            process.communicate()


def as_arguments(options: dict) -> list[str]:
    words: list[str] = []
    for name, value in options.items():
        words.append(f"--{name.replace('_', '-')}")
        words += [str(v) for v in value] if isinstance(value, tuple) else [str(value)]
    return words


def steps_saved(directory: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in directory.glob("checkpoints/checkpoint-*.json"))


def kill_when(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"the process ended with {process.returncode}: {process.communicate()[0]}")
        if time.monotonic() > deadline:
            pytest.fail("the process did not get there in time")
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def killed(start, options, tmp_path_factory) -> Path:
    """A run killed at its second checkpoint or a little later; copy it before use."""
    directory = tmp_path_factory.mktemp("killed") / "run"
    process = start("train", "h2o", *as_arguments(options), "--out", directory)
    kill_when(process, lambda: len(steps_saved(directory)) == 2)
    assert not (directory / "result.json").exists()
    return directory


@pytest.fixture
def copy(killed, tmp_path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "run"))


def final_state(directory: Path) -> bytes:
    return (directory / "checkpoints" / f"state-{STEPS:012d}.safetensors").read_bytes()


def assert_same_run(ours: Path, theirs: Path) -> None:
    assert final_state(ours) == final_state(theirs)
    assert (ours / "metrics.jsonl").read_bytes() == (theirs / "metrics.jsonl").read_bytes()
    results = [json.loads((directory / "result.json").read_text()) for directory in (ours, theirs)]
    assert results[0]["runs"] == results[1]["runs"]
    assert len(results[0]["runs"]) == 2


def test_killed_twice_equals_never_killed(copy, start, uninterrupted):
    kill_when(start("resume", copy), lambda: steps_saved(copy)[-1] >= 400)
    assert not (copy / "result.json").exists()
    output = finish(start("resume", copy))
    assert f"result in {copy}" in output.replace("\n", "")
    assert_same_run(copy, uninterrupted)


def test_killed_before_any_checkpoint_equals_never_killed(start, options, tmp_path, uninterrupted):
    directory = tmp_path / "run"
    process = start("train", "h2o", *as_arguments(options), "--out", directory)
    kill_when(process, (directory / "config.json").exists)
    assert steps_saved(directory) == []
    finish(start("resume", directory))
    assert_same_run(directory, uninterrupted)


WITH_A_SMALL_GAP_MODEL = """
from dataclasses import replace
from simtrust import cli
from simtrust.training import gap_model

small = replace(gap_model.SIMULATOR_GAP_OPTIONS, hidden_sizes=(16, 16), epochs=10)
gap_model.SIMULATOR_GAP_OPTIONS = small
cli.main()
"""


def test_trust_killed_while_fitting_its_gap_model_and_while_training_equals_never_killed(
    start, options, tmp_path
):
    never, directory = (tmp_path / name for name in ("never", "killed"))
    start = partial(start, program=("-c", WITH_A_SMALL_GAP_MODEL))
    finish(start("train", "trust", *as_arguments(options), "--out", never))
    process = start("train", "trust", *as_arguments(options), "--out", directory)
    assert process.stdout is not None
    assert any("fitting the gap model" in line for line in process.stdout)
    kill_when(process, lambda: True)
    assert not (directory / "gap_model.json").exists()
    kill_when(start("resume", directory), lambda: len(steps_saved(directory)) == 2)
    fitted = (directory / "gap_model.json").stat().st_mtime_ns
    finish(start("resume", directory))
    assert (directory / "gap_model.json").stat().st_mtime_ns == fitted, "it is fitted once"
    for name in ("gap_model.json", "gap_model.safetensors"):
        assert (directory / name).read_bytes() == (never / name).read_bytes()
    assert_same_run(directory, never)


def test_killed_and_then_damaged_equals_never_killed(copy, uninterrupted):
    """The newest state lost a bit, and metrics were half written: it goes on from the older one."""
    *_, older, newest = steps_saved(copy)
    state = copy / "checkpoints" / f"state-{newest:012d}.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 999, "seed')
    simtrust.resume(copy, quiet=True)
    assert older == newest - 100
    assert_same_run(copy, uninterrupted)


def test_equal_bits_are_not_equal_for_want_of_difference(uninterrupted):
    """The two seeds of the run differ in their networks and in their returns."""
    arrays = load_file(uninterrupted / "checkpoints" / f"state-{STEPS:012d}.safetensors")
    actor = arrays[".actor.network.layers[0].weight"]
    assert actor.shape == (2, 3, 16)
    assert (actor[0] != actor[1]).any()
    first, second = json.loads((uninterrupted / "result.json").read_text())["runs"]
    assert first["episode_returns"] != second["episode_returns"]
    assert len((uninterrupted / "metrics.jsonl").read_text().splitlines()) == 2 * STEPS // 50


def test_directory_in_use_is_refused(copy, start, options):
    with filelock.FileLock(copy / ".lock"):
        process = start("resume", copy)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 2
        message = f"error: {copy} is in use by another process; wait for it, or choose another --out"
        assert message in output.replace("\n", " ")
        (copy / "config.json").unlink()
        with pytest.raises(RunError, match="is in use by another process"):
            simtrust.train("h2o", quiet=True, **options, out=copy)


def test_directory_is_free_again_after_an_error(tmp_path, options):
    """The error, and with it the traceback, is still alive when the next run begins."""
    (tmp_path / "run").mkdir()
    with pytest.raises(SimtrustError) as caught:
        simtrust.train("h2o", quiet=True, **{**options, "real": "nowhere.hdf5"}, out=tmp_path / "run")
    with filelock.FileLock(tmp_path / "run" / ".lock").acquire(blocking=False):
        assert caught.value.__traceback__ is not None


def test_training_over_a_run_is_refused(killed, options):
    before = sorted(killed.rglob("*"))
    with pytest.raises(RunError, match=f"{killed} already holds a run; go on with: simtrust resume {killed}"):
        simtrust.train("h2o", quiet=True, **options, out=killed)
    assert sorted(killed.rglob("*")) == before


def test_finished_run_is_only_reported(uninterrupted, monkeypatch):
    def refuse(*_):
        raise AssertionError("there is nothing left to train")

    monkeypatch.setattr(loop, "prepare", refuse)
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*") if path.name != ".lock"}
    result = simtrust.resume(uninterrupted, quiet=True)
    assert result.summary == json.loads((uninterrupted / "result.json").read_text())
    assert result.summary["steps"] == STEPS
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.fixture
def begun(killed, tmp_path) -> Path:
    """A run directory that holds nothing but the configuration of ``killed``."""
    directory = tmp_path / "begun"
    directory.mkdir()
    shutil.copy(killed / "config.json", directory)
    return directory


def edit_config(directory: Path, **changes) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_changed_log_is_refused(begun, tmp_path, record_log):
    other = record_log(tmp_path / "log.hdf5", seed=1)
    edit_config(begun, real=str(other))
    with pytest.raises(RunError, match=f"{other} is not the log that this run began with"):
        simtrust.resume(begun, quiet=True)


def test_a_run_that_goes_on_under_other_conditions_says_so(copy, uninterrupted):
    edit_config(copy, processors=99)
    with pytest.warns(RunWarning, match=r"was begun with processors 99, and goes on with processors \d+: "):
        simtrust.resume(copy, quiet=True)
    assert_same_run(copy, uninterrupted)


def test_missing_log_is_named(begun, tmp_path):
    edit_config(begun, real=str(tmp_path / "gone.hdf5"))
    with pytest.raises(SimtrustError, match=r"gone\.hdf5: no such file"):
        simtrust.resume(begun, quiet=True)


def test_newer_format_is_refused(begun):
    edit_config(begun, format=2, versions={"simtrust": "9.9"})
    with pytest.raises(RunError, match=r"has format 2, .* reads 1; use the version that wrote it: 9\.9"):
        simtrust.resume(begun)


@pytest.mark.parametrize("versions", [[], None, "9.9"])
def test_newer_format_is_refused_whatever_its_versions_are(tmp_path, versions):
    (tmp_path / "config.json").write_text(json.dumps({"format": 99, "versions": versions}))
    with pytest.raises(RunError, match=r"has format 99, .* the version that wrote it: unknown"):
        simtrust.resume(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "\xff", pytest.param("[" * 100_000, id="deep"), "[]", "null", "{}", '{"steps": 1, "runs": []}',
     '{"steps": 1, "runs": 2}', '{"steps": 1, "runs": [{}]}', '{"steps": true, "runs": [{"seed": 0}]}'],
)  # fmt: skip
def test_damaged_result_is_named_and_nothing_is_overwritten(tmp_path, content):
    (tmp_path / "config.json").write_text(config_to_json(TrainConfig(recipe="sac")))
    path = tmp_path / "result.json"
    path.write_text(content, "latin-1")
    with pytest.raises(RunError) as caught:
        simtrust.resume(tmp_path)
    assert str(caught.value).startswith(f"{path} is damaged (")
    assert f"delete it, and simtrust resume {tmp_path} writes it again" in str(caught.value)
    assert path.read_text("latin-1") == content


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        pytest.param("[" * 100_000, id="deep"),
        "\0" * 50,
        "[]",
        "null",
        "3",
        "{}",
        '{"format": 1}',
        '{"format": 1, "algorithm": []}',
    ],
)
def test_damaged_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        simtrust.resume(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"steps": "600"}, {"algorithm": {"batch_siez": 3}}, {"recipe": "h3o"}, {"seeds": None}]
)
def test_configuration_with_a_wrong_value_is_refused(begun, changes):
    edit_config(begun, **changes)
    with pytest.raises(SimtrustError):
        simtrust.resume(begun)


def test_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="is not a run directory of simtrust"):
        simtrust.resume(tmp_path / "nowhere")


def test_policy_and_evaluation_need_a_checkpoint(begun):
    with pytest.raises(RunError, match="holds no checkpoint yet"):
        simtrust.Policy(begun)


def test_killed_runs_policy_is_that_of_its_last_checkpoint(killed):
    policy = simtrust.Policy(killed)
    assert (policy.seeds, policy.step) == ((0, 1), steps_saved(killed)[-1])
    action = policy(np.zeros((2, 1, 3), np.float32))
    assert action.shape == (2, 1, 1)
    assert (np.abs(action) <= 2).all()


@pytest.mark.parametrize(("kept", "expected"), [(0, ""), (5, "12345"), (9, "12345678\n")])
def test_metrics_after_the_checkpoint_are_written_again(tmp_path, kept, expected):
    path = tmp_path / "metrics.jsonl"
    path.write_text("12345678\nlater")
    assert MetricsFile(path, kept).size == kept
    assert path.read_text() == expected


def test_lost_metrics_are_not_made_up_for_by_zero_bytes(tmp_path):
    """It is not flushed to the disk: after a power cut it may be shorter than its checkpoint says."""
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, 1_000)
    metrics.write(100, [0], {"loss": np.array([0.5])})
    assert path.read_text() == '{"step": 100, "seed": 0, "loss": 0.5}\n'


def test_keeping_compiled_programs_respects_the_users_choice(monkeypatch, tmp_path):
    chosen = jax.config.values["jax_compilation_cache_dir"]
    assert chosen
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    loop.keep_compiled()
    assert jax.config.values["jax_compilation_cache_dir"] == chosen
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        loop.keep_compiled()
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "simtrust" / "jax")
    finally:
        jax.config.update("jax_compilation_cache_dir", chosen)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
