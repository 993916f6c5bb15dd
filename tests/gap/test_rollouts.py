"""A simulator's own rollouts near a log: random actions, a clone of the log's, and the clone perturbed."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from simtrust.data import Dataset
from simtrust.errors import ConfigError
from simtrust.gap.rollouts import PERTURBATION, behaviour_clone, chain_ends, perturbed, probe_rollouts
from simtrust.simulators.checked_instance import CheckedInstance
from simtrust.simulators.guard import GuardedSimulator
from simtrust.types import Transitions

EPISODE = 20


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
    """1,000 rows whose action is a function of the step."""
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


@pytest.mark.parametrize("instances", [1, 2, 4])
def test_rollouts_are_whole_chains_of_an_instance(instances):
    """Each third has 240 rows, so every instance makes whole episodes; each starts with a reset."""
    found = probe_rollouts(counters(instances), LOG, rows=720, seed=0)
    np.testing.assert_array_equal(np.flatnonzero(chain_ends(found)), np.arange(EPISODE, 721, EPISODE) - 1)
    assert len(set(found.observation[:, 1])) == 36, "every chain is an episode of its own"


def test_an_instance_goes_on_where_it_was():
    """35 steps of each: a whole episode, and the beginning of the next."""
    found = probe_rollouts(counters(2), LOG, rows=210, seed=0)
    expected = np.tile(np.append(np.arange(20), np.arange(15)), 6)
    np.testing.assert_array_equal(found.observation[:, 0], expected)


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_a_chain_ends_where_the_next_row_does_not_go_on(rows):
    here = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [1, 2]], np.float32)
    following = np.array([[1, 0], [2, 0], [3, 0], [1, 1], [2, 1], [2, 2]], np.float32)
    zero = np.zeros(6, np.float32)
    chain = Transitions(*(x[:rows] for x in (here, zero[:, None], zero, following, zero)))
    expected = np.array([False, False, True, False, True, True])[:rows]
    expected[-1] = True
    np.testing.assert_array_equal(chain_ends(chain), expected)


def test_the_same_seed_gives_the_same_rows():
    first, again, other = (probe_rollouts(counters(2), LOG, rows=120, seed=seed) for seed in (0, 0, 1))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert (first.action != other.action).mean() > 0.9
    assert (first.observation[:, 1] != other.observation[:, 1]).all()


def test_a_third_is_random_a_third_a_clones_and_a_third_perturbed():
    found = probe_rollouts(counters(2), LOG, rows=3_000, seed=0)
    random, clone, noisy = np.split(found.action[:, 0], 3)
    logged = 0.04 * found.observation[:, 0] - 0.5
    assert random.min() < -1.9
    assert random.max() > 0.9
    assert random.mean() == pytest.approx(-0.5, abs=0.1)
    np.testing.assert_allclose(clone, logged[1_000:2_000], atol=0.02)
    added = noisy - logged[2_000:]
    assert added.std() == pytest.approx(PERTURBATION * LOG.transitions.action.std(), rel=0.1)
    assert added.mean() == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("rows", [3, 4, 5, 100, 101])
def test_thirds_are_as_equal_as_can_be(rows):
    """Where the log never acts, a clone does not either, and cannot be told from one perturbed."""
    still = probe_rollouts(counters(1), counter_log(np.zeros_like), rows=rows, seed=0)
    assert len(still.reward) == rows
    count = int((still.action != 0).sum())
    assert abs(count - rows / 3) < 1
    assert (still.action[:count] != 0).all()
    restarts = np.flatnonzero(still.observation[:, 0] == 0)
    assert np.isin([count, round(2 * rows / 3)], restarts).all(), "each third starts anew"


@pytest.mark.parametrize("size", [[0.1, 0.0], [0.3, 2.0]])
def test_what_is_added_to_actions_has_the_size_asked_for(size):
    space, centre = Box(-100.0, 100.0, (2,)), np.array([3.0, -4.0], np.float32)
    policy = perturbed(
        lambda s: np.tile(centre, (len(s), 1)), space, np.array(size), np.random.default_rng(0)
    )
    added = policy(np.zeros((20_000, 3), np.float32)) - centre
    np.testing.assert_allclose(added.std(0), size, rtol=0.02)
    np.testing.assert_allclose(added.mean(0), 0.0, atol=0.05)
    np.testing.assert_allclose(np.cov(added.T)[0, 1], 0.0, atol=0.02)
    assert policy(np.zeros((1, 3))).dtype == np.float32


def test_perturbed_actions_keep_within_the_bounds():
    space = Box(np.array([-0.3, -1.0], np.float32), np.array([0.1, 7.0], np.float32))
    policy = perturbed(
        lambda s: np.zeros((len(s), 2), np.float32), space, np.array([5.0, 1.0]), np.random.default_rng(0)
    )
    action = policy(np.zeros((1_000, 3), np.float32))
    assert all(space.contains(row) for row in action)
    np.testing.assert_array_equal(action.min(0), space.low)
    assert action[:, 0].max() == space.high[0]
    assert np.ptp(action[:, 1]) > 2


def test_a_clone_repeats_the_logs_noise():
    generator = np.random.default_rng(0)
    noise = generator.choice([-0.1, 0.4], p=[0.8, 0.2], size=1_000)
    log = counter_log(lambda step: 0.3 * np.sin(step / 3) + noise)
    policy = behaviour_clone(log.transitions, Box(-2.0, 1.0, (1,)), np.random.default_rng(1))
    observation = log.transitions.observation
    rest = policy(observation)[:, 0] - 0.3 * np.sin(observation[:, 0] / 3)
    assert rest.std() == pytest.approx(0.2, rel=0.15)
    assert (rest > 0.3).mean() == pytest.approx(0.2, abs=0.04), "residuals are the log's own, not Gaussian"
    assert (np.abs(rest) < 0.2).mean() == pytest.approx(0.8, abs=0.04), "nor mirrored"


def test_a_clone_learns_what_states_do_together():
    """No function of one state alone, nor of their sum, explains any of it."""
    generator = np.random.default_rng(0)
    logged, unseen = generator.normal(size=(2, 4_000, 8)).astype(np.float32)

    def action(state):
        return 0.3 * np.tanh(state[:, 0] * state[:, 1])

    zero = np.zeros(4_000, np.float32)
    rows = Transitions(logged, action(logged)[:, None], zero, logged, zero)
    policy = behaviour_clone(rows, Box(-2.0, 2.0, (1,)), np.random.default_rng(1))
    error = policy(unseen)[:, 0] - action(unseen)
    assert error.var() < 0.5 * action(unseen).var()


def test_a_state_in_small_units_is_a_state():
    """Its deviation is 1e-3 of the action's, and its mean 0; beside it, one that never changes."""
    state = np.random.default_rng(0).normal(size=(1_000, 2)).astype(np.float32) * np.float32([1e-3, 0.0])
    zero = np.zeros(1_000, np.float32)
    rows = Transitions(state, 100.0 * state[:, :1], zero, state, zero)
    policy = behaviour_clone(rows, Box(-2.0, 2.0, (1,)), np.random.default_rng(1))
    np.testing.assert_allclose(policy(state), 100.0 * state[:, :1], atol=0.01)


def test_a_clone_keeps_within_the_bounds_far_from_the_log():
    policy = behaviour_clone(LOG.transitions, Box(-0.3, 0.1, (1,)), np.random.default_rng(1))
    action = policy(np.array([[1e6, -1e6], [-1e6, 1e6], [0.0, 7.0]]))
    assert ((action >= -0.3) & (action <= np.float32(0.1))).all()


def test_too_few_rows_are_refused():
    with pytest.raises(ConfigError, match="rows must be at least 3, got 2"):
        probe_rollouts(counters(1), LOG, rows=2, seed=0)
