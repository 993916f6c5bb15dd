"""D4RL's layout: which keys hold what, whatever they are called, and their checked values."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from simtrust.data.checks import check_claims, read_column
from simtrust.data.column_map import KEYS, REQUIRED
from simtrust.data.containers import Container
from simtrust.data.dataset import defect, resolve_dones
from simtrust.errors import SimtrustError

DonesMean = Literal["terminated", "timeout"]

SHOWN = 40
COMPARED = 1_000
"""Keys that may be misspelt ones: comparing takes time, and a file may have a million."""

# Our key, D4RL's spelling first, then the others in use.
SPELLINGS = {
    "observations": ("observations", "observation", "obs"),
    "actions": ("actions", "action", "acts"),
    "rewards": ("rewards", "reward"),
    "next_observations": ("next_observations", "next_observation", "next_obs"),
    "terminals": ("terminals", "terminal", "terminations", "termination", "terminated"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncation", "truncated"),
    "dones": ("dones", "done"),
}


def read_d4rl(
    source: str,
    container: Container,
    dones_mean: DonesMean | None,
    required: Sequence[str] = REQUIRED,
) -> dict[str, np.ndarray]:
    """Checked arrays by D4RL key, as `rows_from_columns` takes them; other keys are ignored.

    ``required`` are fields as of `column_map`. Raises DataError for keys missing or unclear, wrong shapes and
    types, values that are not finite.
    """
    names = _names_by_key(source, container.names, dones_mean, [KEYS[field] for field in required])
    claims = {key: container.column(name) for key, name in names.items()}
    check_claims(source, claims)
    columns = {key: read_column(source, key, claim) for key, claim in claims.items()}
    return resolve_dones(columns, dones_mean)


def _names_by_key(
    source: str, present: list[str], dones_mean: DonesMean | None, required: Sequence[str]
) -> dict[str, str]:
    """The file's spelling of each key to be read; raises DataError for keys missing or unclear."""
    names: dict[str, str] = {}
    for key, spellings in SPELLINGS.items():
        found = [name for name in spellings if name in present]
        if len(found) > 1:
            raise defect(source, f"'{found[1]}' means the same", "keep one of the two", key=found[0])
        if found:
            names[key] = found[0]
    for key in required:
        if key not in names:
            raise _missing(source, key, present, names)
    if "terminals" in names:
        if "timeouts" in names:
            names.pop("dones", None)
    elif "dones" not in names:
        raise _missing(source, "terminals", present, names)
    elif "timeouts" not in names and dones_mean is None:
        raise defect(
            source,
            "does not say whether an episode terminated or was cut by a time limit",
            "pass dones_mean= ('terminated' or 'timeout'; --dones-mean on the command line), or store"
            " 'terminals' and 'timeouts'",
            key=names["dones"],
        )
    _refuse_misspelt(source, present, names)
    return names


def _missing(source: str, key: str, present: list[str], names: Mapping[str, str]) -> SimtrustError:
    close = _close_to(key, set(present) - set(names.values()), cutoff=0.6)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    more = f" and {len(present) - SHOWN:,} more" if len(present) > SHOWN else ""
    listed = ", ".join(sorted(present)[:SHOWN]) + more
    remedy = "store 'terminals', all false if the task never ends" if key == "terminals" else f"store '{key}'"
    remedy += ", or say which key is what, with --map (from Python: columns=[...])"
    return defect(source, f"missing; the file has {listed or 'none'}{hint}", remedy, key=key)


def _refuse_misspelt(source: str, present: list[str], names: Mapping[str, str]) -> None:
    """A misspelt optional key must not pass for an absent one: episodes would run together."""
    for key in ("next_observations", "timeouts"):
        close = [] if key in names else _close_to(key, set(present) - set(names.values()), cutoff=0.85)
        if close:
            raise defect(source, f"looks like a misspelt '{key}'", f"rename it to '{key}'", key=close[0])


def _close_to(key: str, present: Iterable[str], cutoff: float) -> list[str]:
    compared = sorted(present)[:COMPARED]
    close = (difflib.get_close_matches(name, compared, 1, cutoff) for name in SPELLINGS[key])
    return [matches[0] for matches in close if matches]
