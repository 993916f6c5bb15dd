"""Really full disks and really read-only folders: told as such, nothing half written, nothing lost.

A disk is a small tmpfs in a mount namespace of its own, seen from here below ``/proc/PID/root``.
"""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import simtrust
from simtrust import measuring
from simtrust.data import save_dataset
from simtrust.errors import ConfigError, ExportError, RunError
from simtrust.evaluation.evaluators import Evaluator
from simtrust.simulators import make_simulator
from simtrust.training import gap_model, loop
from simtrust.training.callbacks import Callback
from simtrust.training.checkpoint import CheckpointStore
from simtrust.training.fleet import Fleet
from simtrust.training.metrics import MetricsFile
from simtrust.training.run_directory import lock
from simtrust.training.storage import StorageError, write_atomically

STEPS = 300
TINY = {
    "sim": "Pendulum-v1",
    "hidden_sizes": (16,),
    "batch_size": 16,
    "rollout_steps": 50,
    "checkpoint_every": 100,
    "evaluate_every": 0,
    "evaluation_episodes": 1,
    "buffer_capacity": 250,
    "steps": STEPS,
}
HOLD = "mount -t tmpfs -o size=2m tmpfs {0} && echo ready && while read line; do eval $line; echo done; done"
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]

# A simulator that fills the disk at its 120th step, as anything else on the machine may.
FILLING = """
import os
import gymnasium

class Filling(gymnasium.Wrapper):
    steps = 0
    def step(self, action):
        Filling.steps += 1
        if Filling.steps == 120:
            with open(os.environ["FILLER"], "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        return super().step(action)

def make():
    return Filling(gymnasium.make("Pendulum-v1", disable_env_checker=True))
"""


class Disk:
    """A disk of 2 MiB, mounted by a process that lives as long as this is used."""

    def __init__(self, place: Path):
        self.holder = subprocess.Popen(
            [*UNSHARE, HOLD.format(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.holder.stdout is not None
        said = self.holder.stdout.readline()
        if said != "ready\n":
            self.close()
            pytest.skip(f"no disk can be mounted here: {said.strip()}")
        self.inside, self.path = place, Path(f"/proc/{self.holder.pid}/root{place}")
        self.filler = self.path / "filler"

    def command(self, line: str) -> None:
        """Run a line of shell where the disk is mounted."""
        assert self.holder.stdin is not None and self.holder.stdout is not None
        self.holder.stdin.write(line + "\n")
        self.holder.stdin.flush()
        assert self.holder.stdout.readline() == "done\n", line

    def fill(self) -> None:
        """To the last byte."""
        with self.filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def free(self) -> None:
        self.filler.unlink()

    def read_only(self, folder: str) -> None:
        """A folder, also for processes that hold it."""
        place = self.inside / folder
        self.command(f"mount --bind {place} {place} && mount -o remount,ro,bind {place}")

    def writable_again(self, folder: str) -> None:
        self.command(f"umount {self.inside / folder}")

    def close(self) -> None:
        self.holder.kill()
        self.holder.communicate()


class At(Callback):
    """Does something at the first checkpoint, or at the start."""

    def __init__(self, what: Callable[[], None], *, event: str = "on_checkpoint"):
        self.what: Callable[[], None] | None = what
        setattr(self, event, self._once)

    def _once(self, *_: object) -> None:
        if self.what is not None:
            what, self.what = self.what, None
            what()


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    try:
        made = Disk(place)
    except FileNotFoundError:
        pytest.skip("unshare(1), which mounts a disk, is not installed")
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    return simtrust.train("sac", quiet=True, **TINY, out=out, evaluators=EVALUATORS).directory


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """400 rows of Pendulum."""
    env = gymnasium.make("Pendulum-v1", disable_env_checker=True)
    generator = np.random.default_rng(0)
    rows = []
    for episode in range(2):
        observation, _ = env.reset(seed=episode)
        for _ in range(200):
            torque = generator.uniform(-2, 2, 1).astype(np.float32)
            following, reward, _, truncated, _ = env.step(torque)
            rows.append((observation, torque, np.float32(reward), following, False, truncated))
            observation = following
    env.close()
    return save_dataset(tmp_path_factory.mktemp("log") / "log.hdf5", columns(rows))


def columns(rows: list[tuple]) -> dict[str, np.ndarray]:
    keys = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    stacked = [np.stack(column) for column in zip(*rows, strict=True)]
    return dict(zip(keys, [x if x.dtype == bool else x.astype(np.float32) for x in stacked], strict=True))


EVALUATORS: dict[str, Evaluator] = {"one": lambda _: 1.0}


def start(out: Path, **options) -> simtrust.RunResult:
    return simtrust.train("sac", quiet=True, **{**TINY, "evaluators": EVALUATORS, **options, "out": out})


def resume(run: Path) -> simtrust.RunResult:
    return simtrust.resume(run, quiet=True, evaluators=EVALUATORS)


def told(error: BaseException) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def temporary_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.name != ".lock"]


def assert_only_whole_files(run: Path, step: int) -> None:
    """The newest checkpoint is that of ``step``; every file belongs to a checkpoint, and lines are whole."""
    assert temporary_files(run) == []
    assert not (run / "result.json").exists()
    store = CheckpointStore(run / "checkpoints")
    manifest = store.latest()
    assert manifest is not None
    assert manifest.step == step
    manifests = {path.name: json.loads(path.read_text()) for path in store.directory.glob("checkpoint-*")}
    files = {each["state"]["name"] for each in manifests.values()}
    files |= {chunk["file"]["name"] for each in manifests.values() for chunk in each["chunks"]}
    assert {path.name for path in store.directory.iterdir()} == {*manifests, *files}
    content = (run / "metrics.jsonl").read_text()
    assert content.endswith("}\n")
    assert all(json.loads(line) for line in content.splitlines())


def assert_same_run(ours: Path, theirs: Path) -> None:
    for name in (f"checkpoints/state-{STEPS:012d}.safetensors", "metrics.jsonl"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    results = [json.loads((directory / "result.json").read_text())["runs"] for directory in (ours, theirs)]
    assert results[0] == results[1]
    assert temporary_files(ours) == []


def test_the_command_on_a_disk_that_fills_up_tells_it_and_goes_on_to_the_same_bits(
    disk, tmp_path, undisturbed
):
    (tmp_path / "filling.py").write_text(FILLING)
    environment = {
        **os.environ,
        "FILLER": str(disk.filler),
    }

    def command(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "simtrust.cli", *words, "--sim", "filling:make"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    run = disk.path / "run"
    own = {**TINY, "real_env": "Pendulum-v1"}
    del own["sim"]
    words = [
        word
        for name, value in own.items()
        for word in (f"--{name.replace('_', '-')}", str(value[0] if isinstance(value, tuple) else value))
    ]
    done = command("train", "sac", *words, "--out", str(run))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    what = r"\S+ cannot be written: No space left on device; free some space on its disk\n"
    how = rf"Step 100 is saved; go on with: simtrust resume {re.escape(str(run))} --sim filling:make\n"
    assert re.search(rf"error: {re.escape(str(run))}/{what}{how}\Z", done.stderr), done.stderr
    assert_only_whole_files(run, 100)
    again = command("resume", str(run))
    assert again.returncode == 2
    assert f"error: {run} cannot be written: No space left on device; free some space" in again.stderr
    disk.free()
    environment["FILLER"] = os.devnull
    (tmp_path / "filling.py").write_text(FILLING.replace("== 120", "< 0"))
    done = command("resume", str(run))
    assert done.returncode == 0, done.stderr
    for name in (f"checkpoints/state-{STEPS:012d}.safetensors",):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()


def test_a_disk_that_is_full_at_a_checkpoint_loses_nothing(disk, undisturbed):
    run = disk.path / "run"
    with pytest.raises(StorageError, match="No space left on device; free some space") as caught:
        start(run, callbacks=[At(disk.fill)])
    assert f"Step 100 is saved; go on with: simtrust.resume({str(run)!r}, evaluators=...)" in told(
        caught.value
    )
    assert str(caught.value.filename).startswith(str(run))
    assert_only_whole_files(run, 100)
    disk.free()
    resume(run)
    assert_same_run(run, undisturbed)


@pytest.mark.parametrize("folder", ["run", "run/checkpoints"])
def test_a_folder_that_turns_read_only_in_the_middle_loses_nothing(disk, undisturbed, folder):
    run = disk.path / "run"
    with pytest.raises(StorageError, match="Read-only file system; have its file system mounted") as caught:
        start(run, callbacks=[At(lambda: disk.read_only(folder))])
    assert "Step 100 is saved; go on with: simtrust.resume(" in told(caught.value)
    assert_only_whole_files(run, 100)
    if folder == "run":
        with pytest.raises(StorageError, match=f"{run} cannot be written: Read-only file system"):
            resume(run)
    disk.writable_again(folder)
    resume(run)
    assert_same_run(run, undisturbed)


def test_no_space_for_the_result_leaves_none_and_it_is_written_later(disk, undisturbed):
    run = disk.path / "run"

    def fill(_) -> float:
        disk.fill()
        return 1.0

    with pytest.raises(StorageError, match=r"result\.json cannot be written: No space left") as caught:
        start(run, evaluators={"one": fill})
    assert f"Step {STEPS} is saved; go on with" in told(caught.value)
    assert_only_whole_files(run, STEPS)
    disk.free()
    resume(run)
    assert_same_run(run, undisturbed)


def test_no_space_for_the_configuration_leaves_no_run(disk, monkeypatch):
    run = disk.path / "run"
    with monkeypatch.context() as patch:
        prepare = loop.prepare

        def fill(config):
            problem = prepare(config)
            disk.fill()
            return problem

        patch.setattr(loop, "prepare", fill)
        with pytest.raises(StorageError, match=r"config\.json cannot be written: No space left"):
            start(run)
    assert {path.name for path in run.rglob("*")} <= {".lock"}
    disk.free()
    assert start(run, steps=50).summary["steps"] == 50


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_where_nothing_can_be_written_no_work_begins(disk, monkeypatch, trouble):
    def work(_):
        raise AssertionError("nothing may be loaded before it is known that the run can be stored")

    monkeypatch.setattr(loop, "prepare", work)
    run = disk.path / "run"
    run.mkdir()
    if trouble == "full":
        disk.fill()
    else:
        disk.read_only("run")
    remedy = "free some space on its disk" if trouble == "full" else "or choose another place"
    with pytest.raises(RunError, match=rf"{run} cannot be written: .*{remedy}"):
        start(run)
    assert not (run / "config.json").exists()
    if trouble == "read-only":
        with pytest.raises(RunError, match=r"run/new cannot be made: Read-only .*choose another --out"):
            start(run / "new")


def test_no_space_for_the_gap_model_leaves_none_and_it_is_fitted_later(disk, log, monkeypatch):
    kept = gap_model.SIMULATOR_GAP_OPTIONS
    small = replace(kept, members=2, elites=2, hidden_sizes=(8, 8))
    monkeypatch.setattr(gap_model, "SIMULATOR_GAP_OPTIONS", small)
    fit, models = gap_model._fit, []

    def fit_once(problem, *, quiet):
        # Its second fit is the same, and takes as long.
        models.append(models[0] if models else fit(problem, quiet=quiet))
        return models[0]

    monkeypatch.setattr(gap_model, "_fit", fit_once)
    run = disk.path / "run"
    options = {**TINY, "real": str(log), "gap_probe_rows": 200, "gap_epochs": 1, "out": run}
    with pytest.raises(StorageError, match=r"gap_model\.\w+ cannot be written: No space left") as caught:
        simtrust.train("trust", quiet=True, **options, callbacks=[At(disk.fill, event="on_start")])
    assert "Step 0 is saved; go on with: simtrust resume" in told(caught.value)
    assert list(run.glob("gap_model*")) == temporary_files(run) == []
    disk.free()

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Fleet, "begin_updates", stop)
    with pytest.raises(KeyboardInterrupt):
        simtrust.resume(run, quiet=True)
    assert (run / "gap_model.json").exists()
    assert len(models) == 2


def test_metrics_hold_whole_lines_whenever_the_disk_is_full(disk):
    metrics = MetricsFile(disk.path / "metrics.jsonl", 0)
    values = {"loss": np.ones((3, 40))}
    metrics.write(0, (0, 1, 2), values)
    disk.fill()
    with pytest.raises(StorageError, match=r"metrics\.jsonl cannot be written: No space left"):
        for step in range(1, 1_000):
            metrics.write(step, (0, 1, 2), values)
    lines = [json.loads(line) for line in metrics.path.read_text().splitlines()]
    written = len(lines) // 3
    assert [(line["step"], line["seed"]) for line in lines] == [
        (step, seed) for step in range(written) for seed in (0, 1, 2)
    ]
    disk.free()
    metrics.write(written, (0, 1, 2), values)
    assert len(metrics.path.read_text().splitlines()) == 3 * written + 3


def test_a_full_disk_keeps_the_old_file(disk):
    path = disk.path / "gap.json"
    write_atomically(path, b"old")
    disk.fill()
    with pytest.raises(StorageError, match=r"gap\.json cannot be written: No space left") as caught:
        write_atomically(path, bytes(10_000))
    assert (caught.value.errno, caught.value.strerror) == (errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert temporary_files(disk.path) == []


def test_a_page_and_a_bundle_are_there_whole_or_not_at_all(disk, undisturbed):
    robot, page = disk.path / "robot", disk.path / "page.html"
    disk.fill()
    with pytest.raises(ConfigError, match=r"page\.html.*No space left"):
        simtrust.report_run(undisturbed, page, video=False)
    with pytest.raises(ExportError, match=r"robot.* cannot be written: No space left"):
        simtrust.export_policy(undisturbed, robot)
    assert [path.name for path in disk.path.iterdir()] == ["filler"]


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_no_gap_is_measured_where_no_report_can_be_written(disk, log, monkeypatch, trouble):
    out = disk.path / "gap"
    out.mkdir()
    if trouble == "read-only":
        disk.read_only("gap")
    else:
        disk.fill()
    monkeypatch.setattr(measuring.measure, "measure_gap", None)
    with pytest.raises(StorageError, match=rf"{out} cannot be written: .*(space|Read-only)"):
        simtrust.measure_gap(log, "Pendulum-v1", out=out, quiet=True)
    assert list(out.iterdir()) == []


def test_a_gap_report_that_does_not_fit_is_said_not_to_be_complete(disk, tmp_path):
    """The disk has room for the numbers and the pictures, but not for the page, which holds plotly."""
    out = disk.path / "gap"
    with pytest.raises(RunError, match=r"report\.html cannot be written: No space left") as caught:
        simtrust.measure_gap(_six_rows(tmp_path), "HalfCheetah-v5", out=out, quiet=True)
    assert f"{out}/gap.json holds what was measured" in told(caught.value)
    assert json.loads((out / "gap.json").read_text())["verdict"]
    pictures = [path for path in out.iterdir() if path.name != "gap.json"]
    assert all(path.suffix == ".png" and path.read_bytes().endswith(b"IEND\xaeB`\x82") for path in pictures)


def _six_rows(folder: Path) -> Path:
    """Enough for a verdict by replay, too few for a model."""
    simulator = make_simulator("HalfCheetah-v5", num_envs=1)
    observation, _ = simulator.reset(seed=0)
    rows = []
    for step in range(6):
        action = np.full((1, 6), 0.1 * step, np.float32)
        following, reward, _, _, _ = simulator.step(action)
        rows.append((observation[0].copy(), action[0], reward[0], following[0].copy(), False, step == 5))
        observation = following
    simulator.close()
    return save_dataset(folder / "six.hdf5", columns(rows))


def test_a_run_is_read_from_a_read_only_folder_without_a_trace(disk, undisturbed):
    run = disk.path / "run"
    disk.command(f"cp -r {undisturbed} {disk.inside}/run && rm {disk.inside}/run/.lock")
    before = sorted(run.rglob("*"))
    disk.read_only("run")
    policy = simtrust.Policy(run)
    expected = simtrust.Policy(undisturbed)
    observation = np.ones((1, 2, 3), np.float32)
    np.testing.assert_array_equal(policy(observation), expected(observation))
    assert simtrust.resume(run, quiet=True).summary["steps"] == STEPS
    assert sorted(run.rglob("*")) == before


def test_reading_makes_no_folder(tmp_path):
    assert CheckpointStore(tmp_path / "nowhere" / "checkpoints").latest() is None
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_held_is_no_trouble_with_the_disk(tmp_path):
    with lock(tmp_path), pytest.raises(RunError, match="in use by another process") as caught, lock(tmp_path):
        pass
    assert not isinstance(caught.value, StorageError)
