"""The terms of the critic's loss: each a formula on arrays, summed over the ensemble.

A recipe (`simtrust.algorithms.recipes`) is a list of these. Every term reads `CriticInputs`, so that Q
is evaluated once on the whole mini-batch whatever the composition. What a term reads is declared in
`Term.reads`; from it the training step derives which data, and whether a gap model, are needed at all.

Departures from the paper: Eq. 8 has a factor ½ before the squared errors, which is left out as in the
public reference, because the published β assumes it so.
"""

import enum
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from simtrust.gap import ratio

BRACKET_BOUND = 1000.0
REWARD_CORRECTION_BOUND = 10.0


class Reads(enum.Enum):
    """What a term needs to have been computed."""

    REAL = "rows of the log"
    SIM = "rows of the simulator's replay buffer"
    LOG_RATIO = "the classifiers' log P̂/P on simulated rows"
    GAP = "the classifiers' gap u(s, a) on simulated rows"
    REVERSE_GAP = "the classifiers' gap at next states that a model of the log predicts of simulated rows"
    MEASURED_GAP = "the gap of each simulated row, measured when it was collected"
    SAMPLED_ACTIONS = "Q at random and policy actions in the states of the log"


class Samples(NamedTuple):
    """One source's half of the mini-batch, as the critic's terms see it."""

    q: Float[Array, "E B"]
    """``Q_e(s, a)``."""
    reward: Float[Array, " B"]
    next_value: Float[Array, " B"]
    """``γ (1 − terminated) min_e Q̄_e(s', a')``, a constant."""
    log_ratio: Float[Array, " B"] | None = None
    """``log P̂/P (s'|s, a)``."""
    gap: Float[Array, " B"] | None = None
    """``u(s, a) = KL(P̂‖P)`` by the classifiers, in [tiny, 10]."""
    reverse_gap: Float[Array, " B"] | None = None
    """``u(s, a) = KL(P‖P̂)`` by the classifiers and a model of the log, in [tiny, 10]."""
    measured_gap: Float[Array, " B"] | None = None
    """``u(s, a, s')`` by the gap model that was fitted before training, 0 or more."""
    measured_log_ratio: Float[Array, " B"] | None = None
    """``κu`` of the same, which takes the place of ``log P̂/P``."""
    sampled_q: Float[Array, "E B K"] | None = None
    """``Q_e(s, a_k)`` at K sampled actions."""
    sampled_log_density: Float[Array, "B K"] | None = None
    """The density that each ``a_k`` was drawn with."""

    @property
    def gap_of_omega(self) -> Float[Array, " B"] | None:
        """The gap that ω is made from, in [tiny, 10]; None if no term reads one."""
        if self.measured_gap is not None:
            return ratio.bounded_gap(self.measured_gap)
        return self.gap if self.reverse_gap is None else self.reverse_gap

    @property
    def log_ratio_of_weight(self) -> Float[Array, " B"] | None:
        """What w is made from; None if no term reads it."""
        return self.log_ratio if self.measured_log_ratio is None else self.measured_log_ratio


class CriticInputs(NamedTuple):
    """Everything a term may read; a source that no term reads is None."""

    real: Samples | None
    sim: Samples | None
    beta: Float[Array, ""]
    """β, the weight of the value regularisation (Eq. 6)."""
    cql_alpha: Float[Array, ""]
    """α, the weight of CQL's regularisation (Eq. 3)."""


class Term(NamedTuple):
    """A summand of the critic's loss: what it reads, and its formula."""

    name: str
    reads: frozenset[Reads]
    formula: Callable[[CriticInputs], Float[Array, " E"]]


Weight = Callable[[Samples], Float[Array, " B"]]
Reward = Callable[[Samples], Float[Array, " B"]]
Share = Callable[[Samples], Float[Array, " B"]]
"""``log ω`` of each simulated row."""


class Source(NamedTuple):
    """Where rows come from: its name, and how to find its half of the inputs."""

    name: str
    reads: Reads
    of: Callable[[CriticInputs], Samples]


def _real(inputs: CriticInputs) -> Samples:
    assert inputs.real is not None
    return inputs.real


def _sim(inputs: CriticInputs) -> Samples:
    assert inputs.sim is not None
    return inputs.sim


REAL = Source("real", Reads.REAL, _real)
SIM = Source("sim", Reads.SIM, _sim)


def equal_weight(samples: Samples) -> Float[Array, " B"]:
    """``w ≡ 1``."""
    return jnp.ones_like(samples.reward)


def dynamics_ratio(samples: Samples) -> Float[Array, " B"]:
    """``w = P/P̂`` (Eq. 8)."""
    assert samples.log_ratio is not None
    return ratio.dynamics_ratio(samples.log_ratio)


def measured_trust(samples: Samples) -> Float[Array, " B"]:
    """``w = exp(−κu)``: the dynamics ratio; at κ = 1 with the gap for the log-ratio, whose mean it is."""
    assert samples.measured_log_ratio is not None
    return ratio.dynamics_ratio(samples.measured_log_ratio)


def own_reward(samples: Samples) -> Float[Array, " B"]:
    """``r``."""
    return samples.reward


def minus_gap(samples: Samples) -> Float[Array, " B"]:
    """DARC's ``r + Δr`` with ``Δr = −clip(log P̂/P, ±10)`` (Eysenbach et al., 2020)."""
    assert samples.log_ratio is not None
    correction = jnp.clip(samples.log_ratio, -REWARD_CORRECTION_BOUND, REWARD_CORRECTION_BOUND)
    return samples.reward - jax.lax.stop_gradient(correction)


def by_gap(samples: Samples) -> Float[Array, " B"]:
    """``log ω``, by the classifiers' gap (Eq. 6)."""
    assert samples.gap is not None
    return ratio.log_gap_share(samples.gap)


def by_reverse_gap(samples: Samples) -> Float[Array, " B"]:
    """``log ω``, by the reverse gap (Eq. 36)."""
    assert samples.reverse_gap is not None
    return ratio.log_gap_share(samples.reverse_gap)


def by_measured_gap(samples: Samples) -> Float[Array, " B"]:
    """``log ω``, by the measured gap."""
    assert samples.measured_gap is not None
    return ratio.log_gap_share(ratio.bounded_gap(samples.measured_gap))


def uniform(samples: Samples) -> Float[Array, " B"]:
    """``log ω`` of the ``-a`` ablation."""
    return ratio.log_uniform_share(samples.reward)


GAP_READERS: dict[Callable, Reads] = {
    dynamics_ratio: Reads.LOG_RATIO,
    minus_gap: Reads.LOG_RATIO,
    measured_trust: Reads.MEASURED_GAP,
    by_gap: Reads.GAP,
    by_reverse_gap: Reads.REVERSE_GAP,
    by_measured_gap: Reads.MEASURED_GAP,
}


def bellman(source: Source, *, weight: Weight = equal_weight, reward: Reward = own_reward) -> Term:
    """``E_source[w·(Q − y)²]`` with ``y = r + γ(1 − terminated)·min Q̄(s', a')`` (Eq. 1, 8)."""

    def formula(inputs: CriticInputs) -> Float[Array, " E"]:
        samples = source.of(inputs)
        target = jax.lax.stop_gradient(reward(samples) + samples.next_value)
        return (weight(samples) * jnp.square(samples.q - target)).mean(-1)

    reads = {source.reads, *(GAP_READERS[f] for f in (weight, reward) if f in GAP_READERS)}
    return Term(f"bellman_{source.name}", frozenset(reads), formula)


def log_sum_exp(q: Float[Array, "E B"], log_omega: Float[Array, " B"]) -> Float[Array, " E"]:
    """``log Σ ω exp Q`` (Eq. 6)."""
    return jax.scipy.special.logsumexp(q + log_omega, axis=-1)


def weighted_mean(q: Float[Array, "E B"], log_omega: Float[Array, " B"]) -> Float[Array, " E"]:
    """``Σ ω Q``, the lower bound by Jensen's inequality of H2O(v) (Eq. 10, 19)."""
    return (q * jnp.exp(log_omega)).sum(-1)


def value_gap(
    *,
    omega: Share = by_gap,
    pool: Callable[[Float[Array, "E B"], Float[Array, " B"]], Float[Array, " E"]] = log_sum_exp,
) -> Term:
    """``β·(pool_B(Q; ω) − E_D[Q])``: pushes simulated values down by their gap, real ones up (Eq. 6).

    The bracket is clipped to ±1000; outside, its gradient is 0.
    """

    def formula(inputs: CriticInputs) -> Float[Array, " E"]:
        sim = _sim(inputs)
        bracket = pool(sim.q, omega(sim)) - _real(inputs).q.mean(-1)
        return inputs.beta * jnp.clip(bracket, -BRACKET_BOUND, BRACKET_BOUND)

    reads = {Reads.REAL, Reads.SIM} | ({GAP_READERS[omega]} if omega in GAP_READERS else set())
    return Term("value_gap", frozenset(reads), formula)


def conservative() -> Term:
    """CQL(H): ``α·E_D[log Σ_k exp(Q(s, a_k))/density(a_k) − Q(s, a)]`` (Eq. 3; Kumar et al., 2020).

    The actions are random, of the policy at s, and of the policy at s', with importance sampling and
    without the Lagrange threshold.
    """

    def formula(inputs: CriticInputs) -> Float[Array, " E"]:
        real = _real(inputs)
        assert real.sampled_q is not None
        assert real.sampled_log_density is not None
        soft_maximum = jax.scipy.special.logsumexp(real.sampled_q - real.sampled_log_density, axis=-1)
        return inputs.cql_alpha * (soft_maximum - real.q).mean(-1)

    return Term("conservative", frozenset({Reads.REAL, Reads.SAMPLED_ACTIONS}), formula)


def summary(inputs: CriticInputs) -> dict[str, Float[Array, ""]]:
    """What a practitioner watches: Q by source, and the mean w, the mean u and the largest ω of the batch."""
    metrics: dict[str, Float[Array, ""]] = {}
    if inputs.real is not None:
        metrics["q_real"] = inputs.real.q.mean()
    if inputs.sim is not None:
        metrics["q_sim"] = inputs.sim.q.mean()
        if inputs.sim.log_ratio is not None:
            metrics["log_ratio"] = inputs.sim.log_ratio.mean()
        if (log_ratio := inputs.sim.log_ratio_of_weight) is not None:
            metrics["weight"] = ratio.dynamics_ratio(log_ratio).mean()
        if (gap := inputs.sim.gap_of_omega) is not None:
            metrics |= {"gap": gap.mean(), "omega_max": gap.max() / gap.sum()}
    return metrics
