"""Policies, stochastic (SAC) and deterministic (Eq. 2), behind one small interface.

Actions live in ``[-1, 1]`` everywhere inside the algorithms; the bounds of the machine are applied
where its data enters and where an action leaves (`simtrust.training.scaling`).

An actor answers three questions: which action does it sample, how likely was that, and which action
is best. Randomness comes in as standard normal noise, drawn by the caller. Its improvement objective is
``E[min Q(s, a) − λ log π(a|s)]`` (Alg. 1, line 7); with a deterministic actor the entropy term vanishes
and Eq. 2 is left.
"""

from collections.abc import Sequence
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from simtrust.networks import MLP

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class Actor(Protocol):
    """What the algorithms ask of a policy."""

    def sample(
        self, observation: Float[Array, "*batch O"], noise: Float[Array, "*batch A"]
    ) -> tuple[Float[Array, "*batch A"], Float[Array, "*batch"]]:
        """An action and its log-density, differentiable in the parameters."""
        ...

    def explore(
        self, observation: Float[Array, "*batch O"], noise: Float[Array, "*batch A"]
    ) -> Float[Array, "*batch A"]:
        """The action taken while collecting simulated transitions."""
        ...

    def best(self, observation: Float[Array, "*batch O"]) -> Float[Array, "*batch A"]:
        """The action taken in evaluation and on the machine."""
        ...


def tanh_gaussian_log_density(
    noise: Float[Array, "*batch A"], log_std: Float[Array, "*batch A"], before_tanh: Float[Array, "*batch A"]
) -> Float[Array, "*batch"]:
    """Log-density of ``tanh(x)`` for ``x = mean + exp(log_std)·noise``, ``noise ~ N(0, I)``.

    The change of variables ``−Σ log(1 − tanh²x)`` is written as ``−2 Σ (log 2 − x − softplus(−2x))``,
    which stays finite where ``tanh`` rounds to ±1.
    """
    gaussian = -0.5 * jnp.square(noise) - log_std - 0.5 * jnp.log(2 * jnp.pi)
    log_jacobian = 2.0 * (jnp.log(2.0) - before_tanh - jax.nn.softplus(-2.0 * before_tanh))
    return (gaussian - log_jacobian).sum(-1)


class StochasticActor(eqx.Module):
    """SAC's policy: a tanh-squashed diagonal Gaussian (Haarnoja et al., 2018)."""

    network: MLP

    def __init__(
        self, observation_size: int, action_size: int, hidden_sizes: Sequence[int], *, key: PRNGKeyArray
    ):
        self.network = MLP(observation_size, hidden_sizes, 2 * action_size, key=key)

    def _parameters(self, observation: Array) -> tuple[Array, Array]:
        mean, log_std = jnp.split(self.network(observation), 2, axis=-1)
        return mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)

    def sample(self, observation: Array, noise: Array) -> tuple[Array, Array]:
        mean, log_std = self._parameters(observation)
        before_tanh = mean + jnp.exp(log_std) * noise
        return jnp.tanh(before_tanh), tanh_gaussian_log_density(noise, log_std, before_tanh)

    def explore(self, observation: Array, noise: Array) -> Array:
        return self.sample(observation, noise)[0]

    def best(self, observation: Array) -> Array:
        mean, _ = self._parameters(observation)
        return jnp.tanh(mean)


class DeterministicActor(eqx.Module):
    """``a = tanh(network(s))``, improved by Eq. 2; explores with additive Gaussian noise."""

    network: MLP
    exploration_noise: float = eqx.field(static=True)

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int],
        *,
        exploration_noise: float = 0.1,
        key: PRNGKeyArray,
    ):
        self.network = MLP(observation_size, hidden_sizes, action_size, key=key)
        self.exploration_noise = exploration_noise

    def sample(self, observation: Array, noise: Array) -> tuple[Array, Array]:
        del noise
        action = self.best(observation)
        return action, jnp.zeros(action.shape[:-1])

    def explore(self, observation: Array, noise: Array) -> Array:
        action = self.best(observation)
        return jnp.clip(action + self.exploration_noise * noise, -1.0, 1.0)

    def best(self, observation: Array) -> Array:
        return jnp.tanh(self.network(observation))
