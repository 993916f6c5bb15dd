"""The worst episodes are those that were made the worst, and show what was logged and what was stepped."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from simtrust.data import Dataset
from simtrust.errors import ConfigError, DataError
from simtrust.gap.replay_probe import replay
from simtrust.gap.step_errors import GapErrors, step_errors
from simtrust.gap.worst_episodes import worst_episodes
from simtrust.simulators import Shift
from simtrust.simulators.guard import StateNotSettable
from simtrust.types import Transitions

CHEETAH, STEPS = "HalfCheetah-v5", 60
HERE = __name__


class Step(gymnasium.Env):
    """A point that moves by the action and 0.1 more, raises beyond 5, and ends its episode below -5."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.point = np.zeros(1)
        return self.point.astype(np.float32), {}

    def set_observation(self, observation):
        self.point = observation.astype(float)

    def step(self, action):
        self.point = self.point + action + 0.1
        if self.point > 5:
            raise FloatingPointError("off the paper")
        return self.point.astype(np.float32), 0.0, bool(self.point < -5), False, {}


class Unsettable(Step):
    set_observation = None


def join(*logs):
    """One log of the rows of several."""
    fields = zip(*(log.transitions for log in logs), strict=True)
    transitions = Transitions(*(np.concatenate(values) for values in fields))
    return Dataset(transitions, np.concatenate([log.episode_end for log in logs]), "log.hdf5", "0" * 64)


def rows_of(log, start, stop):
    """A log of some of its rows; the last of them ends an episode."""
    ends = log.episode_end[start:stop].copy()
    ends[-1] = True
    fields = (np.array(field[start:stop]) for field in log.transitions)
    return replace(log, transitions=Transitions(*fields), episode_end=ends)


def walk(lengths, *, start=0.0, action=0.0, extra=0.0):
    """A log of a point that moves by the action and ``extra`` [rows] more, each episode from ``start``."""
    rows = sum(lengths)
    moved = np.broadcast_to(action + np.asarray(extra, float), rows)
    episodes = np.split(moved, np.cumsum(lengths)[:-1])
    before = np.concatenate([start + np.cumsum(one) - one for one in episodes])
    columns = (before, np.full(rows, action), np.zeros(rows), before + moved, np.zeros(rows))
    shapes = ((rows, 1), (rows, 1), rows, (rows, 1), rows)
    fields = (np.asarray(c, np.float32).reshape(s) for c, s in zip(columns, shapes, strict=True))
    ends = np.zeros(rows, bool)
    ends[np.cumsum(lengths) - 1] = True
    return Dataset(Transitions(*fields), ends, "log.hdf5", "0" * 64)


def errors_of(log, gap):
    """One-step errors of a given size."""
    gap = np.asarray(gap, float)
    episode = np.cumsum(log.episode_end) - log.episode_end
    error = np.repeat(gap[:, None], log.observation_size, axis=1)
    return GapErrors(
        np.arange(len(log)), episode, error, np.ones(log.observation_size), np.abs(gap), "change"
    )


def find(log, simulator, errors=None, **options):
    if errors is None:
        errors = step_errors(log, replay(log, simulator))
    return worst_episodes(log, simulator, errors, **options)


def test_a_right_simulator_goes_where_the_log_went(cheetah):
    found = find(cheetah, CHEETAH)
    assert len(found) == 3
    scale = np.asarray(cheetah.transitions.observation, float).std(axis=0)
    for one in found:
        start = one.episode * STEPS
        assert one.first_row == start and one.gap < 1e-4
        assert one.real.shape == one.simulated.shape == (STEPS + 1, 17)
        np.testing.assert_array_equal(one.real[:-1], cheetah.transitions.observation[start : start + STEPS])
        np.testing.assert_array_equal(one.real[-1], cheetah.transitions.next_observation[start + STEPS - 1])
        np.testing.assert_array_equal(one.simulated[0], one.real[0])
        # Contacts let float32's rounding of the start grow.
        assert np.abs((one.simulated - one.real) / scale)[:20].max() < 1e-3


def test_the_episode_of_another_gravity_is_named_first(cheetah, record, tmp_path):
    heavy = record(tmp_path / "log.hdf5", CHEETAH, ["gravity=2"])
    log = join(rows_of(cheetah, 0, 240), rows_of(heavy, 240, 300), rows_of(cheetah, 300, 600))
    found = find(log, CHEETAH)
    assert found[0].episode == 4
    assert 4 * STEPS <= found[0].first_row < 5 * STEPS
    assert found[0].gap > 100 * found[1].gap
    assert [one.gap for one in found] == sorted((one.gap for one in found), reverse=True)
    # Under the shift that it was recorded with, all others are worse.
    shift = (Shift("gravity", 2.0),)
    errors = step_errors(log, replay(log, CHEETAH, shifts=shift))
    every = find(log, CHEETAH, errors, shifts=shift, most=10)
    assert every[-1].episode == 4
    assert np.abs(every[-1].simulated - every[-1].real)[:20].max() < 1e-2


def test_a_delay_gets_the_actions_under_way(record, tmp_path):
    delay = (Shift("delay", 2),)
    log = record(tmp_path / "log.hdf5", CHEETAH, ["delay=2"])
    errors = step_errors(log, replay(log, CHEETAH, shifts=delay))
    one, *_ = worst_episodes(log, CHEETAH, errors, shifts=delay, horizon=10)
    assert one.first_row % STEPS > 0
    np.testing.assert_allclose(one.simulated, one.real, atol=1e-2)


def test_ordered_by_mean_gap_and_then_as_in_the_log():
    log = walk([10, 20, 15, 10])
    gap = np.concatenate([np.full(10, 1.0), np.full(20, 3.0), np.full(15, 2.0), np.full(10, 3.0)])
    found = find(log, f"{HERE}:Step", errors_of(log, gap))
    assert [(one.episode, one.gap) for one in found] == [(1, 3.0), (3, 3.0), (2, 2.0)]
    assert len(find(log, f"{HERE}:Step", errors_of(log, gap), most=9)) == 4


def test_rows_without_a_gap_count_neither_for_nor_against():
    log = walk([12, 12])
    gap = np.r_[np.full(12, 1.0), np.full(12, 2.0)]
    gap[[0, 1]] = np.nan
    first, second = find(log, f"{HERE}:Step", errors_of(log, gap))
    assert (first.episode, second.episode) == (1, 0)
    assert second.gap == 1.0
    assert second.first_row == 2 and len(second.real) == 11


def test_an_episode_without_any_gap_is_passed_over():
    log = walk([12, 12])
    gap = np.r_[np.full(12, np.nan), np.full(12, 1.0)]
    assert [one.episode for one in find(log, f"{HERE}:Step", errors_of(log, gap))] == [1]


def test_errors_of_some_rows_are_enough():
    log = walk([30, 30], extra=np.r_[np.zeros(30), np.full(30, -0.1)])
    some = replay(log, f"{HERE}:Step", rows=np.arange(3, 60, 2))
    first, *_ = find(log, f"{HERE}:Step", step_errors(log, some))
    assert (first.episode, first.first_row) == (1, 31)


@pytest.mark.parametrize("rows", [9, 3])
def test_short_episodes_are_passed_over_unless_all_are(rows):
    log = walk([rows, 10])
    gap = np.r_[np.full(rows, 5.0), np.full(10, 1.0)]
    assert [one.episode for one in find(log, f"{HERE}:Step", errors_of(log, gap))] == [1]
    short = walk([rows, 1, rows])
    gap = np.r_[np.full(rows, 5.0), 9.0, np.full(rows, 7.0)]
    assert [one.episode for one in find(short, f"{HERE}:Step", errors_of(short, gap))] == [2, 0]


def test_the_worst_part_of_an_episode_is_shown():
    log = walk([50])
    gap = np.ones(50)
    gap[20:25] = 4.0
    one, *others = find(log, f"{HERE}:Step", errors_of(log, gap), horizon=5)
    assert not others
    assert (one.first_row, one.real.shape) == (20, (6, 1))
    np.testing.assert_allclose(one.simulated[:, 0] - one.real[:, 0], 0.1 * np.arange(6), atol=1e-6)
    gap[20] = np.nan
    (other,) = find(log, f"{HERE}:Step", errors_of(log, gap), horizon=5)
    assert other.first_row == 21


def test_an_episode_that_can_be_entered_only_near_its_end_is_shown_from_there():
    log = walk([30])
    gap = np.full(30, np.nan)
    gap[18:] = 1.0
    (one,) = find(log, f"{HERE}:Step", errors_of(log, gap), horizon=20)
    assert (one.first_row, len(one.real)) == (18, 13)


def test_rows_after_a_failure_are_unknown():
    log = walk([20], start=4.0)
    (one,) = find(log, f"{HERE}:Step", errors_of(log, np.ones(20)))
    np.testing.assert_allclose(one.simulated[:10, 0], 4.0 + 0.1 * np.arange(10), atol=1e-6)
    assert np.isnan(one.simulated[11:]).all()
    assert np.isfinite(one.real).all()


def test_rows_after_the_environments_own_end_are_unknown():
    log = walk([20], start=-3.9, action=-0.3)
    (one,) = find(log, f"{HERE}:Step", errors_of(log, np.ones(20)))
    known = np.isfinite(one.simulated[:, 0])
    assert known[:6].all() and not known[7:].any()
    assert one.simulated[known][-1] < -5


def test_what_nobody_recorded_is_not_shown():
    log = walk([20])
    log.transitions.terminated[-1] = 1.0
    log.transitions.next_observation[-1] = log.transitions.observation[-1]
    gap = np.ones(20)
    gap[-1] = np.nan
    (one,) = find(log, f"{HERE}:Step", errors_of(log, gap))
    assert one.real.shape == one.simulated.shape == (20, 1)


@pytest.mark.parametrize("most", [1, 3])
def test_a_log_of_one_episode(cheetah, most):
    (one,) = find(rows_of(cheetah, 60, 120), CHEETAH, most=most, horizon=25)
    assert one.episode == 0 and one.real.shape == (26, 17)


def test_the_real_robots_noise_is_the_same_for_the_same_seed(record, tmp_path):
    log = record(tmp_path / "log.hdf5", "StandingStillReal-v0")
    errors = step_errors(log, replay(log, "StandingStillReal-v0"))
    first, again, other = (
        worst_episodes(log, "StandingStillReal-v0", errors, most=1, seed=seed)[0].simulated
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_cannot_work_is_named(cheetah):
    log = walk([20])
    errors = errors_of(log, np.ones(20))
    for option in ("most", "horizon"):
        with pytest.raises(ConfigError, match=f"{option} must be a positive integer, got 0"):
            find(log, f"{HERE}:Step", errors, **{option: 0})
    with pytest.raises(StateNotSettable):
        find(log, f"{HERE}:Unsettable", errors)
    with pytest.raises(DataError, match="the replay is of another log"):
        find(cheetah, CHEETAH, errors)
    with pytest.raises(DataError, match=r"no row has a one-step error.*Remedy"):
        find(log, f"{HERE}:Step", errors_of(log, np.full(20, np.nan)))
    with pytest.raises(DataError, match=r"is 1 wide where simulator 'HalfCheetah-v5' has 17"):
        find(log, CHEETAH, errors)
