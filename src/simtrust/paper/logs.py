"""The datasets of the paper's tables: where they are looked for, what their best episodes earn, and parts of
them."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simtrust.data import Dataset, load_dataset, save_dataset
from simtrust.data.dataset import columns_from_rows, defect
from simtrust.data.formats import sha256_of
from simtrust.data.json_file import read_json
from simtrust.errors import DataError, RunError
from simtrust.paper.cells import TASKS, Cell
from simtrust.training.checkpoint import write_atomically

BEST = 0.1
"""The share of a dataset's episodes that returns are compared with."""


@dataclass(frozen=True)
class LogFacts:
    """What a table needs to know of a log, once its file is gone."""

    sha256: str
    rows: int
    episodes: int
    best_decile: float
    """Mean return of the tenth of the episodes that earn most; of all of the dataset, where it is a part."""


class Log(NamedTuple):
    """The file that a cell is trained on."""

    path: Path
    facts: LogFacts


def file_name(task: str, level: str) -> str:
    """Such as ``halfcheetah_medium_replay-v5.hdf5``."""
    version = TASKS[task].rpartition("-")[2]
    return f"{task}_{level.replace('-', '_')}-{version}.hdf5"


def require_logs(cells: Iterable[Cell], data: Path) -> None:
    """Raise `DataError` if a cell's dataset is not in the folder ``data``: which, and how to make it."""
    missing = dict.fromkeys((cell.task, cell.level) for cell in cells if cell.level is not None)
    missing = {pair: data / file_name(*pair) for pair in missing if not (data / file_name(*pair)).exists()}
    if missing:
        commands = (
            f"simtrust generate {TASKS[task]} {level} --out {shlex.quote(str(path))}"
            for (task, level), path in missing.items()
        )
        raise DataError(
            f"{', '.join(map(str, missing.values()))}: no such file. Name the folder that holds it with "
            "--data, or make it:\n\n    " + "\n    ".join(commands)
        )


def best_decile(dataset: Dataset) -> float:
    """Mean return of the best tenth of the episodes, at least one."""
    returns = np.sort(dataset.episode_returns)
    return float(returns[-max(round(BEST * len(returns)), 1) :].mean())


def log_of(cell: Cell, data: Path, out: Path) -> Log | None:
    """The log that a cell is trained on; a part of a dataset is written to ``out`` if it is not there.

    Keeps what `facts_of` tells of it in ``out``. None if the cell's recipe needs none.

    Raises:
        DataError: the dataset cannot be used, or is too short for the part.
    """
    if cell.level is None:
        return None
    path = data / file_name(cell.task, cell.level)
    sha256 = _sha256(path)
    if cell.thousands is None:
        facts = facts_of(sha256, out)
        if facts is None:
            dataset = load_dataset(path)
            facts = _keep(dataset, best_decile(dataset), out)
        return Log(path, facts)
    # The sum in the name: a part of another dataset is another file.
    part = out / "logs" / f"{path.stem}-{cell.thousands}k-{sha256[:12]}.hdf5"
    facts = facts_of(_sha256(part), out) if part.exists() else None
    if facts is None:
        dataset = load_dataset(path)
        if not part.exists():
            columns = whole_episodes(dataset, 1_000 * cell.thousands)
            save_dataset(part, columns, metadata={"part_of": path.name, "part_of_sha256": sha256})
        facts = _keep(load_dataset(part), best_decile(dataset), out)
    return Log(part, facts)


def whole_episodes(dataset: Dataset, rows: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Episodes drawn without replacement, in the order drawn, as many as fit into ``rows`` transitions.

    By D4RL key. Drawing ends at the first episode that no longer fits, so that long episodes are as likely
    as short ones to be among them. The same seed draws the same order: what holds for fewer rows is a part
    of what holds for more.

    Raises:
        DataError: the log has fewer rows, or its first episode drawn is longer.
    """
    if rows > len(dataset):
        raise defect(
            dataset.source, f"has {len(dataset):,} rows, {rows:,} are wanted of it", "record a longer log"
        )
    lengths, ends = dataset.episode_lengths, np.flatnonzero(dataset.episode_end) + 1
    order = np.random.default_rng(seed).permutation(len(lengths))
    count = int(np.searchsorted(np.cumsum(lengths[order]), rows, side="right"))
    if not count:
        raise defect(
            dataset.source,
            f"an episode drawn has {lengths[order[0]]:,} rows, more than the {rows:,} wanted",
            "ask for more rows",
        )
    kept = np.concatenate([np.r_[ends[k] - lengths[k] : ends[k]] for k in order[:count]])
    return {name: column[kept] for name, column in columns_from_rows(dataset).items()}


def facts_of(sha256: str | None, out: Path) -> LogFacts | None:
    """What was kept in ``out`` of the log of that SHA-256; None if nothing was."""
    try:
        # Whatever their keys are: once, there was one entry for each name of a file.
        for kept in _kept(out).values():
            facts = LogFacts(
                str(kept["sha256"]), int(kept["rows"]), int(kept["episodes"]), float(kept["best_decile"])
            )
            if facts.sha256 == sha256:
                return facts
        return None
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise _damaged(out, error) from error


def _keep(log: Dataset, best_decile: float, out: Path) -> LogFacts:
    """Add a log to the facts that are kept; those of other files of its name stay, as runs of theirs may."""
    facts = LogFacts(log.sha256, len(log), log.episode_count, best_decile)
    entry = {"file": Path(log.source).name, **asdict(facts)}
    content = json.dumps({**_kept(out), log.sha256: entry}, indent=2) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(_facts_file(out), content.encode())
    return facts


def _kept(out: Path) -> dict[str, Any]:
    try:
        kept = read_json(_facts_file(out))
        if not isinstance(kept, dict):
            raise ValueError("it holds no object")
        return kept
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise _damaged(out, error) from error


def _facts_file(out: Path) -> Path:
    return out / "datasets.json"


def _damaged(out: Path, error: Exception) -> RunError:
    return RunError(f"{_facts_file(out)} is damaged ({error}); delete it, and it is written again")


def _sha256(path: Path) -> str:
    try:
        # A pipe could be waited for without end.
        if not path.is_file():
            raise OSError("it is no file")
        return sha256_of(path)
    except OSError as error:
        raise defect(str(path), f"cannot be read ({error})", "give another file") from error
