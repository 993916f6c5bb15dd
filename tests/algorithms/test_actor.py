"""Policies: densities that integrate to one, and gradients that stay finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simtrust.algorithms.actor import DeterministicActor, StochasticActor, tanh_gaussian_log_density


def test_density_of_the_squashed_gaussian_integrates_to_one():
    action = np.linspace(-1 + 1e-6, 1 - 1e-6, 200_001)
    before = np.arctanh(action)
    mean, log_std = 0.4, -0.3
    noise = (before - mean) / np.exp(log_std)
    log_density = tanh_gaussian_log_density(
        *(jnp.asarray(x)[:, None] for x in (noise, np.full_like(noise, log_std), before))
    )
    assert np.trapezoid(np.exp(np.asarray(log_density)), action) == pytest.approx(1.0, abs=1e-3)


def test_density_is_finite_where_tanh_saturates():
    value, gradient = jax.value_and_grad(
        lambda x: tanh_gaussian_log_density(jnp.zeros(1), jnp.zeros(1), x).sum()
    )(jnp.array([40.0]))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_log_std_is_clipped():
    actor = StochasticActor(2, 1, (4,), key=jax.random.key(0))
    loud = jax.tree.map(lambda x: x * 1e4, actor)
    _, log_density = loud.sample(jnp.ones((3, 2)), jnp.ones((3, 1)))
    assert np.isfinite(log_density).all()


def test_best_action_of_the_stochastic_actor_is_its_sample_without_noise():
    actor = StochasticActor(2, 3, (4,), key=jax.random.key(0))
    s = jnp.ones((5, 2))
    np.testing.assert_allclose(actor.best(s), actor.sample(s, jnp.zeros((5, 3)))[0], rtol=1e-6)


def test_deterministic_actor_explores_within_bounds():
    actor = DeterministicActor(2, 3, (4,), exploration_noise=0.5, key=jax.random.key(0))
    s = jnp.ones((100, 2))
    noise = jax.random.normal(jax.random.key(1), (100, 3))
    explored = actor.explore(s, 10 * noise)
    assert (jnp.abs(explored) <= 1.0).all()
    np.testing.assert_allclose(actor.explore(s, 0.01 * noise), actor.best(s) + 0.005 * noise, atol=1e-5)
