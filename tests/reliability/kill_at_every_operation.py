"""Saves a checkpoint over another, in processes that kill themselves at their 1st, 2nd, ... file operation.

    python kill_at_every_operation.py DIRECTORY

After each, says as a line of JSON: the operation, what the checkpoint of the newest step is, whether it is
bit for bit what was saved, and what is in the directory once the next checkpoint has been saved.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from simtrust.training.checkpoint import CheckpointStore, read_tensors

OPERATIONS = ("mkdir", "open", "write", "fsync", "replace", "unlink")
ROWS = 6


def state(step: int) -> dict[str, np.ndarray]:
    return {"weight": np.arange(step, step + 40, dtype=np.float32).reshape(4, 10), "count": np.int32([step])}


def rows(start: int) -> np.ndarray:
    return np.arange(start * 4, (start + ROWS) * 4, dtype=np.float32).reshape(1, ROWS, 4)


def save(store: CheckpointStore, step: int, previous):
    start = previous.chunks[-1].start + ROWS if previous else 0
    times = {"wall_seconds": 1.0, "update_seconds": 1.0}
    return store.save(
        step, state(step), rows(start), previous=previous, capacity=ROWS, metrics_bytes=step, **times
    )


def whole(store: CheckpointStore, manifest) -> bool:
    found = {key.strip("[']"): v for key, v in read_tensors(store.directory, manifest.state).items()}
    expected = state(manifest.step)
    same = found.keys() == expected.keys() and all((found[key] == expected[key]).all() for key in expected)
    chunks = [(loaded == rows(start)).all() for start, loaded in store.load_rows(manifest)]
    return bool(same and chunks and all(chunks))


def die_at(count: int, told: int) -> None:
    """From now on, be killed at the ``count``-th operation, a write half done; tell which through a pipe."""
    seen = 0

    def patch(name: str) -> None:
        original, write = getattr(os, name), os.write

        def counted(*arguments, **options):
            nonlocal seen
            seen += 1
            if seen == count:
                if name == "write":
                    original(arguments[0], arguments[1][: len(arguments[1]) // 2])
                write(told, name.encode())
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(os, name, counted)

    for name in OPERATIONS:
        patch(name)


def in_a_process_that_dies(count: int, directory: Path) -> str:
    """The operation it died at; empty if it got to the end."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        store = CheckpointStore(directory)
        previous = store.latest()
        die_at(count, write)
        save(store, 300, previous)
        os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    with os.fdopen(read) as pipe:
        return pipe.read()


def main(folder: Path) -> None:
    template = folder / "template"
    store = CheckpointStore(template)
    save(store, 200, save(store, 100, None))
    for count in range(1, 1_000):
        directory = folder / str(count)
        shutil.copytree(template, directory)
        operation = in_a_process_that_dies(count, directory)
        store = CheckpointStore(directory)
        newest = store.latest()
        told = {"operation": operation, "step": newest.step, "whole": whole(store, newest)}
        after = save(store, 400, newest)
        told |= {"after": store.latest() == after and whole(store, after)}
        print(json.dumps({**told, "files": sorted(path.name for path in directory.iterdir())}), flush=True)
        shutil.rmtree(directory)
        if not operation:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
