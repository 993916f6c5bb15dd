"""From log-ratios to the three quantities of the paper: ``w``, ``u`` and ``ω``.

All are constants to the critic: none passes a gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from simtrust.gap.classifier import DomainClassifier
from simtrust.types import CovarianceKind, Transitions

WEIGHT_MIN, WEIGHT_MAX = 1e-5, 1.0
# The smallest normal float32. A smaller floor (1e-45) is a subnormal, which XLA flushes to 0: log 0.
GAP_MIN, GAP_MAX = float(np.finfo(np.float32).tiny), 10.0


def dynamics_ratio(log_ratio: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """``w = P/P̂ = exp(−log P̂/P)`` in [1e-5, 1]: the importance weight of a simulated sample (Eq. 8)."""
    return jax.lax.stop_gradient(jnp.clip(jnp.exp(-log_ratio), WEIGHT_MIN, WEIGHT_MAX))


def bounded_gap(gap: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """``u`` in [tiny, 10]: positive, since ω takes its logarithm."""
    return jax.lax.stop_gradient(jnp.clip(gap, GAP_MIN, GAP_MAX))


def next_state_noise_factor(
    observations: np.ndarray, *, covariance: CovarianceKind = "diagonal", scale: float = 1.0
) -> np.ndarray:
    """A factor ``F`` [O, O] with ``F Fᵀ = scale²·Σ̂_D``, from the real states [T, O] (App. B.1).

    ``scale`` multiplies the standard deviation. The public reference takes it over a replay buffer that
    is eleven parts long and one part full, the rest zeros: ``scale=0.302`` ≈ √(1/11) imitates that.
    """
    centred = observations.astype(np.float64) - observations.mean(0, dtype=np.float64)
    if covariance == "diagonal":
        factor = np.diag(centred.std(0))
    else:
        # An eigendecomposition, since constant dimensions make Σ̂ singular and Cholesky fail.
        values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
        factor = vectors * np.sqrt(np.maximum(values, 0.0))
    return (scale * factor).astype(np.float32)


def dynamics_gap(
    classifier: DomainClassifier,
    transitions: Transitions,
    noise_factor: Float[Array, "O O"],
    noise: Float[Array, "N B O"],
) -> Float[Array, " B"]:
    """``u(s, a) = KL(P̂‖P)`` [B] ≈ mean of ``log P̂/P`` over ``s'_i ~ N(s', Σ̂_D)``, in [tiny, 10] (Eq. 33).

    ``noise`` is standard normal, ``noise_factor`` a factor of Σ̂_D. A mean where the paper writes a sum:
    ω does not change, and the clip keeps one meaning for every N.
    """
    next_states = transitions.next_observation + noise @ noise_factor.T
    return bounded_gap(_mean_log_ratio(classifier, transitions, next_states))


def reverse_dynamics_gap(
    classifier: DomainClassifier, transitions: Transitions, next_states: Float[Array, "N B O"]
) -> Float[Array, " B"]:
    """``u(s, a) = KL(P‖P̂)`` [B] ≈ mean of ``log P/P̂`` over ``s'_i ~ P``, in [tiny, 10] (Eq. 36).

    ``next_states`` are the s'_i, drawn from a model of the log (`dynamics_model.NextStates.draw`). So where
    reality goes counts, and the simulated s' does not. A mean where the paper writes a sum, as above; the
    ratio is that of the classifiers, as the paper has it too.
    """
    return bounded_gap(-_mean_log_ratio(classifier, transitions, next_states))


def _mean_log_ratio(
    classifier: DomainClassifier, transitions: Transitions, next_states: Float[Array, "N B O"]
) -> Float[Array, " B"]:
    """``log P̂/P`` of B pairs (s, a), mean over N next states of each."""
    observation, action, *_ = transitions
    log_ratio = classifier.log_ratio(
        jnp.broadcast_to(observation, next_states.shape),
        jnp.broadcast_to(action, (len(next_states), *action.shape)),
        next_states,
    )
    return log_ratio.mean(0)


def log_gap_share(gap: Float[Array, " B"]) -> Float[Array, " B"]:
    """``log ω``, where ``ω = u / Σ_batch u`` (Eq. 6): how much of the batch's gap each sample holds."""
    return jnp.log(gap) - jnp.log(gap.sum())


def log_uniform_share(gap: Float[Array, " B"]) -> Float[Array, " B"]:
    """``log ω`` of the ``-a`` ablation: every simulated sample weighs the same."""
    return jnp.full(gap.shape, -jnp.log(float(gap.shape[-1])), gap.dtype)
