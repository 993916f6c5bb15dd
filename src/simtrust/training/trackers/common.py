"""What trackers share: their package, which values they can show, and how a resumed run is found again."""

import re
import secrets
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from simtrust.errors import ConfigError, RunError
from simtrust.training.checkpoint import write_atomically
from simtrust.training.config import TrainConfig
from simtrust.training.metrics import MetricRecord


def require(package: str, *, extra: str) -> Any:
    """Import a tracker's package; `ConfigError` names the extra that installs it."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"tracking by {extra} needs {package} ({error}): pip install 'simtrust[{extra}]'"
        ) from error


def scalars(record: MetricRecord) -> dict[str, float]:
    """The values of a line of metrics that are numbers."""
    return {name: float(v) for name, v in record.values.items() if isinstance(v, int | float)}


def options(config: TrainConfig) -> dict[str, Any]:
    """Every option of a run under its own name, as the command line has them."""
    stored = asdict(config)
    return {**stored, **stored.pop("algorithm")}


def tracking_id(directory: Path) -> str:
    """What trackers know a run directory by: random, made once, and kept in ``DIR/tracking_id``.

    Raises:
        RunError: the file holds something else.
    """
    path = directory / "tracking_id"
    if not path.exists():
        write_atomically(path, secrets.token_hex(8).encode())
    found = path.read_bytes()[:64].decode(errors="replace").strip()
    if not re.fullmatch(r"[0-9a-f]{16}", found):
        raise RunError(f"{path} holds {found!r}, no tracking id; delete it to be tracked as a new run")
    return found
