"""Runs side by side: the update of one run, mapped over the runs axis R and compiled as one loop."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from simtrust.algorithms.agent import Agent, Algorithm, Metrics
from simtrust.algorithms.critic import Reads
from simtrust.algorithms.inputs import Batch, Noise
from simtrust.data.replay import ReplayBuffer, unpack, unpack_gap
from simtrust.gap.classifier import REAL, SIM, classifier_accuracy
from simtrust.gap.dynamics_model import DynamicsModel

DRAWN_TOGETHER = 20
"""Updates whose mini-batches and random numbers are drawn at once; the numbers do not depend on it."""

# What a random key is for. Every stream is folded from the run's seed, this number, and the step.
CREATE, UPDATE, EXPLORE, FIT_GAP, FIT_DYNAMICS = range(5)


class Log(NamedTuple):
    """The real rows on the device. The critics and the actor learn from all of them.

    The classifiers learn from the first ``training`` rows, are tested on the ``held_out`` rows after
    these, and never see the rest.
    """

    rows: Float[Array, "T row"]
    training: int
    held_out: int
    dynamics: DynamicsModel | None = None
    """What was fitted to these rows to predict reality, where a term reads that; one for all runs."""


NO_LOG = (None, 0, 0, None)


def drawn_together(updates: int) -> int:
    """How many of so many updates have their random numbers drawn at once: the largest that divides them."""
    return max(n for n in range(1, DRAWN_TOGETHER + 1) if updates % n == 0)


class Draw(NamedTuple):
    """The mini-batches and random numbers [R, ...] of one update, and the rows that were drawn."""

    batch: Batch
    noise: Noise
    numbers: Batch
    """The same batch, where every entry of a row is the number of that row, in the log or in the buffer."""


def seed_keys(seeds: Sequence[int], purpose: int) -> PRNGKeyArray:
    """One random key a run [R], of one purpose."""
    return jnp.stack([jax.random.fold_in(jax.random.key(seed), purpose) for seed in seeds])


def over_runs(function: Callable[..., Any], in_axes: Sequence[int | None]) -> Callable[..., Any]:
    """``vmap`` over the leading runs axis; a fleet of one skips the batching."""

    def mapped(*args: Any) -> Any:
        runs = {
            leaf.shape[0]
            for arg, axis in zip(args, in_axes, strict=True)
            if axis == 0
            for leaf in jax.tree.leaves(arg)
        }
        if runs != {1}:
            return jax.vmap(function, tuple(in_axes))(*args)
        one = [
            jax.tree.map(lambda x: x[0], arg) if axis == 0 else arg
            for arg, axis in zip(args, in_axes, strict=True)
        ]
        return jax.tree.map(lambda x: x[None], function(*one))

    return mapped


class Fleet:
    """Compiled operations on ``R`` agents of one algorithm."""

    def __init__(self, algorithm: Algorithm):
        self.algorithm = algorithm
        self._train = jax.jit(self._train_round, static_argnames=("updates", "training"), donate_argnums=0)
        self._accuracy = jax.jit(self._held_out_accuracy)
        self._draw = jax.jit(self._draw_one, static_argnames="training")
        self._copy = jax.jit(partial(jax.tree.map, jnp.copy))
        self._finite = jax.jit(over_runs(_all_finite, (0,)))
        self._act = {
            explore: jax.jit(partial(self._actions, explore), static_argnums=0) for explore in (True, False)
        }

    def create(self, seeds: Sequence[int]) -> Agent:
        """Fresh agents [R], one for each seed."""
        return eqx.filter_jit(over_runs(self.algorithm.create, (0,)))(seed_keys(seeds, CREATE))

    def train(
        self,
        agents: Agent,
        log: Log | None,
        buffer: ReplayBuffer | None,
        keys: PRNGKeyArray,
        *,
        step: int,
        updates: int,
    ) -> tuple[Agent, dict[str, np.ndarray]]:
        """``updates`` updates from ``step`` on; metrics [R] are means over them.

        ``agents`` are given up: their memory is reused.
        """
        rows, training, _, dynamics = log or NO_LOG
        agents, metrics = self._train(
            agents,
            rows,
            dynamics,
            buffer,
            keys,
            jnp.asarray(step, jnp.uint32),
            updates=updates,
            training=training,
        )
        return agents, {name: np.asarray(value) for name, value in metrics.items()}

    def copy(self, agents: Agent) -> Agent:
        """Agents that `train` may be given while these are kept."""
        return self._copy(agents)

    def finite(self, agents: Agent) -> np.ndarray:
        """``[R]`` bool: whether every number of an agent is finite, those of its optimisers included."""
        return np.asarray(self._finite(agents))

    def draw(self, log: Log | None, buffer: ReplayBuffer | None, keys: PRNGKeyArray, *, step: int) -> Draw:
        """What `train` draws for the update of ``step``, and which rows these are."""
        rows, training, _, dynamics = log or NO_LOG
        return self._draw(rows, dynamics, buffer, keys, np.uint32(step), training=training)

    def _draw_one(self, rows, dynamics, buffer, keys, step, *, training: int) -> Draw:
        simulated = None if buffer is None else buffer.rows

        def one(key: PRNGKeyArray, simulated: Array | None) -> Draw:
            batch_key, noise_key = jax.random.split(jax.random.fold_in(key, step))
            batch = self._predicted(self._sample(rows, training, buffer, simulated, batch_key), dynamics)
            # The same draw from rows that hold nothing but their own number.
            numbers = self._sample(_numbered(rows), training, buffer, _numbered(simulated), batch_key)
            return Draw(batch, self.algorithm.draw_noise(noise_key), numbers)

        return over_runs(one, (0, 0))(keys, simulated)

    def _train_round(self, agents, rows, dynamics, buffer, keys, step, *, updates: int, training: int):
        simulated = None if buffer is None else buffer.rows

        def draw(key: PRNGKeyArray, simulated: Array | None, steps: Array) -> tuple[Batch, Noise]:
            def one(step: Array) -> tuple[Batch, Noise]:
                batch_key, noise_key = jax.random.split(jax.random.fold_in(key, step))
                batch = self._sample(rows, training, buffer, simulated, batch_key)
                return self._predicted(batch, dynamics), self.algorithm.draw_noise(noise_key)

            return jax.vmap(one)(steps)

        def several(agents: Agent, steps: Array) -> tuple[Agent, Metrics]:
            drawn = over_runs(draw, (0, 0, None))(keys, simulated, steps)
            by_step = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), drawn)
            update = over_runs(self.algorithm.update, (0, 0, 0))
            return jax.lax.scan(lambda agents, drawn: update(agents, *drawn), agents, by_step)

        together = drawn_together(updates)
        steps = (step + jnp.arange(updates, dtype=jnp.uint32)).reshape(-1, together)
        agents, metrics = jax.lax.scan(several, agents, steps)
        return agents, jax.tree.map(lambda m: m.mean((0, 1)), metrics)

    def _sample(self, rows, training: int, buffer, simulated, key: PRNGKeyArray) -> Batch:
        """Mini-batches from both sources, drawn uniformly with replacement."""
        algorithm = self.algorithm
        sizes = (algorithm.observation_size, algorithm.action_size)
        count = algorithm.batch_sizes
        half = algorithm.options.classifier_batch_size // 2 if algorithm.recipe.trains_gap_model else 0
        real_key, sim_key, classifier_key = jax.random.split(key, 3)
        real = sim = classifier_real = classifier_sim = measured_gap = None
        if Reads.REAL in count:
            index = jax.random.randint(real_key, (count[Reads.REAL],), 0, len(rows))
            real = unpack(rows[index], *sizes)
        if half:
            index = jax.random.randint(classifier_key, (half,), 0, training)
            classifier_real = unpack(rows[index], *sizes)
        if Reads.SIM in count:
            packed = buffer.sample(simulated, sim_key, count[Reads.SIM] + half)
            drawn = unpack(packed, *sizes)
            sim = jax.tree.map(lambda x: x[: count[Reads.SIM]], drawn)
            classifier_sim = jax.tree.map(lambda x: x[count[Reads.SIM] :], drawn) if half else None
            if algorithm.recipe.measures_gap:
                measured_gap = unpack_gap(packed[: count[Reads.SIM]])
        return Batch(real, sim, classifier_real, classifier_sim, measured_gap)

    def _predicted(self, batch: Batch, dynamics: DynamicsModel | None) -> Batch:
        """The batch with what the log's model says of its simulated rows, where a term reads that."""
        if not self.algorithm.recipe.predicts_reality:
            return batch
        assert dynamics is not None
        assert batch.sim is not None
        return batch._replace(predicted=dynamics.next_states(batch.sim.observation, batch.sim.action))

    def actor(self, agents: Agent):
        """A quick ``act(observation [R, S, O], keys, step) -> actions [R, S, A]`` for one rollout.

        With ``keys`` [R] it explores, without it takes the best action.
        """
        # Flattening a module in Python at every step would cost more than the network itself.
        leaves, structure = jax.tree.flatten(agents.actor)

        def act(observation: np.ndarray, keys: PRNGKeyArray | None = None, step: int = 0) -> np.ndarray:
            actions = self._act[keys is not None]
            return np.asarray(actions(structure, leaves, observation, keys, np.uint32(step)))

        return act

    def _actions(self, explore: bool, structure, leaves, observation, keys, step):
        actors = jax.tree.unflatten(structure, leaves)
        if not explore:
            return over_runs(lambda actor, s: actor.best(s), (0, 0))(actors, observation)
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, step)
        size = self.algorithm.action_size
        noise = jax.vmap(lambda key: jax.random.normal(key, (observation.shape[1], size)))(keys)
        return over_runs(lambda actor, s, noise: actor.explore(s, noise), (0, 0, 0))(
            actors, observation, noise
        )

    def held_out_accuracy(self, agents: Agent, log: Log, fresh: np.ndarray) -> dict[str, np.ndarray]:
        """The classifiers' accuracy [R] on rows they never trained on.

        Real: the log's held-out rows. Simulated: ``fresh`` rows [R, n, row], just collected.
        """
        real = log.rows[log.training : log.training + log.held_out]
        return {k: np.asarray(v) for k, v in self._accuracy(agents.classifier, real, fresh).items()}

    def _held_out_accuracy(self, classifiers, real, fresh):
        sizes = (self.algorithm.observation_size, self.algorithm.action_size)

        def accuracy(classifier, fresh):
            return {
                **classifier_accuracy(classifier, unpack(real, *sizes), REAL),
                **classifier_accuracy(classifier, unpack(fresh, *sizes), SIM),
            }

        return over_runs(accuracy, (0, 0))(classifiers, fresh)


def _all_finite(agent: Agent) -> Array:
    inexact = [x for x in jax.tree.leaves(agent) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in inexact]).all()


def _numbered(rows: Array | None) -> Array | None:
    """Rows [n, row] int32, each of which repeats its own number."""
    return None if rows is None else jnp.broadcast_to(jnp.arange(len(rows))[:, None], rows.shape)
