"""A report of a training run: what is read, compared and drawn, and the file that is written."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simtrust.data import load_dataset
from simtrust.errors import SimtrustError
from simtrust.reports.page_file import unwritable_page, writable_page
from simtrust.reports.run_comparison import compare as compared
from simtrust.reports.run_comparison import siblings, unknowns
from simtrust.reports.run_evidence import JUDGED_IN_SIMULATOR, Evidence
from simtrust.reports.run_film import draw_film
from simtrust.reports.run_html import Film, NoFilm, RunReport, to_html
from simtrust.reports.run_record import RunRecord, read_run
from simtrust.training.checkpoint import write_atomically

EMBEDDED = 4 * 10**6
"""Bytes of a film below which it is part of the page; a larger one lies beside it."""


def report_run(
    directory: str | Path,
    out: str | Path | None = None,
    compare: Sequence[str | Path] = (),
    *,
    video: bool = True,
) -> Path:
    """Write one HTML page about a training run, finished or not; it needs no network and no other file.

    Args:
        directory: the run directory; nothing in it is changed, except that the page lies there by default.
        out: the page, replaced if it is there. Default: ``report.html`` in the run directory.
        compare: other run directories. Runs of ``cql`` and ``sac`` beside this one, with the same log and
            simulator, are found by themselves.
        video: whether to run an episode and film it, where the environment is built in.

    Returns:
        Where the page is. A film of 4 MB or more lies beside it.

    Raises:
        RunError: a directory holds no run, or a file of it is damaged.
        ConfigError: the page cannot be written there, or a run was evaluated elsewhere.
    """
    run = read_run(directory)
    path = writable_page(Path(out) if out is not None else run.directory / "report.html")
    given = [read_run(other) for other in compare]
    recipes = {other.config.recipe for other in given}
    beside = [other for other in siblings(run) if other.config.recipe not in recipes]
    comparisons = compared(run, [*given, *beside])
    bound, reason = value_bound(run)
    report = RunReport(
        run=run,
        evidence=Evidence(
            curves=run.curves,
            final=run.final,
            value_bound=bound,
            target_entropy=_target_entropy(run),
            bound_unknown=reason,
            recipe=run.config.recipe,
            reality_unknown=JUDGED_IN_SIMULATOR if run.judged_in_simulator else "",
        ),
        comparisons=comparisons,
        unknowns=unknowns(run, comparisons),
        film=_film(run, path) if video else NoFilm("it was not asked for (--no-video)"),
    )
    try:
        write_atomically(path, to_html(report).encode("utf-8", "replace"))
    except OSError as error:
        raise unwritable_page(path, str(error)) from error
    return path


def value_bound(run: RunRecord) -> tuple[float | None, str]:
    """``max |r| / (1 − γ)`` over the log's rewards, as the critics see them; or None, and why."""
    config = run.config
    if config.real is None:
        return None, "the run had no log"
    try:
        dataset = load_dataset(config.real, dones_mean=config.dones_mean, columns=config.columns)
    except SimtrustError as error:
        return None, f"the log cannot be read: {error}"
    if dataset.sha256 != run.extra.get("dataset_sha256"):
        return None, f"{config.real} is another log by now"
    scale = run.extra.get("scaling", {}).get("reward_scale", 1.0)
    if not isinstance(scale, int | float) or not 0 < scale < float("inf"):
        return None, "the run's reward scale is damaged"
    largest = float(np.abs(dataset.transitions.reward).max())
    return largest * scale / (1.0 - config.algorithm.discount), ""


def _target_entropy(run: RunRecord) -> float:
    """What the temperature is tuned to: −dim(A), unless the user says otherwise."""
    wanted = run.config.algorithm.target_entropy
    actions = run.extra.get("scaling", {}).get("action_low")
    return float(wanted) if wanted is not None else -float(len(actions) if isinstance(actions, list) else 1)


def _film(run: RunRecord, page: Path) -> Film | NoFilm:
    try:
        content, told = draw_film(run)
    except SimtrustError as error:
        return NoFilm(str(error))
    except Exception as error:
        # A checkpoint from elsewhere, or a graphics driver, may fail in any way; the numbers are worth more.
        return NoFilm(f"it could not be drawn ({type(error).__name__}: {error})")
    if len(content) < EMBEDDED:
        return Film(told, content, None)
    beside = page.with_suffix(".gif")
    try:
        write_atomically(beside, content)
    except OSError as error:
        return NoFilm(f"{beside} cannot be written ({error})")
    return Film(told, None, beside.name)
