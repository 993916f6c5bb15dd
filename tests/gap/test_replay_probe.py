"""Replay tells the one-step gap, because it takes the step; here against gaps that are known."""

from pathlib import Path

import numpy as np
import pytest

from simtrust.data import load_dataset
from simtrust.errors import ConfigError, DataError, ShiftError, SimulatorError
from simtrust.gap.drift import drift
from simtrust.gap.replay_probe import replay
from simtrust.gap.step_errors import step_errors, summarise
from simtrust.simulators import Shift
from simtrust.simulators.guard import StateNotSettable
from simtrust.simulators.wheel_legged import REAL_ROBOT

MEDIUM_REPLAY = Path(__file__).parents[3] / "shared" / "data" / "halfcheetah_medium_replay-v5.hdf5"
LOCOMOTION = ["HalfCheetah-v5", "Walker2d-v5", "Hopper-v5", "Ant-v5"]
ROBOTS = ["StandingStill-v0", "MovingStraight-v0"]
DOUBLE_GRAVITY = (Shift("gravity", 2.0),)


@pytest.mark.parametrize("name", LOCOMOTION)
def test_an_unshifted_simulator_has_no_gap_to_its_own_log(known_gaps, name):
    log = known_gaps.record_random(name)
    replayed = replay(log, name)
    errors = step_errors(log, replayed)
    assert replayed.usable.sum() > 30 and not replayed.diverged.any()
    assert np.nanmax(errors.gap) < 1e-4  # of the logged change, in float32
    shifted = step_errors(log, replay(log, name, shifts=DOUBLE_GRAVITY))
    assert np.nanmedian(shifted.gap) > 100 * np.nanmax(errors.gap)


@pytest.mark.parametrize("name", ROBOTS)
def test_the_ideal_robot_has_hardly_a_gap_to_its_own_log(known_gaps, name):
    # Its slip is not observed, and an episode starts before the wheels have sunk in.
    log = known_gaps.record_random(name, amplitude=0.3)
    gap = step_errors(log, replay(log, name)).gap
    settled = np.arange(len(log)) % 25 > 5
    assert np.median(gap[settled]) < 0.005 and gap[settled].max() < 0.05 and gap.max() < 0.2


@pytest.mark.skipif(not MEDIUM_REPLAY.exists(), reason="the shared log is not here")
def test_a_log_from_elsewhere_has_no_gap_to_the_simulator_it_was_made_in():
    log = load_dataset(MEDIUM_REPLAY)
    rows = np.arange(2000)
    gap = step_errors(log, replay(log, "HalfCheetah-v5", rows=rows)).gap
    assert gap.shape == (2000,) and gap.max() < 1e-4


# Users' own environments


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_users_own_environment_can_be_replayed(known_gaps, size):
    log = known_gaps.record_line(size)
    errors = step_errors(log, replay(log, f"known_gaps:Line{size}"))
    np.testing.assert_allclose(errors.error, 0.1, atol=1e-6)
    summary = summarise(errors)
    assert summary.bias.mean.shape == (size,) and summary.gap.mean.shape == ()
    assert (summary.rows, summary.episodes) == (40, 2)


def test_an_environment_without_the_hook_can_be_told_apart(known_gaps):
    with pytest.raises(StateNotSettable, match=r"cannot be put into a logged state.*Remedy"):
        replay(known_gaps.record_line(2), "known_gaps:Unsettable2")
    with pytest.raises(StateNotSettable):
        drift(known_gaps.record_line(2), "known_gaps:Unsettable2", horizon=3)


def test_a_users_environment_has_no_shifts(known_gaps):
    with pytest.raises(ShiftError, match="supports no shifts"):
        replay(known_gaps.record_line(2), "known_gaps:Line2", shifts=[Shift("delay", 1)])


def test_a_row_at_which_a_users_environment_raises_is_left_out(known_gaps):
    log = known_gaps.record_line(2)
    log.transitions.observation[7] = 60.0
    replayed = replay(log, "known_gaps:Line2")
    assert np.flatnonzero(replayed.diverged).tolist() == [7] == np.flatnonzero(~replayed.usable).tolist()
    assert "FloatingPointError: off the paper" in replayed.failure
    errors = step_errors(log, replayed)
    assert np.flatnonzero(np.isnan(errors.gap)).tolist() == [7]
    assert np.isnan(errors.error[7]).all()
    assert summarise(errors).rows == 39


@pytest.mark.parametrize("broken", [[0], [3], [6], [1, 4], [4, 5, 6, 7], [0, 1, 2, 3, 9]])
def test_rows_at_which_the_physics_diverge_are_left_out(known_gaps, broken):
    log = known_gaps.record_random("HalfCheetah-v5", episodes=2, steps=5)
    intact = replay(log, "HalfCheetah-v5", instances=4)
    log.transitions.observation[broken, 10] = 1e11
    replayed = replay(log, "HalfCheetah-v5", instances=4)
    others = np.setdiff1d(np.arange(10), broken)
    assert np.flatnonzero(replayed.diverged).tolist() == broken
    assert "diverged" in replayed.failure
    assert np.isnan(replayed.predicted[broken]).all()
    assert np.array_equal(replayed.predicted[others], intact.predicted[others])


def test_a_simulator_that_fails_everywhere_is_an_error(known_gaps):
    log = known_gaps.record_random("HalfCheetah-v5", episodes=1, steps=5)
    log.transitions.observation[:, 10] = 1e11
    with pytest.raises(SimulatorError, match=r"failed at each of the 5 rows replayed, first: .*diverged"):
        replay(log, "HalfCheetah-v5")
    with pytest.raises(SimulatorError, match="failed on its way from every start"):
        drift(log, "HalfCheetah-v5", horizon=2)


def test_how_many_are_stepped_together_changes_nothing(known_gaps):
    log = known_gaps.record_random("Hopper-v5", shifts=(), episodes=3, steps=7)
    together = replay(log, "Hopper-v5", shifts=DOUBLE_GRAVITY)
    for instances in (1, 4, len(log)):
        apart = replay(log, "Hopper-v5", shifts=DOUBLE_GRAVITY, instances=instances)
        assert np.array_equal(apart.predicted, together.predicted)


def test_some_rows_are_those_of_all(known_gaps):
    log = known_gaps.record_random("HalfCheetah-v5", episodes=4, steps=10)
    rows = np.array([31, 2, 17, 2])
    everything, some = replay(log, "HalfCheetah-v5"), replay(log, "HalfCheetah-v5", rows=rows)
    assert np.array_equal(some.predicted, everything.predicted[rows])
    errors = step_errors(log, some)
    assert errors.episode.tolist() == [3, 0, 1, 0]
    assert np.array_equal(errors.gap, step_errors(log, everything).gap[rows])


def test_placeholders_and_open_states_are_not_compared(known_gaps):
    log = known_gaps.record_random("Hopper-v5", episodes=4, steps=200, amplitude=1.0)
    ends = np.flatnonzero(log.transitions.terminated)
    assert len(ends) == 4
    log.transitions.next_observation[ends[:2]] = log.transitions.observation[ends[:2]]
    log.transitions.observation[5, -1] = 10.0
    replayed = replay(log, "Hopper-v5")
    assert np.flatnonzero(replayed.unrecorded).tolist() == ends[:2].tolist()
    assert np.array_equal(
        replayed.undetermined, (np.abs(log.transitions.observation[:, 5:]) >= 10).any(axis=1)
    )
    assert replayed.undetermined[5]
    errors = step_errors(log, replayed)
    assert np.array_equal(np.isnan(errors.gap), replayed.unrecorded | replayed.undetermined)
    assert np.nanmax(errors.gap) < 1e-4  # a placeholder compared would be far off


def test_a_log_that_can_nowhere_be_compared_is_refused(known_gaps):
    log = known_gaps.record_random("Walker2d-v5", episodes=1, steps=5)
    log.transitions.observation[:, -1] = 10.0
    with pytest.raises(DataError, match=r"none of the 5 rows can be replayed.*5 do not determine.*Remedy"):
        replay(log, "Walker2d-v5")
    with pytest.raises(DataError, match=r"none of the \d starts determines the state.*Remedy"):
        drift(log, "Walker2d-v5", horizon=2)


def test_a_delay_gets_the_actions_under_way(known_gaps):
    delay = (Shift("delay", 2),)
    log = known_gaps.record_random("HalfCheetah-v5", shifts=delay)
    assert step_errors(log, replay(log, "HalfCheetah-v5", shifts=delay)).gap.max() < 1e-4
    for wrong in ((), (Shift("delay", 1),), (Shift("delay", 3),)):
        assert np.median(step_errors(log, replay(log, "HalfCheetah-v5", shifts=wrong)).gap) > 0.1


UNTOLD = ("battery", "uneven-floor", "sensor-noise", "encoder-step")
TOLD = tuple(shift for shift in REAL_ROBOT if shift.kind not in UNTOLD)
"""The real robot without what no observation tells."""


def test_the_real_robot_is_replayed_but_for_what_its_sensors_hide(known_gaps):
    log = known_gaps.record_random("StandingStill-v0", shifts=TOLD, amplitude=0.3, steps=40)
    settled = np.arange(len(log)) % 40 > 5
    assert np.median(step_errors(log, replay(log, "StandingStill-v0", shifts=TOLD)).gap[settled]) < 0.02
    undelayed = tuple(shift for shift in TOLD if shift.kind != "delay")
    assert np.median(step_errors(log, replay(log, "StandingStill-v0", shifts=undelayed)).gap[settled]) > 0.1


def test_the_real_robots_own_delay_is_played_too(known_gaps):
    log = known_gaps.record_random(
        "StandingStillReal-v0", shifts=[Shift("sensor-noise", 1e-9)], amplitude=0.3, steps=40
    )
    gaps = [
        np.median(
            step_errors(
                log, replay(log, "StandingStillReal-v0", shifts=[Shift("sensor-noise", 1e-9), *other])
            ).gap
        )
        for other in ([], [Shift("delay", 2)])
    ]
    assert gaps[0] < 0.5 * gaps[1]


def test_the_real_robot_replays_as_the_ideal_one_with_its_shifts(known_gaps):
    log = known_gaps.record_random("MovingStraightReal-v0", amplitude=0.3)
    real = replay(log, "MovingStraightReal-v0", seed=3).predicted
    assert np.array_equal(real, replay(log, "MovingStraight-v0", shifts=REAL_ROBOT, seed=3).predicted)
    assert not np.array_equal(real, replay(log, "MovingStraightReal-v0", seed=4).predicted)


# What cannot work


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": np.zeros(0, int)}, "rows must be at least one row number"),
        ({"rows": np.array([0.5])}, "rows must be at least one row number, got float64"),
        ({"rows": np.array([True, False])}, "rows must be at least one row number, got bool"),
        ({"rows": np.array([[0, 1]])}, r"rows must be at least one row number, got int64 of shape \(1, 2\)"),
        ({"rows": np.array([0, 40])}, "rows must be in 0 to 39, got 0 to 40"),
        ({"rows": np.array([-1])}, "rows must be in 0 to 39"),
        ({"instances": 0}, "instances must be a positive integer, got 0"),
        ({"instances": 1.5}, "instances must be a positive integer"),
    ],
)
def test_impossible_options_are_named(known_gaps, options, message):
    with pytest.raises(ConfigError, match=message):
        replay(known_gaps.record_line(2), "known_gaps:Line2", **options)


def test_other_misuse_is_named(known_gaps):
    log = known_gaps.record_line(2)
    replayed = replay(log, "known_gaps:Line2")
    with pytest.raises(ConfigError, match="normalisation is 'range'; it must be 'change' or 'state'"):
        step_errors(log, replayed, normalisation="range")
    with pytest.raises(DataError, match="the replay is of another log"):
        step_errors(known_gaps.record_line(1), replayed)
    with pytest.raises(DataError, match="the replay is of another log"):
        step_errors(known_gaps.record_line(3), replayed)
    with pytest.raises(ConfigError, match="resamples must be a positive integer"):
        summarise(step_errors(log, replayed), resamples=0)
    with pytest.raises(ShiftError, match="'delay' is given 2 times"):
        replay(
            known_gaps.record_random("HalfCheetah-v5"),
            "HalfCheetah-v5",
            shifts=[Shift("delay", 1), Shift("delay", 2)],
        )


def test_a_log_that_does_not_fit_is_refused(known_gaps):
    with pytest.raises(DataError, match=r"key 'observations'.* is 2 wide where simulator 'Hopper' has 11"):
        replay(known_gaps.record_line(2), "Hopper")
    empty = known_gaps.dataset_of(np.zeros((0, 2)), np.zeros((0, 1)), np.zeros((0, 2)), lengths=[])
    with pytest.raises(DataError, match=r"has no rows. Remedy"):
        replay(empty, "known_gaps:Line2")
    with pytest.raises(DataError, match=r"has no rows. Remedy"):
        drift(empty, "known_gaps:Line2")


def test_progress_is_told_and_can_interrupt(known_gaps):
    log = known_gaps.record_random("HalfCheetah-v5", episodes=2, steps=5)
    told = []
    replay(log, "HalfCheetah-v5", instances=4, progress=lambda done, rows: told.append((done, rows)))
    assert told == [(4, 10), (8, 10), (10, 10)]

    def interrupt(done, rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(log, "HalfCheetah-v5", progress=interrupt)
    assert replay(log, "HalfCheetah-v5").usable.all()
