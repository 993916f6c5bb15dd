"""H2O's gap model: two domain classifiers whose residual is the dynamics log-ratio (Eq. 7, 33; App. B.1).

``ψ(s, a)`` and ``φ(s, a, s')`` each give two logits, soft-clipped by ``2·tanh``. "Real or simulated?"
is answered by ``ψ`` for ``(s, a)`` and by ``ψ + φ`` for ``(s, a, s')``, so that training φ also moves ψ.

Eq. 7 needs four log-probabilities, ``log P̂/P = [log p(sim|sas') − log p(real|sas')] − [log p(sim|sa) −
log p(real|sa)]``. The two log-normalisers cancel within each bracket and ψ cancels between them, which
leaves one difference: ``log P̂/P (s'|s, a) = φ_sim − φ_real``, always inside (−4, 4).
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from simtrust.networks import MLP
from simtrust.types import Transitions

REAL, SIM = 0, 1
LOGIT_BOUND = 2.0


class DomainClassifier(eqx.Module):
    """The pair ``(ψ, φ)``: of which domain is ``(s, a)``, and of which is ``(s, a, s')``."""

    state_action: MLP
    """``ψ``: two logits from ``(s, a)``."""
    transition: MLP
    """``φ``: the two logits that ``s'`` adds."""
    logit_bound: float = eqx.field(static=True)
    """Every logit is softly clipped to ± this; the log-ratio is inside ± twice this."""

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int],
        *,
        logit_bound: float = LOGIT_BOUND,
        key: PRNGKeyArray,
    ):
        state_action_key, transition_key = jax.random.split(key)
        in_size = observation_size + action_size
        self.state_action = MLP(in_size, hidden_sizes, 2, key=state_action_key)
        self.transition = MLP(in_size + observation_size, hidden_sizes, 2, key=transition_key)
        self.logit_bound = logit_bound

    def state_action_logits(self, observation: Array, action: Array) -> Float[Array, "*batch 2"]:
        inputs = jnp.concatenate([observation, action], axis=-1)
        return self.logit_bound * jnp.tanh(self.state_action(inputs))

    def transition_residual(
        self, observation: Array, action: Array, next_observation: Array
    ) -> Float[Array, "*batch 2"]:
        inputs = jnp.concatenate([observation, action, next_observation], axis=-1)
        return self.logit_bound * jnp.tanh(self.transition(inputs))

    def log_ratio(self, observation: Array, action: Array, next_observation: Array) -> Float[Array, "*batch"]:
        """``log P̂/P (s'|s, a)``: positive where the simulator goes and reality would not."""
        residual = self.transition_residual(observation, action, next_observation)
        return residual[..., SIM] - residual[..., REAL]


def add_input_noise(
    transitions: Transitions[Array], noise: Float[Array, "B inputs"], scale: float
) -> Transitions[Array]:
    """Gaussian noise on everything that a classifier reads, as DARC does against overfitting.

    ``noise`` is standard normal, for s, a and s' side by side.
    """
    size, action_size = transitions.observation.shape[-1], transitions.action.shape[-1]
    here, action, there = jnp.split(scale * noise, (size, size + action_size), axis=-1)
    return transitions._replace(
        observation=transitions.observation + here,
        action=transitions.action + action,
        next_observation=transitions.next_observation + there,
    )


def classifier_loss(
    classifier: DomainClassifier, transitions: Transitions, domain: Int[Array, " B"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Cross-entropy of both classifiers, mean over the batch, summed over the two.

    ``domain`` [B] is `REAL` or `SIM`; ``transitions`` carry any input noise already.
    """
    observation, action, _, next_observation, _ = transitions
    state_action = classifier.state_action_logits(observation, action)
    transition = state_action + classifier.transition_residual(observation, action, next_observation)
    entropy = optax.softmax_cross_entropy_with_integer_labels
    state_action_loss = entropy(state_action, domain).mean()
    transition_loss = entropy(transition, domain).mean()
    info = {"classifier_loss_sa": state_action_loss, "classifier_loss_sas": transition_loss}
    return state_action_loss + transition_loss, info


def classifier_accuracy(
    classifier: DomainClassifier, transitions: Transitions, domain: int
) -> dict[str, Float[Array, ""]]:
    """Share of rows, all of one ``domain``, that each classifier recognises (without input noise)."""
    observation, action, _, next_observation, _ = transitions
    state_action = classifier.state_action_logits(observation, action)
    transition = state_action + classifier.transition_residual(observation, action, next_observation)
    name = "real" if domain == REAL else "sim"
    return {
        f"classifier_accuracy_sa_{name}": (state_action.argmax(-1) == domain).mean(),
        f"classifier_accuracy_sas_{name}": (transition.argmax(-1) == domain).mean(),
    }
