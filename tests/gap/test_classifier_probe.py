"""The classifier estimator of the gap, on rows whose densities are known, and on awkward ones."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from gymnasium.spaces import Box

from simtrust.data.held_out import hold_out
from simtrust.errors import ConfigError, DataError
from simtrust.gap.classifier_probe import (
    IMPROVED,
    PUBLISHED,
    ClassifierProbeOptions,
    calibrate,
    classify_domains,
    read_changes,
    read_states,
)
from simtrust.types import Transitions

SHIFT, STD = 0.6, 0.5
SPACE = Box(-4.0, 4.0, (1,))
KEY = jax.random.key(0)
QUICK = replace(IMPROVED, hidden_sizes=(32, 32), updates=1_000)
BRIEF = replace(PUBLISHED, hidden_sizes=(8,), updates=3, batch_size=8)


def rows_of(count: int, seed: int, shift: float = 0.0, centre: float = 0.0, std: float = STD, size: int = 1):
    """s' ~ N(s + a + shift, std²) in every dimension, at states around ``centre``."""
    generator = np.random.default_rng(seed)
    s, a = centre + generator.normal(size=(count, size)), generator.normal(size=(count, 1))
    zero = np.zeros(count)
    rows = (s, a, zero, s + a + shift + std * generator.normal(size=s.shape), zero)
    return Transitions(*(field.astype(np.float32) for field in rows))


def ends(count: int, every: int = 50) -> np.ndarray:
    end = np.arange(1, count + 1) % every == 0
    end[-1] = True
    return end


def classify(log: Transitions, simulated: Transitions, options=QUICK, key=KEY, episode=50, **others):
    space = Box(-4.0, 4.0, log.action.shape[1:])
    end = ends(len(log.reward), episode)
    return classify_domains(log, end, simulated, space, key=key, options=options, **others)


def true_log_ratio(rows: Transitions) -> np.ndarray:
    """log P̂/P where reality has no shift and the simulator has SHIFT."""
    residual = (rows.next_observation - rows.observation - rows.action)[:, 0]
    return (residual**2 - (residual - SHIFT) ** 2) / (2 * STD**2)


@pytest.fixture(scope="module")
def shifted():
    return classify(rows_of(20_000, 0), rows_of(10_000, 1, SHIFT))


@pytest.fixture(scope="module")
def same():
    return classify(rows_of(20_000, 0), rows_of(10_000, 1))


def test_the_log_ratio_is_that_of_the_known_densities(shifted):
    truth = true_log_ratio(shifted.simulated)
    assert np.corrcoef(shifted.log_ratio, truth)[0, 1] > 0.9
    assert np.polyfit(truth, shifted.log_ratio, 1)[0] == pytest.approx(1.0, abs=0.25)
    assert shifted.log_ratio.mean() == pytest.approx(SHIFT**2 / (2 * STD**2), abs=0.25), "the KL divergence"


def test_it_is_positive_where_the_simulator_goes_and_reality_would_not(shifted):
    rows = shifted.simulated
    residual = (rows.next_observation - rows.observation - rows.action)[:, 0]
    assert (shifted.log_ratio[residual > SHIFT + STD] > 0.5).all()
    assert (shifted.log_ratio[residual < -STD] < -0.5).all()


def test_next_states_tell_what_states_and_actions_cannot(shifted):
    assert shifted.area_state_action == pytest.approx(0.5, abs=0.04)
    truth = np.random.default_rng(0).normal(size=(2, 100_000)) * STD
    best = (truth[0] + SHIFT > truth[1]).mean()
    assert shifted.area_transition == pytest.approx(best, abs=0.04)
    assert shifted.calibration.error < 0.05


def test_the_published_gap_is_positive_and_shares_sum_to_one(shifted):
    log, simulated = rows_of(5_000, 0), rows_of(2_000, 1, SHIFT)
    published = classify(log, simulated, replace(PUBLISHED, updates=250))
    assert published.published
    assert not shifted.published
    for found in (published, shifted):
        assert found.share.sum() == pytest.approx(1.0, abs=1e-9)
        assert ((found.gap > 0) & (found.gap <= 10)).all()
        np.testing.assert_allclose(found.share, found.gap / found.gap.sum(), rtol=1e-5, atol=1e-30)
        assert np.abs(found.log_ratio).max() < 20
    assert np.abs(published.log_ratio).max() < 4
    np.testing.assert_array_equal(
        shifted.gap[shifted.log_ratio > 0], shifted.log_ratio[shifted.log_ratio > 0]
    )


def test_a_simulator_like_reality_cannot_be_told_apart(same):
    assert same.area_state_action == pytest.approx(0.5, abs=0.04)
    assert same.area_transition == pytest.approx(0.5, abs=0.04)
    assert np.abs(same.log_ratio).mean() < 0.3
    assert same.calibration.error < 0.05


def test_other_states_are_no_gap_where_both_sources_go():
    """ψ tells the sources apart; φ has nothing to add."""
    found = classify(rows_of(20_000, 0), rows_of(10_000, 1, centre=2.0))
    assert found.area_state_action > 0.9
    overlap = np.abs(found.simulated.observation[:, 0] - 1.0) < 1.0
    assert overlap.sum() > 500
    assert np.abs(found.log_ratio[overlap]).mean() < 0.4
    assert abs(found.log_ratio[overlap].mean()) < 0.2


def test_calibration_of_made_up_probabilities():
    probability = np.array([0.05, 0.15, 0.15, 0.95, 0.95, 0.95, 1.0, 0.0])
    simulated = np.array([0, 0, 1, 1, 1, 0, 1, 0], bool)
    found = calibrate(probability, simulated)
    np.testing.assert_array_equal(found.rows, [2, 2, 0, 0, 0, 0, 0, 0, 0, 4])
    np.testing.assert_allclose(found.predicted[[0, 1, 9]], [0.025, 0.15, 0.9625])
    np.testing.assert_allclose(found.observed[[0, 1, 9]], [0.0, 0.5, 0.75])
    assert np.isnan(found.predicted[2:9]).all()
    assert np.isnan(found.observed[2:9]).all()
    assert found.error == pytest.approx((2 * 0.025 + 2 * 0.35 + 4 * 0.2125) / 8)


def test_both_sources_weigh_the_same_in_the_calibration():
    probability, simulated = np.full(100, 0.5), np.arange(100) < 10
    found = calibrate(probability, simulated, bins=4)
    assert found.observed[2] == pytest.approx(0.5)
    assert found.error == pytest.approx(0.0)
    assert found.rows.sum() == 100


def test_held_out_rows_train_nothing():
    """Other values in half of the rows that judge change nothing about the other half."""
    log, simulated = rows_of(600, 0), rows_of(400, 1, SHIFT)
    simulated = simulated._replace(reward=np.arange(400, dtype=np.float32))
    first = classify(log, simulated, BRIEF)
    judged = first.simulated.reward.astype(int)
    judged_log = hold_out(ends(600), np.zeros(600, bool), BRIEF.held_out_share)
    changed = np.isin(np.arange(400), judged[::2])
    other_log, other_simulated = (
        rows._replace(
            **{
                name: np.where(mask[:, None], getattr(rows, name) + 1, getattr(rows, name))
                for name in ("observation", "action", "next_observation")
            }
        )
        for rows, mask in ((log, judged_log), (simulated, changed))
    )
    again = classify(other_log, other_simulated, BRIEF)
    np.testing.assert_array_equal(again.simulated.reward, first.simulated.reward)
    for name in ("log_ratio", "gap"):
        np.testing.assert_array_equal(getattr(again, name)[1::2], getattr(first, name)[1::2])
    assert (again.log_ratio[::2] != first.log_ratio[::2]).all()
    assert again.area_state_action != first.area_state_action


def test_whole_chains_of_the_simulator_are_held_out():
    simulated = rows_of(400, 1)
    following = np.where(ends(400, 40)[:, None], 9.0, np.roll(simulated.observation, -1, axis=0))
    chained = simulated._replace(
        next_observation=following.astype(np.float32), reward=np.arange(400, dtype=np.float32)
    )
    judged = classify(rows_of(400, 0), chained, BRIEF).simulated.reward.astype(int)
    assert len(judged) == 80
    assert set(np.bincount(judged // 40)) == {0, 40}


def test_rows_of_unknown_next_state_never_enter():
    log, simulated = rows_of(300, 0), rows_of(200, 1)
    unknown = np.arange(300) % 10 == 9
    patched = log._replace(
        next_observation=np.where(unknown[:, None], log.observation, log.next_observation),
        terminated=unknown.astype(np.float32),
    )
    first = classify(patched, simulated, BRIEF, episode=10)
    far = np.where(unknown[:, None], np.float32(1e6), patched.observation)
    again = classify(
        patched._replace(
            observation=far, next_observation=np.where(unknown[:, None], far, patched.next_observation)
        ),
        simulated,
        BRIEF,
        episode=10,
    )
    np.testing.assert_array_equal(again.log_ratio, first.log_ratio)
    assert again.area_transition == first.area_transition


@pytest.mark.parametrize("options", [BRIEF, replace(QUICK, updates=3)])
def test_the_same_key_gives_the_same_bits(options):
    log, simulated = rows_of(300, 0), rows_of(200, 1)
    first, again, other = (classify(log, simulated, options, jax.random.key(seed)) for seed in (0, 0, 1))
    for name in ("log_ratio", "gap", "share"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        assert (getattr(other, name) != getattr(first, name)).any()
    assert again.area_transition == first.area_transition
    np.testing.assert_array_equal(again.calibration.rows, first.calibration.rows)


def test_training_reports_and_can_be_interrupted():
    told = []
    options = replace(BRIEF, updates=600)
    classify(rows_of(300, 0), rows_of(200, 1), options, progress=lambda done, loss: told.append((done, loss)))
    assert [done for done, _ in told] == [250, 500, 600]
    assert told[0][1] == pytest.approx(2 * np.log(2), rel=0.2)

    def stop(done: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classify(rows_of(300, 0), rows_of(200, 1), options, progress=stop)


AWKWARD = {
    "constant dimensions": lambda seed: rows_of(200, seed, size=3)._replace(
        **dict.fromkeys(("observation", "next_observation"), np.full((200, 3), 7.0, np.float32))
    ),
    "constant actions": lambda seed: rows_of(200, seed)._replace(action=np.zeros((200, 1), np.float32)),
    "100 dimensions": lambda seed: rows_of(200, seed, size=100),
    "duplicated rows": lambda seed: Transitions(*(np.repeat(x, 200, 0) for x in rows_of(1, 0))),
    "a dozen rows": lambda seed: rows_of(12, seed),
}


@pytest.mark.parametrize("options", [BRIEF, replace(BRIEF, reading=read_changes)])
@pytest.mark.parametrize("rows", AWKWARD.values(), ids=AWKWARD.keys())
def test_awkward_rows(rows, options):
    """Every one of these logs is also a single episode."""
    found = classify(rows(0), rows(1), options, episode=1_000)
    assert len(found.gap) == len(found.simulated.reward) > 0
    assert np.isfinite(found.log_ratio).all()
    assert found.share.sum() == pytest.approx(1.0)
    assert 0 <= found.area_state_action <= 1
    assert 0 <= found.calibration.error <= 1


def test_what_cannot_be_used_is_refused_with_a_remedy():
    log, simulated = rows_of(100, 0), rows_of(100, 1)
    few = Transitions(*(field[:9] for field in log))
    huge = simulated._replace(observation=np.full((100, 1), np.inf, np.float32))
    for rows, others, problem in (
        (few, simulated, "10 rows of the log"),
        (log, few, "10 rows of the simulator"),
        (log, rows_of(100, 1, size=2), r"\(1, 1\) numbers in the log, \(2, 1\) in the simulator"),
        (log, huge, "huge values"),
    ):
        with pytest.raises(DataError, match=problem) as raised:
            classify(rows, others, BRIEF)
        assert "Remedy" in str(raised.value)


def test_unknown_next_states_do_not_count_as_rows():
    log = rows_of(100, 0)
    unknown = log._replace(next_observation=log.observation, terminated=np.ones(100, np.float32))
    with pytest.raises(DataError, match="next observations"):
        classify(unknown, rows_of(100, 1), BRIEF)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hidden_sizes", ()),
        ("logit_bound", 0.0),
        ("input_noise", -1.0),
        ("next_state_samples", 0),
        ("next_state_noise_scale", np.inf),
        ("learning_rate", 0.0),
        ("batch_size", 0),
        ("updates", 0),
        ("held_out_share", 1.0),
    ],
)
def test_options_that_cannot_work_are_refused(option, value):
    with pytest.raises(ConfigError, match=option):
        ClassifierProbeOptions(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hidden_sizes", (1,)),
        ("input_noise", 0.0),
        ("next_state_samples", 1),
        ("next_state_noise_scale", 0.0),
        ("learning_rate", 1.0),
        ("batch_size", 1),
        ("updates", 1),
    ],
)
def test_options_at_their_limits_are_allowed(option, value):
    assert getattr(ClassifierProbeOptions(**{option: value}), option) == value


def test_what_the_published_classifiers_read():
    rows = rows_of(10, 0)._replace(action=np.linspace(-1, 3, 10, dtype=np.float32)[:, None])
    read = read_states(rows, Box(-1.0, 3.0, (1,)))(rows)
    np.testing.assert_array_equal(read.observation, rows.observation)
    np.testing.assert_array_equal(read.next_observation, rows.next_observation)
    np.testing.assert_allclose(read.action[:, 0], np.linspace(-1, 1, 10), atol=1e-6)


def test_what_the_improved_classifiers_read():
    rows = rows_of(1_000, 0)
    read = read_changes(rows, SPACE)(rows)
    for field in (read.observation, read.action, read.next_observation):
        np.testing.assert_allclose(field.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(field.std(0), 1, rtol=1e-5)
    moved = rows._replace(observation=rows.observation + 5, next_observation=rows.next_observation + 5)
    np.testing.assert_allclose(
        read_changes(rows, SPACE)(moved).next_observation, read.next_observation, atol=1e-5
    )
