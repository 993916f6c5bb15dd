"""What is said of the learned values V̂: Theorems 1 and 2, as printed and as they can be proved.

Each function with an ``rng`` answers for one problem, as `simtrust.paper.theory.verdicts` has it.
"""

from dataclasses import replace

import numpy as np

from simtrust.paper.tabular import (
    Pair,
    largest_ratio_mass,
    learned_values,
    occupancy,
    reachable,
    state_values,
    threshold,
)
from simtrust.paper.theory.problems import LARGEST_REWARD, Problem
from simtrust.paper.theory.verdicts import ONE, ROUNDING, Verdict, beyond, same


def shortfall(pair: Pair) -> np.ndarray:
    """``(V − V̂) / β = (I − γ P^π)⁻¹ Δ`` [S] (Eq. 27)."""
    return state_values(pair.real, pair.adjustment, pair.policy, pair.discount)


def high_gap(pair: Pair) -> np.ndarray:
    """[S] whether Eq. 25 holds."""
    return beyond(pair.omega.sum(1), threshold(pair))


def everywhere_reached(pair: Pair, condition: np.ndarray) -> np.ndarray:
    """[S] whether a condition [S] holds at every state that the policy reaches in reality, s included."""
    return np.all(~reachable(pair.chain) | condition, axis=1)


def margin(pair: Pair) -> float:
    """How far rounding may put `shortfall` off."""
    return float(ROUNDING * abs(pair.delta).max() / (1 - pair.discount))


# Theorem 1 ----------------------------------------------------------------------------------------------


def positive_delta(problem: Problem, rng: np.random.Generator) -> Verdict:
    """Eq. 23 to 25."""
    return high_gap(problem.pair), problem.pair.delta > 0


def theorem_1(problem: Problem, rng: np.random.Generator) -> Verdict:
    """As printed, state by state."""
    pair = problem.pair
    return high_gap(pair), shortfall(pair) >= -margin(pair)


def theorem_1_mini_batch(problem: Problem, rng: np.random.Generator) -> Verdict:
    """As printed, with ω as the code takes it: u's share of mini-batches of the replay buffer."""
    pair = replace(problem.pair, share=problem.pair.batch_omega)
    return theorem_1(problem._replace(pair=pair), rng)


def any_state(problem: Problem, rng: np.random.Generator) -> Verdict:
    """Without a condition, for comparison."""
    pair = problem.pair
    return np.ones(len(pair.start), bool), shortfall(pair) >= -margin(pair)


def theorem_1_reached(problem: Problem, rng: np.random.Generator) -> Verdict:
    """With the condition in every state that is reached."""
    pair = problem.pair
    return everywhere_reached(pair, high_gap(pair)), shortfall(pair) >= pair.delta - margin(pair)


def positive_reached(problem: Problem, rng: np.random.Generator) -> Verdict:
    """With what the condition is there for."""
    pair = problem.pair
    return everywhere_reached(pair, pair.delta >= 0), shortfall(pair) >= pair.delta - margin(pair)


def local_high_gap(pair: Pair) -> np.ndarray:
    """[S] whether ``Σ_a ω > Σ_a d_D ζ + γ/(1 − γ)·[d_D(s) max{π_D/π} + d_M̂(s)]``: Eq. 25, mended."""
    more = pair.discount / (1 - pair.discount) * largest_ratio_mass(pair)
    return beyond(pair.omega.sum(1), threshold(pair) + more)


def theorem_1_local(problem: Problem, rng: np.random.Generator) -> Verdict:
    """With a condition on the one state that is enough, since ν ≥ −1 wherever the policy goes from there."""
    return local_high_gap(problem.pair), shortfall(problem.pair) >= -margin(problem.pair)


def largest_optimism(problem: Problem, rng: np.random.Generator) -> Verdict:
    """``V̂ ≤ V + β/(1 − γ)``."""
    pair = problem.pair
    return np.ones(len(pair.start), bool), shortfall(pair) >= -1 / (1 - pair.discount) - margin(pair)


def expected_adjustment(problem: Problem, rng: np.random.Generator) -> Verdict:
    """``J − Ĵ = β/(1 − γ)·E[ν]`` over the policy's own visits in reality."""
    pair = problem.pair
    visits = occupancy(pair.real, pair.policy, pair.start, pair.discount)
    expected = problem.beta * (visits * pair.adjustment).sum() / (1 - pair.discount)
    return ONE, same(pair.start @ (pair.values - learned_values(pair, problem.beta)), np.array([expected]))


def never_everywhere(problem: Problem, rng: np.random.Generator) -> Verdict:
    """ω and d_D both sum to 1, and ζ ≥ 1."""
    return ONE, np.array([not high_gap(problem.pair).all()])


def semi_definite(problem: Problem, rng: np.random.Generator) -> Verdict:
    """The reason given for Theorem 1's last step."""
    inverse = np.linalg.inv(np.eye(len(problem.pair.start)) - problem.pair.discount * problem.pair.chain)
    return ONE, np.array([np.linalg.eigvalsh(inverse + inverse.T)[0] >= -ROUNDING])


def relaxation(problem: Problem, rng: np.random.Generator) -> Verdict:
    """Whether Eq. 25 asks for less than ``ω > d_D`` at every action of the state."""
    pair = problem.pair
    return np.all(beyond(pair.omega, pair.log_share), axis=1), high_gap(pair)


# Theorem 2 ----------------------------------------------------------------------------------------------


def smallest_constant(problem: Problem) -> float:
    """The least C with which Eq. 28 is true of the log that was drawn."""
    return float((_distance(problem) * np.sqrt(problem.counts)).max())


def _distance(problem: Problem) -> np.ndarray:
    """``‖P̄ − P‖₁`` [S, A]."""
    return abs(problem.sampled - problem.pair.real).sum(-1)


def printed_error(problem: Problem) -> np.ndarray:
    """The right side of Eq. 29 [S, A]."""
    discount = problem.pair.discount
    return discount * smallest_constant(problem) * LARGEST_REWARD / ((1 - discount) * np.sqrt(problem.counts))


def high_gap_sampled(problem: Problem) -> np.ndarray:
    """[S] whether Eq. 30 holds, with the action whose rows are fewest, since the paper names none."""
    pair = problem.pair
    sampling = largest_ratio_mass(pair) * printed_error(problem).max(1) / problem.beta
    return beyond(pair.omega.sum(1), threshold(pair) + sampling)


def sampled_shortfall(problem: Problem) -> np.ndarray:
    """``V − V̂`` [S] where V̂ is learned from the log's own frequencies P̄: ``(I − γ P̄^π)⁻¹ (β Δ − ε)``.

    ``ε = γ (P̄^π − P^π) V``, of the true values, is within half of what Eq. 29 says of V̂.
    """
    pair = problem.pair
    error = pair.discount * (problem.sampled - pair.real) @ pair.values
    missing = problem.beta * pair.adjustment - error
    return state_values(problem.sampled, missing, pair.policy, pair.discount)


def _sampled_margin(problem: Problem) -> float:
    return problem.beta * margin(problem.pair) + ROUNDING / (1 - problem.pair.discount) ** 2


def theorem_2(problem: Problem, rng: np.random.Generator) -> Verdict:
    """As printed, state by state."""
    return high_gap_sampled(problem), sampled_shortfall(problem) >= -_sampled_margin(problem)


def theorem_2_reached(problem: Problem, rng: np.random.Generator) -> Verdict:
    """With the condition in every state that is reached."""
    reached = everywhere_reached(problem.pair, high_gap_sampled(problem))
    return reached, sampled_shortfall(problem) >= -_sampled_margin(problem)


def sampled_values(problem: Problem) -> np.ndarray:
    """``V̂`` [S], the fixed point of Eq. 11 with P̄ for P."""
    pair = problem.pair
    rewards = pair.reward - problem.beta * pair.adjustment
    return state_values(problem.sampled, rewards, pair.policy, pair.discount)


def sampled_fixed_point(problem: Problem, rng: np.random.Generator) -> Verdict:
    """Eq. 31, as an equality."""
    return ONE, same(sampled_values(problem), problem.pair.values - sampled_shortfall(problem))


def error_of_truth(problem: Problem, rng: np.random.Generator) -> Verdict:
    """Eq. 29 of V in place of V̂, and halved, since V lies between 0 and R_max/(1 − γ)."""
    return _within(problem, problem.pair.values, 0.5)


def error_of_learned(problem: Problem, rng: np.random.Generator) -> Verdict:
    """Eq. 29 as printed: of V̂, which β takes out of that range."""
    return _within(problem, sampled_values(problem), 1.0)


def _within(problem: Problem, values: np.ndarray, share: float) -> Verdict:
    error = problem.pair.discount * abs((problem.sampled - problem.pair.real) @ values)
    return np.ones(error.shape, bool), error <= share * printed_error(problem) * (1 + 1e-9) + 1e-9
