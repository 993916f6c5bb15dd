"""What was found, in words: a page of Markdown, tables for the terminal, numbers for JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simtrust.paper.theory.claims import Count, Tally
from simtrust.paper.theory.counterexample import written_out
from simtrust.paper.theory.findings import Theory
from simtrust.paper.theory.problems import ACTIONS, DISCOUNTS, FAMILIES, STATES


def page(found: Theory) -> str:
    """Markdown: every claim with its count, the measures, the counterexample, and what made it."""
    one = found.theorem_1
    broken = found.broken
    verdict = (
        "Everything that was proved held in every case."
        if not broken
        else f"**Failed, though proved: {', '.join(tally.claim.name for tally in broken)}.**"
    )
    return f"""{found.problems:,} random pairs of MDPs, {STATES[0]} to {STATES[1]} states, {ACTIONS[0]} to \
{ACTIONS[1]} actions, γ one of {", ".join(map(str, DISCOUNTS))}, in equal parts: {", ".join(FAMILIES)}.

## What holds

{verdict}

{_claims(found.proved)}

## What the paper says, and how often it fails

{_claims(found.printed)}

## Theorem 1, state by state

{_groups(one, found.any_state)}

{_sentence(one)}

## The smallest counterexample

{written_out(found.counterexample)}

## How tight Eq. 9 is

Medians of the same problems at every γ, Q the policy's true one.

| γ | largest Q | log Σ ω exp Q − Σ ω Q | its bound in Eq. 9 | (Q_max − Q_min)²/8 |
|---|---|---|---|---|
{_lines([f"{x:.3g}" for x in line] for line in found.slack)}

## What the weight mends

The error of V learned with β = 0, largest over the states, in units of R_max/(1 − γ).

| weight of simulated rows | median | 90 % of problems below |
|---|---|---|
{_lines([x.weight, f"{x.median:.2%}", f"{x.ninety:.2%}"] for x in found.bias)}

Command: `simtrust paper theory --problems {found.problems} --seed {found.seed}`"""


def _lines(cells: Iterable[Sequence[str]]) -> str:
    """The lines of a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _claims(counted: list[Tally]) -> str:
    lines = ["| | claim | cases | failures |", "|---|---|---|---|"]
    for tally in counted:
        cases = f"{tally.total.cases:,} {tally.claim.counted}"
        lines.append(f"| {tally.claim.name} | {tally.claim.statement} | {cases} | {_failures(tally.total)} |")
    return "\n".join(lines)


def _failures(count: Count) -> str:
    if not count.cases:
        return "–"
    if not count.failures:
        return "0"
    # 100 % is said of all alone.
    share = count.share if count.failures == count.cases else min(count.share, 0.999)
    return f"{count.failures:,} ({share:.1%})"


def _groups(tally: Tally, everywhere: Tally) -> str:
    lines = [
        "| problems | states that meet Eq. 25 | of these, V̂(s) > V(s) | of all states |",
        "|---|---|---|---|",
    ]

    def line(name: str, count: Count, all_states: Count) -> str:
        return f"| {name} | {count.cases:,} | {_failures(count)} | {_failures(all_states)} |"

    for discount, count in sorted(tally.by_discount.items()):
        lines.append(line(f"γ = {discount}", count, everywhere.by_discount[discount]))
    for family, count in tally.by_family.items():
        lines.append(line(family, count, everywhere.by_family[family]))
    return "\n".join([*lines, line("all", tally.total, everywhere.total)])


def _sentence(tally: Tally) -> str:
    """The share of problems."""
    problems = tally.problems
    if not problems.failures:
        return f"No problem of {problems.cases:,} with such a state has one that fails."
    return (
        f"Of {problems.cases:,} problems with such a state, {problems.failures:,} ({problems.share:.1%}) "
        f"have one that fails; the first is number {tally.first_failure}."
    )


def show(found: Theory, console: Console) -> None:
    for title, counted in (("Holds", found.proved), ("As printed", found.printed)):
        table = Table(
            "", "claim", "cases", "failures", title=f"{title}, of {found.problems:,} random problems"
        )
        for tally in counted:
            cases = f"{tally.total.cases:,} {tally.claim.counted}"
            table.add_row(tally.claim.name, escape(tally.claim.statement), cases, _failures(tally.total))
        console.print(table)
    console.print(f"\nTheorem 1: {_sentence(found.theorem_1)}\n", highlight=False)
    console.print("The smallest counterexample to Theorem 1:\n", highlight=False)
    text = written_out(found.counterexample).replace("```text\n", "").replace("```\n", "")
    console.print(text, highlight=False, markup=False)


def numbers(found: Theory) -> dict[str, Any]:
    """For `json`."""

    def claims(counted: list[Tally]) -> dict[str, Any]:
        return {
            tally.claim.name: {
                "statement": tally.claim.statement,
                "counted": tally.claim.counted,
                **asdict(tally.total),
                "by_family": {name: asdict(count) for name, count in tally.by_family.items()},
                "by_discount": {str(name): asdict(count) for name, count in tally.by_discount.items()},
                "problems": asdict(tally.problems),
                "first_failure": tally.first_failure,
            }
            for tally in counted
        }

    problem = found.counterexample
    return {
        "problems": found.problems,
        "seed": found.seed,
        "proved": claims(found.proved),
        "printed": claims(found.printed),
        # A bound may be beyond float64; JSON has no infinity.
        "slack": [{k: v if np.isfinite(v) else None for k, v in x._asdict().items()} for x in found.slack],
        "bias": [x._asdict() for x in found.bias],
        "counterexample": {
            "real": [[str(x) for x in row] for row in problem.real],
            "sim": [[str(x) for x in row] for row in problem.sim],
            "start": [str(x) for x in problem.start],
            "discount": str(problem.discount),
            "delta": [str(x) for x in problem.delta],
            "overestimate_over_beta": str(problem.overestimate),
        },
    }
