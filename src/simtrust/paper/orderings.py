"""Which of two recipes is better: what the paper says, and whether our runs say the same.

Both are asked alike (`simtrust.paper.comparison`).
"""

import math
from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np

from simtrust.paper.cells import Cell
from simtrust.paper.comparison import Sample, Verdict, compare, differ, sample_of
from simtrust.paper.published import Published
from simtrust.paper.scores import Score
from simtrust.paper.studies import Setting, Study

AHEAD_ABOVE = 50
"""Thousands of rows above which H2O is ahead of CQL (Appendix C.3; Figure 6 gives no numbers)."""


class Ordering(NamedTuple):
    """A setting in which the paper has one recipe ahead of another."""

    setting: Setting
    better: str
    worse: str
    claim: str
    """The paper's numbers, or where it says so."""
    clear: bool | None
    """Whether the paper's own runs tell the two apart; None if it gives no numbers."""


class Judgement(NamedTuple):
    """Whether our runs agree with an ordering."""

    ordering: Ordering
    verdict: Verdict
    difference: float
    """Of our means, the better less the worse; NaN if there is none."""
    note: str


def orderings(study: Study) -> list[Ordering]:
    """Every pair of recipes that the paper puts one above the other, setting by setting."""
    found = []
    for setting in study.settings:
        if setting.thousands is not None:
            if setting.thousands > AHEAD_ABOVE:
                claim = f"ahead above {AHEAD_ABOVE}k rows (Appendix C.3)"
                found.append(Ordering(setting, "h2o", "cql", claim, clear=None))
            continue
        numbers = {recipe: setting.cell(recipe).published for recipe in study.recipes}
        known = sorted(
            ((recipe, number) for recipe, number in numbers.items() if number is not None),
            key=lambda pair: -pair[1].mean,
        )
        for (better, high), (worse, low) in combinations(known, 2):
            claim = f"{high} against {low}"
            found.append(Ordering(setting, better, worse, claim, is_clear(high, low)))
    return found


def is_clear(one: Published, other: Published) -> bool:
    """Whether the paper's runs tell two recipes apart, be its ± divided by the runs or by one less.

    Of that it says nothing.
    """
    by_runs = [Sample(x.mean, x.std * math.sqrt(x.seeds / (x.seeds - 1)), x.seeds) for x in (one, other)]
    return differ(Sample(*one), Sample(*other)) and differ(*by_runs)


def judge(ordering: Ordering, scores: Mapping[Cell, Score]) -> Judgement:
    """Whether an ordering holds among our runs. Runs of different numbers of updates are not compared."""
    better, worse = (
        scores.get(ordering.setting.cell(recipe)) for recipe in (ordering.better, ordering.worse)
    )
    if better is None or worse is None:
        return Judgement(ordering, Verdict.MISSING, np.nan, "")
    difference = better.mean - worse.mean
    if better.step != worse.step:
        note = f"after {better.step:,} and {worse.step:,} updates"
        return Judgement(ordering, Verdict.NOT_COMPARED, difference, note)
    verdict, note = compare(*(sample_of(one.returns) for one in (better, worse)))
    return Judgement(ordering, verdict, difference, note)


def judgements(study: Study, scores: Mapping[Cell, Score]) -> list[Judgement]:
    return [judge(ordering, scores) for ordering in orderings(study)]
