"""The model of the simulator's error, on errors whose answer is known."""

from typing import NamedTuple

import jax
import numpy as np
import pytest

from simtrust.errors import DataError
from simtrust.gap import trust_model
from simtrust.gap.dynamics_fitting import DynamicsModelOptions
from simtrust.gap.dynamics_model import CHUNK
from simtrust.gap.trust_model import FittedTrust, fit_trust_model

SCALE = np.array([0.5, 2.0, 1e-3])
pytestmark = pytest.mark.usefixtures("optimised")
QUICK = DynamicsModelOptions(
    members=3,
    elites=3,
    hidden_sizes=(32, 32),
    learning_rate=1e-2,
    final_learning_rate=0.01,
    variance_weighting=0.5,
    epochs=8,
)
EPISODE = 40


class Log(NamedTuple):
    observation: np.ndarray
    action: np.ndarray
    group_end: np.ndarray


def make_log(rows: int, seed: int = 0) -> Log:
    """States far from zero and of very different sizes: [N, 3], and actions [N, 2]."""
    generator = np.random.default_rng(seed)
    observation = np.array([0.0, 100.0, -1.0]) + np.array([1.0, 5.0, 0.01]) * generator.normal(size=(rows, 3))
    action = generator.uniform(-1, 1, size=(rows, 2))
    group_end = np.arange(rows) % EPISODE == EPISODE - 1
    return Log(observation.astype(np.float32), action.astype(np.float32), group_end)


def fit(log: Log, error, scale=SCALE) -> FittedTrust:
    return fit_trust_model(
        log.observation,
        log.action,
        error,
        log.group_end,
        scale,
        key=jax.random.key(0),
        trusted_error=0.3,
        options=QUICK,
    )


def rms(values):
    return np.sqrt(np.square(values).mean(-1))


@pytest.fixture(scope="module")
def log() -> Log:
    return make_log(4_000)


@pytest.fixture(scope="module")
def growing_error(log):
    """[N, 3]: the third dimension's error grows with the first state; the others have noise alone."""
    noise = np.random.default_rng(1).normal(size=log.observation.shape)
    level = 0.05 * np.ones_like(noise)
    error = level * noise
    error[:, 2] += np.maximum(log.observation[:, 0], 0.0)
    return error * SCALE


@pytest.fixture(scope="module")
def growing(log, growing_error) -> FittedTrust:
    return fit(log, growing_error)


def test_a_constant_error_is_learnt(log):
    """Even one that is far below the float32 resolution of the state it is added to."""
    constant = np.array([0.25, -4.0, 1e-9])
    fitted = fit(log, np.tile(constant, (len(log.observation), 1)))
    found = fitted.model.assess(log.observation, log.action)
    np.testing.assert_allclose(found.gap, rms(constant / SCALE), rtol=1e-3)
    np.testing.assert_allclose(found.error[:, :2], np.tile(constant[:2], (4_000, 1)), rtol=5e-3)
    assert np.abs(found.error[:, 2]).max() < 5e-3 * SCALE[2]
    assert np.isnan(fitted.rank_correlation), "a constant has no rank"


def test_a_small_error_of_a_large_state_keeps_its_digits(log):
    """1e-5 beside a state of 100, whose float32 neighbours are 8e-6 apart."""
    error = np.zeros((4_000, 3))
    error[:, 1] = 1e-5 * log.observation[:, 0]
    scale = np.array([1.0, 1e-4, 1.0])
    found = fit(log, error, scale).model.assess(log.observation, log.action).error[:, 1]
    assert np.square(found - error[:, 1]).mean() < 0.01 * error[:, 1].var()


def test_an_error_that_depends_on_a_state_is_found_and_ranked(log, growing, growing_error):
    assert growing.rank_correlation > 0.75
    unseen = make_log(2_000, seed=5)
    gap = growing.model.assess(unseen.observation, unseen.action).gap
    first = unseen.observation[:, 0]
    expected = rms(np.stack([0.05 + 0 * first, 0.05 + 0 * first, np.hypot(0.05, np.maximum(first, 0.0))], -1))
    assert np.median(np.abs(gap - expected)) < 0.02
    assert gap[first > 0.5].min() > gap[first < 0].max()


def test_the_gap_counts_the_noise_of_the_error(log):
    """An error without a mean is as large as its spread."""
    noise = np.random.default_rng(2).normal(size=log.observation.shape) * SCALE * 0.4
    found = fit(log, noise).model.assess(log.observation, log.action)
    np.testing.assert_allclose(np.median(found.gap), 0.4, rtol=0.1)
    # Of N(0, 0.4² σ²) errors in three dimensions, ½ Σ (e/σ)² is 0.24 on average.
    np.testing.assert_allclose(np.median(found.divergence), 0.24, rtol=0.2)


def test_doubt_tells_what_the_log_says_nothing_about(log, growing):
    unseen = make_log(2_000, seed=6)
    inside = growing.model.assess(unseen.observation, unseen.action).doubt
    far = unseen.observation + 10 * np.array([1.0, 5.0, 0.01]) * np.sign(unseen.observation[:, :1])
    outside = growing.model.assess(far, unseen.action).doubt
    assert (inside < 1).mean() > 0.9
    assert (outside > 1).mean() > 0.9


def test_the_held_out_rows_set_the_limit_and_are_whole_groups(log, growing):
    held_out = growing.held_out
    assert held_out.shape == (4_000,)
    assert 0.05 < held_out.mean() < 0.15
    assert np.isin(held_out.reshape(-1, EPISODE).mean(1), (0.0, 1.0)).all()
    doubt = growing.model.assess(log.observation[held_out], log.action[held_out]).doubt
    assert (doubt <= 1).mean() == pytest.approx(0.95, abs=0.01)


def test_the_limit_is_a_quantile_but_no_finer_than_the_members_outputs(log):
    """What a constant error varies by is taken for a thousandth of the logged change."""
    fitted = fit(log, np.zeros((4_000, 3)))
    spread = rms(np.asarray(fitted.model.model.change_scale) / SCALE)
    assert spread == pytest.approx(1e-3, rel=1e-5)
    held_out, limit = fitted.held_out, fitted.model.doubt_limit
    disagreement = limit * fitted.model.assess(log.observation[held_out], log.action[held_out]).doubt
    assert limit == pytest.approx(max(np.quantile(disagreement, 0.95), 1e-4 * spread), rel=1e-3)
    assert limit < 1e-3


def test_the_limit_is_never_below_what_float32_resolves(log, monkeypatch):
    assert pytest.approx(1e-4) == trust_model.LEAST_DISAGREEMENT
    monkeypatch.setattr(trust_model, "LEAST_DISAGREEMENT", 10.0)
    fitted = fit(log, np.zeros((4_000, 3)))
    spread = rms(np.asarray(fitted.model.model.change_scale) / SCALE)
    assert fitted.model.doubt_limit == pytest.approx(10 * spread, rel=1e-5)


def test_a_dimension_without_scale_has_no_influence(log, growing_error):
    scale = np.array([0.5, np.nan, 1e-3])
    wild = growing_error.copy()
    wild[:, 1] = 1e6 * np.random.default_rng(3).normal(size=len(wild))
    wild[7, 1] = np.nan
    one, other = (fit(log, error, scale).model for error in (growing_error, wild))
    found, again = (model.assess(log.observation, log.action) for model in (one, other))
    for field, same in zip(found, again, strict=True):
        np.testing.assert_array_equal(field, same)
    assert np.isnan(found.error[:, 1]).all()
    assert np.isfinite(found.error[:, [0, 2]]).all()
    assert one.kept.tolist() == [True, False, True]


def test_rows_of_unknown_error_are_left_out(log, growing_error):
    """They change nothing, and the groups around them stay whole even if they were a group's last."""
    gone = np.zeros(4_000, bool)
    gone[[3, EPISODE - 1, 5 * EPISODE - 1, 3_999]] = True
    holes = growing_error.copy()
    holes[gone, 1] = [np.nan, np.inf, np.nan, -np.inf]
    group = np.arange(4_000) // EPISODE
    shorter = Log(log.observation[~gone], log.action[~gone], np.append(np.diff(group[~gone]) != 0, True))
    fitted, expected = fit(log, holes), fit(shorter, growing_error[~gone])
    np.testing.assert_array_equal(fitted.held_out[~gone], expected.held_out)
    assert not fitted.held_out[gone].any()
    pair = (x.model.assess(log.observation, log.action).gap for x in (fitted, expected))
    np.testing.assert_array_equal(*pair)


def test_a_constant_state_does_not_amplify_its_rounding(growing_error):
    log = make_log(4_000)
    log.observation[:, 1] = 100.0
    log.observation[::2, 1] = np.nextafter(np.float32(100), np.float32(101))
    model = fit(log, growing_error).model
    near = log.observation + np.array([0.0, 1e-4, 0.0], np.float32)
    gap, moved = (model.assess(s, log.action).gap for s in (log.observation, near))
    np.testing.assert_allclose(gap, moved, atol=1e-3)


def test_any_number_of_rows_gives_the_same_answers(log, growing):
    many = make_log(CHUNK + 3, seed=7)
    whole = growing.model.assess(many.observation, many.action)
    alone = growing.model.assess(many.observation[-1:], many.action[-1:])
    for field, same in zip(whole, alone, strict=True):
        assert len(field) == CHUNK + 3
        np.testing.assert_allclose(field[-1:], same, rtol=1e-5)
    nothing = growing.model.assess(many.observation[:0], many.action[:0])
    assert [x.shape for x in nothing] == [(0,), (0,), (0,), (0, 3)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_a_row_that_is_not_finite_is_answered_by_nan_alone(log, growing, bad):
    observation, action = log.observation[:3].astype(np.float64), log.action[:3].astype(np.float64)
    observation[0, 2], action[2, 1] = bad, bad
    found = growing.model.assess(observation, action)
    for field in found:
        np.testing.assert_array_equal(np.isnan(field).reshape(3, -1).all(1), [True, False, True])
        np.testing.assert_array_equal(np.isnan(field).reshape(3, -1).any(1), [True, False, True])


def test_what_cannot_be_modelled_is_refused(log):
    error = np.full((4_000, 3), np.nan)
    error[:9] = 0.0
    with pytest.raises(DataError, match=r"known in 9 rows.*Remedy"):
        fit(log, error)
    with pytest.raises(DataError, match="no dimension"):
        fit(log, np.zeros((4_000, 3)), np.full(3, np.nan))
