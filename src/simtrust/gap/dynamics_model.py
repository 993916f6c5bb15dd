"""A probabilistic ensemble of the real dynamics, fitted to the log.

As PETS (Chua et al., 2018, arXiv:1805.12114) and MOPO (Yu et al., 2020, arXiv:2005.13239) fit theirs.

Each member predicts a Gaussian over the *change* ``s' − s`` from ``(s, a)``, both standardised. The spread of
the members' means tells where the log says little (epistemic), their variances how noisy the machine itself
is (aleatoric). Members differ in their initial weights and in the order of the rows; all see every row, which
predicts better than bootstraps (Lakshminarayanan et al., 2017).

All axes named ``M`` run over the elites, the members that predict the held-out rows best.
"""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from simtrust.networks import ResidualMLP

LOG_VARIANCE_MIN, LOG_VARIANCE_MAX = -20.0, 0.5
"""Of the standardised change. The lower is beyond the rounding of most logs, the upper a little above all the
variance there is.

PETS (App. A.1) learns such bounds, sets a small price on their distance and keeps to them by softplus. Where
the loss is weighted by the variance, or one machine is far quieter than the other, the price outweighs the
likelihood: the bounds cross, and every row gets the same variance. And beyond a softplus there is no
gradient: a variance that the first, large steps throw out of its bounds never returns.
"""
OUTLIER = 5.0
"""Standard deviations."""
CHUNK = 4096
"""Rows predicted at once."""


class GaussianNetwork(eqx.Module):
    """Mean and log-variance of the standardised change, from the standardised ``(s, a)``.

    The log-variance nears its bounds, on either side of 0, as a soft sign does: its slope falls off slowly.
    """

    network: ResidualMLP

    def __init__(self, in_size: int, hidden_sizes: Sequence[int], out_size: int, *, key: PRNGKeyArray):
        self.network = ResidualMLP(in_size, hidden_sizes, 2 * out_size, key=key)

    def __call__(
        self, inputs: Float[Array, "*batch in"]
    ) -> tuple[Float[Array, "*batch O"], Float[Array, "*batch O"]]:
        mean, log_variance = jnp.split(self.network(inputs), 2, axis=-1)
        above, below = (
            bound * jax.nn.soft_sign(jax.nn.relu(log_variance / bound))
            for bound in (LOG_VARIANCE_MAX, LOG_VARIANCE_MIN)
        )
        return mean, above + below


def gaussian_loss(
    member: GaussianNetwork,
    inputs: Float[Array, "B in"],
    change: Float[Array, "B O"],
    variance_weighting: float = 0.0,
) -> Float[Array, ""]:
    """Negative log-likelihood without its constant, summed over dimensions, mean over rows.

    Or the β-NLL, if weighted. Beyond `OUTLIER` deviations an error counts linearly (Huber), so that a few
    rows that the variance did not foresee do not throw the weights far off.
    """
    mean, log_variance = member(inputs)
    squared = jnp.square(change - mean) * jnp.exp(-log_variance)
    # Kept from 0, where the root has no slope.
    deviations = jnp.sqrt(jnp.maximum(squared, OUTLIER**2))
    squared = jnp.where(squared < OUTLIER**2, squared, OUTLIER * (2 * deviations - OUTLIER))
    likelihood = 0.5 * (squared + log_variance)
    weight = jax.lax.stop_gradient(jnp.exp(variance_weighting * log_variance))
    return (weight * likelihood).sum(-1).mean()


class NextStates(NamedTuple):
    """Every elite's Gaussian of the next state of some rows, in the machine's units."""

    mean: Float[Array, "M *batch O"]
    std: Float[Array, "M *batch O"]

    def draw(
        self, elite: Float[Array, "n *batch"], noise: Float[Array, "n *batch O"]
    ) -> Float[Array, "n *batch O"]:
        """``n`` next states of every row from the elites' uniform mixture, one elite for each.

        ``elite`` is uniform in [0, 1) and chooses it, ``noise`` is standard normal.
        """
        chosen = jnp.floor(elite * len(self.mean)).astype(jnp.int32)[..., None]
        mean, std = (jnp.take_along_axis(each, chosen, axis=0) for each in self)
        return mean + std * noise


class DynamicsModel(eqx.Module):
    """The elites, best first; everything that goes in and comes out is in the machine's units."""

    elites: GaussianNetwork
    """With a leading axis M."""
    input_mean: Float[Array, " in"]
    input_scale: Float[Array, " in"]
    change_mean: Float[Array, " O"]
    change_scale: Float[Array, " O"]
    """Standard deviation of the logged ``s' − s``; 1 where it is constant."""

    @property
    def state_scale(self) -> Float[Array, " O"]:
        """Standard deviation of the logged states; 1 where they are constant."""
        return self.input_scale[: len(self.change_scale)]

    def change(
        self, observation: Float[Array, "*batch O"], action: Float[Array, "*batch A"]
    ) -> tuple[Float[Array, "M *batch O"], Float[Array, "M *batch O"]]:
        """Every elite's mean and variance of ``s' − s``."""
        inputs = jnp.concatenate([observation, action], axis=-1)
        inputs = (inputs - self.input_mean) / self.input_scale
        mean, log_variance = jax.vmap(lambda member: member(inputs))(self.elites)
        variance = jnp.exp(log_variance) * jnp.square(self.change_scale)
        return self.change_mean + mean * self.change_scale, variance

    def log_prob(
        self,
        observation: Float[Array, "*batch O"],
        action: Float[Array, "*batch A"],
        next_observation: Float[Array, "*batch O"],
    ) -> Float[Array, "*batch"]:
        """Log-density of ``s'``, in the machine's units, under the elites' uniform mixture."""
        mean, variance = self.change(observation, action)
        squared = jnp.square(next_observation - observation - mean) / variance
        each = -0.5 * (squared + jnp.log(2 * jnp.pi * variance)).sum(-1)
        return jax.nn.logsumexp(each, axis=0) - jnp.log(len(each))

    def next_states(
        self, observation: Float[Array, "*batch O"], action: Float[Array, "*batch A"]
    ) -> NextStates:
        """Every elite's Gaussian of ``s'``."""
        mean, variance = self.change(observation, action)
        return NextStates(observation + mean, jnp.sqrt(variance))

    def sample(
        self,
        key: PRNGKeyArray,
        observation: Float[Array, "*batch O"],
        action: Float[Array, "*batch A"],
        n: int,
    ) -> Float[Array, "n *batch O"]:
        """``n`` next states of every row from the same mixture."""
        elite_key, noise_key = jax.random.split(key)
        elite = jax.random.uniform(elite_key, (n, *observation.shape[:-1]))
        noise = jax.random.normal(noise_key, (n, *observation.shape))
        return self.next_states(observation, action).draw(elite, noise)


class Prediction(NamedTuple):
    """What the elites say about N rows, in the machine's units."""

    mean: np.ndarray  # [N, O] float32: of s'
    variance: np.ndarray  # [N, O] float32: aleatoric, the elites' mean
    disagreement: np.ndarray  # [N, O] float32: epistemic, standard deviation of the elites' means


def predict(
    model: DynamicsModel, observation: Float[np.ndarray, "N O"], action: Float[np.ndarray, "N A"]
) -> Prediction:
    """The next states of N rows, computed in chunks."""
    parts = []
    for start in range(0, len(observation), CHUNK):
        rows = [np.asarray(x[start : start + CHUNK], np.float32) for x in (observation, action)]
        count = len(rows[0])
        # Padded, so that the last chunk does not compile anew.
        padded = (jnp.asarray(np.pad(x, ((0, CHUNK - count), (0, 0)), mode="edge")) for x in rows)
        parts.append([np.asarray(field)[:count] for field in _predict_chunk(model, *padded)])
    if not parts:
        return Prediction(*(np.zeros_like(observation, dtype=np.float32) for _ in range(3)))
    return Prediction(*(np.concatenate(field) for field in zip(*parts, strict=True)))


@eqx.filter_jit
def _predict_chunk(model: DynamicsModel, observation: Array, action: Array) -> tuple[Array, Array, Array]:
    mean, variance = model.change(observation, action)
    return observation + mean.mean(0), variance.mean(0), mean.std(0)
