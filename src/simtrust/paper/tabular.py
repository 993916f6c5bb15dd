"""Finite MDPs in which all that H2O estimates is known: P, P̂, the gap u, its share ω, and where the data are.

Arrays are float64 of states s, actions a and next states s': dynamics [S, A, S], policies and Q [S, A],
values [S]. Equation numbers are the paper's (Niu et al., NeurIPS 2022), whose analysis (section 5,
appendix A) is about these.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

PROBABILITY_ERROR = 1e-9
NEWTON_STEPS, NEWTON_ERROR, NEWTON_FLAT = 60, 1e-10, 1e-9


def under_policy(dynamics: np.ndarray, policy: np.ndarray) -> np.ndarray:
    """``P^π`` [S, S]: the next state's distribution when the policy acts."""
    return np.einsum("sa,sat->st", policy, dynamics)


def occupancy(dynamics: np.ndarray, policy: np.ndarray, start: np.ndarray, discount: float) -> np.ndarray:
    """``d(s, a)`` [S, A], which sums to 1: how often the policy is where, discounted, from ``start`` [S]."""
    flow = np.eye(len(start)) - discount * under_policy(dynamics, policy).T
    return (1 - discount) * np.linalg.solve(flow, start)[:, None] * policy


def state_values(dynamics: np.ndarray, reward: np.ndarray, policy: np.ndarray, discount: float) -> np.ndarray:
    """``V^π`` [S] of rewards [S, A]; with rewards c(s) for every action, ``(I − γ P^π)⁻¹ c``."""
    system = np.eye(len(policy)) - discount * under_policy(dynamics, policy)
    return np.linalg.solve(system, (policy * reward).sum(1))


def action_values(
    dynamics: np.ndarray, reward: np.ndarray, policy: np.ndarray, discount: float
) -> np.ndarray:
    """``Q^π`` [S, A]."""
    return reward + discount * dynamics @ state_values(dynamics, reward, policy, discount)


def divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``KL(first ‖ second)`` over the last axis, whose supports are the same."""
    ratio = np.divide(first, second, out=np.ones_like(first), where=first > 0)
    # Rounding could leave −1e-17 where both are the same, and ω would be negative.
    return np.maximum((first * np.log(ratio)).sum(-1), 0.0)


def reachable(chain: np.ndarray) -> np.ndarray:
    """[S, S] bool of a chain [S, S]: whether t can be met from s, at once (t = s) or ever."""
    reached = np.eye(len(chain), dtype=bool) | (chain > 0)
    for _ in range(len(chain).bit_length()):
        reached = reached @ reached
    return reached


@dataclass(frozen=True)
class Pair:
    """Reality and its simulator, the policy that made the log, and the one that is evaluated.

    The simulator can do what reality can, and nothing else: where only P(s'|s, a) is positive, no weight
    makes up for next states that are never simulated; where only P̂ is, u is infinite.

    Raises:
        ValueError: probabilities do not sum to 1, or the supports of P and P̂ differ.
    """

    real: np.ndarray
    """P [S, A, S]."""
    sim: np.ndarray
    """P̂ [S, A, S]."""
    reward: np.ndarray
    """r(s, a) [S, A], of both."""
    policy: np.ndarray
    """π [S, A], positive."""
    behaviour: np.ndarray
    """π_D [S, A], of the log."""
    start: np.ndarray
    """ρ [S], of both."""
    discount: float
    """γ."""
    share: np.ndarray | None = None
    """ω [S, A], if it is not to be the paper's."""

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("real", "sim", "policy", "behaviour", "start")}
        if self.share is not None:
            given["share"] = self.share.ravel()
        for name, chances in given.items():
            if (chances < 0).any() or (abs(chances.sum(-1) - 1) > PROBABILITY_ERROR).any():
                raise ValueError(f"{name} holds no probabilities: {chances}")
        if ((self.real > 0) != (self.sim > 0)).any():
            raise ValueError("P and P̂ must be positive for the same next states")
        if not (self.policy > 0).all():
            raise ValueError("the policy must be positive, since Eq. 21 divides by it")

    @cached_property
    def log_share(self) -> np.ndarray:
        """``d_M^{π_D}`` [S, A]: the share of the log's rows."""
        return occupancy(self.real, self.behaviour, self.start, self.discount)

    @cached_property
    def sim_share(self) -> np.ndarray:
        """``d_M̂^π`` [S, A]: the share of the replay buffer's rows, if they are the policy's own."""
        return occupancy(self.sim, self.policy, self.start, self.discount)

    @cached_property
    def omega(self) -> np.ndarray:
        """``ω = u / Σ u`` [S, A] with ``u = KL(P̂ ‖ P)`` (Eq. 6); all the same where there is no gap."""
        if self.share is not None:
            return self.share
        gap = divergence(self.sim, self.real)
        return gap / gap.sum() if gap.any() else np.full(gap.shape, 1 / gap.size)

    @cached_property
    def batch_omega(self) -> np.ndarray:
        """``ω = d_M̂ u / Σ d_M̂ u`` [S, A]: what u's share of a mini-batch of the replay buffer comes to.

        So says the code, and the paper's own; the paper's analysis sums over all s and a alike.
        """
        gap = self.sim_share * divergence(self.sim, self.real)
        return gap / gap.sum() if gap.any() else self.sim_share

    @cached_property
    def ratio(self) -> np.ndarray:
        """``P/P̂`` [S, A, S], the weight of a simulated row (Eq. 8); 0 where both are."""
        return np.divide(self.real, self.sim, out=np.zeros_like(self.real), where=self.sim > 0)

    @cached_property
    def chain(self) -> np.ndarray:
        """``P^π`` [S, S] in reality."""
        return under_policy(self.real, self.policy)

    @cached_property
    def values(self) -> np.ndarray:
        """``V^π`` [S] in reality: the truth."""
        return state_values(self.real, self.reward, self.policy, self.discount)

    @property
    def adjustment(self) -> np.ndarray:
        """``ν`` [S, A] of `omega`."""
        return adjustment(self, self.omega)

    @property
    def delta(self) -> np.ndarray:
        """``Δ(s) = Σ_a π(a|s) ν(s, a)`` [S] (Eq. 22)."""
        return (self.policy * self.adjustment).sum(1)


def adjustment(pair: Pair, omega: np.ndarray) -> np.ndarray:
    """``ν = (ω − d_D) / (d_D + d_M̂)`` [S, A] (Eq. 11): what β takes off the reward. Never below −1."""
    return (omega - pair.log_share) / (pair.log_share + pair.sim_share)


def largest_ratio_mass(pair: Pair) -> np.ndarray:
    """``d_D(s) max_a{π_D/π} + d_M̂(s)`` [S], the numerator of Eq. 21."""
    most = (pair.behaviour / pair.policy).max(1)
    return pair.log_share.sum(1) * most + pair.sim_share.sum(1)


def threshold(pair: Pair) -> np.ndarray:
    """``Σ_a d_D(s, a) ζ(s, a)`` [S], which ``Σ_a ω(s, a)`` exceeds in a high-gap state (Eq. 21, 25)."""
    mass = pair.log_share.sum(1)[:, None] * pair.behaviour / pair.policy + pair.sim_share.sum(1)[:, None]
    return (pair.log_share * largest_ratio_mass(pair)[:, None] / mass).sum(1)


def objective(pair: Pair, q: np.ndarray, next_values: np.ndarray, weight: np.ndarray, beta: float) -> float:
    """Eq. 19 at Q [S, A], every expectation taken exactly: what one update of H2O(v) makes small.

    Args:
        pair: the problem.
        q: where.
        next_values: ``V^k(s')`` [S] of the last iteration, a constant.
        weight: [S, A, S] of a simulated row's squared error; the paper's is `Pair.ratio`.
        beta: β.
    """
    errors = (q[..., None] - pair.reward[..., None] - pair.discount * next_values) ** 2
    bracket = ((pair.omega - pair.log_share) * q).sum()
    on_log = (pair.log_share[..., None] * pair.real * errors).sum()
    on_sim = (pair.sim_share[..., None] * pair.sim * weight * errors).sum()
    return float(beta * bracket + 0.5 * on_log + 0.5 * on_sim)


def equivalent_problem(pair: Pair, weight: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """The dynamics [S, A, S] and reward [S, A] whose Bellman update minimises `objective`, by its gradient.

    A weight other than P/P̂ leaves other dynamics than P.
    """
    reweighed = pair.sim * weight
    mass = pair.log_share + pair.sim_share * reweighed.sum(-1)
    mixture = pair.log_share[..., None] * pair.real + pair.sim_share[..., None] * reweighed
    return mixture / mass[..., None], pair.reward - beta * (pair.omega - pair.log_share) / mass


def bellman_update(pair: Pair, q: np.ndarray, beta: float) -> np.ndarray:
    """Eq. 11: ``Q^{k+1} = r + γ P V^k − β ν`` [S, A], with ``V^k = Σ_a π Q^k``."""
    following = pair.real @ (pair.policy * q).sum(1)
    return pair.reward + pair.discount * following - beta * pair.adjustment


def learned_values(pair: Pair, beta: float) -> np.ndarray:
    """``V̂^π`` [S], the fixed point of Eq. 11 (Eq. 27)."""
    return state_values(pair.real, pair.reward - beta * pair.adjustment, pair.policy, pair.discount)


def worst_share(omega: np.ndarray, q: np.ndarray) -> np.ndarray:
    """``d^φ ∝ ω exp Q`` (Eq. 5, 15): where H2O's log-sum-exp looks."""
    weights = omega * np.exp(_below_largest(omega, q))
    return weights / weights.sum()


def log_sum_exp(omega: np.ndarray, q: np.ndarray) -> float:
    """``log Σ ω exp Q`` (Eq. 6)."""
    return float(q[omega > 0].max() + np.log((omega * np.exp(_below_largest(omega, q))).sum()))


def _below_largest(omega: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Q less the largest that ω weighs; what it does not could overflow, and counts as that."""
    return np.minimum(q - q[omega > 0].max(), 0.0)


def log_sum_exp_update(pair: Pair, q: np.ndarray, beta: float) -> np.ndarray:
    """One update of H2O itself (Eq. 6 with Eq. 8) [S, A], by Newton's method; `bellman_update` is H2O(v)'s.

    It has no closed form: ``Q = r + γ P V^k − β (d^φ(Q) − d_D) / (d_D + d_M̂)``.
    """
    target = (pair.reward + pair.discount * pair.real @ (pair.policy * q).sum(1)).ravel()
    logged = pair.log_share.ravel()
    mass = logged + pair.sim_share.ravel()
    omega = pair.omega.ravel()

    def loss(x: np.ndarray) -> float:
        return float(beta * (log_sum_exp(omega, x) - logged @ x) + 0.5 * mass @ (x - target) ** 2)

    x = target
    for _ in range(NEWTON_STEPS):
        worst = worst_share(omega, x)
        slope = beta * (worst - logged) + mass * (x - target)
        curvature = np.diag(mass + beta * worst) - beta * np.outer(worst, worst)
        step = np.linalg.solve(curvature, slope)
        now, size = loss(x), 1.0
        # Near the minimum the loss is flat to the last digit, and could not say which step is good.
        while slope @ step > NEWTON_FLAT * (1 + abs(now)) and loss(x - size * step) > now:
            size /= 2
        x = x - size * step
        if abs(step).max() <= NEWTON_ERROR * (1 + abs(x).max()):
            break
    return x.reshape(q.shape)
