"""Tiny runs on Gymnasium's Pendulum, as sweep files."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

TRAINING_TESTS = runpy.run_path(str(Path(__file__).parents[1] / "training" / "conftest.py"))
TINY = {key: value for key, value in TRAINING_TESTS["TINY"].items() if not key.startswith("gap_")}


@pytest.fixture(scope="session")
def log(tmp_path_factory) -> Path:
    return TRAINING_TESTS["record_pendulum"](tmp_path_factory.mktemp("log") / "pendulum.hdf5")


@pytest.fixture(scope="session")
def common(log) -> str:
    """The ``[common]`` part of a sweep of tiny runs."""
    # However many steps: arrays of one size are one program, compiled once.
    options = {**TINY, "buffer_capacity": 150}
    lines = [
        f"{key} = {list(value) if isinstance(value, tuple) else value}" for key, value in options.items()
    ]
    return "\n".join(["[common]", f'real = "{log}"', 'sim = "Pendulum-v1"', *lines, ""])


@pytest.fixture
def written(tmp_path) -> Callable[[str], Path]:
    """``written(text)`` is a sweep file."""

    def write(text: str) -> Path:
        file = tmp_path / "sweep.toml"
        file.write_text(text)
        return file

    return write


def numbers(directory: Path) -> dict[str, bytes]:
    """Everything that a run computed, and nothing that depends on the clock."""
    names = ["metrics.jsonl", *(f"checkpoints/{p.name}" for p in directory.glob("checkpoints/*.safetensors"))]
    return {name: (directory / name).read_bytes() for name in names}


@pytest.fixture(scope="session")
def computed() -> Callable[[Path], dict[str, bytes]]:
    return numbers
