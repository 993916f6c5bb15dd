"""The domain classifiers: the collapse of Eq. 7, and log-ratios of densities that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrust.gap.classifier import (
    REAL,
    SIM,
    DomainClassifier,
    add_input_noise,
    classifier_accuracy,
    classifier_loss,
)
from simtrust.types import Transitions

SHIFT, STD = 0.4, 0.5


def four_log_probabilities(classifier, s, a, s_next):
    """Eq. 7 as the paper writes it."""
    state_action = classifier.state_action_logits(s, a)
    transition = state_action + classifier.transition_residual(s, a, s_next)
    of_sas, of_sa = jax.nn.log_softmax(transition), jax.nn.log_softmax(state_action)
    return (of_sas[..., SIM] - of_sas[..., REAL]) - (of_sa[..., SIM] - of_sa[..., REAL])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 30.0))
def test_eq_7_collapses_to_one_difference(seed, scale):
    keys = jax.random.split(jax.random.key(seed), 4)
    classifier = DomainClassifier(3, 2, (8,), key=keys[0])
    s, a, s_next = (scale * jax.random.normal(k, (50, n)) for k, n in zip(keys[1:], (3, 2, 3), strict=True))
    collapsed = classifier.log_ratio(s, a, s_next)
    np.testing.assert_allclose(collapsed, four_log_probabilities(classifier, s, a, s_next), atol=2e-5)
    assert (jnp.abs(collapsed) <= 4.0).all()


def linear_gaussian(count: int, shift: float, seed: int) -> Transitions:
    """s' ~ N(s + a + shift, STD²) in one dimension."""
    generator = np.random.default_rng(seed)
    s, a, noise = (generator.normal(size=(count, 1)).astype(np.float32) for _ in range(3))
    zero = np.zeros(count, np.float32)
    return Transitions(s, a, zero, (s + a + shift + STD * noise).astype(np.float32), zero)


def true_log_ratio(rows: Transitions) -> np.ndarray:
    """log P̂/P where reality has no shift and the simulator has SHIFT."""
    residual = (rows.next_observation - rows.observation - rows.action)[:, 0]
    return (residual**2 - (residual - SHIFT) ** 2) / (2 * STD**2)


@pytest.fixture(scope="module")
def trained() -> DomainClassifier:
    """Classifiers that have seen 20,000 real and simulated rows of the linear-Gaussian pair."""
    real, sim = linear_gaussian(20_000, 0.0, 1), linear_gaussian(20_000, SHIFT, 2)
    rows = jax.tree.map(lambda r, s: jnp.concatenate([r, s]), real, sim)
    domain = jnp.repeat(jnp.array([REAL, SIM]), 20_000)
    classifier = DomainClassifier(1, 1, (64, 64), key=jax.random.key(0))
    optimiser = optax.adam(1e-3)

    @jax.jit
    def fit(classifier):
        def step(carry, key):
            classifier, state = carry
            index = jax.random.randint(key, (512,), 0, 40_000)
            batch = jax.tree.map(lambda x: x[index], rows)
            gradient = jax.grad(classifier_loss, has_aux=True)(classifier, batch, domain[index])[0]
            updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(classifier, updates), state), None

        start = (classifier, optimiser.init(classifier))
        return jax.lax.scan(step, start, jax.random.split(jax.random.key(1), 3_000))[0][0]

    return fit(classifier)


def test_log_ratio_approaches_that_of_the_known_densities(trained):
    rows = linear_gaussian(5_000, SHIFT, 3)
    found = np.asarray(trained.log_ratio(rows.observation, rows.action, rows.next_observation))
    truth = true_log_ratio(rows)
    inside = np.abs(truth) < 2.0
    assert np.abs(found - truth)[inside].mean() < 0.25
    assert np.corrcoef(found[inside], truth[inside])[0, 1] > 0.97
    assert np.polyfit(truth[inside], found[inside], 1)[0] == pytest.approx(1.0, abs=0.1)


def test_log_ratio_is_positive_where_reality_would_not_go(trained):
    s = a = np.zeros((1, 1), np.float32)
    simulated, real = (np.full((1, 1), x, np.float32) for x in (SHIFT + STD, -STD))
    assert trained.log_ratio(s, a, simulated)[0] > 0.7
    assert trained.log_ratio(s, a, real)[0] < -0.7


def test_mean_log_ratio_is_the_kl_divergence(trained):
    rows = linear_gaussian(20_000, SHIFT, 4)
    mean = trained.log_ratio(rows.observation, rows.action, rows.next_observation).mean()
    assert float(mean) == pytest.approx(SHIFT**2 / (2 * STD**2), abs=0.15)


def test_state_and_action_alone_tell_nothing_here(trained):
    rows = linear_gaussian(5_000, SHIFT, 5)
    accuracy = classifier_accuracy(trained, rows, SIM)
    assert float(accuracy["classifier_accuracy_sas_sim"]) > 0.6
    logits = trained.state_action_logits(rows.observation, rows.action)
    assert float(jnp.abs(logits[:, SIM] - logits[:, REAL]).mean()) < 0.2


def test_the_residual_trains_the_state_action_classifier_too():
    classifier = DomainClassifier(1, 1, (8,), key=jax.random.key(0))
    rows = jax.tree.map(jnp.asarray, linear_gaussian(32, SHIFT, 6))
    domain = jnp.repeat(jnp.array([REAL, SIM]), 16)

    def second_loss_alone(classifier):
        return classifier_loss(classifier, rows, domain)[1]["classifier_loss_sas"]

    gradient = jax.grad(second_loss_alone)(classifier).state_action
    assert any((g != 0).any() for g in jax.tree.leaves(gradient))


def test_loss_of_an_undecided_classifier_is_two_log_two():
    zero = jax.tree.map(jnp.zeros_like, DomainClassifier(1, 1, (8,), key=jax.random.key(0)))
    rows = linear_gaussian(10, 0.0, 7)
    loss, _ = classifier_loss(zero, rows, jnp.zeros(10, int))
    assert float(loss) == pytest.approx(2 * np.log(2))


def test_input_noise_moves_states_and_actions_but_no_reward():
    rows = jax.tree.map(jnp.asarray, linear_gaussian(4, 0.0, 8))
    noisy = add_input_noise(rows, jnp.full((4, 3), 2.0), 0.1)
    for name in ("observation", "action", "next_observation"):
        np.testing.assert_allclose(getattr(noisy, name) - getattr(rows, name), 0.2, rtol=1e-5)
    np.testing.assert_array_equal(noisy.reward, rows.reward)


def test_accuracy_is_the_share_that_is_recognised_and_named_after_the_domain(trained):
    """An infinitely far shift is recognised always, and by φ alone."""
    for domain, name, shift in ((REAL, "real", -5.0), (SIM, "sim", 5.0)):
        rows = linear_gaussian(100, shift, 9)
        right = classifier_accuracy(trained, rows, domain)
        assert set(right) == {f"classifier_accuracy_sa_{name}", f"classifier_accuracy_sas_{name}"}
        assert float(right[f"classifier_accuracy_sas_{name}"]) == 1.0
