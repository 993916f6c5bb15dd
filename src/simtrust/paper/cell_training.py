"""Training the cells of a study: what is checked before any of them, and one of them from wherever it is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from simtrust.api import train
from simtrust.errors import ConfigError
from simtrust.paper.cells import Cell
from simtrust.paper.logs import Log, file_name, log_of, require_logs
from simtrust.paper.same_runs import check_cell, check_log, is_begun, log_sum, run_directory
from simtrust.paper.studies import Study
from simtrust.training.checkpoint import write_atomically
from simtrust.training.config import config_from_json, config_to_json
from simtrust.training.loop import resume
from simtrust.training.result import read_result
from simtrust.training.run_directory import lock
from simtrust.training.storage import storing

NOTHING = "none"
"""In place of a pattern: train no cell."""


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
    study: Study, chosen: Sequence[Cell], data: Path | None, out: Path, options: Mapping[str, Any]
) -> tuple[Cell, ...]:
    """Those of the chosen cells that are not finished, once it is sure that one table may hold them all.

    Raises:
        ConfigError: no folder of datasets is given where one is needed.
        DataError: a dataset is missing.
        RunError: ``out`` holds a run of the study, chosen or not, of other steps, seeds or options.
    """
    with storing(out):
        begun = [cell for cell in study.cells if is_begun(out, cell)]
    for cell in begun:
        check_cell(out, cell, options)
    missing = tuple(cell for cell in chosen if cell not in begun or not _is_finished(out, cell))
    needing = [cell for cell in missing if cell.log]
    if needing and data is None:
        raise ConfigError(f"{needing[0].name} learns from a dataset: give the folder that holds it, --data")
    if data is not None:
        require_logs(needing, data)
    return missing


def _is_finished(out: Path, cell: Cell) -> bool:
    return read_result(run_directory(out, cell)) is not None


def check_logs(study: Study, missing: Sequence[Cell], data: Path | None, out: Path) -> None:
    """See to it that every log of the cells to train can be used, and that no run of the study has another.

    Parts of datasets are written to ``out``.

    Raises:
        DataError: a dataset cannot be used, or is too short for the parts that are wanted of it.
        RunError: a run was begun with another file than lies in ``data`` now, or than another run was.
    """
    begun = {cell: log_sum(out, cell) for cell in study.cells if is_begun(out, cell) and cell.log}
    for cell in {cell.log: cell for cell in (*begun, *missing) if cell.log}.values():
        runs = [run for run in begun if run.log == cell.log]
        log = None if data is None or not _is_there(cell, data) else log_of(cell, data, out)
        if log is not None:
            wanted, source = log.facts.sha256, str(log.path)
        else:
            wanted, source = begun[runs[0]], f"{runs[0].name} was"
        for run in runs:
            check_log(run_directory(out, run), begun[run], wanted, source)


def _is_there(cell: Cell, data: Path) -> bool:
    return cell.level is not None and (data / file_name(cell.task, cell.level)).exists()


def train_cell(
    cell: Cell, data: Path | None, out: Path, options: Mapping[str, Any], *, quiet: bool = False
) -> Path:
    """Train a cell, or go on where it was; returns its run directory."""
    directory = run_directory(out, cell)
    log = None if data is None else log_of(cell, data, out)
    if is_begun(out, cell):
        if log is not None:
            _read_log_at(directory, log)
        return resume(directory, quiet=quiet).directory
    settings = {**cell.settings(log.facts.rows if log else None), **options}
    real = str(log.path) if log else None
    return train(cell.recipe, real=real, out=directory, quiet=quiet, **settings).directory


def _read_log_at(directory: Path, log: Log) -> None:
    """Let a run read its log where that is now.

    Raises:
        RunError: it is another log, or another process has the run.
    """
    with lock(directory):
        config, extra = config_from_json(directory / "config.json")
        check_log(directory, extra.get("dataset_sha256"), log.facts.sha256, str(log.path))
        if config.real != str(log.path):
            content = config_to_json(replace(config, real=str(log.path)), **extra)
            write_atomically(directory / "config.json", content.encode())
