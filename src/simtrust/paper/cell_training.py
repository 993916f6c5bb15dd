"""Training the cells of a study: what is checked before any of them, and which are trained side by side."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import jax

from simtrust.api import configured
from simtrust.errors import ConfigError
from simtrust.limits import usable_processors
from simtrust.paper.cells import Cell
from simtrust.paper.logs import Log, file_name, log_of, require_logs
from simtrust.paper.same_runs import check_cell, check_log, is_begun, log_sum, run_directory
from simtrust.paper.studies import Study
from simtrust.training.checkpoint import write_atomically
from simtrust.training.config import config_from_json, config_to_json
from simtrust.training.in_step import Outcome
from simtrust.training.loop import FleetOf, beginning, going_on
from simtrust.training.result import read_result
from simtrust.training.run_directory import lock
from simtrust.training.running import Training
from simtrust.training.side_by_side import train_side_by_side
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


def groups_of(cells: Sequence[Cell], seeds: int | None) -> list[tuple[Cell, ...]]:
    """Cells that are trained side by side, in order: of one recipe, of which one program is compiled.

    On a GPU as many as there are; elsewhere as many as give every processor a run.
    """
    of_recipe: dict[tuple[str, str], list[Cell]] = {}
    for each in cells:
        of_recipe.setdefault((each.task, each.recipe), []).append(each)
    groups = []
    for alike in of_recipe.values():
        most = len(alike)
        if jax.default_backend() == "cpu":
            most = max(usable_processors() // (seeds or alike[0].seeds), 1)
        groups += [tuple(alike[first : first + most]) for first in range(0, len(alike), most)]
    # In the order of the table, so that one that is stopped early has whole lines.
    return sorted(groups, key=lambda group: cells.index(group[0]))


def train_cells(
    cells: Sequence[Cell], data: Path | None, out: Path, options: Mapping[str, Any], *, quiet: bool = False
) -> dict[str, Outcome]:
    """Train cells of one recipe side by side, each from wherever it is; what became of each, by its name."""
    return train_side_by_side(
        {each.name: partial(_begin, each, data, out, options) for each in cells}, quiet=quiet
    )


def _begin(
    cell: Cell, data: Path | None, out: Path, options: Mapping[str, Any], *, fleet_of: FleetOf
) -> AbstractContextManager[Training]:
    directory = run_directory(out, cell)
    log = None if data is None else log_of(cell, data, out)
    if is_begun(out, cell):
        if log is not None:
            _read_log_at(directory, log)
        return going_on(directory, fleet_of=fleet_of)
    settings = {**cell.settings(log.facts.rows if log else None), **options}
    real = str(log.path) if log else None
    config, command = configured(cell.recipe, real=real, out=directory, **settings)
    return beginning(config, command=command, fleet_of=fleet_of)


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
