"""The whole report on logs that are short, narrow, wide or partly constant."""

import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

import simtrust
from simtrust.data import Dataset
from simtrust.gap import measure
from simtrust.reports.gap_summary import to_json, to_text
from simtrust.types import Transitions

HERE = __name__
EXTRA = 0.05
"""By which the simulator moves every dimension that moves further than the machine does, in a step."""


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Small models and few rows: what is tested here is that they can be had."""
    patch = pytest.MonkeyPatch()
    small = {"members": 2, "elites": 2, "hidden_sizes": (16,), "epochs": 2, "epoch_updates": 20}
    for options in ("SIMULATOR_GAP_OPTIONS", "TRUST_MODEL_OPTIONS"):
        patch.setattr(measure, options, replace(getattr(measure, options), **small))
    classifier = replace(measure.CLASSIFIER_OPTIONS, hidden_sizes=(16,), updates=20, batch_size=64)
    patch.setattr(measure, "CLASSIFIER_OPTIONS", classifier)
    patch.setattr(measure, "PROBE_ROWS", 200)
    patch.setattr(measure, "EXPLAINED_ROWS", 100)
    yield
    patch.undo()


class Plant(gymnasium.Env):
    """Dimensions that decay and that the first action pushes, but for the ``constant`` last ones."""

    def __init__(self, size, actions=1, constant=0):
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = Box(-1.0, 1.0, (actions,), np.float32)
        self.moving = np.arange(size) < size - constant

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.where(self.moving, self.np_random.normal(0, 0.5, len(self.moving)), 0.3)
        return self.state.astype(np.float32), {}

    def step(self, action):
        self.state = moved(self.state, action, self.moving, EXTRA)
        return self.state.astype(np.float32), 0.0, False, False, {}


class SettablePlant(Plant):
    def set_observation(self, observation):
        self.state = observation.astype(float)


def moved(state, action, moving, extra):
    return np.where(moving, 0.9 * state + 0.2 * action[..., :1] + extra, state)


def narrow():
    return SettablePlant(1)


def narrow_shut():
    return Plant(1)


def partly_constant():
    return SettablePlant(4, 2, constant=2)


def partly_constant_shut():
    return Plant(4, 2, constant=2)


def wide():
    return SettablePlant(100, 2)


def wide_shut():
    return Plant(100, 2)


def recorded(environment, *, episodes=12, steps=25):
    """A log of random actions on the machine, which does not move the simulator's extra."""
    size, actions = len(environment.moving), environment.action_space.shape[0]
    generator = np.random.default_rng(0)
    action = generator.uniform(-1, 1, (episodes, steps, actions)).astype(np.float32)
    states = [np.where(environment.moving, generator.normal(0, 0.5, (episodes, size)), 0.3)]
    for step in range(steps):
        states.append(moved(states[-1], action[:, step], environment.moving, 0.0))
    path = np.stack(states, axis=1).astype(np.float32)
    rows = episodes * steps
    columns = (
        path[:, :-1].reshape(rows, size),
        action.reshape(rows, actions),
        np.zeros(rows, np.float32),
        path[:, 1:].reshape(rows, size),
        np.zeros(rows, np.float32),
    )
    end = np.arange(1, rows + 1) % steps == 0
    return Dataset(Transitions(*map(np.ascontiguousarray, columns)), end, "log.hdf5", "0" * 64)


def with_rows(log, rows, episode_end):
    transitions = Transitions(*(np.asarray(field)[rows] for field in log.transitions))
    return replace(log, transitions=transitions, episode_end=np.asarray(episode_end))


def measured(log, simulator):
    report = simtrust.measure_gap(log, f"{HERE}:{simulator}", quiet=True)
    json.dumps(to_json(report, "a command"), allow_nan=False)
    assert simulator in to_text(report)
    return report


def check_replay(report):
    """The extra is found, in every dimension that moves, and in no other."""
    moving = ~np.isnan(report.replay.errors.scale)
    bias = report.replay.summary.bias.mean
    np.testing.assert_allclose(bias[moving], EXTRA, rtol=1e-4)
    np.testing.assert_allclose(bias[~moving], 0.0, atol=1e-6)
    assert report.verdict.gap_found
    assert report.verdict.worst_dimension in np.array(report.observation_names)[moving]
    np.testing.assert_allclose(sum(region.share for region in report.regions), 1.0)
    assert report.replay.drift is not None
    assert np.isfinite(report.replay.drift.error.mean).all()
    return moving


@pytest.mark.parametrize("simulator", ["narrow", "partly_constant", "wide"])
def test_every_size_of_state_is_replayed(simulator):
    environment = globals()[simulator]()
    report = measured(recorded(environment), simulator)
    assert np.array_equal(check_replay(report), environment.moving)
    assert not {"drift", "actuators", "model"} & set(report.missing)
    assert report.verdict.confidence == "high"


@pytest.mark.parametrize("simulator", ["narrow", "partly_constant", "wide"])
def test_every_size_of_state_has_a_model(simulator):
    environment = globals()[simulator]()
    report = measured(recorded(environment), f"{simulator}_shut")
    assert report.replay is None and "set_observation" in report.missing["replay"]
    assert np.array_equal(np.isnan(report.model.r_squared), ~environment.moving)
    assert np.isfinite(report.model.gap).all() and np.isfinite(report.model.floor)
    assert report.verdict.confidence in ("low", "medium")


def test_dimensions_that_nobody_named_have_numbers():
    report = measured(recorded(partly_constant()), "partly_constant")
    assert report.observation_names == tuple(f"observation {index}" for index in range(4))
    assert report.action_names == ("action 0", "action 1")


@pytest.mark.parametrize("steps", [25, 300])
def test_a_log_of_one_episode_has_no_intervals(steps):
    report = measured(recorded(narrow(), episodes=1, steps=steps), "narrow")
    check_replay(report)
    assert np.isnan(report.replay.summary.gap.low) and report.verdict.confidence == "medium"
    assert "interval unknown: one episode" in to_text(report)
    assert report.model is not None


def test_a_log_of_one_episode_has_a_model():
    report = measured(recorded(narrow(), episodes=1, steps=300), "narrow_shut")
    assert np.isfinite(report.model.gap).all()


@pytest.mark.parametrize("simulator", ["partly_constant", "partly_constant_shut"])
def test_a_log_that_holds_everything_twice_says_the_same(simulator):
    log = recorded(partly_constant(), episodes=6)
    rows = np.arange(len(log))
    twice = with_rows(log, np.tile(rows, 2), np.tile(log.episode_end, 2))
    report = measured(twice, simulator)
    assert np.isfinite(report.model.gap).all()
    if report.replay is not None:
        check_replay(report)
        once = measured(log, simulator).replay.summary
        np.testing.assert_allclose(report.replay.summary.gap.mean, once.gap.mean, rtol=1e-6)


@pytest.mark.parametrize("simulator", ["narrow", "narrow_shut"])
def test_rows_logged_several_times_are_no_harm(simulator):
    log = recorded(narrow(), episodes=4)
    rows = np.repeat(np.arange(len(log)), 3)
    # The chain of states breaks at every repetition, and so do the episodes.
    report = measured(with_rows(log, rows, np.ones(len(rows), bool)), simulator)
    assert np.isfinite(report.model.gap).all()
    if report.replay is not None:
        check_replay(report)


def test_rows_that_are_all_the_same_are_no_harm():
    log = recorded(narrow(), episodes=1)
    same = with_rows(log, np.r_[np.zeros(298, int), 1, 2], np.arange(300) == 299)
    check_replay(measured(same, "narrow"))


@pytest.mark.parametrize("simulator", ["narrow", "narrow_shut"])
def test_an_action_that_was_never_varied_is_no_harm(simulator):
    log = recorded(narrow())
    state = log.transitions.observation
    held = log.transitions._replace(
        action=np.zeros_like(log.transitions.action),
        next_observation=moved(state, np.zeros((len(state), 1)), np.array([True]), 0.0).astype(np.float32),
    )
    report = measured(replace(log, transitions=held), simulator)
    assert np.isfinite(report.model.gap).all()
    if report.replay is not None:
        check_replay(report)
