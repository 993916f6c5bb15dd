"""Who may use a run directory: one process at a time, and only with code that the user names."""

import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from simtrust.errors import RunError
from simtrust.training.config import TrainConfig
from simtrust.training.storage import StorageError, check_writable, sweep

CHECKPOINTS = "checkpoints"


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold a run directory, and remove what killed processes left there; for those who write.

    Raises `RunError` if another process holds it, or nothing can be written there.
    """
    held = filelock.FileLock(directory / ".lock", blocking=False)
    try:
        held.acquire()
    except filelock.Timeout:
        raise RunError(
            f"{directory} is in use by another process; wait for it, or choose another --out"
        ) from None
    except OSError as error:
        raise StorageError(directory, error) from error
    try:
        for folder in (directory, directory / CHECKPOINTS):
            sweep(folder)
        check_writable(directory)
        yield
    finally:
        held.release()


def confirm_code(directory: Path, names: dict[str, tuple[str | None, str | None]]) -> None:
    """Raise `RunError` unless every stored name that imports code equals what the user gave now."""
    for option, (stored, given) in names.items():
        if given is not None and given != stored:
            raise RunError(f"{directory} was begun with --{option} {stored}, not {given}")
        if stored is not None and ":" in stored and given is None:
            raise RunError(
                f"{directory} uses code of your own, {stored}; if you trust it, add --{option} {stored}"
            )


def confirm_evaluators(directory: Path, stored: Any, given: Collection[str]) -> None:
    """Raise `RunError` unless evaluators of the stored names are given now."""
    if stored != sorted(given):
        raise RunError(
            f"{directory} was begun with the evaluators {stored}, not {sorted(given)}; give the same to "
            "simtrust.resume(..., evaluators=...), or its metrics would not go on as they began"
        )


def resume_command(directory: Path, config: TrainConfig, extra: Mapping[str, Any]) -> str:
    """What goes on with a run; in Python where it has evaluators, which no command line can pass.

    ``extra`` is what ``config.json`` holds beside the configuration.
    """
    names = {"sim": config.sim, "real_env": config.real_env}
    own = {option: name for option, name in names.items() if name and ":" in name}
    if "evaluators" in extra:
        given = "".join(f", {option}={name!r}" for option, name in own.items())
        return f"simtrust.resume({str(directory)!r}{given}, evaluators=...)"
    options = [word for option, name in own.items() for word in (f"--{option.replace('_', '-')}", name)]
    return shlex.join(["simtrust", "resume", str(directory), *options])
