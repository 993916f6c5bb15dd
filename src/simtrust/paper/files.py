"""Folders that results are written to, and pictures that are whole or not there."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from simtrust.training.storage import check_writable, storing, write_atomically

RESOLUTION = 120
"""Pixels per inch."""


def make_writable(out: Path) -> None:
    """Make a folder if it is not there; `StorageError` if it cannot be, or cannot be written into."""
    with storing(out):
        out.mkdir(parents=True, exist_ok=True)
    check_writable(out)


def save_picture(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG; a file already there is replaced. Raises `StorageError`."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=RESOLUTION, format="png")
    write_atomically(path, picture.getvalue())
    return path
