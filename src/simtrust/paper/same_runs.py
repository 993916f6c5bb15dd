"""What the runs of one table share: their options and their log. Else it would not compare recipes alone."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simtrust.errors import RunError
from simtrust.paper.cells import Cell
from simtrust.training.config import config_from_json

UNSET = ("critic_layer_norm", "target_entropy", "reward_scale", "normalise_observations")
"""Options whose None means the recipe's own value, which is the paper's for all of its recipes."""


def run_directory(out: Path, cell: Cell) -> Path:
    return out / "runs" / cell.name


def is_begun(out: Path, cell: Cell) -> bool:
    return (run_directory(out, cell) / "config.json").exists()


def check_same(
    directory: Path, settings: Mapping[str, Any], *, unset: Mapping[str, Any] | None = None
) -> None:
    """Raise `RunError` if a run was begun with other settings than it is to go on with.

    ``unset`` says what a stored None stands for.
    """
    stored = _options_of(directory, unset or {})
    for name, value in settings.items():
        if stored[name] != value:
            raise RunError(
                f"{directory} was begun with {name} {stored[name]}, not {value}; choose another --out"
            )


def check_cell(out: Path, cell: Cell, options: Mapping[str, Any]) -> None:
    """Raise `RunError` if a cell's run is of other settings than the cell's with ``options`` over them."""
    directory = run_directory(out, cell)
    settings = _wanted(cell, options)
    stored = _options_of(directory, cell.settings())
    for name in ("steps", "seeds"):
        if stored[name] != settings[name]:
            raise RunError(
                f"{directory} was begun with {stored[name]:,} {name}, not {settings[name]:,}; "
                f"give --{name} {stored[name]}, or choose another --out"
            )
    check_same(directory, settings, unset=cell.settings())


def _wanted(cell: Cell, options: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's settings with ``options`` over them, of which None asks for nothing."""
    return {**cell.settings(), **{name: value for name, value in options.items() if value is not None}}


def _options_of(directory: Path, unset: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a run was begun with, in place of a None what that stands for."""
    config, _ = config_from_json(directory / "config.json")
    stored = {**asdict(config), **asdict(config.algorithm)}
    return stored | {name: unset[name] for name in UNSET if name in unset and stored[name] is None}


def log_sum(out: Path, cell: Cell) -> str | None:
    """The SHA-256 of the file that a cell's run was begun with; None if its recipe needs none."""
    _, extra = config_from_json(run_directory(out, cell) / "config.json")
    return extra.get("dataset_sha256") if cell.log else None


def check_log(directory: Path, found: str | None, wanted: str | None, source: str) -> None:
    """Raise `RunError` if a run was begun with another file than the ``source`` of SHA-256 ``wanted``."""
    if found != wanted:
        raise RunError(
            f"{directory} was trained on another file than {source}: SHA-256 {found}, not {wanted}; "
            "choose another --out"
        )


def differences(cells: Iterable[Cell], out: Path) -> list[str]:
    """In what the runs begun of a table's cells are not of one kind: a line for each such option or dataset.

    They are of one kind if an option is every cell's own, such as the paper's number of seeds, or the same
    for all; and if all that learn from a dataset learn from the same file.
    """
    begun = [cell for cell in cells if is_begun(out, cell)]
    own = {cell: cell.settings() for cell in begun}
    stored = {cell: _options_of(run_directory(out, cell), own[cell]) for cell in begun}
    told = []
    for name in dict.fromkeys(name for settings in own.values() for name in settings):
        having = [cell for cell in begun if name in own[cell]]
        usual = all(stored[cell][name] == own[cell][name] for cell in having)
        told += [] if usual else _unlike(name, {cell: stored[cell][name] for cell in having})
    for log in dict.fromkeys(cell.log for cell in begun if cell.log):
        sums = {cell: log_sum(out, cell) for cell in begun if cell.log == log}
        told += _unlike(f"file of {log}, SHA-256", {cell: str(found)[:12] for cell, found in sums.items()})
    return told


def _unlike(what: str, values: Mapping[Cell, Any]) -> list[str]:
    """A line on what differs; none if nothing does."""
    groups: dict[str, list[str]] = {}
    for cell, value in values.items():
        groups.setdefault(str(value), []).append(f"`{cell.name}`")
    if len(groups) < 2:
        return []
    return [f"{what}: " + "; ".join(f"{value} of {', '.join(names)}" for value, names in groups.items())]
