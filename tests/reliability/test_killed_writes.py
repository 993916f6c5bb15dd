"""Killed at any moment of a write: nothing is lost, and what is left behind is swept, but nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from simtrust.training import storage
from simtrust.training.run_directory import lock
from simtrust.training.storage import sweep, temporary_folder, write_atomically

HERE = Path(__file__).parent

# Forks, so that the imports are paid once; each fork is killed where it would flush to the disk.
KILLED = """
import os, signal, sys
from pathlib import Path
from simtrust.training import storage
from simtrust.training.checkpoint import write_tensors
import numpy as np

def in_folder(path):
    with storage.temporary_folder(path) as folder:
        storage.write_atomically(folder / "new", b"half")

ways = {"file": lambda p: storage.write_atomically(p, b"half"), "folder": in_folder,
        "tensors": lambda p: write_tensors(p.parent, p.name, {"rows": np.ones(9)})}
for argument in sys.argv[1:]:
    way, path = argument.split("=", 1)
    child = os.fork()
    if child == 0:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        ways[way](Path(path))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""

# Stops in the middle of a write until it is told to go on.
SLOW = """
import os, sys
from pathlib import Path
from simtrust.training import storage

flush = os.fsync
def wait(descriptor):
    os.fsync = flush
    print("writing", flush=True)
    sys.stdin.readline()
os.fsync = wait
storage.write_atomically(Path(sys.argv[1]), b"slow")
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-c", code, *arguments]


def leave_behind(**paths: Path) -> None:
    """Kill a process while it writes each of these, a ``file``, ``tensors`` or a ``folder``."""
    arguments = [f"{way}={path}" for way, path in paths.items()]
    subprocess.run(python(KILLED, *arguments), check=True)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(scope="module")
def kills(tmp_path_factory) -> list[dict]:
    """What was found after a kill at the 1st, 2nd, ... file operation of saving a checkpoint at step 300."""
    script = str(HERE / "kill_at_every_operation.py")
    folder = str(tmp_path_factory.mktemp("killed"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_at_any_operation_the_older_or_the_newer_checkpoint_is_whole(kills):
    assert all(found["whole"] for found in kills)
    steps = [found["step"] for found in kills]
    assert steps == sorted(steps)
    assert set(steps) == {200, 300}
    # Three files are opened, written, flushed and renamed, and the older checkpoint's three are removed.
    operations = [found["operation"] for found in kills]
    assert [operations.count(name) for name in ("write", "replace")] == [3, 3]
    assert operations.count("unlink") >= 3
    assert operations[-1] == "" and "" not in operations[:-1], "the last was not killed"


def test_after_any_kill_the_next_checkpoint_is_saved_and_nothing_else_is_left(kills):
    for found in kills:
        assert found["after"]
        kept = (found["step"], 400)
        chunks = [name for name in found["files"] if name.startswith("replay-")]
        assert len(chunks) == 2
        expected = [f"checkpoint-{step:012d}.json" for step in kept]
        expected += [f"state-{step:012d}.safetensors" for step in kept]
        assert found["files"] == sorted(expected + chunks)


def test_holding_a_run_directory_sweeps_what_killed_processes_left_there_and_nothing_else(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    mine = [
        run / "notes.tmp",
        run / ".config.json.tmp",
        run / ".config.json.simtrust",
        run / ".config.json.0123abc.simtrust",
        run / ".config.json.0123abcd.simtrust.bak",
        run / "config.json.0123abcd.simtrust",
        run / "checkpoints" / "state-mine.safetensors",
    ]
    for path in mine:
        path.write_text("precious")
    (run / ".link.0123abcd.simtrust").symlink_to(mine[0])
    leave_behind(
        file=run / "config.json",
        tensors=run / "checkpoints" / "state-000000000100.safetensors",
        folder=run / "robot",
    )
    left = [path for path in run.rglob(".*.simtrust") if path not in mine and not path.is_symlink()]
    assert len(left) == 4, "three, and one in the folder"
    assert not (run / "config.json").exists()
    with lock(run):
        found = {path for path in run.rglob("*") if path.is_file()}
    assert found == {*mine, run / ".link.0123abcd.simtrust", run / ".lock"}
    assert all(path.read_text() == "precious" for path in mine)


def test_writing_again_sweeps_what_a_killed_attempt_at_the_same_file_left(tmp_path):
    """Beside a report no run directory is locked, and others' files may lie there."""
    leave_behind(file=tmp_path / "gap.json", tensors=tmp_path / "report.html")
    other = next(path.name for path in tmp_path.iterdir() if "report" in path.name)
    write_atomically(tmp_path / "gap.json", b"{}")
    assert names(tmp_path) == sorted([other, "gap.json"])
    write_atomically(tmp_path / "report.html", b"<html>")
    assert names(tmp_path) == ["gap.json", "report.html"]


def test_a_folder_made_again_sweeps_what_a_killed_attempt_left_once_it_is_there(tmp_path):
    leave_behind(folder=tmp_path / "robot")
    (left,) = names(tmp_path)
    with pytest.raises(ZeroDivisionError), temporary_folder(tmp_path / "robot") as folder:
        (folder / "new").mkdir()
        raise ZeroDivisionError
    assert names(tmp_path) == [left], "it may hold the only copy of what it was about to replace"
    with temporary_folder(tmp_path / "robot") as folder:
        (folder / "new").mkdir()
        (folder / "new").rename(tmp_path / "robot")
    assert names(tmp_path) == ["robot"]


def test_what_another_process_is_writing_is_not_swept(tmp_path):
    target = tmp_path / "report.html"
    process = subprocess.Popen(
        python(SLOW, str(target)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        (left,) = names(tmp_path)
        assert storage.TEMPORARY.fullmatch(left)
        sweep(tmp_path)
        assert names(tmp_path) == [left]
        write_atomically(target, b"quick")
        process.communicate("go on\n", timeout=60)
        assert process.returncode == 0
        assert target.read_bytes() == b"slow", "who renames last wins, and each is whole"
        assert names(tmp_path) == ["report.html"]
    finally:
        process.kill()
        process.communicate()


def test_sweeping_a_folder_that_is_not_there_or_is_none_is_nothing(tmp_path):
    sweep(tmp_path / "nowhere")
    (tmp_path / "file").write_text("precious")
    sweep(tmp_path / "file")
    assert names(tmp_path) == ["file"]
