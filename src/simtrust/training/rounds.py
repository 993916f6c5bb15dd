"""A round of updates as one compiled loop: what every update draws, and the update mapped over the runs."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from simtrust.algorithms.agent import Agent, Algorithm, GapEstimates, Metrics
from simtrust.algorithms.critic import Reads
from simtrust.algorithms.inputs import Batch, Coefficients, Noise
from simtrust.data.replay import ReplayBuffer, unpack, unpack_gap
from simtrust.gap.dynamics_model import DynamicsModel

DRAWN_TOGETHER = 20
"""Updates whose mini-batches and random numbers are drawn at once; the numbers do not depend on it."""


class Source(NamedTuple):
    """What runs of one log and one buffer learn from, on the device."""

    rows: Float[Array, "T row"] | None
    dynamics: DynamicsModel | None
    buffer: ReplayBuffer | None
    runs: Int[Array, " R"]
    """Which of the buffer's runs they are."""
    keys: PRNGKeyArray
    """One a run [R]."""
    coefficients: Coefficients
    """The same for all of them."""
    step: UInt32[Array, ""]
    """Of the round's first update."""


class Draw(NamedTuple):
    """The mini-batches and random numbers [R, ...] of one update, and the rows that were drawn."""

    batch: Batch
    noise: Noise
    numbers: Batch
    """The same batch, where every entry of a row is the number of that row, in the log or in the buffer."""


class _Ahead(NamedTuple):
    """What a block of updates of the policies is given [block, R, ...]."""

    batch: Batch
    noise: Noise
    estimates: GapEstimates


def drawn_together(updates: int) -> int:
    """How many of so many updates have their random numbers drawn at once: the largest that divides them."""
    return max(n for n in range(1, DRAWN_TOGETHER + 1) if updates % n == 0)


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


def train_round(
    algorithm: Algorithm, agents: Agent, sources: tuple[Source, ...], updates: int, training: tuple[int, ...]
) -> tuple[Agent, Metrics]:
    """``updates`` updates of agents [R]; metrics [R] are means over them. To be compiled.

    The runs of the first source are the first agents, and so on. Of the rows of each source's log the
    classifiers learn from the first ``training``.

    What does not depend on the policy, which are the draws and the classifiers, is a block of updates ahead
    of critics and actors: neither waits for the other, so cores that one leaves idle do the other.
    """
    together = drawn_together(updates)
    coefficients = joined(
        [
            jax.tree.map(lambda x, s=s: jnp.broadcast_to(x, (len(s.runs), *x.shape)), s.coefficients)
            for s in sources
        ]
    )

    def update_gap_models(gap_models: Agent, block: Array) -> tuple[Agent, tuple[_Ahead, Metrics]]:
        parts = [
            _draw_of_runs(algorithm, source, rows, block * together, together)
            for source, rows in zip(sources, training, strict=True)
        ]
        drawn = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), joined(parts))
        one = over_runs(
            lambda agent, own, batch, noise: algorithm.having(own).update_gap_model(agent, batch, noise),
            (0, 0, 0, 0),
        )
        gap_models, (estimates, metrics) = jax.lax.scan(
            lambda agents, drawn: one(agents, coefficients, *drawn), gap_models, drawn
        )
        batch, noise = drawn
        return gap_models, (_Ahead(batch, noise, estimates), metrics)

    def update_policies(policies: Agent, ahead: _Ahead) -> tuple[Agent, Metrics]:
        one = over_runs(
            lambda agent, own, given: algorithm.having(own).update_policy(agent, *given), (0, 0, 0)
        )
        return jax.lax.scan(lambda agents, given: one(agents, coefficients, given), policies, ahead)

    def block(
        carried: tuple[Agent, Agent, _Ahead], number: Array
    ) -> tuple[tuple[Agent, Agent, _Ahead], Metrics]:
        gap_models, policies, ahead = carried
        gap_models, (following, metrics) = jax.lax.cond(
            number < blocks,
            update_gap_models,
            lambda *_: (gap_models, (ahead, no_metrics)),
            gap_models,
            number,
        )
        policies, more = jax.lax.cond(
            number > 0, update_policies, lambda *_: (policies, no_more), policies, ahead
        )
        return (gap_models, policies, following), metrics | more

    gap_models, policies = agents.parted()
    blocks = updates // together
    nothing, no_metrics = _zeros(update_gap_models, gap_models, jnp.zeros((), jnp.uint32))[1]
    no_more = _zeros(update_policies, policies, nothing)[1]
    numbers = jnp.arange(blocks + 1, dtype=jnp.uint32)
    (gap_models, policies, _), metrics = jax.lax.scan(block, (gap_models, policies, nothing), numbers)
    return eqx.combine(gap_models, policies), jax.tree.map(lambda m: m.sum((0, 1)) / updates, metrics)


def draw(algorithm: Algorithm, source: Source, training: int) -> Draw:
    """What `train_round` draws for the update of ``source.step``, and which rows. To be compiled."""
    numbered = source._replace(
        rows=_numbered(source.rows), buffer=None if source.buffer is None else source.buffer.numbered()
    )

    def one(run: Array, key: PRNGKeyArray) -> Draw:
        batch, noise = _draw(algorithm, source, training, run, key, source.step)
        batch_key, _ = _keys(key, source.step)
        # The same draw from rows that hold nothing but their own number.
        return Draw(batch, noise, sample(algorithm, numbered, training, run, batch_key))

    return over_runs(one, (0, 0))(source.runs, source.keys)


def sample(algorithm: Algorithm, source: Source, training: int, run: Array, key: PRNGKeyArray) -> Batch:
    """Mini-batches of one run from both sources, drawn uniformly with replacement."""
    sizes = (algorithm.observation_size, algorithm.action_size)
    count = algorithm.batch_sizes
    half = algorithm.options.classifier_batch_size // 2 if algorithm.recipe.trains_gap_model else 0
    real_key, sim_key, classifier_key = jax.random.split(key, 3)
    real = sim = classifier_real = classifier_sim = measured_gap = None
    if Reads.REAL in count:
        assert source.rows is not None
        index = jax.random.randint(real_key, (count[Reads.REAL],), 0, len(source.rows))
        real = unpack(source.rows[index], *sizes)
    if half:
        assert source.rows is not None
        index = jax.random.randint(classifier_key, (half,), 0, training)
        classifier_real = unpack(source.rows[index], *sizes)
    if Reads.SIM in count:
        assert source.buffer is not None
        packed = source.buffer.sample(run, sim_key, count[Reads.SIM] + half)
        drawn = unpack(packed, *sizes)
        sim = jax.tree.map(lambda x: x[: count[Reads.SIM]], drawn)
        classifier_sim = jax.tree.map(lambda x: x[count[Reads.SIM] :], drawn) if half else None
        if algorithm.recipe.measures_gap:
            measured_gap = unpack_gap(packed[: count[Reads.SIM]])
    return Batch(real, sim, classifier_real, classifier_sim, measured_gap)


def _draw_of_runs(
    algorithm: Algorithm, source: Source, training: int, first: Array, updates: int
) -> tuple[Batch, Noise]:
    """What so many updates draw [R, updates, ...], the first of them ``first`` into the round."""
    steps = source.step + first + jnp.arange(updates, dtype=jnp.uint32)

    def of_run(run: Array, key: PRNGKeyArray, steps: Array) -> tuple[Batch, Noise]:
        return jax.vmap(lambda step: _draw(algorithm, source, training, run, key, step))(steps)

    return over_runs(of_run, (0, 0, None))(source.runs, source.keys, steps)


def _draw(
    algorithm: Algorithm, source: Source, training: int, run: Array, key: PRNGKeyArray, step: Array
) -> tuple[Batch, Noise]:
    batch_key, noise_key = _keys(key, step)
    batch = sample(algorithm, source, training, run, batch_key)
    return _predicted(algorithm, source, batch), algorithm.draw_noise(noise_key)


def _keys(key: PRNGKeyArray, step: Array) -> PRNGKeyArray:
    """Of the batch, and of the random numbers, of an update."""
    return jax.random.split(jax.random.fold_in(key, step))


def _predicted(algorithm: Algorithm, source: Source, batch: Batch) -> Batch:
    """The batch with what the log's model says of its simulated rows, where a term reads that."""
    if not algorithm.recipe.predicts_reality:
        return batch
    assert source.dynamics is not None
    assert batch.sim is not None
    return batch._replace(predicted=source.dynamics.next_states(batch.sim.observation, batch.sim.action))


def _zeros(function: Callable[..., Any], *args: Any) -> Any:
    """Of the shapes that a function returns."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *args))


def joined(parts: Sequence[Any]) -> Any:
    """Trees of arrays [R, ...], one after the other along the runs."""
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def _numbered(rows: Array | None) -> Array | None:
    """Rows [n, row] int32, each of which repeats its own number."""
    return None if rows is None else jnp.broadcast_to(jnp.arange(len(rows))[:, None], rows.shape)
