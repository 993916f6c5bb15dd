"""What may be wrong with a sweep, found before anything trains."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from simtrust.errors import ConfigError, SimtrustError
from simtrust.sweeps.places import Place, Stored, stored_run
from simtrust.sweeps.plan import Plan, PlannedRun, same_run
from simtrust.training.config import TrainConfig
from simtrust.training.setup import prepare

ONE_SEED = {"seeds": 1, "first_seed": 0, "out": None, "track": ()}
"""Options that make no other problem of a run: of runs that differ in these alone, one is checked."""

Check = Callable[[Sequence[PlannedRun]], dict[str, str | None]]
"""Prepares each run as training does, and tells the SHA-256 of its log, by name; raises `ConfigError`."""


def check_stored(plan: Plan, place: Place) -> dict[str, Stored]:
    """How far each run of a plan is.

    Raises:
        ConfigError: one was begun with other options than the plan has.
        RunError: what is stored of one is damaged.
    """
    stored = {run.name: stored_run(place, run.name) for run in plan.runs}
    for run in plan.runs:
        begun = stored[run.name].config
        if begun is not None and (other := same_run(run.config, begun)):
            raise ConfigError(
                f"{plan.file}: run {run.name} was begun in {place} with {', '.join(other)}; choose another "
                "--out, or give back its options"
            )
    return stored


def check_problems(runs: Sequence[PlannedRun]) -> dict[str, str | None]:
    """Load every log, make every simulator, and check that they fit, as training does; once for each problem.

    Returns the SHA-256 of each run's log, by name. Raises `ConfigError` that names the run.
    """
    sums: dict[str, str | None] = {}
    known: dict[TrainConfig, str | None] = {}
    for run in runs:
        problem = replace(run.config, **ONE_SEED)
        if problem not in known:
            try:
                with closing(prepare(run.config)) as prepared:
                    known[problem] = prepared.dataset.sha256 if prepared.dataset else None
            except SimtrustError as error:
                raise ConfigError(f"run {run.name}: {error}") from error
        sums[run.name] = known[problem]
    return sums


def same_log(run: PlannedRun, found: str | None, wanted: Mapping[str, str | None]) -> None:
    """Raise `ConfigError` if a run was begun with another log than the one that lies there now."""
    if found != wanted[run.name]:
        raise ConfigError(
            f"run {run.name}: {run.config.real} is not the log that it was begun with: its SHA-256 is "
            f"{wanted[run.name]}, the run's {found}; restore the file, or choose another --out"
        )
