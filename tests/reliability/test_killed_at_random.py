"""A run killed at random moments, and resumed each time, equals one that was never killed.

This is a share of ``benchmarks/kill_and_resume.py``, which kills twenty times.
"""

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts file-system events by /proc")
KILLS = 6


@pytest.fixture(scope="module")
def killing() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "kill_and_resume.py"
    spec = importlib.util.spec_from_file_location("kill_and_resume", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_run_killed_at_random_equals_one_never_killed(killing, tmp_path):
    runs = killing.Runs(tmp_path, {**killing.OPTIONS, "steps": 1_200})
    never = runs.never_killed()
    places = []
    for directory, killed_at in runs.killed(killing.plan(KILLS, seed=2)):
        assert killing.differences(directory, never) == [], killed_at
        places += killed_at
    assert Counter(place.partition(",")[0] for place in places) == {
        "checkpoint": 3,
        "training": 1,
        "starting": 1,
        "ending": 1,
    }
    assert sum("dies at event" in place for place in places) == 5


def test_any_difference_is_seen(killing, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for directory, wall_seconds in ((ours, 1), (theirs, 2)):
        (directory / "checkpoints").mkdir(parents=True)
        (directory / "metrics.jsonl").write_text("{}\n")
        (directory / "result.json").write_text(json.dumps({"runs": [1], "wall_seconds": wall_seconds}))
        (directory / "checkpoints" / "state-1.safetensors").write_bytes(b"1")
        manifest = json.dumps({"step": 1, "wall_seconds": wall_seconds})
        (directory / "checkpoints" / "checkpoint-1.json").write_text(manifest)
    assert killing.differences(ours, theirs) == []
    for name, other in {
        "metrics.jsonl": "{}",
        "result.json": '{"runs": [2]}',
        "checkpoints/state-1.safetensors": "2",
        "checkpoints/state-2.safetensors": "1",
        "checkpoints/checkpoint-1.json": '{"step": 2}',
    }.items():
        path = theirs / name
        before = path.read_text() if path.exists() else None
        path.write_text(other)
        assert killing.differences(ours, theirs) == [path.name]
        path.unlink() if before is None else path.write_text(before)


def test_twenty_kills_are_of_every_kind(killing):
    moments = killing.plan(20, seed=0)
    kinds = Counter(kind for kind, _ in moments)
    assert kinds.total() == 20
    assert set(kinds) == {*killing.KINDS, "ending"}
    assert kinds["checkpoint"] >= 5
    assert all(0 <= where < 1 for _, where in moments)
    assert moments != killing.plan(20, seed=1)
