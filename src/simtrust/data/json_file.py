"""JSON that somebody else may have written: no file is waited for, fills the memory, or says two things."""

import json
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BYTES_MAX = 2**24
"""Python takes up to 25 times as much memory, 400 MiB: ``[],`` is three bytes and becomes 64."""


def read_json(file: Path, most: int = BYTES_MAX) -> Any:
    """The content of a regular file of at most so many bytes, in UTF-8.

    Raises:
        ValueError: it is a pipe, a device, a folder, larger, nested too deeply for Python, names a key twice,
            or is no JSON.
        OSError: it cannot be read.
    """
    status = file.stat()
    # Opening a pipe could wait forever; a device has no end.
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is a directory or a device, not a file")
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    return parse_json(content)


def parse_json(content: bytes) -> Any:
    """JSON in UTF-8 (ValueError, as `read_json`)."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        count = Counter(key for key, _ in pairs)
        raise ValueError(f"it has {count.most_common(1)[0][0][:80]!r} twice in one object")
    return found
