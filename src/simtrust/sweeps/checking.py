"""What may be wrong with a sweep, found before anything trains."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from simtrust.errors import ConfigError, SimtrustError
from simtrust.limits import available_memory
from simtrust.sweeps.places import Place, Stored, stored_run
from simtrust.sweeps.plan import Plan, PlannedRun, same_run
from simtrust.training.config import TrainConfig
from simtrust.training.memory import predicted_memory
from simtrust.training.setup import prepare
from simtrust.training.trackers import make_trackers

ONE_SEED = {"first_seed": 0, "out": None, "track": ()}
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


def check_problems(runs: Sequence[PlannedRun], jobs: int = 1) -> dict[str, str | None]:
    """Load every log, make every simulator, and check that they fit, as training does; once for each problem.

    Returns the SHA-256 of each run's log, by name. Raises `ConfigError` that names the run; or if so many
    ``jobs`` at a time would not fit into the memory of this machine.
    """
    sums: dict[str, str | None] = {}
    known: dict[TrainConfig, tuple[str | None, int]] = {}
    needed: list[int] = []
    for run in runs:
        problem = replace(run.config, **ONE_SEED)
        try:
            make_trackers(run.config.track)
            if problem not in known:
                known[problem] = _sum_and_memory(run.config)
        except SimtrustError as error:
            raise ConfigError(f"run {run.name}: {error}") from error
        sums[run.name], memory = known[problem]
        needed.append(memory)
    _check_together(sorted(needed)[-jobs:])
    return sums


def _sum_and_memory(config: TrainConfig) -> tuple[str | None, int]:
    """SHA-256 of a run's log, and the bytes that the run takes."""
    with closing(prepare(config)) as prepared:
        dataset, rows = prepared.dataset, 0 if prepared.dataset is None else len(prepared.dataset)
        memory = predicted_memory(config, prepared.algorithm, rows, prepared.capacity).machine
        return dataset.sha256 if dataset else None, memory


def _check_together(needed: Sequence[int]) -> None:
    if len(needed) > 1 and sum(needed) > (available := available_memory()):
        raise ConfigError(
            f"{len(needed)} runs at a time need about {sum(needed) / 2**30:.1f} GiB of memory, "
            f"{available / 2**30:.1f} GiB are free; lower --jobs, or their buffer_capacity or seeds"
        )


def same_log(run: PlannedRun, found: str | None, wanted: Mapping[str, str | None]) -> None:
    """Raise `ConfigError` if a run was begun with another log than the one that lies there now."""
    if found != wanted[run.name]:
        raise ConfigError(
            f"run {run.name}: {run.config.real} is not the log that it was begun with: its SHA-256 is "
            f"{wanted[run.name]}, the run's {found}; restore the file, or choose another --out"
        )
