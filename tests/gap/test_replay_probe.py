"""Replay tells the one-step gap, because it takes the step; here against gaps that are known."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from simtrust.data import Dataset, load_dataset
from simtrust.errors import ConfigError, DataError, ShiftError, SimulatorError
from simtrust.gap import replay_probe
from simtrust.gap.replay_probe import GapErrors, drift, replay, step_errors, summarise
from simtrust.simulators import Shift, make_simulator
from simtrust.simulators.guard import StateNotSettable
from simtrust.simulators.wheel_legged import REAL_ROBOT
from simtrust.types import Transitions

HERE = __name__
MEDIUM_REPLAY = Path(__file__).parents[3] / "shared" / "data" / "halfcheetah_medium_replay-v5.hdf5"
LOCOMOTION = ["HalfCheetah-v5", "Walker2d-v5", "Hopper-v5", "Ant-v5"]
ROBOTS = ["StandingStill-v0", "MovingStraight-v0"]
DOUBLE_GRAVITY = (Shift("gravity", 2.0),)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    """MuJoCo writes MUJOCO_LOG.TXT into the working directory when it warns."""
    monkeypatch.chdir(tmp_path)


def dataset_of(observation, action, next_observation, *, terminated=None, lengths=None):
    rows = len(observation)
    terminated = np.zeros(rows) if terminated is None else terminated
    columns = (observation, action, np.zeros(rows), next_observation, terminated)
    end = np.zeros(rows, bool)
    end[np.cumsum([rows] if lengths is None else lengths, dtype=int) - 1] = True
    transitions = Transitions(*(np.ascontiguousarray(column, np.float32) for column in columns))
    return Dataset(transitions, end, "log.hdf5", "0" * 64)


def record(name, *, shifts=(), episodes=6, steps=25, amplitude=0.5):
    """A log of random actions, one episode per instance."""
    simulator = make_simulator(name, num_envs=episodes, shifts=shifts)
    observation, _ = simulator.reset(seed=0)
    high, generator = simulator.single_action_space.high, np.random.default_rng(0)
    running, rows = np.ones(episodes, bool), [[] for _ in range(episodes)]
    for _ in range(steps):
        action = (amplitude * high * generator.uniform(-1, 1, (episodes, high.size))).astype(np.float32)
        following, _, terminated, truncated, _ = simulator.step(action)
        for index in np.flatnonzero(running):
            rows[index].append((observation[index], action[index], following[index], terminated[index]))
        finished = terminated | truncated
        running &= ~finished
        observation = following
        if finished.any():
            observation, _ = simulator.reset(options={"reset_mask": finished})
    columns = [np.array(column) for column in zip(*(row for one in rows for row in one), strict=True)]
    return dataset_of(*columns[:3], terminated=columns[3], lengths=[len(one) for one in rows])


@pytest.mark.parametrize("name", LOCOMOTION)
def test_an_unshifted_simulator_has_no_gap_to_its_own_log(name):
    log = record(name)
    replayed = replay(log, name)
    errors = step_errors(log, replayed)
    assert replayed.usable.sum() > 30 and not replayed.diverged.any()
    assert np.nanmax(errors.gap) < 1e-4  # of the logged change, in float32
    shifted = step_errors(log, replay(log, name, shifts=DOUBLE_GRAVITY))
    assert np.nanmedian(shifted.gap) > 100 * np.nanmax(errors.gap)


@pytest.mark.parametrize("name", ROBOTS)
def test_the_ideal_robot_has_hardly_a_gap_to_its_own_log(name):
    # Its slip is not observed, and an episode starts before the wheels have sunk in.
    log = record(name, amplitude=0.3)
    gap = step_errors(log, replay(log, name)).gap
    settled = np.arange(len(log)) % 25 > 5
    assert np.median(gap[settled]) < 0.005 and gap[settled].max() < 0.05 and gap.max() < 0.2


@pytest.mark.skipif(not MEDIUM_REPLAY.exists(), reason="the shared log is not here")
def test_a_log_from_elsewhere_has_no_gap_to_the_simulator_it_was_made_in():
    log = load_dataset(MEDIUM_REPLAY)
    rows = np.arange(2000)
    gap = step_errors(log, replay(log, "HalfCheetah-v5", rows=rows)).gap
    assert gap.shape == (2000,) and gap.max() < 1e-4


@pytest.fixture(scope="module")
def airborne():
    """Steps of the unshifted cheetah high above the floor, where gravity acts on all of it alike."""
    generator = np.random.default_rng(0)
    observation = generator.normal(0, 0.1, (60, 17)).astype(np.float32)
    observation[:, 0] = 3.0
    action = generator.uniform(-0.5, 0.5, (60, 6)).astype(np.float32)
    simulator = make_simulator("HalfCheetah-v5", num_envs=60)
    simulator.set_observations(observation)
    return dataset_of(observation, action, simulator.step(action)[0], lengths=[10] * 6)


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
def test_constant_dimensions_leave_the_gap_alone(constant):
    log = record_line(size=2)
    constant = np.where(np.arange(len(log)) % 2, np.float32(1.234), constant)[:, None]  # or but for rounding
    wider = dataset_of(
        np.hstack([log.transitions.observation, constant]),
        log.transitions.action,
        np.hstack([log.transitions.next_observation, constant[::-1]]),
        lengths=log.episode_lengths,
    )
    narrow = step_errors(log, replay(log, f"{HERE}:Line2"))
    errors = step_errors(wider, replay(wider, f"{HERE}:Line2AndConstant"))
    assert np.isnan(errors.scale[2]) and np.isfinite(errors.scale[:2]).all()
    np.testing.assert_allclose(errors.gap, narrow.gap, rtol=1e-6)
    assert np.isfinite(errors.gap).all()
    np.testing.assert_allclose(errors.error[:, 2], 0.5, rtol=1e-6)  # told in the log's units
    summary = summarise(errors)
    assert np.isnan(summary.normalised.mean[2]) and summary.bias.mean[2] == pytest.approx(0.5, rel=1e-6)


def test_a_log_in_which_nothing_moves_is_refused():
    still = np.full((5, 2), 0.1)
    log = dataset_of(still, np.zeros((5, 1)), still)
    with pytest.raises(DataError, match=r"log.hdf5: no dimension of the change varies.*Remedy"):
        step_errors(log, replay(log, f"{HERE}:Line2"))


# Users' own environments: points on lines that reality moves by 0.1 a, and the simulator by 0.1 more.


class Line(gymnasium.Env):
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    extra = 0.1

    def __init__(self, size):
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.point = np.zeros(self.observation_space.shape)
        return self.point.astype(np.float32), {}

    def set_observation(self, observation):
        self.point = observation.astype(float)

    def step(self, action):
        if abs(self.point[0]) > 50:
            raise FloatingPointError("off the paper")
        self.point = self.point + 0.1 * action[0] + self.extra
        return self.point.astype(np.float32), 0.0, bool(self.point[0] > 9), False, {}


class ConstantLine(Line):
    def step(self, action):
        observation, *rest = super().step(action)
        observation[2] = 1.734
        return observation, *rest


class Unsettable(Line):
    set_observation = None


def Line2AndConstant():
    return ConstantLine(3)


def Unsettable2():
    return Unsettable(2)


def Line1():
    return Line(1)


def Line2():
    return Line(2)


def Line100():
    return Line(100)


def record_line(size, rows=40, lengths=(10, 30)):
    generator = np.random.default_rng(0)
    observation = generator.normal(size=(rows, size))
    action = generator.uniform(-1, 1, (rows, 1))
    return dataset_of(observation, action, observation + 0.1 * action, lengths=lengths)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_users_own_environment_can_be_replayed(size):
    log = record_line(size)
    errors = step_errors(log, replay(log, f"{HERE}:Line{size}"))
    np.testing.assert_allclose(errors.error, 0.1, atol=1e-6)
    summary = summarise(errors)
    assert summary.bias.mean.shape == (size,) and summary.gap.mean.shape == ()
    assert (summary.rows, summary.episodes) == (40, 2)


def test_an_environment_without_the_hook_can_be_told_apart():
    with pytest.raises(StateNotSettable, match=r"cannot be put into a logged state.*Remedy"):
        replay(record_line(2), f"{HERE}:Unsettable2")
    with pytest.raises(StateNotSettable):
        drift(record_line(2), f"{HERE}:Unsettable2", horizon=3)


def test_a_users_environment_has_no_shifts():
    with pytest.raises(ShiftError, match="supports no shifts"):
        replay(record_line(2), f"{HERE}:Line2", shifts=[Shift("delay", 1)])


def test_a_row_at_which_a_users_environment_raises_is_left_out():
    log = record_line(2)
    log.transitions.observation[7] = 60.0
    replayed = replay(log, f"{HERE}:Line2")
    assert np.flatnonzero(replayed.diverged).tolist() == [7] == np.flatnonzero(~replayed.usable).tolist()
    assert "FloatingPointError: off the paper" in replayed.failure
    errors = step_errors(log, replayed)
    assert np.flatnonzero(np.isnan(errors.gap)).tolist() == [7]
    assert np.isnan(errors.error[7]).all()
    assert summarise(errors).rows == 39


@pytest.mark.parametrize("broken", [[0], [3], [6], [1, 4], [4, 5, 6, 7], [0, 1, 2, 3, 9]])
def test_rows_at_which_the_physics_diverge_are_left_out(broken):
    log = record("HalfCheetah-v5", episodes=2, steps=5)
    intact = replay(log, "HalfCheetah-v5", instances=4)
    log.transitions.observation[broken, 10] = 1e11
    replayed = replay(log, "HalfCheetah-v5", instances=4)
    others = np.setdiff1d(np.arange(10), broken)
    assert np.flatnonzero(replayed.diverged).tolist() == broken
    assert "diverged" in replayed.failure
    assert np.isnan(replayed.predicted[broken]).all()
    assert np.array_equal(replayed.predicted[others], intact.predicted[others])


def test_a_simulator_that_fails_everywhere_is_an_error():
    log = record("HalfCheetah-v5", episodes=1, steps=5)
    log.transitions.observation[:, 10] = 1e11
    with pytest.raises(SimulatorError, match=r"failed at each of the 5 rows replayed, first: .*diverged"):
        replay(log, "HalfCheetah-v5")
    with pytest.raises(SimulatorError, match="failed on its way from every start"):
        drift(log, "HalfCheetah-v5", horizon=2)


def test_how_many_are_stepped_together_changes_nothing():
    log = record("Hopper-v5", shifts=(), episodes=3, steps=7)
    together = replay(log, "Hopper-v5", shifts=DOUBLE_GRAVITY)
    for instances in (1, 4, len(log)):
        apart = replay(log, "Hopper-v5", shifts=DOUBLE_GRAVITY, instances=instances)
        assert np.array_equal(apart.predicted, together.predicted)


def test_some_rows_are_those_of_all():
    log = record("HalfCheetah-v5", episodes=4, steps=10)
    rows = np.array([31, 2, 17, 2])
    everything, some = replay(log, "HalfCheetah-v5"), replay(log, "HalfCheetah-v5", rows=rows)
    assert np.array_equal(some.predicted, everything.predicted[rows])
    errors = step_errors(log, some)
    assert errors.episode.tolist() == [3, 0, 1, 0]
    assert np.array_equal(errors.gap, step_errors(log, everything).gap[rows])


def test_placeholders_and_open_states_are_not_compared():
    log = record("Hopper-v5", episodes=4, steps=200, amplitude=1.0)
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


def test_a_log_that_can_nowhere_be_compared_is_refused():
    log = record("Walker2d-v5", episodes=1, steps=5)
    log.transitions.observation[:, -1] = 10.0
    with pytest.raises(DataError, match=r"none of the 5 rows can be replayed.*5 do not determine.*Remedy"):
        replay(log, "Walker2d-v5")
    with pytest.raises(DataError, match=r"none of the \d starts determines the state.*Remedy"):
        drift(log, "Walker2d-v5", horizon=2)


def test_a_delay_gets_the_actions_under_way():
    delay = (Shift("delay", 2),)
    log = record("HalfCheetah-v5", shifts=delay)
    assert step_errors(log, replay(log, "HalfCheetah-v5", shifts=delay)).gap.max() < 1e-4
    for wrong in ((), (Shift("delay", 1),), (Shift("delay", 3),)):
        assert np.median(step_errors(log, replay(log, "HalfCheetah-v5", shifts=wrong)).gap) > 0.1


UNTOLD = ("battery", "uneven-floor", "sensor-noise", "encoder-step")
TOLD = tuple(shift for shift in REAL_ROBOT if shift.kind not in UNTOLD)
"""The real robot without what no observation tells."""


def test_the_real_robot_is_replayed_but_for_what_its_sensors_hide():
    log = record("StandingStill-v0", shifts=TOLD, amplitude=0.3, steps=40)
    settled = np.arange(len(log)) % 40 > 5
    assert np.median(step_errors(log, replay(log, "StandingStill-v0", shifts=TOLD)).gap[settled]) < 0.02
    undelayed = tuple(shift for shift in TOLD if shift.kind != "delay")
    assert np.median(step_errors(log, replay(log, "StandingStill-v0", shifts=undelayed)).gap[settled]) > 0.1


def test_the_real_robots_own_delay_is_played_too():
    log = record("StandingStillReal-v0", shifts=[Shift("sensor-noise", 1e-9)], amplitude=0.3, steps=40)
    gaps = [
        np.median(
            step_errors(
                log, replay(log, "StandingStillReal-v0", shifts=[Shift("sensor-noise", 1e-9), *other])
            ).gap
        )
        for other in ([], [Shift("delay", 2)])
    ]
    assert gaps[0] < 0.5 * gaps[1]


def test_the_real_robot_replays_as_the_ideal_one_with_its_shifts():
    log = record("MovingStraightReal-v0", amplitude=0.3)
    real = replay(log, "MovingStraightReal-v0", seed=3).predicted
    assert np.array_equal(real, replay(log, "MovingStraight-v0", shifts=REAL_ROBOT, seed=3).predicted)
    assert not np.array_equal(real, replay(log, "MovingStraightReal-v0", seed=4).predicted)


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


def test_one_episode_has_no_interval():
    summary = summarise(errors_of([1.0, 2.0, np.nan], [4, 4, 7]))
    assert summary.gap.mean == 1.5 and np.isnan(summary.gap[1:]).all()
    assert np.isnan(summary.bias.low).all()
    log = record("HalfCheetah-v5", episodes=1, steps=8)
    wandered = drift(log, "HalfCheetah-v5", horizon=3)
    assert np.isfinite(wandered.error.mean).all() and np.isnan(wandered.error.low).all()


def test_intervals_are_the_same_for_the_same_seed_whatever_the_blocks(monkeypatch):
    errors = errors_of(np.random.default_rng(0).normal(size=300), np.repeat(np.arange(30), 10))
    first, again, other = summarise(errors), summarise(errors), summarise(errors, seed=1)
    assert first.gap == again.gap and first.gap != other.gap
    monkeypatch.setattr(replay_probe, "RESAMPLING_BLOCK", 1000)
    assert summarise(errors).gap.low == pytest.approx(first.gap.low, rel=1e-12)


# Drift


def test_drift_grows_from_zero_under_a_shift_and_stays_there_without():
    log = record("HalfCheetah-v5", episodes=8, steps=40)
    astray = drift(log, "HalfCheetah-v5", shifts=DOUBLE_GRAVITY, horizon=12, starts=50)
    assert astray.each.shape == (50, 13) and (astray.each[:, 0] == 0).all()
    mean = astray.error.mean
    assert (np.diff(mean[:6]) > 0).all() and mean[12] > 3 * mean[1] > 0.05
    assert (astray.error.low <= mean).all() and (mean <= astray.error.high).all()
    own = drift(log, "HalfCheetah-v5", horizon=12, starts=50)
    assert own.each.max() < 1e-2 * mean[1]
    assert np.array_equal(own.starts, astray.starts)


def test_drift_of_known_size():
    generator = np.random.default_rng(0)
    action = generator.uniform(-1, 1, (40, 1))
    action[[19, 39]] = 0.0
    point = np.concatenate([np.cumsum(0.1 * action[:20], axis=0), np.cumsum(0.1 * action[20:], axis=0)])
    log = dataset_of(point - 0.1 * action, action, point, lengths=[20, 20])
    wandered = drift(log, f"{HERE}:Line1", horizon=5, starts=10)
    expected = 0.1 * np.arange(6) / log.transitions.observation.std()
    np.testing.assert_allclose(wandered.error.mean, expected, rtol=1e-5, atol=1e-6)


def test_drift_never_crosses_an_end_of_an_episode():
    log = record_line(1, rows=36, lengths=[10, 4, 12, 10])
    wandered = drift(log, f"{HERE}:Line1", horizon=10, starts=100)
    assert wandered.starts.tolist() == [0, 14, 15, 16, 26]
    assert len(drift(log, f"{HERE}:Line1", horizon=10, starts=2).starts) == 2
    with pytest.raises(DataError, match=r"no episode has 13 rows; the longest has 12. Remedy: .*at most 12"):
        drift(log, f"{HERE}:Line1", horizon=13)


def test_drift_passes_over_an_end_in_the_simulator():
    # The robot falls in the simulator, where the log's did not.
    log = record("Hopper-v5", episodes=6, steps=10, amplitude=0.1)
    wandered = drift(log, "Hopper-v5", shifts=(Shift("gravity", 30.0),), horizon=10, starts=100)
    assert len(wandered.starts) == 6 and np.isfinite(wandered.each).all()


def test_drift_ends_where_a_users_environment_does():
    log = record_line(1)
    log.transitions.observation[0] = 8.85
    wandered = drift(log, f"{HERE}:Line1", horizon=10, starts=100)
    assert wandered.starts[0] == 0
    known = np.isfinite(wandered.each)
    assert known[0, :2].all() and not known[0, 5:].any() and known[1:].all()


def test_drift_leaves_out_starts_that_diverge():
    log = record("HalfCheetah-v5", episodes=4, steps=5)
    log.transitions.observation[5, 10] = 1e11
    wandered = drift(log, "HalfCheetah-v5", horizon=5)
    assert wandered.starts.tolist() == [0, 5, 10, 15]
    assert wandered.diverged.tolist() == [False, True, False, False]
    assert np.isnan(wandered.each[1]).all() and np.isfinite(wandered.error.mean).all()


def test_drift_under_a_delay_gets_the_actions_under_way():
    delay = (Shift("delay", 2),)
    log = record("HalfCheetah-v5", shifts=delay)
    right = drift(log, "HalfCheetah-v5", shifts=delay, horizon=8)
    assert right.each.max() < 1e-2
    assert drift(log, "HalfCheetah-v5", horizon=8).error.mean[8] > 0.1


# What cannot work


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": np.zeros(0, int)}, "rows must be at least one row number"),
        ({"rows": np.array([0.5])}, "rows must be at least one row number, got float64"),
        ({"rows": np.array([True, False])}, "rows must be at least one row number, got bool"),
        ({"rows": np.array([0, 40])}, "rows must be in 0 to 39, got 0 to 40"),
        ({"rows": np.array([-1])}, "rows must be in 0 to 39"),
        ({"instances": 0}, "instances must be a positive integer, got 0"),
        ({"instances": 1.5}, "instances must be a positive integer"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        replay(record_line(2), f"{HERE}:Line2", **options)


@pytest.mark.parametrize("option", ["horizon", "starts", "resamples"])
def test_impossible_options_of_drift_are_named(option):
    with pytest.raises(ConfigError, match=f"{option} must be a positive integer, got 0"):
        drift(record_line(2), f"{HERE}:Line2", **{"horizon": 3, option: 0})


def test_other_misuse_is_named():
    log = record_line(2)
    replayed = replay(log, f"{HERE}:Line2")
    with pytest.raises(ConfigError, match="normalisation is 'range'; it must be 'change' or 'state'"):
        step_errors(log, replayed, normalisation="range")
    with pytest.raises(DataError, match="the replay is of another log"):
        step_errors(record_line(1), replayed)
    with pytest.raises(ConfigError, match="resamples must be a positive integer"):
        summarise(step_errors(log, replayed), resamples=0)
    with pytest.raises(ShiftError, match="'delay' is given 2 times"):
        replay(record("HalfCheetah-v5"), "HalfCheetah-v5", shifts=[Shift("delay", 1), Shift("delay", 2)])


def test_a_log_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match=r"key 'observations'.* is 2 wide where simulator 'Hopper' has 11"):
        replay(record_line(2), "Hopper")
    empty = dataset_of(np.zeros((0, 2)), np.zeros((0, 1)), np.zeros((0, 2)), lengths=[])
    with pytest.raises(DataError, match=r"has no rows. Remedy"):
        replay(empty, f"{HERE}:Line2")
    with pytest.raises(DataError, match=r"has no rows. Remedy"):
        drift(empty, f"{HERE}:Line2")


def test_progress_is_told_and_can_interrupt():
    log = record("HalfCheetah-v5", episodes=2, steps=5)
    told = []
    replay(log, "HalfCheetah-v5", instances=4, progress=lambda done, rows: told.append((done, rows)))
    assert told == [(4, 10), (8, 10), (10, 10)]

    def interrupt(done, rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(log, "HalfCheetah-v5", progress=interrupt)
    assert replay(log, "HalfCheetah-v5").usable.all()
