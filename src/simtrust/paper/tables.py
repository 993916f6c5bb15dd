"""The paper's tables, and its figures 6 and 7: train what is missing, judge it, and write what there is."""

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from simtrust.errors import ConfigError, RunError, SimtrustError
from simtrust.paper.cell_training import check_logs, chosen_cells, groups_of, missing_cells, train_cells
from simtrust.paper.cells import Cell
from simtrust.paper.files import make_writable
from simtrust.paper.orderings import judgements
from simtrust.paper.same_runs import differences
from simtrust.paper.scores import Score, best_deciles, scores
from simtrust.paper.studies import STUDIES
from simtrust.paper.table_picture import draw
from simtrust.paper.table_text import Results, page, table_csv
from simtrust.training.checkpoint import write_atomically
from simtrust.training.memory import NoRoomError

WITHOUT_ORDERINGS = ("figure7",)
"""Tables 1 and 4 judge the same runs."""


def reproduce(
    study: str,
    out: Path,
    *,
    data: str | Path | None = None,
    cells: Sequence[str] = (),
    quiet: bool = False,
    command: str = "simtrust.paper.tables.reproduce(...)",
    **options: Any,
) -> Mapping[Cell, Score]:
    """Train the cells of a study that are missing, and write its page, numbers and picture.

    Cells lie in ``out/runs`` and are shared by all studies of that folder. Every one is an ordinary run
    directory; one that is finished is not trained again, one that was stopped goes on. Writes ``STUDY.md``,
    ``STUDY.csv`` and ``STUDY.png`` into ``out`` at once and after each cell, of everything there is.

    Args:
        study: a name of `simtrust.paper.studies.STUDIES`.
        out: folder of runs and results.
        data: folder of the datasets, named as ``halfcheetah_medium_replay-v5.hdf5``; not needed where no
            cell that learns from one is left to train.
        cells: patterns of the cells to train, such as ``"*-h2o"``; all without one, none for ``none``.
        quiet: show no progress.
        command: what made it, for the record.
        options: of `simtrust.train`, over the paper's settings, such as ``steps`` and ``seeds``.

    Raises:
        ConfigError, DataError: an option cannot work, or a dataset is missing or of no use; before any work.
        RunError: ``out`` holds a run of other settings or of another dataset, or cannot be written; before
            any work. Or cells could not be trained, such as for want of memory or with a number that is not
            finite; once all others are, and with what each of them said.
    """
    for option in ("steps", "seeds"):
        if options.get(option, 1) < 1:
            raise ConfigError(f"--{option} is {options[option]}; it must be at least 1")
    data = None if data is None else Path(data)
    chosen = chosen_cells(STUDIES[study], cells)
    missing = missing_cells(STUDIES[study], chosen, data, out, options) if chosen else ()
    make_writable(out)
    if chosen:
        check_logs(STUDIES[study], missing, data, out)
    console = Console(quiet=quiet)
    failed = []
    # Also before the first: it tells what cannot be read of the runs that are there, and what not written.
    found, text = write_results(study, out, command)
    places = {cell: place for place, cell in enumerate(missing, start=1)}
    groups = groups_of(missing, options.get("seeds"))
    while groups:
        group = groups.pop(0)
        for cell in group:
            console.print(f"{cell.name} ({places[cell]} of {len(missing)}):", highlight=False)
        later, errors = _train(group, data, out, options, quiet=quiet)
        # What stopped a training holds all that it had, its replay buffer too, in a cycle.
        gc.collect()
        if later:
            groups.insert(0, later)
        failed += errors
        found, text = write_results(study, out, command)
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    if failed:
        raise RunError("\n".join(["not every cell could be trained to its end:", *failed]))
    return found


def _train(
    group: Sequence[Cell], data: Path | None, out: Path, options: Mapping[str, Any], *, quiet: bool
) -> tuple[tuple[Cell, ...], list[str]]:
    """Train cells side by side; those for which the others left no memory, and what stopped which.

    A recipe that diverges is a result; whatever stops one cell, the others are still wanted.
    """
    outcomes = train_cells(group, data, out, options, quiet=quiet)
    refused = tuple(cell for cell in group if isinstance(outcomes[cell.name], NoRoomError))
    later = refused if len(refused) < len(group) else ()
    ended = [(cell.name, outcomes[cell.name]) for cell in group if cell not in later]
    return later, [f"{name}: {end}" for name, end in ended if isinstance(end, SimtrustError)]


def write_results(study: str, out: Path, command: str) -> tuple[Mapping[Cell, Score], str]:
    """Page, numbers and picture of a study, of everything there is; returns the scores and the page."""
    chosen = STUDIES[study]
    found = scores(chosen.cells, out)
    judged = [] if study in WITHOUT_ORDERINGS else judgements(chosen, found)
    unlike = differences(chosen.cells, out)
    results = Results(chosen, found, best_deciles(chosen, found, out), judged, unlike)
    text = page(results, command)
    write_atomically(out / f"{study}.md", text.encode())
    write_atomically(out / f"{study}.csv", table_csv(results).encode())
    draw(results, out / f"{study}.png")
    return found, text
