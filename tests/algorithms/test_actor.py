"""Policies: densities that integrate to one, and gradients that stay finite."""

import equinox as eqx
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


@pytest.mark.parametrize(("log_std", "clipped"), [(1.9, 1.9), (2.5, 2.0), (-19.5, -19.5), (-40.0, -20.0)])
def test_log_std_is_between_minus_20_and_2(log_std, clipped):
    """Of a network whose answer is the same everywhere: mean 0 and this."""
    actor = StochasticActor(2, 1, (4,), key=jax.random.key(0))
    last = actor.network.layers[-1]
    told = (jnp.zeros_like(last.weight), jnp.array([0.0, log_std]))
    actor = eqx.tree_at(lambda a: (a.network.layers[-1].weight, a.network.layers[-1].bias), actor, told)
    noise = jnp.array([[-0.3]])
    action, log_density = actor.sample(jnp.ones((1, 2)), noise)
    before_tanh = np.exp(clipped) * noise
    np.testing.assert_allclose(action, np.tanh(before_tanh), rtol=1e-5)
    expected = tanh_gaussian_log_density(noise, jnp.full((1, 1), clipped), before_tanh)
    np.testing.assert_allclose(log_density, expected, rtol=1e-5)


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
