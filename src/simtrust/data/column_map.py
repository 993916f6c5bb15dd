"""Which columns of a table hold what: the user's map, or else the names by convention."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from simtrust.data.dataset import defect
from simtrust.errors import ConfigError, DataError

ColumnMap = dict[str, tuple[str, ...]]
"""Column names by field."""

VECTORS = ("observation", "next_observation", "action")
SCALARS = ("reward", "episode", "terminated", "truncated", "done", "time")
FIELDS = VECTORS + SCALARS
REQUIRED = ("observation", "action", "reward")
ENDS = ("episode", "terminated", "truncated", "done", "next_observation")
SHOWN = 40

# Our field: a name of its own, or a prefix of the names of its entries.
PREFIXES = {
    "observation": ("observation", "observations", "obs"),
    "next_observation": ("next_observation", "next_observations", "next_obs"),
    "action": ("action", "actions"),
}
SPELLINGS = {
    "reward": ("reward", "rewards"),
    "episode": ("episode", "episode_id", "episode_index"),
    "terminated": ("terminated", "terminal", "terminals", "termination", "terminations"),
    "truncated": ("truncated", "timeout", "timeouts", "truncation", "truncations"),
    "done": ("done", "dones"),
    "time": ("time",),
}
# D4RL's key of each field that it has.
KEYS = {
    "observation": "observations",
    "next_observation": "next_observations",
    "action": "actions",
    "reward": "rewards",
    "terminated": "terminals",
    "truncated": "timeouts",
    "done": "dones",
}
OPTIONAL_YET_DECISIVE = ("episode", "terminated", "truncated")


class Header(NamedTuple):
    """A column's header, ``theta [rad]`` or ``theta (rad)``, taken apart; "" where it tells no unit."""

    name: str
    unit: str


def read_header(header: str) -> Header:
    """The name and the unit of a column."""
    found = re.fullmatch(r"(.*\S)\s*(?:\[([^\[\]]*)\]|\(([^()]*)\))\s*", header, re.DOTALL)
    if found is None:
        return Header(header.strip(), "")
    return Header(found[1].strip(), (found[2] or found[3] or "").strip())


def required_fields(*, rewards_required: bool) -> tuple[str, ...]:
    """The fields that every log must have, beside something that ends its episodes."""
    return REQUIRED if rewards_required else tuple(field for field in REQUIRED if field != "reward")


def parse_columns(columns: Sequence[str], required: Sequence[str] = REQUIRED) -> ColumnMap:
    """Strings ``FIELD=NAME[,NAME...]`` as column names by field.

    Raises ConfigError for an unknown field, one given twice or with too many columns, a column named twice,
    and where a required field, or all that could end an episode, is missing.
    """
    if isinstance(columns, str):
        raise ConfigError(f"columns: {columns!r} is one text; give a list of texts FIELD=NAME[,NAME...]")
    found: ColumnMap = {}
    for text in columns:
        field, equals, listed = text.partition("=")
        field = field.strip()
        if not equals:
            raise ConfigError(f"--map {text!r}: it has no '='; write FIELD=NAME[,NAME...]")
        if field not in FIELDS:
            close = difflib.get_close_matches(field, FIELDS, 1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            raise ConfigError(
                f"--map {text!r}: unknown field '{field}'{hint}; fields are {', '.join(FIELDS)}"
            )
        if field in found:
            raise ConfigError(f"--map {text!r}: '{field}' is given twice; list its columns with commas")
        names = tuple(name.strip() for name in listed.split(","))
        if "" in names:
            raise ConfigError(f"--map {text!r}: a column's name is empty; write {field}=NAME")
        if field in SCALARS and len(names) > 1:
            raise ConfigError(f"--map {text!r}: '{field}' takes one column, not {len(names)}")
        found[field] = names
    _check_complete(found, required)
    return found


def _check_complete(found: ColumnMap, required: Sequence[str]) -> None:
    users: dict[str, str] = {}
    for field, names in found.items():
        for name in names:
            if name in users:
                raise ConfigError(
                    f"--map: column '{name}' is used twice, for {users[name]} and for {field}; use it once"
                )
            users[name] = field
    for field in required:
        if field not in found:
            raise ConfigError(f"--map: '{field}' is missing; add {field}=NAME")
    if "next_observation" in found and len(found["next_observation"]) != len(found["observation"]):
        raise ConfigError(
            f"--map: next_observation has {len(found['next_observation'])} columns, observation"
            f" {len(found['observation'])}; name the same quantities in the same order"
        )
    if not any(field in found for field in ENDS):
        raise ConfigError(
            "--map: nothing says where an episode ends; add episode=NAME (an id that changes), or"
            " terminated=NAME and truncated=NAME"
        )


def resolve_columns(source: str, columns: ColumnMap, names: Sequence[str]) -> ColumnMap:
    """The map in the file's own spelling, units and all; a column may be named with its unit or without.

    Raises DataError, with the file's columns and the closest of them, for one that it does not have.
    """
    by_name: dict[str, list[str]] = {}
    for name in names:
        by_name.setdefault(read_header(name).name, []).append(name)
    users: dict[str, str] = {}
    found: ColumnMap = {}
    for field, wanted in columns.items():
        found[field] = tuple(_find(source, name, field, names, by_name) for name in wanted)
        for name in found[field]:
            if name in users:
                problem = f"is used twice, for {users[name]} and for {field}"
                raise defect(source, problem, "use it once", column=name)
            users[name] = field
    return found


def _find(
    source: str, wanted: str, field: str, names: Sequence[str], by_name: Mapping[str, list[str]]
) -> str:
    if wanted in names:
        return wanted
    header = read_header(wanted)
    alike = [name for name in by_name.get(header.name, []) if header.unit in ("", read_header(name).unit)]
    if len(alike) == 1:
        return alike[0]
    if alike:
        problem = f"is the name of several columns, {_listed(alike)}"
        raise defect(source, problem, "name one with its unit", column=wanted)
    close = difflib.get_close_matches(wanted, [*names, *by_name], 1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise defect(
        source,
        f"wanted for {field}, is not in the file, which has {_listed(names)}{hint}",
        f"correct --map {field}=...",
        column=wanted,
    )


def conventional_columns(source: str, names: Sequence[str], required: Sequence[str] = REQUIRED) -> ColumnMap:
    """The map of a file whose columns are named as usual: ``observation_*``, ``action_*``, ``reward``, ...

    Entries that are numbered come in the order of their numbers, others in the file's. Raises DataError, with
    the file's columns and an example of a map, where that does not tell enough.
    """
    headers = {name: read_header(name).name.lower() for name in names}
    found: ColumnMap = {}
    for field, spellings in SPELLINGS.items():
        matching = tuple(name for name in names if headers[name] in spellings)
        if len(matching) > 1:
            raise defect(source, f"'{matching[1]}' means the same", "choose with --map", column=matching[0])
        if matching:
            found[field] = matching
    for field, prefixes in PREFIXES.items():
        families = [family for prefix in prefixes if (family := _family(prefix, names, headers))]
        if len(families) > 1:
            problem = f"'{families[1][0]}' could also be of the {field}"
            raise defect(source, problem, "choose with --map", column=families[0][0])
        if families:
            found[field] = families[0]
    if not set(required) <= set(found) or not any(field in found for field in ENDS):
        raise _unrecognised(source, names, found, required)
    _refuse_misspelt(source, headers, found)
    return found


def _family(prefix: str, names: Sequence[str], headers: Mapping[str, str]) -> tuple[str, ...]:
    entries = {name: _entry(headers[name], prefix) for name in names}
    family = [name for name in names if entries[name] is not None]
    if all(str(entries[name]).isdecimal() for name in family):
        family.sort(key=lambda name: int(str(entries[name])))
    return tuple(family)


def _entry(header: str, prefix: str) -> str | None:
    """What follows the prefix; "" for the prefix itself, None for a column of another family."""
    if header == prefix:
        return ""
    return header[len(prefix) + 1 :] if header.startswith((f"{prefix}_", f"{prefix}.")) else None


def entry_name(header: str, field: str) -> str | None:
    """A dimension's name: the header less its unit and a conventional prefix; None for a bare number."""
    name = read_header(header).name
    for prefix in PREFIXES[field]:
        entry = _entry(name.lower(), prefix)
        if entry:
            name = name[len(prefix) + 1 :]
            break
    return None if name.isdecimal() else name


def _unrecognised(source: str, names: Sequence[str], found: ColumnMap, required: Sequence[str]) -> DataError:
    wanted = [field for field in required if field not in found] or ["the ends of episodes"]
    example = dict.fromkeys((*required, "episode", "terminated"), ("NAME",))
    example |= {"observation": ("NAME", "NAME")}
    example |= {field: columns for field, columns in found.items() if len(columns) <= 4}
    text = " ".join(f"{field}={','.join(columns)}" for field, columns in example.items())
    return defect(
        source,
        f"no column is recognised as {' or '.join(wanted)}; the file has {_listed(names)}",
        f"say which column is what, for example --map {text} (from Python: columns=[...])",
    )


def _refuse_misspelt(source: str, headers: Mapping[str, str], found: ColumnMap) -> None:
    """A misspelt optional column must not pass for an absent one: episodes would run together."""
    used = {name for names in found.values() for name in names}
    unused = [name for name in headers if name not in used]
    for field in OPTIONAL_YET_DECISIVE:
        if field in found:
            continue
        for name in unused:
            if difflib.get_close_matches(headers[name], SPELLINGS[field], 1, 0.85):
                raise defect(
                    source, f"looks like a misspelt '{field}'", "rename it, or use --map", column=name
                )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
