"""Drift over many steps, against drift that is known."""

import numpy as np
import pytest

from simtrust.errors import ConfigError, DataError
from simtrust.gap.drift import drift
from simtrust.simulators import Shift

DOUBLE_GRAVITY = (Shift("gravity", 2.0),)


def test_drift_grows_from_zero_under_a_shift_and_stays_there_without(known_gaps):
    log = known_gaps.record_random("HalfCheetah-v5", episodes=8, steps=40)
    astray = drift(log, "HalfCheetah-v5", shifts=DOUBLE_GRAVITY, horizon=12, starts=50)
    assert astray.each.shape == (50, 13) and (astray.each[:, 0] == 0).all()
    mean = astray.error.mean
    assert (np.diff(mean[:6]) > 0).all() and mean[12] > 3 * mean[1] > 0.05
    assert (astray.error.low <= mean).all() and (mean <= astray.error.high).all()
    own = drift(log, "HalfCheetah-v5", horizon=12, starts=50)
    assert own.each.max() < 1e-2 * mean[1]
    assert np.array_equal(own.starts, astray.starts)


def test_drift_of_known_size(known_gaps):
    generator = np.random.default_rng(0)
    action = generator.uniform(-1, 1, (40, 1))
    action[[19, 39]] = 0.0
    point = np.concatenate([np.cumsum(0.1 * action[:20], axis=0), np.cumsum(0.1 * action[20:], axis=0)])
    log = known_gaps.dataset_of(point - 0.1 * action, action, point, lengths=[20, 20])
    wandered = drift(log, "known_gaps:Line1", horizon=5, starts=10)
    expected = 0.1 * np.arange(6) / log.transitions.observation.std()
    np.testing.assert_allclose(wandered.error.mean, expected, rtol=1e-5, atol=1e-6)


def test_drift_never_crosses_an_end_of_an_episode(known_gaps):
    log = known_gaps.record_line(1, rows=36, lengths=[10, 4, 12, 10])
    wandered = drift(log, "known_gaps:Line1", horizon=10, starts=100)
    assert wandered.starts.tolist() == [0, 14, 15, 16, 26]
    assert len(drift(log, "known_gaps:Line1", horizon=10, starts=2).starts) == 2
    with pytest.raises(DataError, match=r"no episode has 13 rows; the longest has 12. Remedy: .*at most 12"):
        drift(log, "known_gaps:Line1", horizon=13)


def test_drift_passes_over_an_end_in_the_simulator(known_gaps):
    # The robot falls in the simulator, where the log's did not.
    log = known_gaps.record_random("Hopper-v5", episodes=6, steps=10, amplitude=0.1)
    wandered = drift(log, "Hopper-v5", shifts=(Shift("gravity", 30.0),), horizon=10, starts=100)
    assert len(wandered.starts) == 6 and np.isfinite(wandered.each).all()


def test_drift_ends_where_a_users_environment_does(known_gaps):
    log = known_gaps.record_line(1)
    log.transitions.observation[0] = 8.85
    wandered = drift(log, "known_gaps:Line1", horizon=10, starts=100)
    assert wandered.starts[0] == 0
    known = np.isfinite(wandered.each)
    assert known[0, :2].all() and not known[0, 5:].any() and known[1:].all()


def test_drift_leaves_out_starts_that_diverge(known_gaps):
    log = known_gaps.record_random("HalfCheetah-v5", episodes=4, steps=5)
    log.transitions.observation[5, 10] = 1e11
    wandered = drift(log, "HalfCheetah-v5", horizon=5)
    assert wandered.starts.tolist() == [0, 5, 10, 15]
    assert wandered.diverged.tolist() == [False, True, False, False]
    assert np.isnan(wandered.each[1]).all() and np.isfinite(wandered.error.mean).all()


def test_drift_under_a_delay_gets_the_actions_under_way(known_gaps):
    delay = (Shift("delay", 2),)
    log = known_gaps.record_random("HalfCheetah-v5", shifts=delay)
    right = drift(log, "HalfCheetah-v5", shifts=delay, horizon=8)
    assert right.each.max() < 1e-2
    assert drift(log, "HalfCheetah-v5", horizon=8).error.mean[8] > 0.1


@pytest.mark.parametrize("option", ["horizon", "starts", "resamples"])
def test_impossible_options_of_drift_are_named(known_gaps, option):
    with pytest.raises(ConfigError, match=f"{option} must be a positive integer, got 0"):
        drift(known_gaps.record_line(2), "known_gaps:Line2", **{"horizon": 3, option: 0})
