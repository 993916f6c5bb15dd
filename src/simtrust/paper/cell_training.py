"""Training the cells of a study: what is checked before any of them, and one of them from wherever it is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from simtrust.api import train
from simtrust.errors import ConfigError, RunError
from simtrust.paper.cells import Cell
from simtrust.paper.logs import log_of, require_logs
from simtrust.paper.robot import check_same
from simtrust.paper.studies import Study
from simtrust.training.checkpoint import write_atomically
from simtrust.training.config import config_from_json, config_to_json
from simtrust.training.loop import resume
from simtrust.training.result import read_result

NOTHING = "none"
"""In place of a pattern: train no cell."""


def run_directory(out: Path, cell: Cell) -> Path:
    return out / "runs" / cell.name


def chosen_cells(study: Study, patterns: Sequence[str]) -> tuple[Cell, ...]:
    """The cells of a study whose name matches one of the patterns; all without one, none for ``none``.

    Raises:
        ConfigError: a pattern matches no cell.
    """
    if not patterns:
        return study.cells
    if tuple(patterns) == (NOTHING,):
        return ()
    for pattern in patterns:
        if not any(fnmatchcase(cell.name, pattern) for cell in study.cells):
            names = "\n    ".join(cell.name for cell in study.cells)
            raise ConfigError(
                f"--cells {pattern!r} matches no cell of {study.name}; there are\n\n    {names}\n\n"
                f"and {NOTHING!r}, to train nothing and write what is there"
            )
    return tuple(cell for cell in study.cells if any(fnmatchcase(cell.name, pattern) for pattern in patterns))


def missing_cells(
    cells: Sequence[Cell], data: Path | None, out: Path, options: Mapping[str, Any]
) -> tuple[Cell, ...]:
    """The cells that are not finished, once it is sure that every one of them can be trained.

    Raises:
        ConfigError: no folder of datasets is given where one is needed.
        DataError: a dataset is missing.
        RunError: ``out`` holds a run of other steps, seeds or options.
    """
    for cell in cells:
        directory = run_directory(out, cell)
        if (directory / "config.json").exists():
            _refuse_another(directory, {**cell.settings(), **options})
    missing = tuple(cell for cell in cells if read_result(run_directory(out, cell)) is None)
    needing = [cell for cell in missing if cell.level is not None]
    if needing and data is None:
        raise ConfigError(f"{needing[0].name} learns from a dataset: give the folder that holds it, --data")
    if data is not None:
        require_logs(needing, data)
    return missing


def _refuse_another(directory: Path, settings: Mapping[str, Any]) -> None:
    """Raise `RunError` if a run is of other settings: a table must not mix them."""
    config, _ = config_from_json(directory / "config.json")
    for name in ("steps", "seeds"):
        found = getattr(config, name)
        if found != settings[name]:
            raise RunError(
                f"{directory} was begun with {found:,} {name}, not {settings[name]:,}; "
                f"give --{name} {found}, or choose another --out"
            )
    check_same(directory, settings)


def train_cell(
    cell: Cell, data: Path | None, out: Path, options: Mapping[str, Any], *, quiet: bool = False
) -> Path:
    """Train a cell, or go on where it was; returns its run directory."""
    directory = run_directory(out, cell)
    log = None if data is None else log_of(cell, data, out)
    real = None if log is None else str(log)
    if (directory / "config.json").exists():
        _read_log_at(directory, real)
        return resume(directory, quiet=quiet).directory
    settings = {**cell.settings(), **options}
    return train(cell.recipe, real=real, out=directory, quiet=quiet, **settings).directory


def _read_log_at(directory: Path, real: str | None) -> None:
    """Let a run read its log where that is now; that it is the same log is checked when it goes on."""
    config, extra = config_from_json(directory / "config.json")
    if config.real != real:
        content = config_to_json(replace(config, real=real), **extra)
        write_atomically(directory / "config.json", content.encode())
