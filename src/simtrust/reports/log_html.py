"""A report on a log as one page: the verdict, what was found and where, and charts of the columns."""

from html import escape
from importlib.metadata import version

from simtrust.data.log_findings import SEVERITIES, Finding, NotChecked, Outcome
from simtrust.data.timing_findings import TIMING_CHECKS
from simtrust.reports import log_figures
from simtrust.reports.log_report import LogReport
from simtrust.reports.log_text import (
    DIMENSIONS,
    SUPPORT,
    dimension_row,
    facts,
    headline,
    places,
    support_row,
    told,
)
from simtrust.reports.page import (
    Figure,
    Section,
    card_list,
    command_line,
    compose,
    heading,
    paragraph,
    step_list,
    table,
)

MOST_CHOICES = 200
"""Columns with a histogram, which bounds the size of the page."""


def to_html(report: LogReport) -> str:
    """The page, which opens from disk, light or dark, at a desk or on a phone."""
    sections = [
        _dimensions(report),
        _actions(report),
        _places(report),
        _episodes(report),
        _sampling(report),
        _support(report),
        _checks(report),
        _made(report),
    ]
    present = [section for section in sections if section is not None]
    return compose(
        "log_report.html", f"{headline(report)}: {report.dataset.source}", _opening(report), present
    )


def _opening(report: LogReport) -> str:
    kind, sign = ("gap", "!") if not report.ok or report.count("warning") else ("fine", "✓")
    cards = [
        *facts(report),
        ("Findings", str(len(report.findings)) if report.findings else "none", _counts(report)),
    ]
    parts = [f'<p class="subject">{_subject(report)}</p>', heading(kind, sign, headline(report))]
    return "".join([*parts, card_list(cards), _findings(report)])


def _counts(report: LogReport) -> str:
    return ", ".join(told(report.count(severity), severity) for severity in SEVERITIES)


def _subject(report: LogReport) -> str:
    log = f"The log <strong>{escape(report.dataset.source)}</strong>"
    if report.simulator is None:
        return log
    shifts = f" ({', '.join(map(str, report.shifts))})" if report.shifts else ""
    return f"{log} beside <strong>{escape(report.simulator + shifts)}</strong>"


def _findings(report: LogReport) -> str:
    steps = [
        (
            f"{finding.severity.capitalize()}: {title}",
            paragraph(f"{finding.found}. {finding.meaning}")
            + _list(places(report.log, finding))
            + f"<p><strong>To try:</strong> {escape(finding.remedy)}</p>",
        )
        for title, finding in report.findings
    ]
    if steps:
        return step_list("findings", "Findings", steps)
    none = paragraph("The checks at the end of this page found nothing.")
    return (
        '<section id="findings" aria-labelledby="findings-title"><h2 id="findings-title">No findings</h2>'
        f"{none}</section>"
    )


def _list(lines: list[str]) -> str:
    return f'<ul class="places">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def _dimensions(report: LogReport) -> Section:
    columns = list(range(report.dataset.observation_size))
    rows = [dimension_row(report.log, column) for column in report.log.columns]
    caption = (
        "Entries of the observation, then of the action; distinct: different values, as a share of rows."
    )
    chart = log_figures.histogram_chart(report.log, columns[:MOST_CHOICES])
    blocks = [
        table(caption, DIMENSIONS, rows),
        Figure("histogram", chart, "How often each value was recorded."),
    ]
    return Section("dimensions", "Dimensions", blocks)


def _actions(report: LogReport) -> Section:
    first = report.dataset.observation_size
    columns = list(range(first, len(report.log.columns)))[:MOST_CHOICES]
    caption = "How often each action was recorded" + (
        "; dotted: the simulator's bounds." if report.log.bounds is not None else "."
    )
    chart = log_figures.histogram_chart(report.log, columns)
    return Section("actions", "Actions", [Figure("action-histogram", chart, caption)])


def _places(report: LogReport) -> Section | None:
    timing = {check.title for check in TIMING_CHECKS}
    found = [
        (title, place)
        for title, finding in report.findings
        for place in finding.places
        if title in timing and place.row is not None and place.column is not None
    ]
    if not found:
        return None
    chart = log_figures.place_chart(report.log, found)
    caption = f"The column up to {log_figures.WINDOW} rows before and after, within the episode."
    return Section("places", "Worst places", [Figure("places-chart", chart, caption)])


def _episodes(report: LogReport) -> Section:
    chart = log_figures.episode_chart(report.log)
    caption = "Crosses are episodes that terminated; circles were cut by a time limit or the recording's end."
    return Section("episodes", "Episodes", [Figure("episode-chart", chart, caption)])


def _sampling(report: LogReport) -> Section | None:
    chart = log_figures.sampling_chart(report.log)
    if chart is None:
        return None
    return Section(
        "sampling", "Sampling time", [Figure("sampling-chart", chart, "Time between rows, counted.")]
    )


def _support(report: LogReport) -> Section | None:
    if report.support is None:
        return None
    caption = (
        f"Shares of rows. First {report.support.rows:,} rows of the simulator's own rollouts, by policy, that"
        " lie between the log's least and largest value; then the converse."
    )
    rows = [support_row(report, i) for i in range(report.dataset.observation_size)]
    return Section("support", "Log and simulator", [table(caption, SUPPORT, rows)])


def _checks(report: LogReport) -> Section:
    rows = [[check.title, check.threshold, _outcome(outcome)] for check, outcome in report.outcomes]
    text = "Thresholds are rules of thumb: a finding says where to look, not that something is wrong."
    return Section("checks", "What was checked", [table(text, ["Check", "Finds", "Found"], rows)])


def _outcome(outcome: Outcome) -> str:
    if isinstance(outcome, Finding):
        return f"{outcome.severity}: {outcome.found}"
    return f"not checked: {outcome.reason}" if isinstance(outcome, NotChecked) else "✓ nothing"


def _made(report: LogReport) -> Section:
    rows = [
        ["Log", report.dataset.source],
        ["SHA-256 of the log", report.dataset.sha256],
        ["Simulator", report.simulator or "none"],
        ["Shifts", ", ".join(map(str, report.shifts)) or "none"],
        ["Version of simtrust", version("simtrust")],
    ]
    blocks = [command_line(report.command), table("What it was made from", ["What", "Value"], rows)]
    return Section("made", "How it was made", blocks)
