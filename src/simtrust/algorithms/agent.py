"""The training state of one run, and the update that improves it.

`update` is the whole algorithm: gap model, critics, actor, temperature, target network, in the order
of Algorithm 1. It is written for one run; fleets are made with ``vmap`` by the training loop.
"""

import copy
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from simtrust.algorithms.actor import DeterministicActor, StochasticActor
from simtrust.algorithms.critic import CriticInputs, Reads, Samples, summary
from simtrust.algorithms.inputs import Batch, Coefficients, Noise, concatenate
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import Recipe
from simtrust.data.replay import row_size
from simtrust.gap import classifier as domain
from simtrust.gap.classifier import DomainClassifier
from simtrust.gap.ratio import dynamics_gap, reverse_dynamics_gap
from simtrust.networks import CriticEnsemble
from simtrust.types import Transitions

Metrics = dict[str, Float[Array, ""]]
AnyActor = StochasticActor | DeterministicActor


class Agent(eqx.Module):
    """Everything that training changes. Fleets carry a leading axis R on every array."""

    actor: AnyActor
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    log_temperature: Float[Array, ""]
    """log λ."""
    classifier: DomainClassifier | None
    actor_optimiser: optax.OptState
    critic_optimiser: optax.OptState
    temperature_optimiser: optax.OptState
    classifier_optimiser: optax.OptState | None

    def parted(self) -> tuple["Agent", "Agent"]:
        """The gap model, and everything else: agents with None for what is the other's (`eqx.combine`)."""
        where = lambda agent: (agent.classifier, agent.classifier_optimiser)  # noqa: E731
        nothing = jax.tree.map(lambda _: False, self)
        gap_model = eqx.tree_at(where, nothing, (True, True), is_leaf=lambda x: x is None)
        return eqx.partition(self, gap_model)


class GapEstimates(NamedTuple):
    """What the classifiers say of a batch's simulated rows, in the order of `Samples`."""

    log_ratio: Float[Array, " B"] | None = None
    gap: Float[Array, " B"] | None = None
    reverse_gap: Float[Array, " B"] | None = None


def least(q: Float[Array, "E *batch"]) -> Float[Array, "*batch"]:
    """``min_i Q_i``, the gradient going to exactly one member.

    The gradient of ``q.min(0)`` compares q with its minimum, and is 0/0 wherever XLA computes one of the
    two again with another rounding.
    """
    return reduce(lambda left, right: jnp.where(left < right, left, right), q)


class Algorithm:
    """A recipe with its options, ready to make agents and to update them.

    ``next_state_noise`` [O, O] is a factor of the covariance Σ̂_D (`gap.ratio.next_state_noise_factor`).
    """

    def __init__(
        self,
        recipe: Recipe,
        options: AlgorithmOptions,
        *,
        observation_size: int,
        action_size: int,
        next_state_noise: Array,
    ):
        self.recipe = recipe
        self.options = options.resolved(recipe.defaults, action_size)
        self.observation_size = observation_size
        self.action_size = action_size
        self.coefficients = Coefficients(jnp.asarray(self.options.beta), next_state_noise)
        self.optimiser = optax.adam(self.options.learning_rate)

    def having(self, coefficients: Coefficients) -> "Algorithm":
        """The same algorithm with other coefficients, which may be a run's own, being traced."""
        other = copy.copy(self)
        other.coefficients = coefficients
        return other

    def shape(self) -> tuple[Any, ...]:
        """Equal for two algorithms if nothing but their coefficients differs."""
        return self.recipe, replace(self.options, beta=0.0), self.observation_size, self.action_size

    @property
    def batch_sizes(self) -> dict[Reads, int]:
        """Rows of the critic's batch from each source that the recipe reads."""
        reads, size = self.recipe.reads, self.options.batch_size
        if {Reads.REAL, Reads.SIM} <= reads:
            real = min(max(round(size * self.options.real_fraction), 1), size - 1)
            return {Reads.REAL: real, Reads.SIM: size - real}
        return {source: size for source in (Reads.REAL, Reads.SIM) if source in reads}

    @property
    def simulated_row_size(self) -> int:
        """Numbers in a row of the simulator's replay buffer."""
        sizes = (self.observation_size, self.action_size)
        return row_size(*sizes, measured_gap=self.recipe.measures_gap)

    def create(self, key: PRNGKeyArray) -> Agent:
        """A fresh agent, its target network a copy of its critic."""
        options = self.options
        actor_key, critic_key, classifier_key = jax.random.split(key, 3)
        sizes = (self.observation_size, self.action_size)
        if options.actor == "stochastic":
            actor = StochasticActor(*sizes, options.hidden_sizes, key=actor_key)
        else:
            noise = options.exploration_noise
            actor = DeterministicActor(*sizes, options.hidden_sizes, exploration_noise=noise, key=actor_key)
        critic = CriticEnsemble(
            *sizes,
            options.hidden_sizes,
            size=options.critic_ensemble,
            layer_norm=bool(options.critic_layer_norm),
            key=critic_key,
        )
        classifier = None
        if self.recipe.trains_gap_model:
            classifier = DomainClassifier(*sizes, options.classifier_hidden_sizes, key=classifier_key)
        log_temperature = jnp.zeros(())
        start = self.optimiser.init
        return Agent(
            actor=actor,
            critic=critic,
            # A copy, since buffers given away to the compiled update must not be shared.
            target_critic=jax.tree.map(jnp.copy, critic),
            log_temperature=log_temperature,
            classifier=classifier,
            actor_optimiser=start(actor),  # pyright: ignore[reportArgumentType]
            critic_optimiser=start(critic),  # pyright: ignore[reportArgumentType]
            temperature_optimiser=start(log_temperature),
            classifier_optimiser=None if classifier is None else start(classifier),  # pyright: ignore[reportArgumentType]
        )

    def draw_noise(self, key: PRNGKeyArray) -> Noise:
        """The random numbers of one update."""
        options, reads, sizes = self.options, self.recipe.reads, self.batch_sizes
        keys = jax.random.split(key, len(Noise._fields))
        noise = dict(zip(Noise._fields, keys, strict=True))
        normal = jax.random.normal
        inputs = 2 * self.observation_size + self.action_size
        actors = sum(sizes[source.reads] for source in self.recipe.actor)
        ensemble, drawn = options.critic_ensemble, min(options.critic_ensemble, 2)
        shapes: dict[str, tuple[int, ...]] = {
            "next_action": (sum(sizes.values()), self.action_size),
            "action": (actors, self.action_size),
        }
        if self.recipe.trains_gap_model:
            shapes["classifier"] = (options.classifier_batch_size, inputs)
        if reads & {Reads.GAP, Reads.REVERSE_GAP}:
            shapes["next_state"] = (options.next_state_samples, sizes[Reads.SIM], self.observation_size)
        others: dict[str, Array] = {}
        if Reads.REVERSE_GAP in reads:
            shape = (options.next_state_samples, sizes[Reads.SIM])
            others["elite"] = jax.random.uniform(noise["elite"], shape)
        if Reads.SAMPLED_ACTIONS in reads:
            shape = (options.cql_actions, sizes[Reads.REAL], self.action_size)
            shapes |= {"sampled_here": shape, "sampled_next": shape}
            others["sampled_uniform"] = jax.random.uniform(
                noise["sampled_uniform"], shape, minval=-1.0, maxval=1.0
            )
        return Noise(
            pair=jax.random.choice(noise["pair"], ensemble, (drawn,), replace=False),
            **{name: normal(noise[name], shape) for name, shape in shapes.items()},
            **others,
        )

    def update(self, agent: Agent, batch: Batch, noise: Noise) -> tuple[Agent, Metrics]:
        """One step of Algorithm 1 on one mini-batch; returns the new agent and scalar metrics."""
        agent, (estimates, metrics) = self.update_gap_model(agent, batch, noise)
        agent, info = self.update_policy(agent, batch, noise, estimates)
        return agent, metrics | info

    def update_gap_model(
        self, agent: Agent, batch: Batch, noise: Noise
    ) -> tuple[Agent, tuple[GapEstimates, Metrics]]:
        """Its first half: the classifiers, and what they then say of the batch. Reads nothing else."""
        metrics: Metrics = {}
        if agent.classifier is not None:
            agent, metrics = self.update_classifier(agent, batch, noise)
        return agent, (self.gap_estimates(agent, batch, noise), metrics)

    def update_policy(
        self, agent: Agent, batch: Batch, noise: Noise, estimates: GapEstimates
    ) -> tuple[Agent, Metrics]:
        """Its second half: critics, actor, temperature, target network. Reads no classifier."""
        agent, metrics = self.update_critic(agent, batch, noise, estimates)
        agent, info = self.update_actor(agent, batch, noise)
        return self.update_target(agent), metrics | info

    def update_classifier(self, agent: Agent, batch: Batch, noise: Noise) -> tuple[Agent, Metrics]:
        """One Adam step on the cross-entropy of both domain classifiers (Alg. 1, lines 4 and 5)."""
        assert batch.classifier_real is not None
        assert batch.classifier_sim is not None
        assert noise.classifier is not None
        real, sim = len(batch.classifier_real.reward), len(batch.classifier_sim.reward)
        rows = concatenate(batch.classifier_real, batch.classifier_sim)
        rows = domain.add_input_noise(rows, noise.classifier, self.options.classifier_input_noise)
        labels = np.repeat([domain.REAL, domain.SIM], [real, sim])
        grads, info = jax.grad(domain.classifier_loss, has_aux=True)(agent.classifier, rows, labels)
        new, state = self._step(grads, agent.classifier_optimiser, agent.classifier)
        agent = eqx.tree_at(lambda a: (a.classifier, a.classifier_optimiser), agent, (new, state))
        return agent, info

    def gap_estimates(self, agent: Agent, batch: Batch, noise: Noise) -> GapEstimates:
        """``log P̂/P`` and ``u`` on simulated rows, each only if some term reads it."""
        sim, reads = batch.sim, self.recipe.reads
        if agent.classifier is None or sim is None:
            return GapEstimates()
        log_ratio = gap = reverse_gap = None
        if Reads.LOG_RATIO in reads:
            log_ratio = agent.classifier.log_ratio(sim.observation, sim.action, sim.next_observation)
        if Reads.GAP in reads:
            assert noise.next_state is not None
            gap = dynamics_gap(agent.classifier, sim, self.coefficients.next_state_noise, noise.next_state)
        if Reads.REVERSE_GAP in reads:
            assert batch.predicted is not None
            assert noise.elite is not None
            assert noise.next_state is not None
            next_states = batch.predicted.draw(noise.elite, noise.next_state)
            reverse_gap = reverse_dynamics_gap(agent.classifier, sim, next_states)
        return GapEstimates(log_ratio, gap, reverse_gap)

    def next_values(self, agent: Agent, rows: Transitions, noise: Noise) -> Float[Array, " B"]:
        """``γ (1 − terminated) min_i Q̄_i(s', a')`` with ``a' ~ π(·|s')`` (Eq. 1)."""
        action, log_density = agent.actor.sample(rows.next_observation, noise.next_action)
        q = agent.target_critic(rows.next_observation, action)
        if len(q) > 2:
            q = q[noise.pair]
        value = least(q)
        if self.options.entropy_in_backup:
            value = value - jnp.exp(agent.log_temperature) * log_density
        return jax.lax.stop_gradient(self.options.discount * (1.0 - rows.terminated) * value)

    def critic_loss(
        self,
        critic: CriticEnsemble,
        agent: Agent,
        batch: Batch,
        next_values: Float[Array, " B"],
        gap_estimates: GapEstimates,
        noise: Noise,
    ) -> tuple[Float[Array, ""], Metrics]:
        """The recipe's terms, summed over terms and critics (Eq. 4–8)."""
        rows = concatenate(batch.real, batch.sim)
        q = critic(rows.observation, rows.action)
        count = 0 if batch.real is None else len(batch.real.reward)
        real = sim = None
        if batch.real is not None:
            real = Samples(q[:, :count], batch.real.reward, next_values[:count])
            if Reads.SAMPLED_ACTIONS in self.recipe.reads:
                real = self._with_sampled_actions(real, critic, agent, batch.real, noise)
        if batch.sim is not None:
            sim = Samples(q[:, count:], batch.sim.reward, next_values[count:], *gap_estimates)
            if batch.measured_gap is not None:
                log_ratio = self.options.gap_sharpness * batch.measured_gap
                sim = sim._replace(measured_gap=batch.measured_gap, measured_log_ratio=log_ratio)
        inputs = CriticInputs(real, sim, self.coefficients.beta, jnp.asarray(self.options.cql_alpha))
        terms = {term.name: term.formula(inputs).sum() for term in self.recipe.critic}
        loss = sum(terms.values(), jnp.zeros(()))
        return loss, {"critic_loss": loss, **{f"critic_{k}": v for k, v in terms.items()}, **summary(inputs)}

    def _with_sampled_actions(
        self, real: Samples, critic: CriticEnsemble, agent: Agent, rows: Transitions, noise: Noise
    ) -> Samples:
        uniform = noise.sampled_uniform
        assert uniform is not None
        assert noise.sampled_here is not None
        assert noise.sampled_next is not None
        count = len(uniform)
        uniform_density = jnp.full(uniform.shape[:-1], self.action_size * jnp.log(0.5))
        repeated = [jnp.broadcast_to(s, (count, *s.shape)) for s in (rows.observation, rows.next_observation)]
        here, here_density = agent.actor.sample(repeated[0], noise.sampled_here)
        there, there_density = agent.actor.sample(repeated[1], noise.sampled_next)
        actions = jax.lax.stop_gradient(jnp.concatenate([uniform, here, there]))
        density = jnp.concatenate([uniform_density, here_density, there_density])
        observation = jnp.broadcast_to(rows.observation, (len(actions), *rows.observation.shape))
        return real._replace(
            sampled_q=jnp.moveaxis(critic(observation, actions), 1, -1),
            sampled_log_density=jax.lax.stop_gradient(density.T),
        )

    def update_critic(
        self, agent: Agent, batch: Batch, noise: Noise, estimates: GapEstimates | None = None
    ) -> tuple[Agent, Metrics]:
        """One Adam step on the critics (Alg. 1, line 6); ``estimates`` of the agent's own, if not given."""
        next_values = self.next_values(agent, concatenate(batch.real, batch.sim), noise)
        if estimates is None:
            estimates = self.gap_estimates(agent, batch, noise)
        loss = jax.grad(self.critic_loss, has_aux=True)
        grads, info = loss(agent.critic, agent, batch, next_values, estimates, noise)
        critic, state = self._step(grads, agent.critic_optimiser, agent.critic)
        return eqx.tree_at(lambda a: (a.critic, a.critic_optimiser), agent, (critic, state)), info

    def actor_loss(
        self, actor: AnyActor, agent: Agent, observation: Float[Array, "B O"], noise: Float[Array, "B A"]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """``E[λ log π(a|s) − min_i Q_i(s, a)]`` and, beside it, ``E[log π]`` (Alg. 1, line 7)."""
        action, log_density = actor.sample(observation, noise)
        value = least(agent.critic(observation, action))
        temperature = jax.lax.stop_gradient(jnp.exp(agent.log_temperature))
        return (temperature * log_density - value).mean(), log_density.mean()

    def update_actor(self, agent: Agent, batch: Batch, noise: Noise) -> tuple[Agent, Metrics]:
        """One Adam step on the policy, then one on the temperature λ that keeps its entropy."""
        readers = {source.reads for source in self.recipe.actor}
        parts = ((Reads.REAL, batch.real), (Reads.SIM, batch.sim))
        observation = concatenate(*(part for reads, part in parts if reads in readers)).observation
        loss = jax.value_and_grad(self.actor_loss, has_aux=True)
        (value, log_density), grads = loss(agent.actor, agent, observation, noise.action)
        actor, actor_state = self._step(grads, agent.actor_optimiser, agent.actor)
        metrics = {"actor_loss": value}
        agent = eqx.tree_at(lambda a: (a.actor, a.actor_optimiser), agent, (actor, actor_state))
        if self.options.actor == "deterministic":
            return agent, metrics
        target = self.options.target_entropy
        # d/d(log λ) of −log λ·(log π + target entropy), SAC's rule for the temperature.
        temperature_grad = -(log_density + target)
        log_temperature, state = self._step(
            temperature_grad, agent.temperature_optimiser, agent.log_temperature
        )
        where = lambda a: (a.log_temperature, a.temperature_optimiser)  # noqa: E731
        agent = eqx.tree_at(where, agent, (log_temperature, state))
        return agent, metrics | {"entropy": -log_density, "temperature": jnp.exp(log_temperature)}

    def update_target(self, agent: Agent) -> Agent:
        """``Q̄ ← Q̄ + τ (Q − Q̄)``, after the critics have moved (Alg. 1, line 9)."""
        rate = self.options.target_update_rate
        target = jax.tree.map(lambda t, q: t + rate * (q - t), agent.target_critic, agent.critic)
        return eqx.tree_at(lambda a: a.target_critic, agent, target)

    def _step(self, grads: Any, state: Any, parameters: Any) -> tuple[Any, Any]:
        updates, state = self.optimiser.update(grads, state, parameters)
        return optax.apply_updates(parameters, updates), state
