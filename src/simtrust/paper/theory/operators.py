"""What is said of H2O's updates: Eq. 5, 9 and 11/20, put to a random problem.

Each function answers for one problem, as `simtrust.paper.theory.verdicts` has it.
"""

from collections.abc import Callable

import numpy as np

from simtrust.paper.tabular import (
    Pair,
    action_values,
    bellman_update,
    equivalent_problem,
    learned_values,
    log_sum_exp,
    log_sum_exp_update,
    objective,
    worst_share,
)
from simtrust.paper.theory.bounds import shortfall
from simtrust.paper.theory.problems import Problem
from simtrust.paper.theory.verdicts import ONE, ROUNDING, Verdict, same


def closed_form(problem: Problem, rng: np.random.Generator) -> Verdict:
    omega, q = problem.pair.omega, _random_q(problem.pair, rng)

    def worth(share: np.ndarray) -> float:
        held = share > 0
        return float((share * q).sum() - (share[held] * np.log(share[held] / omega[held])).sum())

    best = log_sum_exp(omega, q)
    others = [np.where(omega > 0, rng.exponential(size=q.shape), 0) for _ in range(3)]
    rivals = [worth(other / other.sum()) for other in others]
    error = ROUNDING * (1 + abs(q).max())
    return ONE, np.array([abs(worth(worst_share(omega, q)) - best) <= error and max(rivals) <= best + error])


def _random_q(pair: Pair, rng: np.random.Generator) -> np.ndarray:
    """Of any size and spread."""
    return 10 ** rng.uniform(-1, 3) + 10 ** rng.uniform(-2, 1) * rng.standard_normal(pair.reward.shape)


def jensen_slack(omega: np.ndarray, q: np.ndarray) -> tuple[float, float]:
    """``log Σ ω exp Q − Σ ω Q``, and the most that Eq. 9 lets it be: ``Var_ω[exp Q] / (2 exp 2 Q_min)``."""
    with np.errstate(over="ignore"):
        relative = np.exp(q[omega > 0] - q.min())
        weights = omega[omega > 0]
        second_moment = weights @ relative**2
        # Beyond float64, inf − inf would be no number.
        if not np.isfinite(second_moment):
            return log_sum_exp(omega, q) - float((omega * q).sum()), float("inf")
        spread = weights @ (relative - weights @ relative) ** 2
    return log_sum_exp(omega, q) - float((omega * q).sum()), float(spread / 2)


def jensen(problem: Problem, rng: np.random.Generator) -> Verdict:
    q = _random_q(problem.pair, rng)
    slack, bound = jensen_slack(problem.pair.omega, q)
    error = ROUNDING * abs(q).max()
    return ONE, np.array([-error <= slack <= bound + error])


def minimised(weight: Callable[[Pair], np.ndarray]) -> Callable[[Problem, np.random.Generator], Verdict]:
    """Whether Eq. 11 minimises Eq. 19 with a weight of the simulated squared errors."""

    def check(problem: Problem, rng: np.random.Generator) -> Verdict:
        pair, beta = problem.pair, problem.beta
        q = rng.random(pair.reward.shape)
        following = (pair.policy * q).sum(1)
        updated = bellman_update(pair, q, beta)
        dynamics, reward = equivalent_problem(pair, weight(pair), beta)
        agrees = np.allclose(updated, reward + pair.discount * dynamics @ following, rtol=1e-7, atol=1e-9)

        def worth(step: np.ndarray | float) -> float:
            return objective(pair, updated + step, following, weight(pair), beta)

        steps = [rng.standard_normal(q.shape) for _ in range(3)]
        least = all(min(worth(step), worth(-step)) >= worth(0) * (1 - 1e-12) for step in steps)
        return ONE, np.array([agrees and least])

    return check


def contraction(
    update: Callable[[Pair, np.ndarray, float], np.ndarray],
) -> Callable[[Problem, np.random.Generator], Verdict]:
    def check(problem: Problem, rng: np.random.Generator) -> Verdict:
        pair = problem.pair
        first, second = (3 * rng.standard_normal(pair.reward.shape) for _ in range(2))
        apart = abs(update(pair, first, problem.beta) - update(pair, second, problem.beta)).max()
        return ONE, np.array([apart <= pair.discount * abs(first - second).max() + 1e-7])

    return check


def soft_adjustment(problem: Problem, rng: np.random.Generator) -> Verdict:
    pair, beta = problem.pair, problem.beta
    q = 3 * rng.standard_normal(pair.reward.shape)
    updated = log_sum_exp_update(pair, q, beta)
    mass = pair.log_share + pair.sim_share
    penalty = beta * (worst_share(pair.omega, updated) - pair.log_share) / mass
    target = pair.reward + pair.discount * pair.real @ (pair.policy * q).sum(1)
    return ONE, same(mass * updated, mass * (target - penalty))


def fixed_point(problem: Problem, rng: np.random.Generator) -> Verdict:
    pair, beta = problem.pair, problem.beta
    q = action_values(pair.real, pair.reward - beta * pair.adjustment, pair.policy, pair.discount)
    learned = learned_values(pair, beta)
    stays = same(bellman_update(pair, q, beta), q) & same((pair.policy * q).sum(1), learned)
    return ONE, stays & same(learned, pair.values - beta * shortfall(pair))
