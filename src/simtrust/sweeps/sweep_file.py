"""A sweep file: which options all runs have in common, and which vary.

TOML with three parts, each of which may be left out: ``[common]``, options of every run; ``[grid]``, lists of
values of which every combination is trained; ``[[variants]]``, options that vary together. Every variant is
combined with every combination of the grid.
"""

import tomllib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from simtrust.errors import ConfigError
from simtrust.sweeps.names import closest, label, safe
from simtrust.sweeps.options import check_option

BYTES_MAX = 2**20
RUNS_MAX = 10_000
LEVELS_MAX = 6
"""Tables and lists in one another; a sweep file has four at most."""
INTEGERS = 2**63
SECTIONS = ("common", "grid", "variants")


class Asked(NamedTuple):
    """One run that a sweep file asks for."""

    name: str
    """Of what varies; two runs may still have the same."""
    options: dict[str, Any]
    varied: tuple[str, ...]
    """Those of the options that not all runs have in common."""


class Choice(NamedTuple):
    """Options that are set together, and what a run that has them is called."""

    label: str
    options: Mapping[str, Any]


def read_sweep_file(path: Path) -> list[Asked]:
    """The runs that a file asks for, in its order, the last option of the grid varying first.

    Raises:
        ConfigError: the file cannot be read, is no TOML, has an unknown section or option, a value of the
            wrong type or a whole number beyond 64 bits, an option in two sections, or asks for more than
            10,000 runs.
    """
    content = _parsed(path)
    common = _checked(path, "common", content.get("common", {}))
    variants = [*_variants(path, content.get("variants", []))] or [Choice("", {})]
    grid = _grid(path, content.get("grid", {}))
    _refuse_twice(path, common, variants, grid)
    count = len(variants)
    for choices in grid:
        count *= len(choices)
    if count > RUNS_MAX:
        raise ConfigError(f"{path}: it asks for {count:,} runs; at most {RUNS_MAX:,} are one sweep")
    return [_asked(path, common, combination) for combination in product(variants, *grid)]


def _asked(path: Path, common: Mapping[str, Any], combination: Sequence[Choice]) -> Asked:
    varied = {key: value for choice in combination for key, value in choice.options.items()}
    options = {**common, **varied}
    parts = [choice.label for choice in combination if choice.label]
    return Asked("-".join(parts) or safe(path.stem), options, tuple(varied))


def _parsed(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise ConfigError(f"{path}: there is no such file; give a sweep file in TOML")
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
        if len(content) > BYTES_MAX:
            raise ConfigError(f"{path}: it is larger than {BYTES_MAX:,} bytes, which no sweep file is")
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror}") from error
    try:
        parsed = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        # Not all are the parser's own: Python refuses whole numbers of thousands of digits, for example.
        raise ConfigError(f"{path}: it is not TOML: {error}") from error
    _refuse_extremes(path, "", parsed, LEVELS_MAX)
    for section in parsed:
        if section not in SECTIONS:
            raise ConfigError(
                f"{path}: unknown key {section!r}{closest(section, SECTIONS)}; a sweep file has [common], "
                "[grid] and [[variants]], and every option stands in one of them"
            )
    return parsed


def _refuse_extremes(path: Path, where: str, value: Any, levels: int) -> None:
    """What other code could neither show nor walk through: whole numbers without end, and deep nesting."""
    if isinstance(value, int) and not -INTEGERS <= value < INTEGERS:
        _refuse(path, where, f"the whole number is beyond 64 bits, {-INTEGERS} to {INTEGERS - 1}")
    if not isinstance(value, dict | list):
        return
    if not levels:
        _refuse(path, where, "it is nested too deeply")
    for key, each in value.items() if isinstance(value, dict) else ((None, each) for each in value):
        inner = where if key is None else f"{where}.{key}" if where else key
        _refuse_extremes(path, inner, each, levels - 1)


def _checked(path: Path, section: str, options: Any) -> dict[str, Any]:
    """Options with lists as tuples, each of a type that it can have."""
    if not isinstance(options, dict):
        _refuse(path, section, "it must be a table of options")
    found = {key: _tuples(value) for key, value in options.items()}
    for key, value in found.items():
        check_option(f"{path}: {section}.{key}", key, value)
    return found


def _grid(path: Path, table: Any) -> list[list[Choice]]:
    if not isinstance(table, dict):
        _refuse(path, "grid", "it must be a table of lists")
    grid = []
    for key, values in table.items():
        where = f"grid.{key}"
        if not isinstance(values, list) or not values:
            _refuse(path, where, f"it is {values!r}; give the list of its values")
        choices = []
        for value in values:
            option = {key: _tuples(value)}
            check_option(f"{path}: {where}", key, option[key])
            choices.append(Choice(label(key, option[key]), option))
        grid.append(choices)
    return grid


def _variants(path: Path, tables: Any) -> Sequence[Choice]:
    if not isinstance(tables, list):
        _refuse(path, "variants", "write each as [[variants]], in two pairs of brackets")
    choices = []
    for number, table in enumerate(tables, 1):
        where = f"variants, the {number}. of them"
        if not isinstance(table, dict):
            _refuse(path, where, "it must be a table of options")
        name = table.pop("name", None)
        if not (name is None or (isinstance(name, str) and name and safe(name) == name)):
            _refuse(path, f"{where}, name", f"it is {name!r}; use letters, digits, and any of _ . = + , -")
        options = _checked(path, where, table)
        choices.append(Choice(name or "-".join(label(*option) for option in options.items()), options))
    return choices


def _refuse_twice(
    path: Path, common: Mapping[str, Any], variants: Sequence[Choice], grid: Sequence[Sequence[Choice]]
) -> None:
    """An option of the grid must not stand elsewhere: one of the two would be passed over in silence."""
    for key in (key for choices in grid for key in choices[0].options):
        if key in common:
            _refuse(path, f"grid.{key}", "it stands in common as well; leave it out of one of them")
        if any(key in variant.options for variant in variants):
            _refuse(path, f"grid.{key}", "it stands in variants as well; leave it out of one of them")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _refuse(path: Path, where: str, problem: str) -> NoReturn:
    raise ConfigError(f"{path}: {where}: {problem}")
