"""A report on a log in words: for the terminal, and the parts of it that the page shares."""

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simtrust.data.log_findings import (
    MOST_PLACES,
    SEVERITIES,
    Column,
    Finding,
    Log,
    NotChecked,
    Severity,
    where,
)
from simtrust.gap.support import POLICIES
from simtrust.reports.charts import percent, rounded
from simtrust.reports.log_report import LogReport

COLOURS: dict[Severity, str] = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
DIMENSIONS = ("entry", "unit", "min", "mean", "max", "std", "distinct")


def headline(report: LogReport) -> str:
    """The verdict in a few words."""
    counts = {severity: report.count(severity) for severity in SEVERITIES}
    if not report.ok:
        return f"{told(counts['error'], 'error')}: do not train on this log yet"
    if counts["warning"]:
        return f"{told(counts['warning'], 'warning')}: look before training"
    return "Nothing speaks against training on this log"


def told(count: int, noun: str) -> str:
    """``"1 error"``, ``"2 errors"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def facts(report: LogReport) -> list[tuple[str, str, str]]:
    """Name, value, and what is to know of it: rows, episodes, lengths, returns."""
    dataset = report.dataset
    lengths, returns = dataset.episode_lengths, dataset.episode_returns
    terminated = int((np.asarray(dataset.transitions.terminated) > 0).sum())
    sizes = f"observations {dataset.observation_size} wide, actions {dataset.action_size}"
    ends = (
        f"{terminated:,} terminated, {dataset.episode_count - terminated:,} cut by a time limit or the"
        " recording's end"
    )
    facts = [
        ("Rows", f"{len(dataset):,}", sizes),
        ("Episodes", f"{dataset.episode_count:,}", ends),
        ("Mean length", rounded(lengths.mean()), f"from {lengths.min():,} to {lengths.max():,} rows"),
    ]
    if dataset.has_rewards:
        spread = f"from {rounded(returns.min())} to {rounded(returns.max())}"
        facts.append(("Mean return", rounded(returns.mean()), spread))
    if report.support is not None:
        share = float(report.support.overall.mean())
        least = int(report.support.overall.argmin())
        name = report.log.columns[least].name
        note = f"of its rollouts, by dimension; least {percent(report.support.overall[least])}, {name}"
        facts.append(("Simulator within the log's range", percent(share), note))
    if isinstance(report.steps, NotChecked):
        facts.append(("Logged steps in the simulator", "none", report.steps.reason))
    elif report.steps is not None:
        note = f"median error {rounded(report.steps.error)} standard deviations of the logged change"
        facts.append(("Logged steps in the simulator", f"{report.steps.rows:,}", note))
    return facts


def dimension_row(log: Log, column: Column) -> list[str]:
    """A column as `DIMENSIONS` heads it."""
    numbers = (column.low, column.mean, column.high, column.std)
    distinct = percent(column.distinct / len(log.dataset))
    return [column.name, column.unit or "–", *map(rounded, numbers), distinct]


def places(log: Log, finding: Finding) -> list[str]:
    """The worst places in words, and how many more there are."""
    shown = [where(log, place) for place in finding.places[:MOST_PLACES]]
    more = len(finding.places) - len(shown)
    return [*shown, f"and {more:,} more"] if more else shown


def support_row(report: LogReport, dimension: int) -> list[str]:
    """A dimension's name, and shares of the simulator's rows by policy and of the log's."""
    support = report.support
    assert support is not None
    inside = [percent(share) for share in support.simulated_inside[:, dimension]]
    return [
        report.log.columns[dimension].name,
        *inside,
        percent(support.log_inside[dimension]),
        percent(support.log_within_bounds[dimension]),
    ]


SUPPORT = ("dimension", *POLICIES, "log in the rollouts' range", "log in the observation space")


def to_renderable(report: LogReport) -> RenderableType:
    """What the terminal shows; a user's text is no markup."""
    table = Table(*DIMENSIONS, title=Text(f"{report.dataset.source}"), title_justify="left")
    for column in report.log.columns:
        table.add_row(*map(Text, dimension_row(report.log, column)), end_section=_last(report.log, column))
    parts: list[RenderableType] = [table]
    parts += [Text(f"{name}: {value} ({note})") for name, value, note in facts(report)]
    for title, finding in report.findings:
        parts += [
            Text(""),
            Text.assemble((f"{finding.severity}: ", COLOURS[finding.severity]), f"{title}. ", finding.found),
        ]
        parts += [Text(f"    {line}") for line in places(report.log, finding)]
        parts += [Text(f"  {finding.meaning}"), Text(f"  To try: {finding.remedy}")]
    not_checked = sum(isinstance(outcome, NotChecked) for _, outcome in report.outcomes)
    checked = f"{len(report.outcomes) - not_checked} checks made, {not_checked} not possible"
    counts = ", ".join(told(report.count(severity), severity) for severity in SEVERITIES)
    parts += [Text(""), Text.assemble((headline(report), "bold"), f" ({counts}; {checked}).")]
    return Group(*parts)


def _last(log: Log, column: Column) -> bool:
    return column.kind == "observation" and column.entry == log.dataset.observation_size - 1
