"""The benchmark of many runs side by side: its arithmetic against values worked out by hand; and it runs."""

import importlib
import json
from pathlib import Path

import jax
import pytest

from simtrust.algorithms.options import AlgorithmOptions

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = AlgorithmOptions(
    hidden_sizes=(8,), batch_size=8, classifier_hidden_sizes=(8,), classifier_batch_size=8
)
GIB = 2**30


@pytest.fixture
def fleet(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_fleet")


def test_a_share_is_of_the_peak_of_the_whole_device_and_of_no_other(fleet):
    # 50,000 updates of 0.66 GFLOP are 33 TFLOP.
    assert fleet.teraflops(50_000) == pytest.approx(33.0)
    h200 = fleet.PEAKS["NVIDIA H200"]
    assert fleet.share(33.45, h200.float32) == "50.0%" and fleet.share(49.47, h200.tf32) == "10.0%"
    for sliced in ("NVIDIA H200 MIG 1g.18gb", "NVIDIA L40S", "NVIDIA H100 PCIe", "cpu"):
        assert sliced not in fleet.PEAKS
    assert fleet.share(1.0, None) == "–"
    for peak in fleet.PEAKS.values():
        assert peak.float32 <= peak.tf32


def test_how_far_an_hour_reaches(fleet):
    # 1,000 updates of each of 45 runs in 1.8 s: 2,000 rounds, 2,000,000 of each.
    assert fleet.updates_in(3_600, 45, 1.8) == 90_000_000
    # Ten runs whose million takes 1,000 × 3.6 s, an hour: 23 fleets for 225 of them.
    assert fleet.table_hours(10, 3.6) == pytest.approx(23.0)
    assert fleet.table_hours(225, 3.6) == pytest.approx(1.0)
    # 25 in 100 s a fleet each.
    assert fleet.table_hours(9, 0.1) == pytest.approx(25 * 100 / 3_600)


def measured(fleet, runs: int, updates: float, both: float):
    return fleet.Measured(runs, runs * 1_000 / updates, updates, 0.6, both, 9.0, 3 * GIB)


def test_whether_table_1_fits_in_an_hour_counts_the_rollouts(fleet):
    fast = measured(fleet, 225, 3.0, 3.6)
    slow = measured(fleet, 45, 3.0, 3.6)
    assert "fit in one hour: at h2o's rate, 225 at a time, they take 1 h with" in fleet.verdict([slow, fast])
    told = fleet.verdict([measured(fleet, 225, 3.0, 3.9)])
    assert "do not fit in one hour" in told and "1.08 h with rollouts, 0.833 h without" in told
    assert fleet.hours(fast) == ("225", "270,000,000", "270.00", "225,000,000", "225.00", "1")
    cells = fleet.rates(fast, fleet.Peak(99.0, 495.0), 123.75)
    # 75,000 updates/s are 49.5 TFLOP/s.
    assert cells == ("225", "75,000", "49.5", "50.0%", "10.0%", "40.0%", "3", "0.6", "3.6", "9.0", "3.0")
    assert len(cells) == len(fleet.RATES) and len(fleet.hours(fast)) == len(fleet.HOURS)


def test_the_memory_is_that_of_the_rows_at_least(fleet):
    rows = 225 * 1_000_000 * 42 * 4
    needed = fleet.needed_bytes(225, 1_000_000, 200_000, 42, 8_192)
    assert 1.4 * rows < needed < 2 * rows
    assert fleet.needed_bytes(1, 1_000, 1_000, 42, 8_192) == 5 * GIB / 4


def test_the_device_tells_its_memory(fleet, monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 100, "bytes_in_use": 30, "peak_bytes_in_use": 50}

    assert fleet.peak_bytes() is None and fleet.free_bytes() > 2**20
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert fleet.free_bytes() == 70 and fleet.peak_bytes() == 50


@pytest.mark.slow
def test_it_runs_on_a_processor(fleet, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(fleet, "OPTIONS", TINY)
    file = tmp_path / "rates.json"
    words = "--runs 2 1 --updates 4 --rounds 1 --simulated-rows 100 --product-size 16 --device cpu --json"
    fleet.main([*words.split(), str(file)])
    told = capsys.readouterr().out
    rows = [line for line in told.splitlines() if line.startswith(("| 1 |", "| 2 |"))]
    assert [row[2] for row in rows] == ["1", "2", "1", "2"] and "| – | – |" in rows[0]
    assert "Products of 16 × 16" in told and "do not fit in one hour" in told
    found = json.loads(file.read_text())
    assert found["device"] == "cpu" and found["peak_tflops"] is None
    assert [one["runs"] for one in found["measured"]] == [1, 2]
    for one in found["measured"]:
        assert one["updates_per_second"] == pytest.approx(1_000 * one["runs"] / one["update_seconds"])
        assert one["rollout_seconds"] > 0 and one["both_seconds"] > 0 and one["first_seconds"] > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--runs 0", "--runs must be at least 1"),
        ("--simulated-rows 0", "--simulated-rows must be at least 1"),
        (
            "--runs 5 100000",
            "100000 runs with 1,000,000 simulated rows each .* lower --simulated-rows or --runs",
        ),
    ],
)
def test_what_cannot_run_is_told_first(fleet, words, told, monkeypatch):
    monkeypatch.setattr(fleet, "measure", None)
    with pytest.raises(SystemExit, match=told):
        fleet.main(words.split())


def test_no_gpu_is_told(fleet, capsys):
    jax.devices()
    if jax.default_backend() == "gpu":
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        fleet.main(["--device", "gpu"])
    assert "--device gpu: JAX computes on cpu in this process already" in capsys.readouterr().err
