"""A sweep on a real Ray cluster of two nodes on this machine, one of which is killed in the middle.

Simulators count their steps, so that what was trained twice is counted twice.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from simtrust.errors import ConfigError, RunWarning
from simtrust.sweeps.checking import check_problems
from simtrust.sweeps.local_engine import Engine, one_after_the_other
from simtrust.sweeps.sweep import sweep

ray = pytest.importorskip("ray")
pytest.importorskip("fsspec")
# Ray leaves sockets and files to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="elsewhere loopback is one address alone"
    ),
]

from simtrust.sweeps.ray_engine import on_ray  # noqa: E402

STEPS, SAVED_FIRST = 800, 200
LEASE = 6.0
PATIENCE = 120.0
HERE = Path(__file__).parent
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_DEDUP_LOGS": "0",
    "COUNTING_SECONDS": "0.002",
}


@pytest.fixture(scope="module")
def counted(tmp_path_factory) -> Iterator[Path]:
    """Where the simulators keep count; set before the cluster starts, whose processes inherit it."""
    folder = tmp_path_factory.mktemp("counted")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **QUIET,
            "COUNTING": str(folder),
            "PYTHONPATH": str(HERE),
            "TMPDIR": str(folder),
        }.items():
            patch.setenv(name, value)
        patch.syspath_prepend(str(HERE))
        yield folder


@pytest.fixture(scope="module")
def counting(counted) -> Callable[[str], list[int]]:
    from counting import counts  # pyright: ignore[reportMissingImports]

    return lambda name: counts(counted, name)


class Cluster(NamedTuple):
    """Two nodes, and the process that has started them."""

    process: subprocess.Popen
    address: str
    raylet: int
    """The process of the second node whose children train."""

    def kill_second_node(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "killed\n"


@pytest.fixture(scope="module")
def cluster(counted) -> Iterator[Cluster]:
    """Its sockets need a short path."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "two_nodes.py")],
        env={**os.environ, "RAY_TMPDIR": folder},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    made = Cluster(process, **json.loads(process.stdout.readline()))
    ip = made.address.partition(":")[0]
    ray.init(address=made.address, _node_ip_address=ip, log_to_driver=False, logging_level="warning")
    yield made
    ray.shutdown()
    process.communicate(timeout=PATIENCE)
    shutil.rmtree(folder, ignore_errors=True)


def text(common: str, steps: int, *names: str) -> str:
    shared = common.replace("\nsteps = 100", f"\nsteps = {steps}").replace("\nsim =", "\nreal_env =")
    variants = (f"[[variants]]\nname = '{name}'\nsim = 'counting:{name}'\n" for name in names)
    return "".join([shared, "recipe = 'sac'\n", *variants])


def steps_saved(run: Path) -> list[int]:
    return sorted(int(file.stem.split("-")[1]) for file in run.glob("checkpoints/checkpoint-*.json"))


def runs_of(raylet: int, storage: Path) -> list[str]:
    """The runs that are being trained by processes of a node."""
    found = []
    for lease in storage.glob("leases/*.json"):
        try:
            pid = json.loads(lease.read_text())["pid"]
            if raylet in [parent.pid for parent in psutil.Process(pid).parents()]:
                found.append(lease.stem)
        except (OSError, psutil.Error):
            continue
    return found


class Killer(threading.Thread):
    """Kills the second node once a run on it is saved twice; knows which run, and what is saved then."""

    def __init__(self, cluster: Cluster, storage: Path):
        super().__init__()
        self.cluster, self.storage = cluster, storage
        self.victim: str | None = None
        self.saved = 0

    def run(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for run in runs_of(self.cluster.raylet, self.storage):
                if (saved := steps_saved(self.storage / run)) and saved[-1] >= SAVED_FIRST:
                    self.cluster.kill_second_node()
                    self.victim, self.saved = run, steps_saved(self.storage / run)[-1]
                    return
            time.sleep(0.01)


def engine() -> Engine:
    """Ray's, which checks in this process: another one takes seconds to start."""
    return on_ray()._replace(check=check_problems)


def test_a_node_dies_and_nothing_saved_is_trained_twice(
    common, log, cluster, counted, counting, tmp_path, computed
):
    names = ("a", "b")
    file = tmp_path / "sweep.toml"
    file.write_text(text(common, STEPS, *names))
    # First, so that everything is compiled once.
    alone = tmp_path / "alone"
    sweep(file, str(alone), one_after_the_other(quiet=True))
    assert counting("a") == counting("b") == [STEPS]

    storage = tmp_path / "storage"
    killer = Killer(cluster, storage)
    killer.start()
    summary = sweep(file, f"file://{storage}", engine(), lease_seconds=LEASE)
    killer.join()
    victim = killer.victim
    assert victim is not None
    assert summary.failed == [] and set(summary.outcomes) == set(names)

    attempts = {
        name: [json.loads(line) for line in (storage / f"attempts/{name}.jsonl").read_text().splitlines()]
        for name in names
    }
    first, second = attempts[victim]
    assert first["pid"] != second["pid"]
    # It went on from the last checkpoint that was copied.
    assert (first["step"], second["step"]) == (0, killer.saved)
    _, lost, again = counting(victim)
    assert second["step"] <= lost < STEPS and again == STEPS - second["step"]
    (other,) = set(names) - {victim}
    assert [attempt["step"] for attempt in attempts[other]] == [0]
    assert counting(other) == [STEPS, STEPS]

    # Every line of metrics is there once; and all is, bit for bit, what this machine alone computes.
    for name in names:
        lines = [json.loads(line)["step"] for line in (storage / name / "metrics.jsonl").open()]
        assert lines == list(range(50, STEPS + 1, 50))
        assert computed(storage / name) == computed(alone / name)
        assert summary.outcomes[name].summary is not None
        alone_result = json.loads((alone / name / "result.json").read_text())
        assert summary.outcomes[name].summary["runs"] == alone_result["runs"]


def test_an_error_of_the_users_is_told_and_not_tried_again(common, cluster, counting, tmp_path):
    """In a folder that all nodes see, where nothing is copied."""
    file = tmp_path / "sweep.toml"
    file.write_text(text(common, 200, "fails", "works"))
    summary = sweep(file, str(tmp_path / "out"), engine(), lease_seconds=LEASE)
    assert summary.failed == ["fails"]
    assert "the cable is loose" in (summary.outcomes["fails"].error or "")
    assert counting("fails") == [150] and counting("works") == [200]
    assert (tmp_path / "out/works/result.json").exists()


def test_what_no_node_has_is_told(cluster):
    """Of nodes with one processor each; more may be added."""
    with pytest.warns(RunWarning, match=r"no node of the Ray cluster has .*, --cpus 2; waiting until"):
        list(on_ray(cpus=2).train([]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RunWarning)
        list(on_ray(cpus=1).train([]))


def test_what_this_machine_has_not_is_refused(cluster, monkeypatch):
    """The cluster in place of one of this machine alone."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for name in ("init", "shutdown"):
        monkeypatch.setattr(ray, name, lambda **_: None)
    with pytest.raises(
        ConfigError, match=r"each run asks for --cpus 0\.5, --gpus 1, but Ray finds .* and 0 GPUs"
    ):
        list(on_ray(cpus=0.5, gpus=1).train([]))
    list(on_ray(cpus=0.5).train([]))


def test_no_cluster_at_the_address_is_told(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def init(**_):
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ConfigError, match=r"--address 127\.0\.0\.1:1: no Ray cluster there"):
        list(on_ray("127.0.0.1:1").train([]))
