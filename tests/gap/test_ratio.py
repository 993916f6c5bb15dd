"""Weights made from log-ratios: known values, bounds, and invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtrust.gap.classifier import DomainClassifier
from simtrust.gap.ratio import (
    GAP_MIN,
    bounded_gap,
    dynamics_gap,
    dynamics_ratio,
    log_gap_share,
    log_uniform_share,
    next_state_noise_factor,
)
from simtrust.types import Transitions


def test_dynamics_ratio_is_real_over_simulated():
    ratio = dynamics_ratio(jnp.log(jnp.array([4.0, 2.0, 1.0, 0.5])))
    np.testing.assert_allclose(ratio, [0.25, 0.5, 1.0, 1.0], rtol=1e-6)


def test_dynamics_ratio_keeps_its_bounds():
    np.testing.assert_allclose(dynamics_ratio(jnp.array([50.0, -50.0])), [1e-5, 1.0], rtol=1e-6)


def test_dynamics_ratio_passes_no_gradient():
    assert jax.grad(lambda x: dynamics_ratio(x).sum())(jnp.array([0.5]))[0] == 0.0


def test_smallest_gap_has_a_finite_logarithm():
    """A floor of 1e-45 would be flushed to 0, and its logarithm would be −inf."""
    gap = jax.jit(lambda x: jnp.log(jnp.maximum(x, GAP_MIN)))(jnp.zeros(1))
    assert np.isfinite(gap[0])
    assert np.isfinite(log_gap_share(jnp.full(128, GAP_MIN))).all()


def test_gap_keeps_its_bounds_and_passes_no_gradient():
    gap = bounded_gap(jnp.array([-1.0, 0.0, 0.3, 11.0, jnp.inf]))
    np.testing.assert_allclose(gap, [GAP_MIN, GAP_MIN, 0.3, 10.0, 10.0], rtol=1e-6)
    assert (jax.grad(lambda x: bounded_gap(x).sum())(jnp.array([0.3, 2.0])) == 0).all()


@given(st.lists(st.floats(2**-20, 10.0, width=32), min_size=1, max_size=50), st.floats(0.125, 8.0))
def test_omega_sums_to_one_and_ignores_the_unit_of_the_gap(gaps, factor):
    gap = jnp.asarray(gaps, jnp.float32)
    omega = jnp.exp(log_gap_share(gap))
    assert float(omega.sum()) == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(log_gap_share(gap * factor), log_gap_share(gap), atol=1e-4)


def test_uniform_omega_is_that_of_a_constant_gap():
    gap = jnp.full(7, 0.3)
    np.testing.assert_allclose(log_uniform_share(gap), log_gap_share(gap), rtol=1e-5)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_noise_factor_reproduces_the_covariance(covariance):
    generator = np.random.default_rng(0)
    states = (generator.normal(size=(500, 3)) @ generator.normal(size=(3, 3)) + 5.0).astype(np.float32)
    factor = next_state_noise_factor(states, covariance=covariance, scale=0.302)
    expected = np.cov(states.T, bias=True) * 0.302**2
    if covariance == "diagonal":
        expected = np.diag(np.diag(expected))
    np.testing.assert_allclose(factor @ factor.T, expected, rtol=1e-3, atol=1e-5)


def test_the_scale_0302_is_that_of_a_buffer_ten_parts_empty():
    states = np.random.default_rng(0).normal(size=(1_000, 2)).astype(np.float32)
    padded = np.concatenate([states, np.zeros((10_000, 2), np.float32)])
    ours = next_state_noise_factor(states, scale=0.302)
    np.testing.assert_allclose(np.diag(ours), padded.std(0), rtol=0.01)


def test_constant_dimensions_make_no_noise_and_no_failure():
    states = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    states[:, 1] = 2.0
    for covariance in ("diagonal", "full"):
        factor = next_state_noise_factor(states, covariance=covariance)
        assert np.isfinite(factor).all()
        assert np.abs(factor[1]).max() < 1e-3


@pytest.fixture
def rows() -> Transitions:
    keys = jax.random.split(jax.random.key(1), 3)
    s, a, s_next = (jax.random.normal(k, (6, n)) for k, n in zip(keys, (3, 2, 3), strict=True))
    return Transitions(s, a, jnp.zeros(6), s_next, jnp.zeros(6))


def test_gap_is_the_mean_log_ratio_around_the_next_state(rows):
    classifier = DomainClassifier(3, 2, (8,), key=jax.random.key(0))
    factor = jnp.diag(jnp.array([0.5, 1.0, 2.0]))
    noise = jax.random.normal(jax.random.key(2), (10, 6, 3))
    slow = [
        np.mean([classifier.log_ratio(s, a, n + factor @ e) for e in noise[:, i]])
        for i, (s, a, n) in enumerate(zip(rows.observation, rows.action, rows.next_observation, strict=True))
    ]
    gap = dynamics_gap(classifier, rows, factor, noise)
    np.testing.assert_allclose(gap, np.clip(slow, GAP_MIN, 10.0), rtol=1e-4, atol=1e-6)


def test_gap_does_not_grow_with_the_number_of_samples(rows):
    """A sum in place of the mean would, and the upper clip would then bite."""
    classifier = DomainClassifier(3, 2, (8,), key=jax.random.key(0))
    noise = jnp.zeros((10, 6, 3))
    few, many = (dynamics_gap(classifier, rows, jnp.eye(3), noise[:n]) for n in (1, 10))
    np.testing.assert_allclose(few, many, rtol=1e-5, atol=1e-30)
