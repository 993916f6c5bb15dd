"""Small logs with known answers, and the ways to store them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

Arrays = dict[str, np.ndarray]
Episodes = Sequence[tuple[int, str]]


def _log(episodes: Episodes = ((4, "timeout"), (3, "terminal"), (2, "timeout"))) -> Arrays:
    """Observations count 0, 1, 2, … within an episode, beside 100 times the episode's number."""
    rows = [
        (step, number, how if step == length - 1 else "")
        for number, (length, how) in enumerate(episodes)
        for step in range(length)
    ]
    observations = np.array([(step, 100 * number) for step, number, _ in rows], np.float32)
    count = np.arange(len(rows), dtype=np.float32)
    return {
        "observations": observations,
        "actions": np.stack([np.sin(count), np.cos(count), count / (1 + count)], axis=1),
        "rewards": count + 1,
        "next_observations": observations + np.array([1, 0], np.float32),
        "terminals": np.array([how == "terminal" for _, _, how in rows]),
        "timeouts": np.array([how == "timeout" for _, _, how in rows]),
    }


def write_log(file: Path, arrays: Arrays) -> Path:
    if file.suffix == ".npz":
        np.savez(file, **arrays)
        return file
    with h5py.File(file, "w") as container:
        for key, values in arrays.items():
            container[key] = values
    return file


@pytest.fixture(scope="session")
def log() -> Callable[..., Arrays]:
    """Makes arrays by D4RL key for episodes given as (length, "timeout" or "terminal" or "")."""
    return _log


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """Stores arrays under a name whose extension says how; returns the path."""
    return lambda arrays, name="log.hdf5": write_log(tmp_path / name, arrays)


@pytest.fixture
def real_log() -> Path:
    file = Path(__file__).parents[2].parent / "shared/data/halfcheetah_medium_replay-v5.hdf5"
    if not file.exists():
        pytest.skip("the real log is not here")
    return file
