"""What memory is there is known, what is needed is predicted, and running out of it loses nothing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import simtrust
from simtrust import limits
from simtrust.data import checks
from simtrust.errors import DataError, RunError
from simtrust.limits import available_memory, memory_limit
from simtrust.training import setup
from simtrust.training.checkpoint import CheckpointStore
from simtrust.training.config import TrainConfig
from simtrust.training.fleet import Fleet
from simtrust.training.memory import BASE_BYTES, predicted_memory
from simtrust.training.out_of_memory import OutOfMemoryError, telling_out_of_memory

MIB, GIB = 2**20, 2**30
LARGE = {
    "hidden_sizes": (16,),
    "batch_size": 200_000,
    "rollout_steps": 5,
    "checkpoint_every": 5,
    "evaluate_every": 0,
    "evaluation_episodes": 1,
    "buffer_capacity": 250,
    "steps": 10,
}

# At its 8th step it takes away all memory that the process does not hold yet.
STARVING = """
import os, resource
import gymnasium, psutil

class Starving(gymnasium.Wrapper):
    steps = 0
    def step(self, action):
        Starving.steps += 1
        if Starving.steps == 8:
            size = psutil.Process().memory_info().vms + 2**20
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
        return super().step(action)

def make():
    return Starving(gymnasium.make("Pendulum-v1", disable_env_checker=True))
"""


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.fixture
def machine(monkeypatch) -> None:
    """A machine of which 8 GiB are available."""
    memory = SimpleNamespace(available=8 * GIB)
    monkeypatch.setattr(limits, "psutil", SimpleNamespace(virtual_memory=lambda: memory))


def version_1(root: Path, group: str, limit: int, used: int, cache: int = 0) -> None:
    write(root / "memory" / group / "memory.limit_in_bytes", limit)
    write(root / "memory" / group / "memory.usage_in_bytes", used)
    write(root / "memory" / group / "memory.stat", f"cache 99\ninactive_file 7\ntotal_inactive_file {cache}")


def version_2(root: Path, group: str, limit: object, used: int, cache: int = 0) -> None:
    write(root / group / "memory.max", limit)
    write(root / group / "memory.current", used)
    write(root / group / "memory.stat", f"anon 99\ninactive_file {cache}\nactive_file 7")


def test_without_control_groups_the_machines_memory_is_available(machine, tmp_path):
    assert available_memory(tmp_path / "none", tmp_path / "neither") == 8 * GIB
    assert memory_limit(tmp_path / "none", tmp_path / "neither") is None


@pytest.mark.parametrize(
    ("version", "own"), [(version_1, "4:cpu,memory:/job/this"), (version_2, "0::/job/this")]
)
def test_what_a_control_group_leaves_is_available(machine, tmp_path, version, own):
    root = tmp_path / "cgroup"
    write(tmp_path / "own", f"1:name=systemd:/other\n{own}")

    def available() -> int:
        return available_memory(root, tmp_path / "own")

    version(root, "job/this", 3 * GIB, GIB)
    assert available() == 2 * GIB
    version(root, "job/this", 3 * GIB, GIB, cache=512 * MIB)
    assert available() == 2 * GIB + 512 * MIB
    version(root, "job", 2 * GIB, GIB + 512 * MIB)
    assert available() == 512 * MIB, "the parent's other children use it as well"
    version(root, "job/neighbour", 10, 9)
    assert available() == 512 * MIB
    version(root, "", GIB, 2 * GIB)
    assert available() == 0
    assert memory_limit(root, tmp_path / "own") == GIB


def test_a_container_that_sees_only_its_own_group_at_the_root(machine, tmp_path):
    """The process's place is told as the host sees it, which is not mounted."""
    write(tmp_path / "own", "4:memory:/docker/0123")
    version_1(tmp_path, "", 3 * GIB, GIB)
    assert available_memory(tmp_path, tmp_path / "own") == 2 * GIB


def test_no_limit_is_none_in_both_versions(machine, tmp_path):
    write(tmp_path / "own", "4:memory:/\n0::/")
    version_1(tmp_path, "", 2**63 - 4096, GIB)
    version_2(tmp_path, "", "max", GIB)
    assert memory_limit(tmp_path, tmp_path / "own") is None
    assert available_memory(tmp_path, tmp_path / "own") == 8 * GIB


def test_a_log_is_refused_by_what_the_container_leaves(monkeypatch):
    monkeypatch.setattr(checks, "available_memory", lambda: 1000 * MIB)
    checks.check_memory("log.npz", {"observations": 499 * MIB})
    with pytest.raises(DataError, match=r"claims 0\.5 GiB to read .*, with 1\.0 GiB of memory available"):
        checks.check_memory("log.npz", {"observations": 501 * MIB})


def test_in_what_looks_like_a_small_container_a_run_is_refused_before_it_begins(tmp_path):
    """The control groups that this process sees are replaced by a file system of one that allows 512 MiB."""
    fake = tmp_path / "cgroup"
    version_2(fake, "", 512 * MIB, 112 * MIB)
    version_1(fake, "", 512 * MIB, 112 * MIB)
    script = f'mount --bind {fake} /sys/fs/cgroup && echo mounted && exec "$@"'
    command = [sys.executable, "-m", "simtrust.cli", "train", "sac", "--sim", "Pendulum-v1", "--out", "run"]
    if shutil.which("unshare") is None:
        pytest.skip("unshare(1), which mounts what looks like a container, is not installed")
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout.startswith("mounted"):
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 2, done.stderr
    assert re.search(
        r"error: this run needs about \d\.\d GiB of memory, 0\.4 GiB are free; lower", done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def predicted(**options) -> int:
    config = TrainConfig(recipe="sac", sim="Pendulum-v1", **options)
    problem = setup.prepare(config)
    problem.close()
    return predicted_memory(config, problem.algorithm, 0, problem.capacity).machine


def test_what_grows_with_the_options_is_predicted():
    row = 4 * (3 + 1 + 1 + 3 + 1)
    usual = predicted(steps=100_000)
    assert usual > BASE_BYTES
    more = predicted(steps=100_000, buffer_capacity=50_000)
    assert usual - more == 50_000 * row
    rare = predicted(steps=100_000, checkpoint_every=100_000)
    assert rare - usual == 3 * 90_000 * row, "rows wait for their checkpoint, and are copied to be written"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    return simtrust.train("sac", sim="Pendulum-v1", quiet=True, **LARGE, out=out).directory


def assert_same_run(ours: Path, theirs: Path) -> None:
    for name in (f"checkpoints/state-{LARGE['steps']:012d}.safetensors", "metrics.jsonl"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_the_command_out_of_memory_tells_it_and_goes_on_to_the_same_bits(undisturbed, tmp_path, monkeypatch):
    (tmp_path / "starving.py").write_text(STARVING)
    words = ["train", "sac", "--sim", "starving:make", "--real-env", "Pendulum-v1", "--out", "run"]
    for name, value in LARGE.items():
        words += [f"--{name.replace('_', '-')}", str(value[0] if isinstance(value, tuple) else value)]
    environment = {
        **os.environ,
        # So that large arrays are asked of the system, and not taken from what compiling left.
        "MALLOC_MMAP_THRESHOLD_": str(MIB),
        "MALLOC_TRIM_THRESHOLD_": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "simtrust.cli", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: the memory was used up (RESOURCE_EXHAUSTED: Out of memory allocating" in done.stderr
    run, saved = tmp_path / "run", re.search(r"Step (\d+) is saved; go on with: (.*)\n", done.stderr)
    assert saved is not None
    assert saved[2] == "simtrust resume run --sim starving:make"
    manifest = CheckpointStore(run / "checkpoints").latest()
    assert manifest is not None
    assert manifest.step == simtrust.Policy(run).step == int(saved[1]) > 0
    (tmp_path / "starving.py").write_text(STARVING.replace("== 8", "< 0"))
    monkeypatch.syspath_prepend(str(tmp_path))
    simtrust.resume(run, sim="starving:make", quiet=True)
    assert_same_run(run, undisturbed)


def test_pythons_memory_error_tells_what_is_saved(undisturbed, tmp_path, monkeypatch):
    run, train = tmp_path / "run", Fleet.begin_updates

    def exhausted(self, shares, updates):
        if shares[0].step == 5:
            raise MemoryError("Unable to allocate 3 TiB")
        return train(self, shares, updates)

    with monkeypatch.context() as patch:
        patch.setattr(Fleet, "begin_updates", exhausted)
        with pytest.raises(
            OutOfMemoryError, match=r"the memory was used up \(Unable to allocate 3 T"
        ) as caught:
            simtrust.train("sac", sim="Pendulum-v1", quiet=True, **LARGE, out=run)
    assert isinstance(caught.value, RunError)
    assert caught.value.__notes__ == [f"Step 5 is saved; go on with: simtrust resume {run}"]
    simtrust.resume(run, quiet=True)
    assert_same_run(run, undisturbed)


def test_other_errors_of_jax_are_not_taken_for_it():
    for error in (jax.errors.JaxRuntimeError("INTERNAL: a defect"), ValueError("RESOURCE_EXHAUSTED")):
        with pytest.raises(type(error)) as caught, telling_out_of_memory():
            raise error
        assert caught.value is error
    with pytest.raises(OutOfMemoryError, match=r"used up; end other programs"), telling_out_of_memory():
        raise MemoryError


def test_jax_says_resource_exhausted():
    with pytest.raises(OutOfMemoryError, match="RESOURCE_EXHAUSTED"), telling_out_of_memory():
        # Four pebibytes, which no address space has room for.
        jax.numpy.zeros((2**30, 2**20), np.float32).block_until_ready()
