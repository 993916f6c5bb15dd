"""The model estimator of the gap, where the gap is known, and the simulator's own rollouts."""

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from simtrust.data import Dataset
from simtrust.errors import ConfigError
from simtrust.gap.black_box import behaviour_clone, model_gap, probe_rollouts
from simtrust.gap.dynamics_fitting import DynamicsModelOptions, fit_dynamics_model
from simtrust.simulators.guard import CheckedInstance, GuardedSimulator
from simtrust.types import Transitions

A = np.array([[-0.2, 0.3], [-0.3, -0.1]])
B = np.array([[1.0], [-0.5]])
NOISE = 0.02
EPISODE = 20


def rows_of(count: int, seed: int, error: float = 0.0, spread: float = 1.0):
    """Rows of s' = s + A s + B a + noise, where a simulator errs by error·|s₀| in the second dimension."""
    generator = np.random.default_rng(seed)
    s, a = spread * generator.normal(size=(count, 2)), generator.uniform(-1, 1, size=(count, 1))
    gap = error * np.abs(s[:, 0])
    s_next = s + s @ A.T + a @ B.T + NOISE * generator.normal(size=(count, 2))
    s_next[:, 1] += gap
    zero = np.zeros(count)
    return Transitions(*(x.astype(np.float32) for x in (s, a, zero, s_next, zero))), gap


@pytest.fixture(scope="module")
def model_and_held_out():
    rows, _ = rows_of(6_000, seed=0)
    options = DynamicsModelOptions(
        members=3, elites=3, hidden_sizes=(32,), learning_rate=1e-2, final_learning_rate=0.01, epochs=12
    )
    ends = np.arange(6_000) % 50 == 49
    found = fit_dynamics_model(rows, ends, key=jax.random.key(0), options=options)
    return found.model, Transitions(*(x[found.held_out] for x in rows))


@pytest.mark.parametrize("unit", ["state", "change"])
def test_the_gap_follows_the_known_one(model_and_held_out, unit):
    rows, truth = rows_of(2_000, seed=1, error=0.3)
    model, held_out = model_and_held_out
    found = model_gap(model, rows, held_out, unit=unit)
    ranks = [np.argsort(np.argsort(x)) for x in (truth, found.gap)]
    assert np.corrcoef(*ranks)[0, 1] > 0.9
    scale = np.asarray(model.state_scale if unit == "state" else model.change_scale)
    large = truth > 0.3
    np.testing.assert_allclose(found.gap[large], truth[large] / scale[1] / np.sqrt(2), rtol=0.35)


def test_a_simulator_like_reality_has_hardly_any_gap(model_and_held_out):
    model, held_out = model_and_held_out
    same, shifted = (
        model_gap(model, rows_of(2_000, seed=2, error=error)[0], held_out) for error in (0.0, 0.3)
    )
    assert np.median(shifted.gap) > 5 * np.median(same.gap)
    assert np.median(same.gap) < 0.06


def test_expected_errors_are_discounted_and_large_ones_are_not(model_and_held_out):
    model, held_out = model_and_held_out
    rows, _ = rows_of(2_000, seed=3)
    found = model_gap(model, rows, held_out)
    assert (found.gap <= found.error).all()
    assert np.median(found.gap / found.error) < 0.8, "plain noise"
    far = model_gap(model, rows._replace(next_observation=rows.next_observation + 1.0), held_out)
    np.testing.assert_allclose(far.gap, far.error, rtol=0.05)


def test_the_discount_is_the_one_documented(model_and_held_out):
    model, held_out = model_and_held_out
    rows, _ = rows_of(20, seed=4, error=0.1)
    mean, variance = (np.asarray(x, np.float64) for x in model.change(rows.observation, rows.action))
    error = rows.next_observation - rows.observation - mean.mean(0)
    expected = error**3 / (error**2 + variance.mean(0) + mean.var(0))
    scaled = expected / np.asarray(model.change_scale)
    found = model_gap(model, rows, held_out).gap
    np.testing.assert_allclose(found, np.sqrt((scaled**2).mean(1)), rtol=1e-2, atol=1e-5)


def test_known_means_that_the_members_agree_as_within_the_log(model_and_held_out):
    model, held_out = model_and_held_out
    inside, outside = (
        model_gap(model, rows_of(2_000, seed=5, spread=spread)[0], held_out) for spread in (1.0, 10.0)
    )
    assert 0.9 < inside.known.mean() < 0.99
    assert outside.known.mean() < 0.2
    itself = model_gap(model, held_out, held_out, quantile=0.5)
    assert itself.known.mean() == pytest.approx(0.5, abs=0.01)
    assert itself.disagreement[itself.known].max() < itself.disagreement[~itself.known].min()


def test_the_unit_is_the_logs_deviation(model_and_held_out):
    """A state's deviation is 1 here, its change's is smaller: the same error counts for more."""
    model, held_out = model_and_held_out
    rows, _ = rows_of(500, seed=6, error=0.5)
    by_state, by_change = (model_gap(model, rows, held_out, unit=unit).error for unit in ("state", "change"))
    assert (by_change > 1.2 * by_state).mean() > 0.95


def test_what_cannot_be_measured_is_refused(model_and_held_out):
    model, held_out = model_and_held_out
    with pytest.raises(ConfigError, match="quantile"):
        model_gap(model, held_out, held_out, quantile=1.5)
    with pytest.raises(ConfigError, match="held_out"):
        model_gap(model, held_out, Transitions(*(x[:0] for x in held_out)))


class Counter(gymnasium.Env):
    """Observes (steps since reset, a number of the episode); ends after 20 steps, now terminal, now not."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-2.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.episode = 0, self.np_random.integers(1, 2**20)
        return self.observe(), {}

    def observe(self):
        return np.array([self.count, self.episode], np.float32)

    def step(self, action):
        self.count += 1
        ended = self.count == EPISODE
        terminal = bool(self.episode % 2)
        return self.observe(), float(action[0]), ended and terminal, ended and not terminal, {}


def counters(instances: int) -> GuardedSimulator:
    checked = [CheckedInstance(Counter(), "counter", index, instances) for index in range(instances)]
    makers = [lambda one=one: one for one in checked]
    return GuardedSimulator(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED), "counter")


def counter_log(action) -> Dataset:
    """100 rows whose action is a function of the step."""
    step = np.arange(1_000, dtype=np.float32) % EPISODE
    s = np.stack([step, np.full_like(step, 7.0)], axis=1)
    zero = np.zeros_like(step)
    rows = Transitions(s, action(step)[:, None].astype(np.float32), zero, s + np.float32([1, 0]), zero)
    return Dataset(rows, step == EPISODE - 1, "counter", "")


LOG = counter_log(lambda step: 0.04 * step - 0.5)


@pytest.mark.parametrize(("instances", "rows"), [(1, 101), (3, 200), (7, 8)])
def test_rollouts_never_cross_an_episodes_end(instances, rows):
    found = probe_rollouts(counters(instances), LOG, rows=rows, seed=0)
    assert found.observation.shape == found.next_observation.shape == (rows, 2)
    assert all(field.dtype == np.float32 for field in found)
    np.testing.assert_array_equal(found.next_observation[:, 0], found.observation[:, 0] + 1)
    np.testing.assert_array_equal(found.next_observation[:, 1], found.observation[:, 1])
    np.testing.assert_array_equal(found.reward, found.action[:, 0])
    last = found.next_observation[:, 0] == EPISODE
    np.testing.assert_array_equal(found.terminated > 0, last & (found.observation[:, 1] % 2 == 1))


def test_rollouts_are_whole_chains_of_an_instance():
    found = probe_rollouts(counters(3), LOG, rows=240, seed=0)
    breaks = (found.next_observation[:-1] != found.observation[1:]).any(1)
    np.testing.assert_array_equal(np.flatnonzero(breaks), np.arange(EPISODE, 240, EPISODE) - 1)


def test_the_same_seed_gives_the_same_rows():
    first, again, other = (probe_rollouts(counters(2), LOG, rows=100, seed=seed) for seed in (0, 0, 1))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert (first.action != other.action).mean() > 0.9
    assert (first.observation[:, 1] != other.observation[:, 1]).all()


def test_half_of_the_rows_are_random_and_half_a_clones():
    found = probe_rollouts(counters(2), LOG, rows=2_000, seed=0)
    random, clone = found.action[:1_000, 0], found.action[1_000:, 0]
    assert random.min() < -1.9
    assert random.max() > 0.9
    assert random.mean() == pytest.approx(-0.5, abs=0.1)
    np.testing.assert_allclose(clone, 0.04 * found.observation[1_000:, 0] - 0.5, atol=0.02)


def test_a_clone_repeats_the_logs_noise():
    generator = np.random.default_rng(0)
    noise = 0.2 * generator.choice([-1.0, 1.0], size=1_000)
    log = counter_log(lambda step: 0.3 * np.sin(step / 3) + noise)
    policy = behaviour_clone(log.transitions, Box(-2.0, 1.0, (1,)), np.random.default_rng(1))
    observation = log.transitions.observation
    rest = policy(observation)[:, 0] - 0.3 * np.sin(observation[:, 0] / 3)
    assert rest.std() == pytest.approx(0.2, rel=0.15)
    assert (np.abs(rest) > 0.1).mean() > 0.9, "residuals are the log's own, not Gaussian"


def test_a_clone_keeps_within_the_bounds_far_from_the_log():
    policy = behaviour_clone(LOG.transitions, Box(-0.3, 0.1, (1,)), np.random.default_rng(1))
    action = policy(np.array([[1e6, -1e6], [-1e6, 1e6], [0.0, 7.0]]))
    assert ((action >= -0.3) & (action <= np.float32(0.1))).all()


def test_too_few_rows_are_refused():
    with pytest.raises(ConfigError, match="rows"):
        probe_rollouts(counters(1), LOG, rows=1, seed=0)
