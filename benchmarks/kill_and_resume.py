"""Kill a training run at random moments, resume it each time, and compare it with one that was never killed.

    python benchmarks/kill_and_resume.py --kills 20

Every kill is a SIGKILL to the process. The moments are drawn from ``--seed``, and spread over a run's life:

- checkpoint: at a file-system event inside the checkpoint folder, counted by the process itself, so exactly
  there: as soon as a file is opened for writing, before one is renamed or removed, or while it is flushed.
  At a flush the file is cut in half first, as by a kill in the middle of the write.
- training: a few lines of metrics and some milliseconds after it went on.
- starting: before some file is opened while it imports, or reads its checkpoint.
- compiling: with an empty compilation cache, once some of its programs are there.
- ending: after the last update, at the file-system events around ``result.json``.

A run that ends before it could be killed is followed by another. In the end all that the runs computed must
be the same, bit for bit: agents, simulated rows, metrics, and the final returns. For Linux.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

KINDS = (
    "checkpoint", "training", "checkpoint", "starting",
    "checkpoint", "compiling", "training", "checkpoint",
)  # fmt: skip
COUNTED = {"checkpoint": ("/checkpoints", 40), "starting": ("", 1_700), "ending": ("result.json", 4)}
"""Kinds that are counted in events on a part of the paths: some 25 for a checkpoint, 4 for a file."""
OPTIONS = {
    "sim": "Pendulum-v1", "hidden-sizes": 16, "batch-size": 16, "classifier-hidden-sizes": 16,
    "classifier-batch-size": 16, "rollout-steps": 50, "checkpoint-every": 50, "evaluate-every": 100,
    "evaluation-episodes": 2, "buffer-capacity": 250, "steps": 3_000,
}  # fmt: skip
PATIENCE = 600.0
"""Seconds until a process that does not do what it should is given up."""


class Moment(NamedTuple):
    """When to kill: a kind of moment, and a number in [0, 1) that says which."""

    kind: str
    where: float


def plan(kills: int, seed: int) -> list[Moment]:
    """Moments of every kind, two in five of them inside a checkpoint; those at the end of a run come last."""
    ending = max(kills // 6, 1)
    kinds = [*islice(cycle(KINDS), kills - ending), *["ending"] * ending]
    generator = np.random.default_rng(seed)
    # Those of one kind are spread over all that it covers.
    where = {kind: _spread(kinds.count(kind), generator) for kind in sorted(set(kinds))}
    return [Moment(kind, where[kind].pop()) for kind in kinds]


def _spread(count: int, generator: np.random.Generator) -> list[float]:
    return generator.permutation((np.arange(count) + generator.random(count)) / count).tolist()


def record_log(path: Path, rows: int = 1_000) -> Path:
    """A log of random torques on Gymnasium's Pendulum."""
    import gymnasium

    from simtrust.data import save_dataset

    simulator = gymnasium.make_vec("Pendulum-v1", rows // 200, vectorization_mode="sync")
    observation, _ = simulator.reset(seed=0)
    torques = np.random.default_rng(0).uniform(-2, 2, (200, rows // 200, 1)).astype(np.float32)
    steps = []
    for torque in torques:
        # The last step of an episode is still its own: Gymnasium resets at the next call.
        following, reward, *_ = simulator.step(torque)
        steps.append((observation.copy(), torque, reward, following.copy()))
        observation = following
    simulator.close()
    # Episode after episode, each cut by the clock.
    columns = (np.concatenate(np.swapaxes(column, 0, 1)) for column in zip(*steps, strict=True))
    names = ("observations", "actions", "rewards", "next_observations")
    timeouts = np.tile(np.arange(200) == 199, rows // 200)
    cut = {"terminals": np.zeros_like(timeouts), "timeouts": timeouts}
    return save_dataset(path, {**dict(zip(names, columns, strict=True)), **cut})


class Runs:
    """Training runs of one configuration, as processes that can be killed."""

    def __init__(self, folder: Path, options: Mapping[str, object]):
        self.folder, self.log = folder, record_log(folder / "log.hdf5")
        self.words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.colds = 0

    def start(
        self, directory: Path, *, die: tuple[str, int] = ("", 0), cold: bool = False
    ) -> subprocess.Popen:
        """Train in a directory, or go on; with ``die`` = (part of a path, n) until its n-th event there."""
        begin = ["train", "h2o", "--real", str(self.log), *self.words, "--out", str(directory)]
        arguments = ["resume", str(directory)] if (directory / "config.json").exists() else begin
        cache = self.folder / "compiled"
        if cold:
            self.colds += 1
            cache = self.folder / f"compiled-{self.colds}"
        environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        command = [sys.executable, __file__, "--until", die[0], str(die[1]), *arguments]
        output = (self.folder / "output.txt").open("w")
        with output:
            return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)

    def finish(self, process: subprocess.Popen) -> None:
        """Wait until a process ends by itself."""
        if process.wait(PATIENCE) != 0:
            raise RuntimeError(self.said())

    def said(self) -> str:
        return (self.folder / "output.txt").read_text()

    def never_killed(self) -> Path:
        """A run with an empty compilation cache, which fills it for the others."""
        directory = self.folder / "never-killed"
        self.finish(self.start(directory))
        return directory

    def kill(self, directory: Path, moment: Moment) -> str:
        """Go on with a run until a moment, and kill it; says where it was, or nothing if it ended first."""
        kind, where = moment
        if kind in COUNTED:
            part, events = COUNTED[kind]
            process = self.start(directory, die=(part, 1 + int(where * events)))
        elif kind == "compiling":
            process = self.start(directory, cold=True)
            programs = int(where * _count(self.folder / "compiled"))
            _wait(process, lambda: _count(self.folder / f"compiled-{self.colds}") >= programs)
            process.kill()
        else:
            process = self.start(directory)
            wanted = lines(directory) + 1 + int(6 * where)
            _wait(process, lambda: lines(directory) >= wanted)
            time.sleep(0.03 * (6 * where % 1))
            process.kill()
        process.wait(PATIENCE)
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(self.said())
        if process.returncode == 0:
            return ""
        told = [line for line in self.said().splitlines() if line.startswith("dies")]
        return f"{kind}, {lines(directory)} lines of metrics; {told[-1] if told else 'killed from outside'}"

    def killed(self, moments: list[Moment]) -> Iterator[tuple[Path, list[str]]]:
        """Runs, each finished, and where they were killed, until all the moments are used up."""
        left = list(moments)
        while left:
            directory = self.folder / f"killed-{len(left)}"
            places: list[str] = []
            while left and (place := self.kill(directory, left[0])):
                left.pop(0)
                places.append(place)
                print(place, flush=True)
            if not places:
                raise RuntimeError(f"a whole run ended before it could be killed: {left[0]}")
            self.finish(self.start(directory))
            yield directory, places


def _wait(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the process did not get there in time")
        time.sleep(0.001)


def _count(folder: Path) -> int:
    return len(list(folder.iterdir())) if folder.exists() else 0


def lines(directory: Path) -> int:
    """How many lines of metrics a run has."""
    path = directory / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def computed(directory: Path) -> dict[str, object]:
    """All that a run computed, by file: bytes, or what in them does not tell the time."""
    files = [directory / "metrics.jsonl", *sorted((directory / "checkpoints").glob("*.safetensors"))]
    found: dict[str, object] = {path.name: path.read_bytes() for path in files}
    for path in sorted((directory / "checkpoints").glob("*.json")):
        stored = json.loads(path.read_text())
        found[path.name] = {k: v for k, v in stored.items() if k not in ("wall_seconds", "update_seconds")}
    found["result.json"] = json.loads((directory / "result.json").read_text())["runs"]
    return found


def differences(directory: Path, other: Path) -> list[str]:
    """Names of the files in which two finished runs differ."""
    ours, theirs = computed(directory), computed(other)
    return [name for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name)]


def run_until(part: str, number: int, arguments: list[str]) -> None:
    """Be ``simtrust ARGUMENTS``, and die at the n-th event on a path that contains ``part``; at 0 never.

    Files opened for reading count only where every path does.
    """
    seen = 0

    def happens(what: str, path: str, leave: Callable[[], object] = lambda: None) -> None:
        nonlocal seen
        if not number or part not in path:
            return
        seen += 1
        if seen == number:
            os.write(2, f"dies at event {number}: {what} {Path(path).name}\n".encode())
            # Not every file can be opened anew, nor cut.
            with suppress(OSError):
                leave()
            os.kill(os.getpid(), signal.SIGKILL)

    def listen(event: str, details: tuple) -> None:
        if event == "open" and isinstance(details[0], str | os.PathLike):
            path, _, flags = details
            if not part or flags & os.O_ACCMODE:
                happens("open", os.fspath(path), lambda: os.open(path, flags))
        elif event in ("os.rename", "os.remove"):
            happens(event, os.fspath(details[0]))

    flush = os.fsync

    def fsync(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        happens("fsync", path, lambda: os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2))
        flush(descriptor)

    os.fsync = fsync
    sys.addaudithook(listen)
    sys.argv = ["simtrust", *arguments]
    from simtrust.cli import main

    main()


def run(folder: Path, kills: int, seed: int) -> bool:
    """Do it all, and say what differs; whether nothing does."""
    runs, moments = Runs(folder, OPTIONS), plan(kills, seed)
    reference = runs.never_killed()
    same, finished, places = True, 0, []
    for directory, killed_at in runs.killed(moments):
        finished += 1
        places += killed_at
        if differing := differences(directory, reference):
            same = False
            print(f"{directory} differs in {', '.join(differing)}")
    inside = sum(place.startswith("checkpoint") for place in places)
    verdict = "equal to the run never killed, bit for bit" if same else "NOT equal to the run never killed"
    print(f"{len(places)} kills, {inside} of them inside a checkpoint, {finished} runs finished: {verdict}")
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not run(Path(folder), arguments.kills, arguments.seed))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--until"]:
        run_until(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    else:
        main()
