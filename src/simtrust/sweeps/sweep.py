"""A sweep from its file to its last outcome: planned, checked, trained, summed up."""

from collections.abc import Callable
from pathlib import Path

from simtrust.errors import ConfigError, RunError
from simtrust.sweeps.checking import check_stored, same_log
from simtrust.sweeps.lease import LEASE_SECONDS
from simtrust.sweeps.local_engine import Engine, one_after_the_other
from simtrust.sweeps.places import place_of
from simtrust.sweeps.plan import make_plan
from simtrust.sweeps.summary import Summary, one_line
from simtrust.sweeps.work import Order, Outcome


def sweep(
    file: str | Path,
    out: str | None = None,
    engine: Engine | None = None,
    *,
    command: str = "simtrust.sweeps.sweep(...)",
    tell: Callable[[str], None] = lambda line: None,
    lease_seconds: float = LEASE_SECONDS,
) -> Summary:
    """Train every run of a sweep file that has not finished yet, and sum up all of them.

    The sweep lies in ``out``, a folder or a URL that fsspec knows; by default in ``runs/`` and the file's
    name. A run that fails ends no other, nor does an outcome that cannot be written, which is tried again.
    ``tell`` is given a line for each run that ends.

    Raises:
        ConfigError: something in the file, a log or a simulator cannot be used; nothing is trained then.
        RunError: what is stored is damaged, or the place cannot be read or written.
    """
    engine = engine or one_after_the_other()
    plan = make_plan(file)
    place = place_of(out if out is not None else f"runs/{plan.file.stem}")
    stored = check_stored(plan, place)
    summary = Summary(plan, place)
    left = [run for run in plan.runs if stored[run.name].result is None]
    try:
        sums = engine.check(left)
        for run in left:
            if stored[run.name].config is not None:
                same_log(run, stored[run.name].sha256, sums)
    except ConfigError as error:
        raise ConfigError(f"{plan.file}: {error}") from error
    done = [Outcome(name, each.result.summary) for name, each in stored.items() if each.result is not None]
    summary.add(*done)
    summary.write()
    if done:
        tell(f"{len(done)} of {len(plan.runs)} runs had finished before")
    orders = [Order(run, place, command, sums[run.name], lease_seconds) for run in left]
    try:
        for outcome in engine.train(orders):
            summary.add(outcome)
            tell(one_line(outcome))
            try:
                summary.write()
            except RunError as error:
                tell(f"{error}. The sweep goes on, and tries that again with the next outcome")
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("The same command goes on with the whole sweep.")
        raise
    summary.write()
    return summary


def raise_failures(summary: Summary) -> None:
    """Raise `RunError` that names the runs which failed, if any did."""
    if failed := summary.failed:
        raise RunError(
            f"{len(failed)} of {len(summary.plan.runs)} runs failed: {', '.join(failed)}; why is in "
            f"{summary.place}/errors, and the same command goes on with them when that is mended"
        )
