"""The human-like operator, by itself."""

import numpy as np
import pytest

from simtrust.simulators.human_operator import SPEED_GAIN, TILT_GAIN, Drift, Events, HumanOperator
from simtrust.simulators.wheel_legged import CONTROL_RATE, MOVING_STRAIGHT, STANDING_STILL, WheelLegged


def difference(column, changed_from, steps):
    """How a change of 0.1 in one column changes the torques ``[steps]`` of an operator standing still."""
    torques = []
    for size in (0.0, 0.1):
        operator = HumanOperator(STANDING_STILL, num_envs=1, seed=0)
        observations = np.zeros((steps, 1, 4))
        observations[changed_from:, 0, column] = size
        operator.restart(observations[0], np.array([True]))
        torques.append(np.concatenate([operator.torque(one) for one in observations])[:, 0])
    return torques[1] - torques[0]


def test_a_person_corrects_a_fifth_of_a_second_late():
    changed = np.flatnonzero(difference(column=2, changed_from=10, steps=200))
    assert changed[0] == 10 + 40


def test_the_stabiliser_is_not_late():
    changed = difference(column=0, changed_from=10, steps=40)
    assert not changed[:10].any()
    assert np.allclose(changed[10:], 0.1 * TILT_GAIN, atol=1e-5)


def test_restart_forgets_what_was_learnt_of_that_robot_only():
    standing_where_it_should_move = np.zeros((2, 3))
    operators = [HumanOperator(MOVING_STRAIGHT, num_envs=2, seed=0) for _ in range(2)]
    for operator in operators:
        operator.restart(standing_where_it_should_move, np.array([True, True]))
        for _ in range(400):
            operator.torque(standing_where_it_should_move)
    operators[1].restart(standing_where_it_should_move, np.array([False, True]))
    kept, restarted = (operator.torque(standing_where_it_should_move)[:, 0] for operator in operators)
    assert kept[0] == restarted[0]
    # In two seconds at an error of 0.2 m/s a speed of 0.4 m/s is learnt, if attention is whole.
    assert 0.2 * SPEED_GAIN < restarted[1] - kept[1] < 0.4 * SPEED_GAIN


def test_control_rate_is_the_robots():
    assert pytest.approx(1.0) == WheelLegged(STANDING_STILL, num_envs=1).time_step * CONTROL_RATE


def test_drift_has_the_spread_and_memory_asked():
    drift = Drift(0.5, time=0.1, num_envs=500, generator=np.random.default_rng(0))
    values = np.stack([drift.next().copy() for _ in range(400)])
    assert values[0].std() == pytest.approx(0.5, rel=0.1)
    assert values.std() == pytest.approx(0.5, rel=0.05)
    after_its_time = np.mean(values[:-20] * values[20:]) / values.var()
    assert after_its_time == pytest.approx(np.exp(-1), abs=0.05)


def test_events_last_as_long_and_come_as_often_as_asked():
    events = Events(every=0.5, time=0.1, num_envs=500, generator=np.random.default_rng(0))
    begins, under_way = (np.stack(part) for part in zip(*(events.next() for _ in range(2_000)), strict=True))
    assert under_way.sum() == pytest.approx(20 * begins.sum(), rel=0.02)
    assert np.array_equal(
        np.flatnonzero(under_way[:, 0])[:20], np.flatnonzero(begins[:, 0])[0] + np.arange(20)
    )
    # One in 0.5 + 0.1 seconds.
    assert begins.mean() * CONTROL_RATE == pytest.approx(1 / 0.6, rel=0.05)
