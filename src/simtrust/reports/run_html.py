"""A training run as one page: how it went, what to worry about, and what the simulator contributed."""

import base64
import math
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from importlib.metadata import version
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from simtrust.evaluation.statistics import mean_interval
from simtrust.reports import run_figures, run_sections
from simtrust.reports.charts import rounded
from simtrust.reports.page import (
    Figure,
    Section,
    card_list,
    command_line,
    compose,
    details,
    heading,
    paragraph,
    step_list,
    table,
)
from simtrust.reports.run_comparison import BASELINES, Comparison, Unknown, certain, is_fair, sentence
from simtrust.reports.run_evidence import JUDGED_IN_SIMULATOR, Concern, Evidence, NotChecked
from simtrust.reports.run_record import RunRecord
from simtrust.reports.run_warnings import CHECKS, Check
from simtrust.training.run_directory import resume_command

UNSET = {
    "reward_scale": "the recipe's own, or 1",
    "normalise_observations": "the recipe's own, or False",
    "critic_layer_norm": "the recipe's own, or False",
    "target_entropy": "−dim(A)",
    "buffer_capacity": "ten times the log",
}
"""What options mean that were not given; those that are not here mean none."""
LISTED = 20
"""Damaged lines that are named; of more, their number."""


class Film(NamedTuple):
    """A film, either as bytes of a GIF, or by the name of the file beside the page."""

    told: str
    content: bytes | None
    beside: str | None


class NoFilm(NamedTuple):
    """Why there is no film."""

    reason: str


class RunReport(NamedTuple):
    """All that the page shows."""

    run: RunRecord
    evidence: Evidence
    comparisons: Sequence[Comparison]
    unknowns: Sequence[Unknown]
    film: Film | NoFilm


def to_html(report: RunReport) -> str:
    """The page, which opens from disk, light or dark, at a desk or on a phone."""
    outcomes = [(check, check.find(report.evidence)) for check in CHECKS]
    concerns = [(check, outcome) for check, outcome in outcomes if isinstance(outcome, Concern)]
    sections = [
        run_sections.returns(report.run),
        _helped(report),
        _film(report.film),
        run_sections.values(report.evidence),
        run_sections.trust(report.run),
        run_sections.classifiers(report.run),
        run_sections.losses(report.evidence),
        _checks(outcomes, report),
        _made(report.run),
    ]
    title = f"{report.run.config.recipe}: {headline(report.run)}"
    opening = _opening(report, concerns)
    return compose("run_report.html", title, opening, [part for part in sections if part is not None])


def headline(run: RunRecord) -> str:
    """How the run ended, in a few words."""
    if not run.finished:
        return f"Unfinished: {run.step:,} of {run.config.steps:,} steps"
    assert run.final is not None
    return f"Return {rounded(mean_interval(run.final.mean).mean)} after {run.final.step:,} steps"


def _opening(report: RunReport, concerns: Sequence[tuple[Check, Concern]]) -> str:
    run = report.run
    kind, sign = ("unknown", "…") if not run.finished else ("gap", "!") if concerns else ("fine", "✓")
    parts = [f'<p class="subject">{_subject(run)}</p>', heading(kind, sign, headline(run))]
    if not run.finished:
        parts.append(
            paragraph(
                "Training has not ended, or was cut short: all that follows may still change. Go on with"
            )
            + command_line(resume_command(run.directory, run.config, run.extra))
        )
    parts.append(card_list(_cards(report, len(concerns))))
    if run.damaged:
        more = [f"and {len(run.damaged) - LISTED:,} more"] if len(run.damaged) > LISTED else []
        items = "".join(f"<li>{escape(line)}</li>" for line in [*run.damaged[:LISTED], *more])
        parts.append(
            f'<ul class="missing"><li><strong>Not everything could be read.</strong></li>{items}</ul>'
        )
    return "".join(parts) + _warnings(concerns)


def _warnings(concerns: Sequence[tuple[Check, Concern]]) -> str:
    steps = [
        (
            check.title,
            paragraph(f"{concern.found} {concern.meaning}")
            + f"<p><strong>To try:</strong> {escape(concern.remedy)}</p>",
        )
        for check, concern in concerns
    ]
    if steps:
        return step_list("warnings", "Warnings", steps)
    none = paragraph("The checks at the end of this page found nothing to worry about.")
    return (
        '<section id="warnings" aria-labelledby="warnings-title"><h2 id="warnings-title">No warnings</h2>'
        f"{none}</section>"
    )


def _subject(run: RunRecord) -> str:
    shifts = f" ({', '.join(run.config.shifts)})" if run.config.shifts else ""
    sources = [f"the log {run.config.real}"] if run.config.real else []
    sources += [f"the simulator {run.config.sim}{shifts}"] if run.config.sim else []
    where = f"<strong>{escape(run.evaluation_environment)}</strong>"
    return (
        f"<strong>{escape(run.config.recipe)}</strong> from {escape(' and '.join(sources) or 'nothing')}, "
        + (f"{JUDGED_IN_SIMULATOR} ({where})" if run.judged_in_simulator else f"judged in {where}")
    )


def _cards(report: RunReport, warnings: int) -> list[tuple[str, str, str]]:
    run, cards = report.run, []
    if run.final is None:
        cards.append(("Return", "unknown", "the policy was not evaluated yet"))
    else:
        interval = mean_interval(run.final.mean)
        known = "of one seed" if len(run.final.seeds) == 1 else f"mean of {len(run.final.seeds)} seeds"
        if not math.isnan(interval.low):
            known += f", 95% interval {rounded(interval.low)} to {rounded(interval.high)}"
        when = "at the end" if run.finished else f"so far, at step {run.final.step:,}"
        cards.append(
            (f"Return {when}", rounded(interval.mean), f"{known}; {run.final.episodes} episodes each")
        )
    steps, returns = run.curves.known("return_mean")
    if len(steps) > 1:
        mean = np.nanmean(returns, axis=1)
        best = int(mean.argmax())
        cards.append(
            ("Best evaluation", rounded(mean[best]), f"mean over the seeds, at step {steps[best]:,}")
        )
    steps, simulated = run.curves.known("simulator_return")
    if len(steps):
        where = "Return while collecting" if run.judged_in_simulator else "Return in the simulator"
        cards.append((where, rounded(np.nanmean(simulated[-1])), f"at step {steps[-1]:,}"))
    cards.append(("Did the simulator help?", *_short_answer(report)))
    cards.append(("Warnings", str(warnings) if warnings else "none", f"of {len(CHECKS)} checks"))
    return cards


def _short_answer(report: RunReport) -> tuple[str, str]:
    if report.run.config.recipe in BASELINES:
        return "–", f"this run learned from {BASELINES[report.run.config.recipe]}"
    if report.run.judged_in_simulator:
        return "not known", JUDGED_IN_SIMULATOR
    for comparison in report.comparisons:
        if comparison.other.config.recipe == "cql" and is_fair(comparison):
            more = comparison.difference.mean >= 0
            size = f"{rounded(abs(comparison.difference.mean))} {'above' if more else 'below'} the log alone"
            if not certain(comparison):
                return "not clear", f"{size}, which may be chance"
            return ("yes" if more else "no"), size
    return "not known", "no run on the log alone to compare with"


def _helped(report: RunReport) -> Section:
    blocks: list[str | Figure] = [
        f'<p class="verdict">{escape(sentence(comparison))}</p>' for comparison in report.comparisons
    ]
    if report.comparisons:
        caption = "Bands are 95% bootstrap intervals of the mean over seeds, where there are several."
        chart = run_figures.comparison_chart(report.run, report.comparisons[: run_figures.MOST_COMPARED])
        blocks.append(Figure("comparison", chart, caption))
        header = ["Compared with", "Its return", "Difference", "95% interval", "To know"]
        blocks.append(table("Final returns", header, [_comparison_row(each) for each in report.comparisons]))
    for unknown in report.unknowns:
        question = "simulator" if unknown.baseline == "cql" else "log"
        blocks.append(
            paragraph(
                f"What the {question} contributed is not known, because {unknown.reason}."
                + (" Run:" if unknown.command else "")
            )
        )
        if unknown.command:
            blocks.append(command_line(unknown.command))
    return Section("helped", "Did the simulator help?", blocks)


def _comparison_row(comparison: Comparison) -> list[str]:
    other, difference = comparison.other, comparison.difference
    interval = (
        "unknown"
        if math.isnan(difference.low)
        else f"{rounded(difference.low)} to {rounded(difference.high)}"
    )
    return [
        f"{other.config.recipe}, {other.directory}",
        rounded(mean_interval(comparison.theirs).mean),
        rounded(difference.mean),
        interval,
        "; ".join(comparison.notes) or "–",
    ]


def _film(film: Film | NoFilm) -> Section:
    key, title = "film", "Film"
    if isinstance(film, NoFilm):
        return Section(key, title, [paragraph(f"No film: {film.reason}.")])
    if film.beside is not None:
        link = f'<p><a href="{quote(film.beside)}">{escape(film.beside)}</a>, beside this page.</p>'
        return Section(key, title, [link, paragraph(film.told)])
    assert film.content is not None
    data = base64.b64encode(film.content).decode()
    picture = f'<img class="film" alt="{escape(film.told)}" src="data:image/gif;base64,{data}">'
    shown = f"<details open><summary>Show or hide</summary>{picture}</details>"
    return Section(key, title, [shown, paragraph(film.told)])


def _checks(outcomes: Sequence[tuple[Check, Concern | NotChecked | None]], report: RunReport) -> Section:
    rows = [[check.title, check.threshold, _outcome(outcome)] for check, outcome in outcomes]
    header = ["Check", "Warns if", "Found"]
    told = "Thresholds are rules of thumb: a warning says where to look, not that something is wrong."
    return Section("checks", "What was checked", [table(told, header, rows)])


def _outcome(outcome: Concern | NotChecked | None) -> str:
    if outcome is None:
        return "✓ nothing"
    return f"not checked: {outcome.reason}" if isinstance(outcome, NotChecked) else f"! {outcome.found}"


def _made(run: RunRecord) -> Section:
    config, versions = run.config, run.extra.get("versions", {})
    rows = [
        ["Recipe", config.recipe],
        ["Log", config.real or "none"],
        ["SHA-256 of the log", run.extra.get("dataset_sha256") or "none"],
        ["Simulator", config.sim or "none"],
        ["Shifts", ", ".join(config.shifts) or "none"],
        ["Evaluated in", run.evaluation_environment],
        ["Steps", f"{run.step:,} of {config.steps:,}"],
        ["Seeds", ", ".join(map(str, run.curves.seeds)) or f"{config.seeds:,} from {config.first_seed}"],
        *([f"Version of {name}", str(number)] for name, number in versions.items()),
        ["Version of simtrust, of this page", version("simtrust")],
    ]
    options = {**asdict(config), **asdict(config.algorithm)}
    del options["algorithm"]
    all_options = [[name.replace("_", " "), _said(name, value)] for name, value in options.items()]
    return Section(
        "made",
        "How it was made",
        [
            command_line(str(run.extra.get("command"))),
            table("What it was made from", ["What", "Value"], rows),
            details("All options", table("As stored in config.json", ["Option", "Value"], all_options)),
        ],
    )


def _said(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return UNSET.get(name, "none") if value is None else str(value)
