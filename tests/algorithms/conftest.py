"""Small agents and batches on which every formula can be checked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simtrust.algorithms.agent import Algorithm
from simtrust.algorithms.inputs import Batch
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import RECIPES, Recipe
from simtrust.gap.dynamics_model import NextStates
from simtrust.types import Transitions

OBSERVATION, ACTION, ELITES = 3, 2, 4
SMALL = {
    "batch_size": 16,
    "hidden_sizes": (8, 8),
    "classifier_batch_size": 12,
    "classifier_hidden_sizes": (8,),
    "next_state_samples": 5,
    "beta": 0.3,
}


def rows(count: int, seed: int) -> Transitions:
    """Random transitions, a third of them terminal."""
    generator = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(generator.normal(size=shape), jnp.float32)  # noqa: E731
    terminated = jnp.asarray(generator.random(count) < 1 / 3, jnp.float32)
    action = jnp.tanh(normal(count, ACTION))
    return Transitions(
        normal(count, OBSERVATION), action, normal(count), normal(count, OBSERVATION), terminated
    )


def predicted(sim: Transitions) -> NextStates:
    """Elites that do not agree on the next states of ``sim``."""
    generator = np.random.default_rng(6)
    shape = (ELITES, *sim.observation.shape)
    mean = sim.observation + generator.normal(size=shape)
    return NextStates(jnp.asarray(mean, jnp.float32), jnp.asarray(generator.uniform(size=shape), jnp.float32))


class Case:
    """An algorithm with a fresh agent, one batch, and one draw of noise."""

    def __init__(self, recipe: Recipe, seed: int = 0, **options):
        self.algorithm = Algorithm(
            recipe,
            AlgorithmOptions(**{**SMALL, **options}),
            observation_size=OBSERVATION,
            action_size=ACTION,
            next_state_noise=jnp.diag(jnp.array([0.5, 1.0, 2.0])),
        )
        self.agent = self.algorithm.create(jax.random.key(seed))
        self.noise = self.algorithm.draw_noise(jax.random.key(seed + 1))
        half = self.algorithm.options.classifier_batch_size // 2
        sizes = {source.name.lower(): n for source, n in self.algorithm.batch_sizes.items()}
        measured_gap = np.random.default_rng(5).exponential(size=sizes.get("sim", 0)).astype(np.float32)
        sim = rows(sizes["sim"], 2) if "sim" in sizes else None
        self.batch = Batch(
            rows(sizes["real"], 1) if "real" in sizes else None,
            sim,
            rows(half, 3) if recipe.trains_gap_model else None,
            rows(half, 4) if recipe.trains_gap_model else None,
            jnp.asarray(measured_gap) if recipe.measures_gap else None,
            predicted(sim) if recipe.predicts_reality and sim is not None else None,
        )

    def updated_critic(self):
        """The critic after one step of its own, the classifiers left alone."""
        return self.algorithm.update_critic(self.agent, self.batch, self.noise)[0].critic


@pytest.fixture
def case():
    """Makes a `Case` from a recipe or its name."""

    def make(recipe: str | Recipe, **options) -> Case:
        return Case(RECIPES[recipe] if isinstance(recipe, str) else recipe, **options)

    return make
