"""The dynamics ensemble on systems whose answer is known, and on logs that are awkward."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simtrust.data.dataset import unknown_next_state
from simtrust.data.held_out import hold_out
from simtrust.errors import ConfigError, DataError
from simtrust.gap import dynamics_fitting
from simtrust.gap.dynamics_fitting import DynamicsModelOptions, FittedDynamics, fit_dynamics_model
from simtrust.gap.dynamics_model import (
    LOG_VARIANCE_MAX,
    LOG_VARIANCE_MIN,
    GaussianNetwork,
    gaussian_loss,
    predict,
)
from simtrust.types import Transitions

A = np.array([[-0.2, 0.3], [-0.3, -0.1]])
B = np.array([[1.0], [-0.5]])
STD = np.array([0.05, 0.4])
EPISODE = 50
QUICK = DynamicsModelOptions(
    members=3, elites=2, hidden_sizes=(16,), epochs=2, patience=2, learning_rate=3e-3, final_learning_rate=0.1
)
ONE = DynamicsModelOptions(members=1, elites=1, hidden_sizes=(8,), epochs=1)


def linear_log(rows: int, seed: int = 0) -> tuple[Transitions[np.ndarray], np.ndarray]:
    """s' = s + A s + B a + noise, from states all over the place, cut into episodes of 50 rows."""
    generator = np.random.default_rng(seed)
    s, a = generator.normal(size=(rows, 2)), generator.uniform(-1, 1, size=(rows, 1))
    s_next = s + s @ A.T + a @ B.T + STD * generator.normal(size=(rows, 2))
    zero = np.zeros(rows, np.float32)
    transitions = Transitions(*(x.astype(np.float32) for x in (s, a, zero, s_next, zero)))
    return transitions, np.arange(rows) % EPISODE == EPISODE - 1


def fit(transitions, episode_end, options=QUICK, seed=0, **rest) -> FittedDynamics:
    return fit_dynamics_model(transitions, episode_end, key=jax.random.key(seed), options=options, **rest)


def same_bits(one: FittedDynamics, other: FittedDynamics) -> bool:
    pairs = zip(jax.tree.leaves(one.model), jax.tree.leaves(other.model), strict=True)
    return all(bool((x == y).all()) for x, y in pairs)


@pytest.fixture(scope="module")
def fitted() -> FittedDynamics:
    options = DynamicsModelOptions(
        members=4, elites=3, hidden_sizes=(32,), learning_rate=1e-2, final_learning_rate=0.01, epochs=15
    )
    return fit(*linear_log(6_000), options)


def test_a_linear_system_is_recovered(fitted):
    """The Jacobian of the mean is [I + A, B]; a model of s' in place of its change would miss the I."""

    def mean(inputs):
        return (inputs[:2] + fitted.model.change(inputs[:2], inputs[2:])[0]).mean(0)

    where = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, size=(200, 3)), jnp.float32)
    jacobian = jax.vmap(jax.jacobian(mean))(where).mean(0)
    np.testing.assert_allclose(jacobian, np.concatenate([np.eye(2) + A, B], axis=1), atol=0.04)


def test_the_predicted_variance_is_that_of_the_noise(fitted):
    rows, _ = linear_log(2_000, seed=2)
    prediction = predict(fitted.model, rows.observation, rows.action)
    np.testing.assert_allclose(prediction.variance.mean(0), STD**2, rtol=0.25)


def test_a_quiet_machine_beside_a_loud_one_keeps_its_variance():
    """What one input tells apart may differ by many orders of magnitude, weighted by the variance or not."""
    generator = np.random.default_rng(0)
    loud = generator.uniform(size=(4_000, 1)) < 0.5
    std = np.where(loud, 1.0, 1e-3)
    s, zero = generator.normal(size=(4_000, 1)), np.zeros(4_000, np.float32)
    s_next = s + 0.1 * s + std * generator.normal(size=s.shape)
    fields = (s, np.where(loud, 1.0, -1.0), zero, s_next, zero)
    rows = Transitions(*(x.astype(np.float32) for x in fields))
    options = replace(QUICK, hidden_sizes=(32, 32), learning_rate=3e-3, epochs=30, patience=30)
    options = replace(options, final_learning_rate=0.01, variance_weighting=0.5)
    model = fit(rows, np.arange(4_000) % EPISODE == EPISODE - 1, options).model
    variance = predict(model, rows.observation, rows.action).variance
    for where, expected in ((loud, 1.0), (~loud, 1e-3)):
        assert expected / 5 < np.median(np.sqrt(variance[where])) < 5 * expected


def test_explained_variance_is_the_best_possible(fitted):
    signal = np.diag(A @ A.T + B @ B.T / 3)
    np.testing.assert_allclose(fitted.r_squared, signal / (signal + STD**2), atol=0.05)
    assert fitted.r_squared_overall == pytest.approx(fitted.r_squared.mean())


def test_members_disagree_outside_the_log(fitted):
    generator = np.random.default_rng(3)
    inside, a = generator.normal(size=(500, 2)), generator.uniform(-1, 1, size=(500, 1))
    outside = inside + 10 * np.sign(inside)
    near, far = (predict(fitted.model, s, a).disagreement.mean(0) for s in (inside, outside))
    assert (far > 5 * near).all()


def test_disagreement_is_the_deviation_of_the_members_means(fitted):
    rows, _ = linear_log(10, seed=2)
    mean, variance = fitted.model.change(jnp.asarray(rows.observation), jnp.asarray(rows.action))
    prediction = predict(fitted.model, rows.observation, rows.action)
    np.testing.assert_allclose(prediction.disagreement, np.std(mean, axis=0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(
        prediction.mean, rows.observation + np.mean(mean, axis=0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(prediction.variance, np.mean(variance, axis=0), rtol=1e-5)


def test_prediction_in_chunks_is_prediction_row_by_row(fitted, monkeypatch):
    rows, _ = linear_log(50, seed=2)
    whole = predict(fitted.model, rows.observation, rows.action)
    monkeypatch.setattr("simtrust.gap.dynamics_model.CHUNK", 7)
    for one, other in zip(whole, predict(fitted.model, rows.observation, rows.action), strict=True):
        assert other.shape == (50, 2)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert predict(fitted.model, rows.observation[:0], rows.action[:0]).mean.shape == (0, 2)


def test_log_prob_is_that_of_the_mixture(fitted):
    rows, _ = linear_log(20, seed=4)
    s, a, s_next = rows.observation, rows.action, rows.next_observation
    mean, variance = (np.asarray(x, np.float64) for x in fitted.model.change(jnp.asarray(s), jnp.asarray(a)))
    density = np.exp(-((s_next - s - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    expected = np.log(density.prod(-1).mean(0))
    np.testing.assert_allclose(fitted.model.log_prob(s, a, s_next), expected, rtol=1e-3, atol=1e-3)


def test_log_prob_is_a_density_in_the_machines_units():
    """In standardised units the integral would be off by the product of the scales."""
    rows, ends = linear_log(500)
    rows = rows._replace(observation=100 * rows.observation, next_observation=100 * rows.next_observation)
    one = Transitions(*(x[:, :1] if x.ndim == 2 else x for x in rows))
    model = fit(one, ends).model
    grid = jnp.linspace(-2_000.0, 2_000.0, 20_001)[:, None]
    s, a = (jnp.broadcast_to(jnp.asarray(x), grid.shape) for x in (30.0, 0.2))
    assert float(jnp.exp(model.log_prob(s, a, grid)).sum() * 0.2) == pytest.approx(1.0, abs=0.01)


def test_samples_have_the_mixtures_moments(fitted):
    s, a = jnp.array([[0.3, -1.0], [8.0, 8.0]]), jnp.array([[0.5], [0.0]])
    drawn = np.asarray(fitted.model.sample(jax.random.key(0), s, a, 20_000))
    assert drawn.shape == (20_000, 2, 2)
    mean, variance = fitted.model.change(s, a)
    std = np.sqrt(np.mean(variance, axis=0) + np.var(mean, axis=0))
    np.testing.assert_allclose(drawn.mean(0), s + np.mean(mean, axis=0), atol=4 * std.max() / 141)
    np.testing.assert_allclose(drawn.std(0), std, rtol=0.03)


def test_the_mean_log_prob_of_samples_is_minus_the_entropy(fitted):
    """sample and log_prob belong to one distribution: a Gaussian's entropy, where the members agree."""
    s, a = jnp.zeros((1, 2)), jnp.zeros((1, 1))
    drawn = fitted.model.sample(jax.random.key(0), s, a, 20_000)
    found = fitted.model.log_prob(jnp.broadcast_to(s, drawn.shape), jnp.zeros((20_000, 1, 1)), drawn).mean()
    variance = np.asarray(fitted.model.change(s, a)[1])
    expected = -0.5 * np.log(2 * np.pi * np.e * variance).sum(-1).mean()
    assert float(found) == pytest.approx(expected, abs=0.1)


def test_the_loss_is_the_gaussians_or_weighted_by_its_variance():
    member = GaussianNetwork(2, (4,), 3, key=jax.random.key(0))
    inputs, change = (jax.random.normal(jax.random.key(i), (10, n)) for i, n in ((1, 2), (2, 3)))
    mean, log_variance, error = (np.asarray(x, np.float64) for x in (*member(inputs), change))
    minus_log = 0.5 * ((error - mean) ** 2 / np.exp(log_variance) + log_variance)
    plain = float(minus_log.sum(1).mean())
    assert float(gaussian_loss(member, inputs, change)) == pytest.approx(plain, rel=1e-4)
    weighted = float((np.exp(0.5 * log_variance) * minus_log).sum(1).mean())
    assert float(gaussian_loss(member, inputs, change, 0.5)) == pytest.approx(weighted, rel=1e-4)


def test_an_outlier_counts_linearly():
    """From 5 deviations on, with the same slope there; and a perfect prediction has a gradient."""
    member = GaussianNetwork(1, (4,), 1, key=jax.random.key(0))
    inputs = jnp.zeros((1, 1))
    mean, log_variance = (float(x[0, 0]) for x in member(inputs))

    def loss(deviations):
        change = mean + deviations * jnp.exp(0.5 * log_variance)
        return gaussian_loss(member, inputs, jnp.reshape(change, (1, 1))) - 0.5 * log_variance

    for deviations in (0.0, 3.0, 4.9):
        assert float(loss(deviations)) == pytest.approx(0.5 * deviations**2, rel=1e-3, abs=1e-6)
    for deviations in (6.0, 100.0):
        assert float(loss(deviations)) == pytest.approx(5 * deviations - 12.5, rel=1e-3)
    at = jnp.reshape(jnp.asarray(mean, jnp.float32), (1, 1))
    gradient = jax.grad(lambda m: gaussian_loss(m, inputs, at))(member)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_log_variance_keeps_its_bounds():
    member = GaussianNetwork(1, (4,), 1, key=jax.random.key(0))
    last = member.network.layers[-1]
    for bias in (1e4, -1e4):
        extreme = jax.tree.map(lambda leaf: leaf, member)
        object.__setattr__(extreme.network.layers[-1], "bias", jnp.full_like(last.bias, bias))
        value = extreme(jnp.zeros((1, 1)))[1]
        assert LOG_VARIANCE_MIN - 1e-3 <= float(value[0, 0]) <= LOG_VARIANCE_MAX + 1e-3


def test_members_are_as_they_were_at_their_best_epoch():
    """Of pure noise only the first epochs generalise; the last epoch's member is worse on held-out rows."""
    generator = np.random.default_rng(0)
    s, a, s_next = (generator.normal(size=(200, n)).astype(np.float32) for n in (2, 1, 2))
    zero = np.zeros(200, np.float32)
    rows, ends = Transitions(s, a, zero, s_next, zero), np.arange(200) % 10 == 9
    options = DynamicsModelOptions(
        members=1,
        elites=1,
        hidden_sizes=(64, 64),
        learning_rate=1e-2,
        epochs=12,
        patience=4,
        least_improvement=0.0,
    )
    found = fit(rows, ends, options)
    held_out = found.held_out
    prediction = predict(found.model, s[held_out], a[held_out]).mean
    error = np.square((s_next[held_out] - prediction) / np.asarray(found.model.change_scale)).mean()
    assert error == pytest.approx(found.held_out_loss.min(), rel=1e-3)
    assert found.held_out_loss[-1, 0] > 1.005 * found.held_out_loss.min()
    best = int(found.held_out_loss[:, 0].argmin())
    assert len(found.held_out_loss) < options.epochs, "nothing stopped it"
    assert len(found.held_out_loss) - 1 - best == options.patience


def test_nothing_stops_a_training_that_improves():
    options = replace(ONE, epochs=5, patience=1, least_improvement=0.0)
    losses = fit(*linear_log(1_000), options).held_out_loss[:, 0]
    assert len(losses) == 5
    assert (np.diff(losses) < 0).all()


def test_elites_predict_the_held_out_rows_best(fitted):
    best = fitted.held_out_loss.min(0)
    assert fitted.elites.tolist() == np.argsort(best)[:3].tolist()
    assert best[fitted.elites].max() <= np.delete(best, fitted.elites).min()
    rows, _ = linear_log(6_000)
    s, a, s_next = (x[fitted.held_out] for x in (rows.observation, rows.action, rows.next_observation))
    mean = np.asarray(fitted.model.change(jnp.asarray(s), jnp.asarray(a))[0])
    errors = np.square((s_next - s - mean) / np.asarray(fitted.model.change_scale)).mean((1, 2))
    np.testing.assert_allclose(errors, best[fitted.elites], rtol=1e-3)


def test_the_same_key_gives_the_same_bits():
    rows, ends = linear_log(600)
    first, again, other = (fit(rows, ends, seed=seed) for seed in (0, 0, 1))
    assert same_bits(first, again)
    assert not same_bits(first, other)


def test_members_differ(fitted):
    weights = fitted.model.elites.network.layers[0].weight
    assert float(jnp.abs(weights[0] - weights[1]).max()) > 0.1


def test_whole_episodes_are_held_out_unless_told(fitted):
    rows, ends = linear_log(600)
    np.testing.assert_array_equal(fitted.held_out, hold_out(linear_log(6_000)[1], np.zeros(6_000, bool), 0.1))
    told = np.arange(600) % 3 == 0
    found = fit(rows, ends, ONE, held_out=told)
    np.testing.assert_array_equal(found.held_out, told)
    rows.next_observation[told] += 1e4
    assert same_bits(found, fit(rows, ends, ONE, held_out=told))


def test_held_out_rows_are_never_trained_on():
    """Poisoned, they change neither the weights nor the scaling."""
    rows, ends = linear_log(600)
    clean = fit(rows, ends, ONE)
    poisoned = jax.tree.map(np.copy, rows)
    poisoned.next_observation[clean.held_out] += 1e4
    poisoned.action[clean.held_out] -= 1e3
    after = fit(poisoned, ends, ONE)
    assert same_bits(clean, after)
    assert after.held_out_loss.min() > 1e6 * clean.held_out_loss.min()
    trained = jax.tree.map(np.copy, rows)
    trained.next_observation[~clean.held_out] += 1.0
    assert not same_bits(clean, fit(trained, ends, ONE))


def test_unknown_next_states_are_never_used():
    """A terminal row that repeats its own state says nothing; poisoned, it changes not one bit."""
    rows, ends = linear_log(600)
    rows.terminated[ends] = 1.0
    rows.next_observation[ends] = rows.observation[ends]
    poisoned = jax.tree.map(np.copy, rows)
    poisoned.observation[ends] = poisoned.next_observation[ends] = 1e5
    assert (unknown_next_state(rows) == ends).all()
    first, second = fit(rows, ends), fit(poisoned, ends)
    assert same_bits(first, second)
    np.testing.assert_array_equal(first.held_out_loss, second.held_out_loss)
    assert not (first.held_out & ends).any()


def test_known_next_states_of_terminals_and_still_machines_are_used():
    rows, ends = linear_log(100)
    rows.terminated[ends] = 1.0
    assert not unknown_next_state(rows).any()
    rows.terminated[:] = 0.0
    assert not unknown_next_state(rows._replace(next_observation=rows.observation)).any()


def test_progress_is_told_after_every_epoch():
    told = []
    found = fit(*linear_log(600), progress=lambda epoch, loss: told.append((epoch, loss)))
    assert [epoch for epoch, _ in told] == list(range(1, len(found.held_out_loss) + 1))
    np.testing.assert_allclose([loss for _, loss in told], found.held_out_loss.mean(1), rtol=1e-6)


def test_a_cap_on_updates_shortens_the_epoch():
    rows, ends = linear_log(600)
    short, long = (fit(rows, ends, replace(ONE, epoch_updates=n)) for n in (1, None))
    assert long.held_out_loss.min() < 0.9 * short.held_out_loss.min()


@pytest.mark.parametrize(
    ("rows", "updates", "size"), [(60_000, 234, 256), (600, 200, 256), (700, 200, 256), (80, 200, 80)]
)
def test_an_epoch_is_whole_passes_and_at_least_200_updates(rows, updates, size):
    """In a pass no row comes twice, and those are few that do not come at all: less than a batch."""
    order = np.asarray(dynamics_fitting._batches(jax.random.key(0), rows, DynamicsModelOptions()))
    assert order.shape == (updates, size)
    passes = order.reshape(-1, rows // size * size)
    assert all(len(np.unique(one)) == len(one) for one in passes)
    assert ((order >= 0) & (order < rows)).all()
    assert len(np.unique(passes[:, 0])) > 0.5 * min(len(passes), rows), "each in an order of its own"


def test_constant_dimensions_have_unit_scale():
    rows, ends = linear_log(600)
    for field in (rows.observation, rows.next_observation):
        field[:, 1] = 0.1
    rows.action[:] = 0.3
    found = fit(rows, ends)
    np.testing.assert_array_equal(np.asarray(found.model.input_scale)[1:], 1.0)
    assert float(found.model.change_scale[1]) == 1.0
    assert np.isnan(found.r_squared).tolist() == [False, True]
    assert found.r_squared_overall == found.r_squared[0]


def test_a_change_that_is_mere_rounding_counts_as_constant():
    """A clock's change is constant, but not in float32; its rounding must not become a unit."""
    rows, ends = linear_log(600)
    clock = 1_000 + 0.01 * np.arange(601)
    rows.observation[:, 1], rows.next_observation[:, 1] = clock[:-1], clock[1:]
    found = fit(rows, ends)
    assert float(found.model.change_scale[1]) == 1.0
    assert np.isnan(found.r_squared[1])


@pytest.mark.parametrize(("states", "actions", "rows"), [(100, 8, 200), (3, 2, 12)])
def test_any_size_of_log_works(states, actions, rows):
    generator = np.random.default_rng(0)
    s, a, s_next = (generator.normal(size=(rows, n)).astype(np.float32) for n in (states, actions, states))
    zero = np.zeros(rows, np.float32)
    options = DynamicsModelOptions(members=2, elites=1, hidden_sizes=(8,), epochs=1)
    found = fit(Transitions(s, a, zero, s_next, zero), np.arange(rows) == rows - 1, options)
    assert found.r_squared.shape == (states,)
    assert np.isfinite(predict(found.model, s, a).mean).all()


def test_duplicated_rows_work():
    rows, ends = linear_log(600)
    same = Transitions(*(np.repeat(x[:1], 600, axis=0) for x in rows))
    found = fit(same, ends)
    np.testing.assert_allclose(
        predict(found.model, same.observation, same.action).mean, same.next_observation, atol=0.3
    )
    assert np.isnan(found.r_squared_overall)


def test_too_few_rows_are_refused():
    rows, ends = linear_log(9)
    with pytest.raises(DataError, match="9 rows have a known next state"):
        fit(rows, ends)


def test_a_loss_that_is_not_finite_is_refused():
    rows, ends = linear_log(600)
    rows.next_observation[~fit(rows, ends).held_out] = np.nan
    with pytest.raises(DataError, match="no longer finite in epoch 1"):
        fit(rows, ends)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("members", 0),
        ("elites", 8),
        ("hidden_sizes", (0, 0)),
        ("hidden_sizes", (32, 16)),
        ("hidden_sizes", ()),
        ("learning_rate", 0.0),
        ("held_out_share", 0.0),
        ("held_out_share", 1.0),
    ],
)
def test_options_that_cannot_work_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        DynamicsModelOptions(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("elites", 7),
        ("hidden_sizes", (1, 1)),
        ("batch_size", 1),
        ("epochs", 1),
        ("patience", 1),
        ("learning_rate", 1.0),
        ("final_learning_rate", 1.0),
        ("variance_weighting", 0.0),
        ("variance_weighting", 1.0),
        ("least_improvement", 0.0),
        ("epoch_updates", 1),
        ("epoch_updates", 2),
    ],
)
def test_options_at_their_limits_are_allowed(name, value):
    assert getattr(DynamicsModelOptions(**{name: value}), name) == value
