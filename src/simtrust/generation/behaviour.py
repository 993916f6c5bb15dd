"""Who acts while a log is recorded: a policy that samples its actions, chance alone, or actions of before."""

from functools import partial
from typing import NamedTuple, Protocol

import jax
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Array, PRNGKeyArray

from simtrust.algorithms.actor import Actor
from simtrust.training.scaling import Scaling


class Choice(NamedTuple):
    """What S instances do, and how likely that was."""

    action: np.ndarray  # [S, A] float32, in the machine's units and within its bounds
    log_probability: np.ndarray | None  # [S] float32: log of the density, in these units; None if unknown


class Behaviour(Protocol):
    """Chooses actions for observations [S, O]; ``step`` numbers its random draws."""

    def __call__(self, observation: np.ndarray, step: int) -> Choice: ...


class SampledPolicy:
    """A stochastic policy; the same seed, steps and observations give the same actions."""

    def __init__(self, actor: Actor, scaling: Scaling, seed: int):
        self._actor, self._scaling, self._key = actor, scaling, jax.random.key(seed)
        low, high = np.asarray(scaling.action_low), np.asarray(scaling.action_high)
        self._log_volume = np.log((high - low) / 2).sum()

    def __call__(self, observation: np.ndarray, step: int) -> Choice:
        inside = self._scaling.observe(observation)
        noise = (self._key, np.uint32(step), len(self._scaling.action_low))
        action, log_density = map(np.asarray, _sample(self._actor, inside, *noise))
        return Choice(
            self._scaling.to_machine_action(action), (log_density - self._log_volume).astype(np.float32)
        )


class UniformActions:
    """Actions uniform within the action space, whatever is observed."""

    def __init__(self, space: Box, seed: int):
        self._space, self._generator = space, np.random.default_rng(seed)
        self._log_density = -np.log(np.asarray(space.high, np.float64) - space.low).sum()

    def __call__(self, observation: np.ndarray, step: int) -> Choice:
        del step
        shape = (len(observation), *self._space.shape)
        action = self._generator.uniform(self._space.low, self._space.high, shape).astype(np.float32)
        return Choice(action, np.full(len(observation), self._log_density, np.float32))


class GivenActions:
    """Actions [S, n, A] that were chosen before, one after the other."""

    def __init__(self, actions: np.ndarray):
        self._actions = actions

    def __call__(self, observation: np.ndarray, step: int) -> Choice:
        del observation
        return Choice(np.ascontiguousarray(self._actions[:, step]), None)


@partial(jax.jit, static_argnums=4)
def _sample(
    actor: Actor, observation: Array, key: PRNGKeyArray, step: Array, action_size: int
) -> tuple[Array, Array]:
    noise = jax.random.normal(jax.random.fold_in(key, step), (len(observation), action_size))
    return actor.sample(observation, noise)
