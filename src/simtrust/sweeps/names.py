"""What runs are called, after the options that make them differ."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def label(option: str, value: Any) -> str:
    """One option in the name of a run: ``trust``, ``gravity=2+delay=3``, ``first_seed=1``."""
    if option == "recipe":
        return safe(str(value))
    if option == "shifts":
        return safe("+".join(value)) if value else "unshifted"
    if option == "real":
        value = Path(str(value)).stem
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return safe(f"{option}={text}")


def safe(text: str) -> str:
    """``text`` as part of a folder's name, on any file system and object store."""
    return re.sub(r"[^A-Za-z0-9_.=+,-]", ".", text).lstrip(".") or "_"


def closest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean ...?)``, or nothing."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
