"""What the paper says of a figure without a table, and whether our runs say the same.

A claim is put as one number that is above another, each of them a quantity of our runs or a limit; it is
judged as the orderings of the tables are.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from simtrust.paper.comparison import Sample, Verdict, compare, counts, exactly
from simtrust.paper.csv_text import csv_text
from simtrust.paper.markdown import number, table

JUDGED = """Each claim is put as one number of ours above another, or above or below a limit. It holds, or
does not hold, if the two differ by Welch's t-test at 5 % over training seeds, as for the tables' orderings;
else the runs cannot tell them apart. A number without ± is known exactly, and is compared as it is."""


class Claim(NamedTuple):
    """A statement of the paper, and what of ours has to be above what for it to hold."""

    statement: str
    source: str
    """Figure and section."""
    published: str
    """The paper's number; empty if it gives none."""
    more: str | float
    """The name of a quantity, or a limit."""
    less: str | float

    @property
    def asked(self) -> str:
        """The limit, if there is one, to the right."""
        if isinstance(self.more, float):
            return f"{self.less} < {self.more:g}"
        return f"{self.more} > {self.less if isinstance(self.less, str) else format(self.less, 'g')}"


class Quantity(NamedTuple):
    """A number of ours."""

    sample: Sample
    """Over training seeds; or `exactly` a number that does not depend on any."""
    steps: int | None = None
    """Updates of the runs."""

    def __str__(self) -> str:
        mean, std = self.sample[:2]
        form = ",.0f" if abs(mean) >= 100 else ".3g"
        return f"{number(mean, form)} ± {number(std, form)}" if not self.sample.exact else number(mean, form)


class Finding(NamedTuple):
    """Whether our runs agree with a claim."""

    claim: Claim
    ours: tuple[Quantity, ...]
    """What there is of the quantities asked for, without limits."""
    verdict: Verdict
    note: str


def judge(claim: Claim, quantities: Mapping[str, Quantity]) -> Finding:
    """Whether a claim holds. Quantities of runs of different numbers of updates are not compared."""
    names = [name for name in (claim.more, claim.less) if isinstance(name, str)]
    ours = tuple(quantities[name] for name in names if name in quantities)
    if len(ours) < len(names):
        return Finding(claim, ours, Verdict.MISSING, "")
    steps = {quantity.steps for quantity in ours if quantity.steps is not None}
    if len(steps) > 1:
        told = " and ".join(f"{quantity.steps:,}" for quantity in ours)
        return Finding(claim, ours, Verdict.NOT_COMPARED, f"after {told} updates")
    more, less = (_sample(side, quantities) for side in (claim.more, claim.less))
    return Finding(claim, ours, *compare(more, less))


def _sample(side: str | float, quantities: Mapping[str, Quantity]) -> Sample:
    return quantities[side].sample if isinstance(side, str) else exactly(side)


def claims_section(found: Mapping[str, Sequence[Finding]], *remarks: str) -> str:
    """Markdown: how claims are judged, and the claims by what they are of, such as a task."""
    parts = ["## What the paper says", *remarks, JUDGED]
    for of, findings in found.items():
        parts += [f"### {of}", claims_table(findings)]
    return "\n\n".join(parts)


HEADS = ("the paper's claim", "where", "in the paper", "asked of ours", "ours", "verdict")


def claims_table(found: Sequence[Finding]) -> str:
    """Markdown: how many claims hold, and a line for each."""
    told = ", ".join(f"{verdict} {count}" for verdict, count in counts(one.verdict for one in found).items())
    return f"Of {len(found)} claims: {told}.\n\n" + table(HEADS, [_line(one) for one in found])


def _line(found: Finding) -> tuple[str, ...]:
    claim = found.claim
    return (
        claim.statement,
        claim.source,
        claim.published or "–",
        claim.asked,
        " against ".join(map(str, found.ours)) or "–",
        f"{found.verdict} ({found.note})" if found.note else str(found.verdict),
    )


CSV_HEADS = ("of", "claim", "source", "published", "asked", "ours", "verdict", "note")


def claims_csv(found: Mapping[str, Iterable[Finding]]) -> str:
    """A line for each claim, by what it is of, such as a task."""
    lines = [
        (of, one.claim.statement, one.claim.source, one.claim.published, one.claim.asked,
         " against ".join(map(str, one.ours)), str(one.verdict), one.note)
        for of, findings in found.items()
        for one in findings
    ]  # fmt: skip
    return csv_text(CSV_HEADS, lines)
