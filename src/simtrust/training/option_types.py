"""Whether what a file says fits the type of an option, as its dataclass declares it."""

import math
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def misfit(options: Any) -> str | None:
    """The first option of a dataclass, or of one in it, whose value is of another type; None if all fit."""
    for name, hint in get_type_hints(type(options)).items():
        value = getattr(options, name)
        if is_dataclass(value) and isinstance(value, hint):
            if (inner := misfit(value)) is not None:
                return inner
        elif not _fits(value, hint):
            return f"{name} is {repr(value)[:80]}"
    return None


def _fits(value: Any, hint: Any) -> bool:
    kinds = get_args(hint)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in kinds
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, kind) for kind in kinds)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(one, kinds[0]) for one in value)
    if hint in (int, float):
        is_number = isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
        # Whole numbers beyond are neither exact as a float nor anything that a run could count to.
        return is_number and (math.isfinite(value) if isinstance(value, float) else abs(value) < 2**53)
    return isinstance(value, hint)
