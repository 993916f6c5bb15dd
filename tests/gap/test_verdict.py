"""The verdict of estimates that are made up, on either side of every threshold."""

from dataclasses import replace

import numpy as np
import pytest

from simtrust.gap.actuator_error import ActuatorError
from simtrust.gap.corrections import Correction
from simtrust.gap.findings import ModelEstimate, ReplayEstimate
from simtrust.gap.step_errors import GapErrors, summarise
from simtrust.gap.verdict import (
    DISTINCT,
    GOOD_MODEL,
    LEAST_EPISODES,
    MODEL_NOTICED,
    MOSTLY,
    NOTICED,
    PERHAPS,
    TRUSTED,
    judge,
    noticed,
)
from simtrust.types import Transitions

NAMES = ("height", "speed")


def by_replay(gap: float, *, episodes: int = 20, corrections=(), actuators=None) -> ReplayEstimate:
    """Every second row errs by nothing, the other by twice the gap, in the second dimension alone."""
    rows = np.arange(4 * episodes)
    error = np.zeros((len(rows), 2))
    error[::2, 1] = 2 * np.sqrt(2) * gap
    size = np.sqrt(np.square(error).mean(1))
    errors = GapErrors(rows, rows // 4, error, np.ones(2), size, "change")
    return ReplayEstimate(errors, summarise(errors, resamples=10), None, tuple(corrections), actuators)


def by_model(gap=0.05, *, r_squared=0.95, known=True, floor=0.0, distinction=1.0) -> ModelEstimate:
    """Ten rows, three of which err by ten times as much."""
    size = np.where(np.arange(10) < 3, 10 * gap, gap)
    zero = np.zeros(10)
    return ModelEstimate(
        r_squared=np.full(2, r_squared),
        r_squared_overall=r_squared,
        simulated=Transitions(zero[:, None], zero[:, None], zero, zero[:, None], zero),
        error=size[:, None] * np.array([3.0, -2.0]),
        gap=size,
        known=np.full(10, known),
        scale=np.array([2.0, 1.0]),
        floor=floor,
        distinction=distinction,
    )


def motors(explained: float, systematic: float = 0.0) -> ActuatorError:
    return ActuatorError(explained, systematic, np.zeros(1))


def gravity(explained: float) -> Correction:
    return Correction("gravity", 2.0, 1.0, explained)


def test_replay_tells_where_and_how_much_the_simulator_can_be_trusted():
    verdict = judge(by_replay(0.2), None, NAMES)
    assert (verdict.gap_found, verdict.worst_dimension) == (True, "speed")
    assert (verdict.trusted_fraction, verdict.trusted_error) == (0.5, TRUSTED)
    none = judge(by_replay(0.0), None, NAMES)
    assert (none.gap_found, none.worst_dimension, none.trusted_fraction) == (False, None, 1.0)


@pytest.mark.parametrize(
    ("gap", "floor", "explained", "confidence"),
    [
        (0.2, 0.09, 0.0, "high"),
        (0.2, 0.11, 0.0, "medium"),
        (0.2, 0.11, 0.9, "high"),
        (0.5 * NOTICED, 0.11, 0.0, "high"),
    ],
)
def test_only_a_gap_that_nothing_explains_may_be_the_logs_own_noise(gap, floor, explained, confidence):
    replayed = by_replay(gap, corrections=[gravity(explained)])
    verdict = judge(replayed, by_model(floor=floor), NAMES)
    assert verdict.confidence == confidence
    assert ("the log's own noise" in verdict.reason) == (confidence == "medium")
    assert judge(replayed, None, NAMES).confidence == "high"


@pytest.mark.parametrize(
    ("episodes", "confidence"), [(LEAST_EPISODES - 1, "medium"), (LEAST_EPISODES, "high")]
)
def test_few_episodes_are_no_ground_for_high_confidence(episodes, confidence):
    assert judge(by_replay(0.2, episodes=episodes), None, NAMES).confidence == confidence


@pytest.mark.parametrize(
    ("gap", "corrections", "actuators", "explanation"),
    [
        (0.2, [gravity(0.21)], None, "gravity"),
        (0.2, [gravity(0.19)], None, None),
        (0.2, [gravity(0.21), Correction("delay", 1.0, 0.0, 0.6)], None, "delay"),
        (0.2, [gravity(0.41)], motors(0.5), "gravity"),
        (0.2, [gravity(0.39)], motors(0.5), "noise in the actions explains 50%"),
        (0.2, [], motors(0.49), None),
        (0.2, [], motors(0.8, 0.29), "noise in the actions explains 80%"),
        (0.2, [], motors(0.8, 0.31), "a systematic error of the actuators explains 80%"),
        (0.2, [], None, None),
        (0.5 * NOTICED, [gravity(MOSTLY + 0.01)], None, "gravity"),
        (0.5 * NOTICED, [gravity(MOSTLY - 0.01)], None, None),
        (0.5 * NOTICED, [], motors(1.0), None),
    ],
)
def test_the_explanation_is_a_correction_unless_the_motors_explain_much_more(
    gap, corrections, actuators, explanation
):
    verdict = judge(by_replay(gap, corrections=corrections, actuators=actuators), None, NAMES)
    assert verdict.gap_found == (gap > NOTICED or explanation is not None)
    if explanation is None:
        assert verdict.best_explanation is None
    else:
        assert verdict.best_explanation.startswith(explanation)


def test_the_thresholds_are_those_that_the_documentation_names():
    assert (TRUSTED, NOTICED) == (0.1, 0.02)
    assert (PERHAPS, MOSTLY) == (0.001, 0.8)
    assert (MODEL_NOTICED, DISTINCT, GOOD_MODEL) == (0.015, 0.2, 0.9)
    assert LEAST_EPISODES == 10


def test_the_model_judges_by_the_rows_it_knows():
    verdict = judge(None, by_model(), NAMES)
    assert (verdict.gap_found, verdict.worst_dimension) == (True, "speed"), "3/2 is less than 2/1"
    assert verdict.trusted_fraction == 0.7
    assert verdict.confidence == "medium"
    half = by_model(known=np.arange(10) % 2 == 1)
    assert judge(None, half, NAMES).trusted_fraction == 0.8
    assert "knows 50% of 10 rows" in judge(None, half, NAMES).reason
    nothing = judge(None, by_model(known=False), NAMES)
    assert (nothing.gap_found, nothing.confidence) == (False, "low")
    assert np.isnan(nothing.trusted_fraction)


@pytest.mark.parametrize(("above", "confidence"), [(-0.01, "low"), (0.0, "medium"), (0.05, "medium")])
def test_a_model_that_predicts_badly_is_no_ground_for_confidence(above, confidence):
    assert judge(None, by_model(r_squared=GOOD_MODEL + above), NAMES).confidence == confidence


def test_the_model_announces_a_gap_that_is_both_large_and_distinct():
    large, distinct = 1.01 * MODEL_NOTICED, 1.01 * DISTINCT
    assert noticed(large, distinct)
    assert not noticed(0.99 * MODEL_NOTICED, distinct)
    assert not noticed(large, 0.99 * DISTINCT)
    assert not noticed(np.nan, distinct)
    assert 0 < MODEL_NOTICED < TRUSTED, "what is announced may still be trusted"
    unnoticed = replace(by_model(), distinction=0.0)
    assert judge(None, unnoticed, NAMES).worst_dimension is None
