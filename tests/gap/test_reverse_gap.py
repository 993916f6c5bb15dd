"""The reverse gap on machines whose densities are known: its value, its sign, its order."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from simtrust.algorithms.agent import Algorithm
from simtrust.algorithms.inputs import Batch
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import RECIPES
from simtrust.gap.classifier import REAL, SIM, DomainClassifier, classifier_loss
from simtrust.gap.dynamics_fitting import DynamicsModelOptions, fit_dynamics_model
from simtrust.gap.dynamics_model import NextStates
from simtrust.gap.ratio import GAP_MIN, dynamics_gap, reverse_dynamics_gap
from simtrust.types import Transitions

DRAWS = 20_000


def rows_of(observation, action, next_observation) -> Transitions:
    zero = np.zeros(len(observation), np.float32)
    columns = (observation, action, zero, next_observation, zero)
    return Transitions(*(jnp.asarray(column, jnp.float32) for column in columns))


class Exact:
    """A classifier that knows both densities: P is N(s, σ), the simulator's P̂ N(s + a, σ̂)."""

    def __init__(self, std: float, simulated_std: float):
        self.std, self.simulated_std = std, simulated_std

    def log_ratio(self, observation, action, next_observation):
        log_density = jax.scipy.stats.norm.logpdf
        simulated = log_density(next_observation, observation + action, self.simulated_std)
        return (simulated - log_density(next_observation, observation, self.std)).sum(-1)


def divergence(mean, std, other_mean, other_std):
    """KL(N(mean, std) ‖ N(other_mean, other_std))."""
    return np.log(other_std / std) + (std**2 + (mean - other_mean) ** 2) / (2 * other_std**2) - 0.5


@pytest.mark.parametrize(("std", "simulated_std"), [(1.0, 1.0), (1.0, 2.0), (1.0, 0.7)])
def test_with_exact_densities_it_is_the_divergence_of_reality_from_the_simulator(std, simulated_std):
    """Not that of the simulator from reality, which is another where the deviations differ."""
    s, offset = np.array([[3.0], [-1.0], [0.5], [2.0]]), np.array([[0.0], [0.3], [-1.0], [2.0]])
    rows = rows_of(s, offset, s + offset)
    each = NextStates(jnp.asarray([s] * 3, jnp.float32), jnp.full((3, 4, 1), std))
    keys = jax.random.split(jax.random.key(0))
    next_states = each.draw(
        jax.random.uniform(keys[0], (DRAWS, 4)), jax.random.normal(keys[1], (DRAWS, 4, 1))
    )
    gap = reverse_dynamics_gap(Exact(std, simulated_std), rows, next_states)
    expected = divergence(0.0, std, offset[:, 0], simulated_std)
    np.testing.assert_allclose(gap, np.clip(expected, GAP_MIN, 10.0), rtol=0.03, atol=0.02)
    assert (np.diff(np.abs(offset[:, 0])) > 0).all()
    assert (np.diff(gap) > 0).all()


def test_elites_are_drawn_in_equal_shares_and_keep_their_own_spread():
    mean = jnp.asarray([-10.0, 0.0, 10.0])[:, None, None]
    std = jnp.asarray([0.1, 1.0, 0.0])[:, None, None]
    keys = jax.random.split(jax.random.key(0))
    elite, noise = jax.random.uniform(keys[0], (DRAWS, 1)), jax.random.normal(keys[1], (DRAWS, 1, 1))
    drawn = np.asarray(NextStates(mean, std).draw(elite, noise)).ravel()
    for centre, spread in ((-10.0, 0.1), (0.0, 1.0), (10.0, 0.0)):
        own = drawn[np.abs(drawn - centre) < 5.0]
        assert len(own) == pytest.approx(DRAWS / 3, rel=0.05)
        assert own.mean() == pytest.approx(centre, abs=0.05)
        assert own.std() == pytest.approx(spread, abs=0.03)


def test_the_largest_number_below_one_is_the_last_elites():
    last = np.nextafter(np.float32(1), np.float32(0))
    for elites in range(1, 20):
        each = NextStates(jnp.arange(float(elites))[:, None, None], jnp.zeros((elites, 1, 1)))
        drawn = each.draw(jnp.asarray([[0.0], [last]]), jnp.zeros((2, 1, 1)))
        assert drawn.ravel().tolist() == [0.0, elites - 1]


STD, OFFSET, ROWS = 0.2, 0.5, 8_000


def machine(seed: int, simulated: bool) -> Transitions:
    """s' = 0.9 s + 0.2 a + noise; the simulator goes `OFFSET` too far where the action is positive."""
    generator = np.random.default_rng(seed)
    s, a = generator.normal(size=(ROWS, 1)), generator.uniform(-1, 1, (ROWS, 1))
    s_next = 0.9 * s + 0.2 * a + STD * generator.normal(size=s.shape)
    return rows_of(s, a, s_next + OFFSET * simulated * np.maximum(a, 0.0))


@pytest.fixture(scope="module")
def learnt():
    """A classifier and a model of reality, both learnt from rows."""
    real, sim = machine(0, simulated=False), machine(1, simulated=True)
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), real, sim)
    labels = jnp.repeat(jnp.array([REAL, SIM]), ROWS)
    optimiser = optax.adam(1e-2)
    classifier = DomainClassifier(1, 1, (32,), key=jax.random.key(0))

    @jax.jit
    def fit(classifier):
        def step(carry, key):
            index = jax.random.randint(key, (512,), 0, 2 * ROWS)
            batch = jax.tree.map(lambda x: x[index], both)
            grads, _ = jax.grad(classifier_loss, has_aux=True)(carry[0], batch, labels[index])
            updates, state = optimiser.update(grads, carry[1])
            return (optax.apply_updates(carry[0], updates), state), None

        start = (classifier, optimiser.init(classifier))
        return jax.lax.scan(step, start, jax.random.split(jax.random.key(1), 1_500))[0][0]

    options = DynamicsModelOptions(
        members=3, elites=2, hidden_sizes=(32,), learning_rate=1e-2, final_learning_rate=0.01, epochs=5
    )
    log = Transitions(*map(np.asarray, real))
    fitted = fit_dynamics_model(log, np.arange(ROWS) % 50 == 49, key=jax.random.key(2), options=options)
    return fit(classifier), fitted.model


def test_learnt_from_rows_it_is_positive_where_the_simulator_is_wrong_and_in_the_order_of_the_truth(learnt):
    classifier, model = learnt
    s = np.random.default_rng(2).uniform(-1, 1, (400, 1))
    a = np.linspace(-1, 1, 400)[:, None]
    # Where the simulator is said to have gone plays no part.
    rows = rows_of(s, a, np.full_like(s, np.nan))
    next_states = model.sample(jax.random.key(3), rows.observation, rows.action, 200)
    gap = np.asarray(reverse_dynamics_gap(classifier, rows, next_states))
    truth = np.square(OFFSET * np.maximum(a[:, 0], 0.0)) / (2 * STD**2)
    wrong, right = a[:, 0] > 0.5, a[:, 0] < 0
    assert gap[right].max() < 0.25 < gap[wrong].min()
    np.testing.assert_allclose(gap[wrong], truth[wrong], rtol=0.5)
    ranks = [np.argsort(np.argsort(x[~right])) for x in (gap, truth)]
    assert np.corrcoef(*ranks)[0, 1] > 0.95


def test_of_draws_around_the_simulated_next_state_only_eq_33_is_positive(learnt):
    """Each direction needs draws of its own side; with the other's, the sign turns."""
    classifier, model = learnt
    s, a = np.zeros((50, 1)), np.linspace(0.7, 1.0, 50)[:, None]
    rows = rows_of(s, a, 0.2 * a + OFFSET * a)
    noise = jax.random.normal(jax.random.key(4), (100, 50, 1))
    simulated = rows.next_observation + STD * noise
    real = model.sample(jax.random.key(5), rows.observation, rows.action, 100)
    assert (dynamics_gap(classifier, rows, STD * jnp.eye(1), noise) > 0.3).all()
    assert (reverse_dynamics_gap(classifier, rows, real) > 0.3).all()
    assert (reverse_dynamics_gap(classifier, rows, simulated) == GAP_MIN).all()


def test_the_update_measures_it_on_the_simulated_rows_of_its_batch(learnt):
    classifier, model = learnt
    algorithm = Algorithm(
        RECIPES["h2o_reverse_kl"],
        AlgorithmOptions(hidden_sizes=(4,), classifier_hidden_sizes=(32,)),
        observation_size=1,
        action_size=1,
        next_state_noise=jnp.eye(1),
    )
    agent = jax.jit(algorithm.create)(jax.random.key(0))
    agent = eqx.tree_at(lambda a: a.classifier, agent, classifier)
    sim = jax.tree.map(lambda x: x[:128], machine(6, simulated=True))
    batch = Batch(sim, sim, sim, sim, predicted=model.next_states(sim.observation, sim.action))
    noise = algorithm.draw_noise(jax.random.key(7))
    found = jax.jit(algorithm.gap_estimates)(agent, batch, noise)
    assert found.gap is None
    wrong, right = sim.action[:, 0] > 0.7, sim.action[:, 0] < -0.2
    assert found.reverse_gap[right].max() < 0.3 < found.reverse_gap[wrong].mean()
    _, metrics = jax.jit(algorithm.update_critic)(agent, batch, noise)
    assert float(metrics["gap"]) == pytest.approx(float(found.reverse_gap.mean()), rel=1e-5)
