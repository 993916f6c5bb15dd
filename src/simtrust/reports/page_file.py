"""Where a page can be written, told before any work starts."""

import os
from pathlib import Path

from simtrust.errors import ConfigError

SUFFIXES = (".html", ".htm")
"""A file of any other is not replaced by a page."""


def writable_page(path: Path) -> Path:
    """The path, if a page can be written there. Raises ConfigError if not."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out {path} must end in {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise unwritable_page(path, "it is a directory")
    if not os.access(path.parent, os.W_OK):
        raise unwritable_page(path, f"{path.parent} does not exist or may not be written")
    return path


def unwritable_page(path: Path, problem: str) -> ConfigError:
    """The error for a page that cannot be written."""
    return ConfigError(f"--out {path}: {problem}; name a file in a folder that you may write")
