"""LeRobot's datasets, version 3: a folder with ``meta/info.json`` and ``data/chunk-*/file-*.parquet``.

Pictures and videos are passed over. The entries' names come from ``meta/info.json``, whose paths are not
used. A file of the folder may be a link only to another one of it.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simtrust.data.column_map import REQUIRED, ColumnMap
from simtrust.data.containers import check_inside, first_bytes, told_as_damage
from simtrust.data.dataset import defect, is_text
from simtrust.data.json_file import read_json
from simtrust.data.parquet_table import open_parquet
from simtrust.data.tables import Kind, Read, Table

INFO = "meta/info.json"
COLUMNS = {
    "observation": "observation.state",
    "action": "action",
    "reward": "next.reward",
    "episode": "episode_index",
    "time": "timestamp",
    "truncated": "next.truncated",
    "done": "next.done",
}


def is_lerobot(folder: Path) -> bool:
    """Whether a path is a folder laid out as LeRobot's."""
    return os.path.isdir(folder) and os.path.exists(folder / INFO)  # noqa: PTH110, PTH112 (these never raise)


def files_of(source: str, folder: Path) -> list[Path]:
    """``info.json`` and the Parquet files in the order of their numbers; DataError if there are none."""
    found = [
        (int(match[1]), int(match[2]), file)
        for file in folder.glob("data/chunk-*/file-*.parquet")
        if (match := re.fullmatch(r"chunk-(\d+)/file-(\d+)\.parquet", f"{file.parent.name}/{file.name}"))
    ]
    if not found:
        raise defect(source, "has no data/chunk-*/file-*.parquet", "copy the whole dataset, data included")
    files = [folder / INFO, *(file for _, _, file in sorted(found))]
    for file in files:
        check_inside(source, folder, file)
        first_bytes(str(file), file)
    return files


@contextmanager
def open_lerobot(source: str, folder: Path) -> Iterator[Table]:
    """The dataset's frames as one table.

    Raises DataError for another version of the layout, damaged files, and other frames than `meta/info.json`
    counts.
    """
    # Before its files: those of other versions have other names.
    check_inside(source, folder, folder / INFO)
    info = _read_info(folder / INFO)
    _, *files = files_of(source, folder)
    with open_parquet(source, files, _entry_names(info)) as table:

        def read(wanted: Mapping[str, Kind]) -> Read:
            found = table.read(wanted)
            rows, claimed = len(next(iter(found.values.values()))), info.get("total_frames")
            if isinstance(claimed, int) and rows != claimed:
                problem = f"holds {rows:,} frames where {INFO} says {claimed:,}"
                raise defect(source, problem, "copy the whole dataset again")
            return found

        yield table._replace(read=read)


def lerobot_columns(source: str, names: Sequence[str], required: Sequence[str] = REQUIRED) -> ColumnMap:
    """The map of LeRobot's names, of those columns that there are.

    Raises DataError where a required one or the episode is missing: demonstrations often come without a
    reward.
    """
    found = {field: (name,) for field, name in COLUMNS.items() if name in names}
    for field in (*required, "episode"):
        if field not in found:
            others = ", ".join(f"'{name}'" for name in names)
            raise defect(
                source,
                f"missing, and so the {field} is not known; the dataset has {others}",
                f"record it, or name another column: --map {field}=NAME with those of all other fields",
                column=COLUMNS[field],
            )
    return found


def _read_info(file: Path) -> Mapping[str, Any]:
    source = str(file)
    first_bytes(source, file)
    with told_as_damage(source):
        info = read_json(file)
        version = str(info["codebase_version"])
    if not version.startswith("v3."):
        remedy = "convert it to v3.0 with LeRobot's own converter"
        raise defect(source, f"says version {version} where v3 is supported", remedy)
    return info


def _entry_names(info: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Names by column. A feature lists them, or lists them under a word such as ``motors``."""
    features = info.get("features")
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        names = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(names, dict) and len(names) == 1:
            (names,) = names.values()
        if isinstance(names, list) and all(is_text(name) for name in names):
            found[column] = tuple(names)
    return found
