"""The smallest problem in which Theorem 1 is wrong about a state, in fractions, to be checked by hand.

One action, so that π = π_D and ζ = 1; a simulator that is wrong in the first state alone, so that ω is 1
there and 0 elsewhere whatever the size of the gap; rewards of 1, so that the truth is V = 1/(1 − γ).
One state cannot do: ω and d_D are both 1 there, and Eq. 25 is false.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product
from math import gcd

import numpy as np

from simtrust.paper.tabular import Pair

LARGEST_DENOMINATOR = 6

Row = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Counterexample:
    """Two states and one action, exactly."""

    real: tuple[Row, Row]
    """P(s'|s)."""
    sim: tuple[Row, Row]
    """P̂(s'|s), other than P in the first state."""
    start: Row
    """ρ."""
    discount: Fraction
    """γ."""

    @cached_property
    def log_share(self) -> Row:
        """``d_D``."""
        return visits(self.real, self.start, self.discount)

    @cached_property
    def sim_share(self) -> Row:
        """``d_M̂``."""
        return visits(self.sim, self.start, self.discount)

    @property
    def omega(self) -> Row:
        """``ω``."""
        return Fraction(1), Fraction(0)

    @property
    def delta(self) -> Row:
        """``Δ = ν``, there being one action (Eq. 22)."""
        first, second = (
            (omega - logged) / (logged + simulated)
            for omega, logged, simulated in zip(self.omega, self.log_share, self.sim_share, strict=True)
        )
        return first, second

    @property
    def later(self) -> Row:
        """The discounted share of visits from the first state on, in reality."""
        return visits(self.real, (Fraction(1), Fraction(0)), self.discount)

    @property
    def true_value(self) -> Fraction:
        """``V``, of both states."""
        return 1 / (1 - self.discount)

    @property
    def overestimate(self) -> Fraction:
        """``(V̂ − V)/β`` in the first state: ``−Σ later·Δ / (1 − γ)`` (Eq. 27)."""
        total = sum(share * delta for share, delta in zip(self.later, self.delta, strict=True))
        return Fraction(-total / (1 - self.discount))

    @property
    def meets_condition(self) -> bool:
        """Eq. 25 in the first state."""
        return self.omega[0] > self.log_share[0]

    def pair(self) -> Pair:
        """The same in floating point."""
        return Pair(
            real=np.array(self.real, float)[:, None],
            sim=np.array(self.sim, float)[:, None],
            reward=np.ones((2, 1)),
            policy=np.ones((2, 1)),
            behaviour=np.ones((2, 1)),
            start=np.array(self.start, float),
            discount=float(self.discount),
        )


def visits(chain: tuple[Row, Row], start: Row, discount: Fraction) -> Row:
    """``d = (1 − γ) ρ (I − γ P)⁻¹`` by Cramer's rule."""
    (stay, leave), (back, rest) = chain
    determinant = (1 - discount * stay) * (1 - discount * rest) - discount**2 * leave * back
    first = start[0] * (1 - discount * rest) + start[1] * discount * back
    share = (1 - discount) * first / determinant
    return share, 1 - share


def smallest_counterexample() -> Counterexample:
    """The one with the smallest largest denominator, then the smallest sum of all, then the largest error."""
    for largest in range(1, LARGEST_DENOMINATOR + 1):
        found = [
            problem for problem in _problems(largest) if problem.meets_condition and problem.overestimate > 0
        ]
        if found:
            return min(found, key=lambda problem: (_digits(problem), -problem.overestimate))
    raise AssertionError("there is one with thirds")


def _problems(largest: int) -> Iterator[Counterexample]:
    shares = sorted(
        Fraction(part, whole)
        for whole in range(1, largest + 1)
        for part in range(whole + 1)
        if gcd(part, whole) == 1
    )
    rows = [(share, 1 - share) for share in shares]
    wrong = [
        (real, sim) for real, sim in product(rows, rows) if real != sim and _support(real) == _support(sim)
    ]
    for (real, sim), other, start, discount in product(wrong, rows, rows, shares[1:-1]):
        problem = Counterexample((real, other), (sim, other), start, discount)
        # Where neither the log nor the simulator ever is, Eq. 11 divides by zero.
        if all(map(any, zip(problem.log_share, problem.sim_share, strict=True))):
            yield problem


def _support(row: Row) -> tuple[bool, ...]:
    return tuple(chance > 0 for chance in row)


def _digits(problem: Counterexample) -> int:
    numbers = (*problem.real, *problem.sim, problem.start)
    return problem.discount.denominator + sum(number.denominator for row in numbers for number in row)


def written_out(problem: Counterexample) -> str:
    """Markdown: the matrices and every step to V̂ > V, for a reader with a pencil."""
    gamma, (log_1, log_2), (sim_1, sim_2) = problem.discount, problem.log_share, problem.sim_share
    delta_1, delta_2 = problem.delta
    later_1, later_2 = problem.later
    return f"""Two states, one action, r = 1 in both, γ = {gamma}, start ρ = {_row(problem.start)}:

```text
P = {_row(problem.real[0])}    P̂ = {_row(problem.sim[0])}
    {_row(problem.real[1])}        {_row(problem.sim[1])}
```

- The simulator is wrong in state 1 alone, so ω = {_row(problem.omega)}, whatever its gap is.
- The log's share of the states: d_D = (1 − γ) ρ (I − γP)⁻¹ = {_row(problem.log_share)}; the simulator's:
  d_M̂ = {_row(problem.sim_share)}.
- Eq. 25 in state 1, where ζ = 1: ω(1) = {problem.omega[0]} > d_D(1) = {log_1}. It holds.
- Δ(1) = ({problem.omega[0]} − {log_1}) / ({log_1} + {sim_1}) = {_signed(delta_1)};
  Δ(2) = ({problem.omega[1]} − {log_2}) / ({log_2} + {sim_2}) = {_signed(delta_2)}.
- From state 1, reality visits the states with the discounted shares {_row(problem.later)}. So
  V(1) − V̂(1) = β/(1 − γ)·({later_1}·{delta_1} − {later_2}·{-delta_2}) = −{problem.overestimate}·β.

V(1) = {problem.true_value}, and V̂(1) = {problem.true_value} + {problem.overestimate}·β:
above it for every β > 0."""


def _row(row: Sequence[Fraction]) -> str:
    return f"({', '.join(map(str, row))})"


def _signed(number: Fraction) -> str:
    return str(number).replace("-", "−")
