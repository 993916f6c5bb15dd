"""How much, where the theory says only which way: the slack of Eq. 9, and what the weight w mends."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simtrust.gap.ratio import WEIGHT_MAX, WEIGHT_MIN
from simtrust.paper.tabular import Pair, action_values, equivalent_problem, state_values
from simtrust.paper.theory.operators import jensen_slack
from simtrust.paper.theory.problems import LARGEST_REWARD

DISCOUNTS = (0.5, 0.9, 0.99, 0.999)
WEIGHTS = {
    "w = P/P̂": lambda pair: pair.ratio,
    "w = P/P̂ in [1e-5, 1]": lambda pair: np.clip(pair.ratio, WEIGHT_MIN, WEIGHT_MAX),
    "w = 1": lambda pair: np.ones_like(pair.ratio),
}


class Slack(NamedTuple):
    """Medians over problems of ``log Σ ω exp Q − Σ ω Q`` for the policy's true Q, rewards in [0, 1]."""

    discount: float
    largest_q: float
    """For comparison: the largest Q."""
    found: float
    bound: float
    """``Var_ω[exp Q] / (2 exp 2 Q_min)``, the paper's (Eq. 9)."""
    by_range: float
    """``(Q_max − Q_min)²/8``, by Hoeffding's lemma."""


def slack_by_discount(pairs: Sequence[Pair]) -> list[Slack]:
    """The same problems with every γ."""
    return [Slack(discount, *_median_slack(pairs, discount)) for discount in DISCOUNTS]


def _median_slack(pairs: Sequence[Pair], discount: float) -> list[float]:
    found = []
    for pair in pairs:
        q = action_values(pair.real, pair.reward, pair.policy, discount)
        found.append((q.max(), *jensen_slack(pair.omega, q), np.ptp(q) ** 2 / 8))
    return [float(value) for value in np.median(found, axis=0)]


class Bias(NamedTuple):
    """``max_s |V_w − V|`` in units of R_max/(1 − γ), where V_w is learned with a weight and β = 0."""

    weight: str
    median: float
    ninety: float
    """The 90 % quantile over problems."""


def bias_by_weight(pairs: Sequence[Pair]) -> list[Bias]:
    """What is left of the simulator's error in the fixed point of the Bellman terms alone (Eq. 8)."""
    found = []
    for name, weight in WEIGHTS.items():
        biases = [_bias(pair, weight(pair)) for pair in pairs]
        found.append(Bias(name, *(float(value) for value in np.quantile(biases, (0.5, 0.9)))))
    return found


def _bias(pair: Pair, weight: np.ndarray) -> float:
    dynamics, reward = equivalent_problem(pair, weight, 0.0)
    learned = state_values(dynamics, reward, pair.policy, pair.discount)
    return float(abs(learned - pair.values).max() * (1 - pair.discount) / LARGEST_REWARD)
