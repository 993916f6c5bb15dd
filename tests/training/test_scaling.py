"""The border between the machine's units and the algorithms'."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrust.errors import ConfigError
from simtrust.training.scaling import Scaling, make_scaling
from simtrust.types import Transitions

LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 0.1], np.float32)


def make_log(observation, reward) -> Transitions:
    observation, reward = np.asarray(observation, np.float32), np.asarray(reward, np.float32)
    return Transitions(
        observation,
        np.zeros((len(reward), 2), np.float32),
        reward,
        observation + 1,
        np.zeros(len(reward), np.float32),
    )


def scaling_of(
    log=None, low=LOW, high=HIGH, size=2, normalise=False, reward_scale=1.0, discount=0.99
) -> Scaling:
    return make_scaling(
        log,
        low,
        high,
        size,
        normalise_observations=normalise,
        reward_scale=reward_scale,
        discount=discount,
    )


@pytest.mark.parametrize(("unit", "machine"), [(-1, LOW), (0, (LOW + HIGH) / 2), (1, HIGH)])
def test_bounds_and_middle_are_exact(unit, machine):
    scaling = scaling_of()
    inside = np.full((3, 2), unit, np.float32)
    np.testing.assert_array_equal(scaling.to_machine_action(inside), np.stack([machine] * 3))
    np.testing.assert_array_equal(scaling.to_unit_action(np.stack([machine] * 3)), inside)
    assert scaling.to_unit_action(LOW).dtype == scaling.to_machine_action(inside).dtype == np.float32


finite = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=200)
@given(finite, st.floats(1e-3, 1e3), st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=5))
def test_actions_return_and_never_leave_the_bounds(low, width, unit):
    low32 = np.array([low], np.float32)
    high32 = np.array([low + width], np.float32)
    scaling = scaling_of(low=low32, high=high32, size=1)
    inside = np.array(unit, np.float32)[:, None]
    machine = scaling.to_machine_action(inside)
    assert ((machine >= low32) & (machine <= high32)).all()
    # Float32 resolves the machine's numbers, not the share of their range.
    step = 4 * np.spacing(np.float32(abs(low) + width)) / float(high32[0] - low32[0])
    np.testing.assert_allclose(scaling.to_unit_action(machine), inside, atol=step + 1e-6)


@pytest.mark.parametrize("unit", [-1.5, -1.0000001, 1.0000001, 7.0])
def test_actions_beyond_one_are_bounded(unit):
    action = scaling_of().to_machine_action(np.full(2, unit, np.float32))
    np.testing.assert_array_equal(action, LOW if unit < 0 else HIGH)


def test_float32_actions_stay_inside_bounds_given_in_float64():
    """Float32's 0.1 is greater than float64's."""
    low, high = np.array([-0.1]), np.array([0.1])
    assert np.float32(0.1) > high, "or else this test would not catch anything"
    scaling = scaling_of(low=low, high=high, size=1)
    for unit in (-1.0, 1.0):
        action = scaling.to_machine_action(np.array([unit], np.float32))
        assert low <= action.astype(np.float64) <= high


def test_observations_stay_as_they_are_by_default():
    observation = np.array([[3.5, -7.0]])
    observed = scaling_of(make_log([[1, 2], [3, 4]], [1, 1])).observe(observation)
    assert observed.dtype == np.float32
    np.testing.assert_array_equal(observed, observation)


def test_observations_are_standardised_by_the_log():
    scaling = scaling_of(make_log([[1, 10], [3, 30]], [0, 0]), normalise=True)
    assert scaling.observation_mean == (2, 20)
    assert scaling.observation_std == (1, 10)
    np.testing.assert_array_equal(scaling.observe(np.array([[1.0, 30.0]])), [[-1, 1]])


@pytest.mark.parametrize("constant", [0.0, 1.0, -1e5, 1e-3])
def test_constant_dimension_keeps_its_unit(constant):
    """Rounding noise of a constant is not its standard deviation."""
    column = np.nextafter(np.full(100, constant, np.float32), np.float32(np.inf))
    column[::2] = constant
    scaling = scaling_of(make_log(np.stack([column, np.arange(100)], 1), np.ones(100)), normalise=True)
    assert scaling.observation_std[0] == 1.0
    assert scaling.observation_std[1] == pytest.approx(np.arange(100).std())


@pytest.mark.parametrize(
    ("rewards", "discount", "scale"),
    [([2, -2, 2], 0.99, 0.5), ([1, 3], 0.9, 5.0), ([0, 0], 0.99, 1.0)],
)
def test_auto_reward_scale(rewards, discount, scale):
    """100 · (1 − γ) / mean |r|; rewards that are all zero stay."""
    log = make_log(np.zeros((len(rewards), 2)), rewards)
    assert scaling_of(log, reward_scale="auto", discount=discount).reward_scale == pytest.approx(scale)


@pytest.mark.parametrize("wanted", [{"normalise": True}, {"reward_scale": "auto"}])
def test_what_is_learnt_from_the_log_needs_one(wanted):
    with pytest.raises(ConfigError, match="give --real"):
        scaling_of(None, **wanted)


def test_transitions_cross_in_every_column():
    scaling = Scaling((1.0, 0.0), (2.0, 1.0), (-2.0, 0.0), (2.0, 4.0), 0.1)
    machine = Transitions(
        np.array([[5.0, 1.0]]),
        np.array([[1.0, 4.0]]),
        np.array([-30.0]),
        np.array([[1.0, 2.0]]),
        np.array([True]),
    )
    inside = scaling.transitions(machine)
    expected = ([[2, 1]], [[0.5, 1]], [-3], [[0, 2]], [1])
    for column, values in zip(inside, expected, strict=True):
        assert column.dtype == np.float32
        np.testing.assert_array_equal(column, np.array(values, np.float32))


def test_json_round_trip():
    log = make_log(np.random.default_rng(0).normal(size=(50, 2)), np.ones(50))
    scaling = scaling_of(log, normalise=True, reward_scale="auto")
    assert Scaling.from_json(json.loads(json.dumps(scaling.to_json()))) == scaling
