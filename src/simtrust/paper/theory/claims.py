"""What the paper says of finite MDPs, and what can be proved instead: the list, and how a problem answers it.

``docs/theory.md`` has the proofs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from simtrust.paper.tabular import bellman_update, log_sum_exp_update
from simtrust.paper.theory import bounds, operators
from simtrust.paper.theory.problems import Problem
from simtrust.paper.theory.verdicts import Check


class Claim(NamedTuple):
    """A statement: where its premise is met, its conclusion is true."""

    name: str
    statement: str
    counted: str
    """What its cases are."""
    check: Check


PROVED = (
    Claim("Eq. 5, 15", "d ∝ ω exp Q is the worst d", "problems", operators.closed_form),
    Claim("Eq. 9, 18", "the log-sum-exp lies between both bounds", "problems", operators.jensen),
    Claim(
        "Eq. 11, 20",
        "it minimises Eq. 19, with P/P̂ before the square",
        "problems",
        operators.minimised(lambda pair: pair.ratio),
    ),
    Claim(
        "Eq. 6 in place of 19", "Eq. 11 with ω exp Q / Σ ω exp Q for ω", "problems", operators.soft_adjustment
    ),
    Claim(
        "Eq. 26", "the update of Eq. 11 is a γ-contraction", "problems", operators.contraction(bellman_update)
    ),
    Claim(
        "Eq. 26 for Eq. 6",
        "so is that with the log-sum-exp",
        "problems",
        operators.contraction(log_sum_exp_update),
    ),
    Claim("Eq. 27", "V̂ = V − β (I − γP^π)⁻¹ Δ", "problems", operators.fixed_point),
    Claim("Eq. 23 to 25", "Eq. 25 at s ⇒ Δ(s) > 0", "states", bounds.positive_delta),
    Claim(
        "Theorem 1, reached",
        "Eq. 25 at every state reached from s ⇒ V̂(s) ≤ V(s) − βΔ(s)",
        "states",
        bounds.theorem_1_reached,
    ),
    Claim(
        "Theorem 1, reached Δ",
        "Δ ≥ 0 at every state reached from s ⇒ V̂(s) ≤ V(s) − βΔ(s)",
        "states",
        bounds.positive_reached,
    ),
    Claim(
        "Theorem 1, local",
        "Eq. 25 with γ/(1 − γ)·[d_D(s) max{π_D/π} + d_M̂(s)] more on its right, at s ⇒ V̂(s) ≤ V(s)",
        "states",
        bounds.theorem_1_local,
    ),
    Claim("largest optimism", "V̂(s) ≤ V(s) + β/(1 − γ)", "states", bounds.largest_optimism),
    Claim(
        "return",
        "J − Ĵ = β/(1 − γ)·E[ν] over the policy's real visits",
        "problems",
        bounds.expected_adjustment,
    ),
    Claim("Eq. 25, everywhere", "Eq. 25 fails in some state", "problems", bounds.never_everywhere),
    Claim(
        "Eq. 31",
        "V̂ = V − (I − γP̄^π)⁻¹ (βΔ − ε), ε = γ(P̄^π − P^π)V",
        "problems",
        bounds.sampled_fixed_point,
    ),
    Claim("Eq. 29, of V", "γ(P̄ − P)V is within half of Eq. 29", "pairs (s, a)", bounds.error_of_truth),
    Claim(
        "Theorem 2, reached",
        "Eq. 30 at every state reached from s ⇒ V̂(s) ≤ V(s)",
        "states",
        bounds.theorem_2_reached,
    ),
)
"""Must hold in every case."""

THEOREM_1 = Claim("Theorem 1", "Eq. 25 at s ⇒ V̂(s) ≤ V(s)", "states", bounds.theorem_1)
ANY_STATE = Claim("any state", "for comparison, without Eq. 25: V̂(s) ≤ V(s)", "states", bounds.any_state)

PRINTED = (
    THEOREM_1,
    ANY_STATE,
    Claim(
        "Theorem 1 in code",
        "Theorem 1 with ω = d_M̂ u / Σ d_M̂ u, as of mini-batches",
        "states",
        bounds.theorem_1_mini_batch,
    ),
    Claim("Theorem 2", "Eq. 30 at s ⇒ V̂(s) ≤ V(s)", "states", bounds.theorem_2),
    Claim("after Eq. 27", "(I − γP^π)⁻¹ is positive semi-definite", "problems", bounds.semi_definite),
    Claim(
        "after Theorem 1",
        "Eq. 25 asks for less than ω > d_D at every action",
        "states",
        bounds.relaxation,
    ),
    Claim("Eq. 29, of V̂", "γ(P̄ − P)V̂ is within Eq. 29", "pairs (s, a)", bounds.error_of_learned),
    Claim(
        "Eq. 19 as set",
        "Eq. 11 minimises it, P/P̂ being squared with the error",
        "problems",
        operators.minimised(lambda pair: pair.ratio**2),
    ),
)
"""The paper's words; how often they are true is counted."""


@dataclass
class Count:
    """Cases that met a premise, and those of them in which the conclusion failed."""

    cases: int = 0
    failures: int = 0

    def add(self, met: np.ndarray, true: np.ndarray) -> None:
        """One problem's answer."""
        self.cases += int(met.sum())
        self.failures += int((met & ~true).sum())

    @property
    def share(self) -> float:
        """Of the cases, that failed; NaN where there was none."""
        return self.failures / self.cases if self.cases else float("nan")


@dataclass
class Tally:
    """How all problems answered one claim."""

    claim: Claim
    total: Count = field(default_factory=Count)
    by_family: dict[str, Count] = field(default_factory=dict)
    by_discount: dict[float, Count] = field(default_factory=dict)
    problems: Count = field(default_factory=Count)
    """Problems with a case, and those of them with a failure."""
    first_failure: int | None = None
    """The number of the first problem that fails, to draw it again."""

    def add(self, index: int, problem: Problem, seed: int) -> None:
        """Put problem number ``index`` to the claim."""
        met, true = self.claim.check(problem, np.random.default_rng((seed, index, 1)))
        for count in (
            self.total,
            self.by_family.setdefault(problem.family, Count()),
            self.by_discount.setdefault(problem.pair.discount, Count()),
        ):
            count.add(met, true)
        failed = met & ~true
        self.problems.add(np.atleast_1d(met.any()), np.atleast_1d(not failed.any()))
        if failed.any() and self.first_failure is None:
            self.first_failure = index


def tallies(claims: Sequence[Claim] = (*PROVED, *PRINTED)) -> list[Tally]:
    """An empty one for each claim, in their order."""
    return [Tally(claim) for claim in claims]
