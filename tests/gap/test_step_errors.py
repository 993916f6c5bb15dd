"""One-step errors against gaps that are known, and how sure their means are."""

import numpy as np
import pytest

from simtrust.errors import DataError
from simtrust.gap import step_errors as step_errors_module
from simtrust.gap.drift import drift
from simtrust.gap.replay_probe import replay
from simtrust.gap.step_errors import GapErrors, step_errors, summarise
from simtrust.simulators import Shift, make_simulator

DOUBLE_GRAVITY = (Shift("gravity", 2.0),)


@pytest.fixture(scope="module")
def airborne(known_gaps):
    """Steps of the unshifted cheetah high above the floor, where gravity acts on all of it alike."""
    generator = np.random.default_rng(0)
    observation = generator.normal(0, 0.1, (60, 17)).astype(np.float32)
    observation[:, 0] = 3.0
    action = generator.uniform(-0.5, 0.5, (60, 6)).astype(np.float32)
    simulator = make_simulator("HalfCheetah-v5", num_envs=60)
    simulator.set_observations(observation)
    return known_gaps.dataset_of(observation, action, simulator.step(action)[0], lengths=[10] * 6)


def test_double_gravity_in_free_fall_adds_minus_g_times_dt(airborne):
    errors = step_errors(airborne, replay(airborne, "HalfCheetah-v5", shifts=DOUBLE_GRAVITY))
    expected = np.zeros(17)
    substeps, dt = 5, 0.01
    expected[9] = -9.81 * substeps * dt
    expected[0] = -9.81 * dt**2 * substeps * (substeps + 1) / 2  # semi-implicit Euler
    np.testing.assert_allclose(errors.error, np.broadcast_to(expected, (60, 17)), atol=2e-6)


def test_the_two_normalisations(airborne):
    replayed = replay(airborne, "HalfCheetah-v5", shifts=DOUBLE_GRAVITY)
    state = airborne.transitions.observation.astype(float)
    following = airborne.transitions.next_observation.astype(float)
    by_change = step_errors(airborne, replayed)
    assert by_change.normalisation == "change"
    np.testing.assert_allclose(by_change.scale, (following - state).std(axis=0))
    by_state = step_errors(airborne, replayed, normalisation="state")
    assert np.isnan(by_state.scale[0])  # every row is at 3 m
    np.testing.assert_allclose(by_state.scale[1:], state[:, 1:].std(axis=0))
    error = replayed.predicted - following
    np.testing.assert_allclose(
        by_state.gap, np.sqrt(np.mean((error[:, 1:] / state[:, 1:].std(axis=0)) ** 2, axis=1))
    )


@pytest.mark.parametrize("constant", [np.float32(1.234), np.nextafter(np.float32(1.234), np.float32(2))])
def test_constant_dimensions_leave_the_gap_alone(known_gaps, constant):
    log = known_gaps.record_line(size=2)
    constant = np.where(np.arange(len(log)) % 2, np.float32(1.234), constant)[:, None]  # or but for rounding
    wider = known_gaps.dataset_of(
        np.hstack([log.transitions.observation, constant]),
        log.transitions.action,
        np.hstack([log.transitions.next_observation, constant[::-1]]),
        lengths=log.episode_lengths,
    )
    narrow = step_errors(log, replay(log, "known_gaps:Line2"))
    errors = step_errors(wider, replay(wider, "known_gaps:Line2AndConstant"))
    assert np.isnan(errors.scale[2]) and np.isfinite(errors.scale[:2]).all()
    np.testing.assert_allclose(errors.gap, narrow.gap, rtol=1e-6)
    assert np.isfinite(errors.gap).all()
    np.testing.assert_allclose(errors.error[:, 2], 0.5, rtol=1e-6)  # told in the log's units
    summary = summarise(errors)
    assert np.isnan(summary.normalised.mean[2]) and summary.bias.mean[2] == pytest.approx(0.5, rel=1e-6)


def test_a_log_in_which_nothing_moves_is_refused(known_gaps):
    still = np.full((5, 2), 0.1)
    log = known_gaps.dataset_of(still, np.zeros((5, 1)), still)
    with pytest.raises(DataError, match=r"log.hdf5: no dimension of the change varies.*Remedy"):
        step_errors(log, replay(log, "known_gaps:Line2"))


# Intervals


def errors_of(gap, episode, size=1):
    error = np.repeat(np.asarray(gap, float)[:, None], size, axis=1)
    rows = np.arange(len(gap))
    return GapErrors(rows, np.asarray(episode), error, np.ones(size), np.abs(error[:, 0]), "change")


def test_episodes_are_resampled_not_rows():
    generator = np.random.default_rng(0)
    of_episode = 1.0 + generator.uniform(size=40)
    gap = np.repeat(of_episode, 100)  # rows of an episode say nothing new
    width = np.ptp(summarise(errors_of(gap, np.repeat(np.arange(40), 100))).gap[1:])
    expected = 2 * 1.96 * of_episode.std() / np.sqrt(40)
    assert width == pytest.approx(expected, rel=0.1)
    by_row = np.ptp(summarise(errors_of(gap, np.arange(4000))).gap[1:])
    assert by_row < 0.15 * width


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        gap = np.repeat(generator.exponential(1.0, 50), 20) + generator.uniform(-0.5, 0.5, 1000)
        episode = np.repeat(np.arange(50), 20)
        error = GapErrors(np.arange(1000), episode, gap[:, None], np.ones(1), gap, "change")
        _, low, high = summarise(error, resamples=300, seed=trial).gap
        held += low <= 1.0 <= high
    assert 0.88 <= held / 200 <= 0.98


def test_means_are_over_rows_and_signed_where_said():
    errors = errors_of([-1.0, 3.0, 3.0, 3.0, np.nan], [0, 1, 1, 1, 2], size=2)
    summary = summarise(errors)
    assert summary.bias.mean.tolist() == [2.0, 2.0]
    assert summary.absolute.mean.tolist() == summary.normalised.mean.tolist() == [2.5, 2.5]
    assert summary.gap.mean == 2.5 and (summary.rows, summary.episodes) == (4, 2)
    assert summary.bias.low.tolist() == [-1.0, -1.0] and summary.bias.high.tolist() == [3.0, 3.0]


def test_one_usable_row_is_its_own_mean():
    summary = summarise(errors_of([np.nan, -2.0, np.nan], [0, 0, 1]))
    assert (summary.bias.mean[0], summary.gap.mean, summary.rows, summary.episodes) == (-2.0, 2.0, 1, 1)


def test_one_episode_has_no_interval(known_gaps):
    summary = summarise(errors_of([1.0, 2.0, np.nan], [4, 4, 7]))
    assert summary.gap.mean == 1.5 and np.isnan(summary.gap[1:]).all()
    assert np.isnan(summary.bias.low).all()
    log = known_gaps.record_random("HalfCheetah-v5", episodes=1, steps=8)
    wandered = drift(log, "HalfCheetah-v5", horizon=3)
    assert np.isfinite(wandered.error.mean).all() and np.isnan(wandered.error.low).all()


def test_intervals_are_the_same_for_the_same_seed_whatever_the_blocks(monkeypatch):
    errors = errors_of(np.random.default_rng(0).normal(size=300), np.repeat(np.arange(30), 10))
    first, again, other = summarise(errors), summarise(errors), summarise(errors, seed=1)
    assert first.gap == again.gap and first.gap != other.gap
    monkeypatch.setattr(step_errors_module, "RESAMPLING_BLOCK", 1000)
    assert summarise(errors).gap.low == pytest.approx(first.gap.low, rel=1e-12)


def test_a_mean_of_nothing_is_unknown():
    np.testing.assert_array_equal(
        step_errors_module._ratio(np.array([3.0, 0.0]), np.array([2.0, 0.0])), [1.5, np.nan]
    )


def test_what_only_one_episode_knows_has_no_interval():
    known, once = np.array([1.0, 2.0, 5.0, 6.0]), np.array([1.0, 3.0, np.nan, np.nan])
    mean, low, high = step_errors_module.episode_bootstrap((known, once), np.array([0, 0, 1, 1]), 50, 0)
    assert mean.tolist() == [3.5, 2.0]
    assert (low[0], high[0]) == (1.5, 5.5)
    assert np.isnan([low[1], high[1]]).all()
