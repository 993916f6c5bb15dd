"""One update, taken apart: what it computes, by name, in the order in which it is computed.

The update itself returns a few means. Where one of them is not finite, these say which number was the first.
Every value comes from the functions that the update is made of; none is written down twice.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from simtrust.algorithms.agent import Agent, Algorithm, least
from simtrust.algorithms.critic import CriticInputs, Reads, Samples, Term
from simtrust.algorithms.inputs import Batch, Noise, concatenate
from simtrust.gap import classifier as domain
from simtrust.gap import ratio

ROWS = {
    "real": "log rows",
    "sim": "simulated rows",
    "classifier_real": "log rows drawn for the classifiers",
    "classifier_sim": "simulated rows drawn for the classifiers",
}
"""The parts of a batch."""
SAMPLE_AXES = {"q": 1, "sampled_q": 1}
"""Which axis of what `Samples` holds counts the rows, where it is not the first."""


class Named(NamedTuple):
    """A number, or several, that an update computes."""

    name: str
    value: Any  # an array; numpy's outside of compiled code
    part: str | None = None
    """The part of the batch, of `ROWS`, whose rows ``axis`` counts; None where it has no rows."""
    axis: int = 0


def make_trace(algorithm: Algorithm) -> Callable[[Agent, Batch, Noise], tuple[list[Named], Agent]]:
    """A compiled function of one agent, without a runs axis, that returns the trace and the new agent."""
    labels: list[Named] = []

    @jax.jit
    def compiled(agent: Agent, batch: Batch, noise: Noise) -> tuple[list[Array], Agent]:
        found: list[Named] = []
        agent = _trace(algorithm, agent, batch, noise, found)
        labels[:] = [each._replace(value=None) for each in found]
        return [each.value for each in found], agent

    def traced(agent: Agent, batch: Batch, noise: Noise) -> tuple[list[Named], Agent]:
        values, agent = compiled(agent, batch, noise)
        return [
            label._replace(value=np.asarray(value)) for label, value in zip(labels, values, strict=True)
        ], agent

    return traced


def state_of(agent: Agent, when: str) -> Iterator[Named]:
    """Every floating-point number that an agent consists of, optimisers included."""
    yield from _leaves(agent, "{} " + when)


def _trace(algorithm: Algorithm, agent: Agent, batch: Batch, noise: Noise, found: list[Named]) -> Agent:
    found += state_of(agent, "before the update")
    found += _rows(batch)
    if agent.classifier is not None:
        found += _classifier(algorithm, agent, batch, noise)
        agent, _ = algorithm.update_classifier(agent, batch, noise)
        found += _moved(agent, "classifier_optimiser", "classifier")
    found += _critic(algorithm, agent, batch, noise)
    agent, _ = algorithm.update_critic(agent, batch, noise)
    found += _moved(agent, "critic_optimiser", "critic")
    found += _actor(algorithm, agent, batch, noise)
    agent, _ = algorithm.update_actor(agent, batch, noise)
    found += _moved(agent, "actor_optimiser", "actor", "temperature_optimiser", "log_temperature")
    agent = algorithm.update_target(agent)
    found += _moved(agent, "target_critic")
    return agent


def _leaves(tree: Any, name: str) -> Iterator[Named]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            yield Named(name.format(jax.tree_util.keystr(path).removeprefix(".")), leaf)


def _moved(agent: Agent, *fields: str) -> Iterator[Named]:
    for field in fields:
        yield from _leaves(getattr(agent, field), f"{field}{{}} after the update")


def _rows(batch: Batch) -> Iterator[Named]:
    for part, label in ROWS.items():
        rows = getattr(batch, part)
        for field, value in ({} if rows is None else rows._asdict()).items():
            yield Named(f"{field}, {label}", value, part)
    if batch.measured_gap is not None:
        yield Named(f"measured gap u, {ROWS['sim']}", batch.measured_gap, "sim")
    if batch.predicted is not None:
        for name, value in batch.predicted._asdict().items():
            yield Named(f"{name} of s' by the log's model, {ROWS['sim']}", value, "sim", 1)


def _split(
    name: str, value: Array, batch: Batch, axis: int, parts: Sequence[str] = ("real", "sim")
) -> Iterator[Named]:
    """What was computed of the rows of both sources at once, source by source."""
    first = 0
    for part in parts:
        if (rows := getattr(batch, part)) is not None:
            end = first + len(rows.reward)
            own = jax.lax.slice_in_dim(value, first, end, axis=axis)
            yield Named(f"{name}, {ROWS[part]}", own, part, axis)
            first = end


def _classifier(algorithm: Algorithm, agent: Agent, batch: Batch, noise: Noise) -> Iterator[Named]:
    assert batch.classifier_real is not None
    assert batch.classifier_sim is not None
    assert noise.classifier is not None
    rows = concatenate(batch.classifier_real, batch.classifier_sim)
    rows = domain.add_input_noise(rows, noise.classifier, algorithm.options.classifier_input_noise)
    sizes = [len(batch.classifier_real.reward), len(batch.classifier_sim.reward)]
    labels = np.repeat([domain.REAL, domain.SIM], sizes)
    grads, info = jax.grad(domain.classifier_loss, has_aux=True)(agent.classifier, rows, labels)
    for name, value in info.items():
        yield Named(name, value)
    yield from _leaves(grads, "gradient of classifier{}")


def _critic(algorithm: Algorithm, agent: Agent, batch: Batch, noise: Noise) -> Iterator[Named]:
    rows = concatenate(batch.real, batch.sim)
    action, log_density = agent.actor.sample(rows.next_observation, noise.next_action)
    yield from _split("the policy's action in s'", action, batch, 0)
    yield from _split("its log-probability in s'", log_density, batch, 0)
    yield from _split("target Q(s', a')", agent.target_critic(rows.next_observation, action), batch, 1)
    next_values = algorithm.next_values(agent, rows, noise)
    yield from _split("value of s'", next_values, batch, 0)
    estimates = algorithm.gap_estimates(agent, batch, noise)
    arguments = (agent, batch, next_values, estimates, noise)
    inputs = _critic_inputs(algorithm, *arguments)
    yield from _samples(inputs.real, "real")
    yield from _samples(inputs.sim, "sim")
    yield from _weights(inputs.sim)
    for term in algorithm.recipe.critic:
        yield from _row_by_row(term, inputs)
        yield Named(f"loss term critic_{term.name}", term.formula(inputs))
    grads, info = jax.grad(algorithm.critic_loss, has_aux=True)(agent.critic, *arguments)
    yield Named("critic_loss", info["critic_loss"])
    yield from _leaves(grads, "gradient of critic{}")


def _critic_inputs(algorithm: Algorithm, agent: Agent, *arguments: Any) -> CriticInputs:
    """What the terms of the critic's loss read, told by one more term."""
    seen: list[CriticInputs] = []

    def remember(inputs: CriticInputs) -> Float[Array, " E"]:
        seen.append(inputs)
        return jnp.zeros(1)

    spy = copy.copy(algorithm)
    terms = (*algorithm.recipe.critic, Term("seen", frozenset(), remember))
    spy.recipe = replace(algorithm.recipe, critic=terms)
    spy.critic_loss(agent.critic, agent, *arguments)
    return seen[0]


def _samples(samples: Samples | None, part: str) -> Iterator[Named]:
    if samples is None:
        return
    names = {
        "log_ratio": "log-ratio",
        "gap": "gap u",
        "reverse_gap": "reverse gap u",
        "q": "Q(s, a)",
        "sampled_q": "Q at sampled actions",
        "sampled_log_density": "log-density of sampled actions",
    }
    for field, name in names.items():
        if (value := getattr(samples, field)) is not None:
            yield Named(f"{name}, {ROWS[part]}", value, part, SAMPLE_AXES.get(field, 0))


def _weights(sim: Samples | None) -> Iterator[Named]:
    if sim is None:
        return
    if (log_ratio := sim.log_ratio_of_weight) is not None:
        yield Named(f"weight w, {ROWS['sim']}", ratio.dynamics_ratio(log_ratio), "sim")
    if (gap := sim.gap_of_omega) is not None:
        yield Named(f"log of the share ω, {ROWS['sim']}", ratio.log_gap_share(gap), "sim")


def _row_by_row(term: Term, inputs: CriticInputs) -> Iterator[Named]:
    """A term of the loss as each row alone would have it [E, B], where it reads one source."""
    if len(term.reads & {Reads.REAL, Reads.SIM}) != 1:
        return
    part = "real" if Reads.REAL in term.reads else "sim"
    samples: Samples = getattr(inputs, part)
    present = {name: value for name, value in samples._asdict().items() if value is not None}
    axes = {name: SAMPLE_AXES.get(name, 0) for name in present}

    def alone(row: dict[str, Array]) -> Float[Array, " E"]:
        one = {name: jnp.expand_dims(value, axes[name]) for name, value in row.items()}
        return term.formula(inputs._replace(**{part: Samples(**one)}))

    value = jax.vmap(alone, in_axes=(axes,), out_axes=1)(present)
    yield Named(f"loss term critic_{term.name}, row by row", value, part, 1)


def _actor(algorithm: Algorithm, agent: Agent, batch: Batch, noise: Noise) -> Iterator[Named]:
    readers = {source.reads for source in algorithm.recipe.actor}
    parts = [part for part, reads in (("real", Reads.REAL), ("sim", Reads.SIM)) if reads in readers]
    observation = concatenate(*(getattr(batch, part) for part in parts)).observation
    action, log_density = agent.actor.sample(observation, noise.action)
    yield from _split("the policy's action in s", action, batch, 0, parts)
    yield from _split("actor's log-probability", log_density, batch, 0, parts)
    value = least(agent.critic(observation, action))
    yield from _split("Q at the policy's action", value, batch, 0, parts)
    temperature = jnp.exp(agent.log_temperature)
    yield Named("entropy coefficient λ", temperature)
    yield from _split("actor_loss, row by row", temperature * log_density - value, batch, 0, parts)
    loss = jax.value_and_grad(algorithm.actor_loss, has_aux=True)
    (total, _), grads = loss(agent.actor, agent, observation, noise.action)
    yield Named("actor_loss", total)
    yield from _leaves(grads, "gradient of actor{}")
