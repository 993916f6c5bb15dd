"""Any Gymnasium environment behind the guard: what is wrong with it is named, where it happened."""

import functools
import re

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv

from simtrust.errors import ConfigError, ShiftError, SimulatorError
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.simulators.adapters import GuardedSimulator
from simtrust.simulators.factories import simulator_name

HERE = __name__


class Counter(gymnasium.Env):
    """Observes (steps since reset, first action); its first instance in a simulator ends at step 4."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (2,), np.float32)
    made = 0

    def __init__(self):
        self.serial = Counter.made
        Counter.made += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        self.options = options
        return self.observe(0.0), {}

    def observe(self, value):
        return np.array([self.count, value], np.float32)

    def step(self, action):
        self.count += 1
        return self.observe(action[0]), float(self.count), self.serial == 0 and self.count == 4, False, {}


@pytest.fixture(autouse=True)
def count_from_zero():
    Counter.made = 0


class Faulty(Counter):
    """A Counter of which instance 1 answers step 3 with what ``fault`` makes of a good answer."""

    fault = staticmethod(lambda answer: answer)

    def step(self, action):
        answer = super().step(action)
        return self.fault(answer) if (self.serial, self.count) == (1, 3) else answer


def raise_zero_division(_):
    raise ZeroDivisionError("the physics exploded")


def replace(position, value):
    return lambda answer: (*answer[:position], value, *answer[position + 1 :])


FAULTS = {
    "raises": (raise_zero_division, "the environment raised ZeroDivisionError: the physics exploded"),
    "nan observation": (replace(0, np.array([0, np.nan], np.float32)), "observation dimension 1 is nan"),
    "infinite observation": (
        replace(0, np.array([-np.inf, 0], np.float32)),
        "observation dimension 0 is -inf",
    ),
    "too long": (replace(0, np.zeros(3, np.float32)), r"shape \(3,\), its space \(2,\)"),
    "would broadcast": (replace(0, np.zeros(1, np.float32)), r"shape \(1,\), its space \(2,\)"),
    "scalar": (replace(0, 0.0), r"shape \(\), its space \(2,\)"),
    "ragged": (replace(0, [[1.0], 2.0]), "the observation is not an array"),
    "text": (replace(0, np.array(["a", "b"])), "the observation has dtype <U1"),
    "complex": (replace(0, np.zeros(2, complex)), "the observation has dtype complex128"),
    "no observation": (replace(0, None), r"shape \(\)"),
    "nan reward": (replace(1, np.nan), "reward is nan"),
    "reward is None": (replace(1, None), "the reward must be a number, got None"),
    "reward is text": (replace(1, "1.0"), "the reward must be a number, got '1.0'"),
    "reward is an array": (replace(1, np.zeros(1)), r"the reward must be a number, got array\(\[0.\]\)"),
    "flag is a number": (replace(2, 0), "terminated must be a bool, got 0"),
    "flag is None": (replace(3, None), "truncated must be a bool, got None"),
    "four values": (lambda answer: answer[:4], r"step must return \(observation, reward, terminated"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_instance_step_and_action(fault, monkeypatch):
    change, message = FAULTS[fault]
    monkeypatch.setattr(Faulty, "fault", staticmethod(change))
    simulator = make_simulator(f"{HERE}:Faulty", num_envs=3)
    simulator.reset(seed=0)
    actions = np.array([[0.0, 0.0], [0.25, -0.5], [0.0, 0.0]], np.float32)
    for _ in range(2):
        simulator.step(actions)
    place = rf"{HERE}:Faulty, instance 1 of 3, step 3 since its reset, action \[ ?0.25, -0.5 ?\]: "
    with pytest.raises(SimulatorError, match=place + ".*" + message) as caught:
        simulator.step(actions)
    if fault == "raises":
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(SimulatorError, match="reset it before this step"):
        simulator.step(actions)
    simulator.reset(seed=0)
    simulator.step(actions)


class FaultyStart(Counter):
    start = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if callable(self.start):
            return self.start(None)
        return self.start


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (staticmethod(raise_zero_division), "raised ZeroDivisionError"),
        ((np.zeros(5), {}), r"shape \(5,\)"),
        ((np.full(2, np.nan, np.float32), {}), "observation dimension 0 is nan"),
        (np.zeros(2), r"reset must return \(observation, info\)"),
    ],
)
def test_a_faulty_reset_is_named(start, message, monkeypatch):
    monkeypatch.setattr(FaultyStart, "start", start)
    simulator = make_simulator(f"{HERE}:FaultyStart", num_envs=2)
    with pytest.raises(SimulatorError, match="FaultyStart, instance 0 of 2, at reset: .*" + message):
        simulator.reset(seed=0)


def test_wider_floats_integers_and_numpy_scalars_are_fine(monkeypatch):
    answers = {0: [1.0, 2.0], 1: np.float32(3.0), 2: np.False_, 3: np.True_}
    monkeypatch.setattr(
        Faulty, "fault", staticmethod(lambda answer: tuple(answers.get(i, v) for i, v in enumerate(answer)))
    )
    simulator = make_simulator(f"{HERE}:Faulty", num_envs=2)
    simulator.reset(seed=0)
    for _ in range(3):
        observation, reward, terminated, truncated, _ = simulator.step(np.zeros((2, 2)))
    assert observation[1].tolist() == [1.0, 2.0] and observation.dtype == np.float32
    assert reward[1] == 3.0 and not terminated[1] and truncated[1]


@pytest.mark.parametrize("name", ["HalfCheetah", f"{HERE}:Counter"])
def test_actions_are_checked_before_anything_moves(name):
    simulator = make_simulator(name, num_envs=2)
    simulator.reset(seed=0)
    good = np.full(simulator.action_space.shape, 0.5, np.float32)
    simulator.step(good)
    twin = make_simulator(name, num_envs=2)
    Counter.made = 0
    twin.reset(seed=0)
    twin.step(good)
    bad = good.copy()
    bad[1, 0] = np.nan
    with pytest.raises(
        SimulatorError, match=r"instance 1 of 2, step 2 .*action dimension 0 is nan; nothing was"
    ):
        simulator.step(bad)
    for wrong in (good[:1], good[:, :1], good[None], good[0], np.full(good.shape, "a")):
        with pytest.raises(SimulatorError, match="actions must be numbers of shape"):
            simulator.step(wrong)
    assert np.array_equal(simulator.step(good)[0], twin.step(good)[0])


def test_integer_actions_and_lists_are_taken_as_floats():
    simulator = make_simulator("HalfCheetah", num_envs=1)
    outcomes = []
    for actions in (
        np.ones((1, 6), np.float32),
        np.ones((1, 6), int),
        [[1] * 6],
        np.ones((6, 1), np.float32).T,
    ):
        simulator.reset(seed=0)
        outcomes.append(simulator.step(actions)[:2])
    for observation, reward in outcomes[1:]:
        assert np.array_equal(observation, outcomes[0][0]) and np.array_equal(reward, outcomes[0][1])


def test_finished_instances_wait_for_a_masked_reset():
    simulator = make_simulator(f"{HERE}:Counter", num_envs=3)
    simulator.reset(seed=0)
    actions = np.full((3, 2), 0.5, np.float32)
    for _ in range(4):
        observation, _, terminated, _, _ = simulator.step(actions)
    assert terminated.tolist() == [True, False, False]
    # The last observation of the episode, not the first of the next.
    assert observation[:, 0].tolist() == [4, 4, 4]
    with pytest.raises(SimulatorError, match="instance 0 of 3: reset it before this step"):
        simulator.step(actions)
    observation, _ = simulator.reset(options={"reset_mask": terminated})
    assert observation[:, 0].tolist() == [0, 4, 4]
    assert simulator.step(actions)[0][:, 0].tolist() == [1, 5, 5]


@pytest.mark.parametrize("name", ["HalfCheetah", f"{HERE}:Counter"])
def test_stepping_before_the_first_reset_is_refused(name):
    simulator = make_simulator(name, num_envs=2)
    with pytest.raises(SimulatorError, match="instance 0 of 2: reset it before this step"):
        simulator.step(np.zeros(simulator.action_space.shape))
    simulator.reset(options={"reset_mask": np.array([True, True])})
    simulator.step(np.zeros(simulator.action_space.shape))


@pytest.mark.parametrize("name", ["HalfCheetah", f"{HERE}:Counter"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"reset_mask": np.array([False, False])}}, "reset_mask must be bool"),
        ({"options": {"reset_mask": np.array([1, 0])}}, "reset_mask must be bool"),
        ({"options": {"reset_mask": np.array([True])}}, "reset_mask must be bool"),
        ({"seed": [1]}, "seed must be"),
        ({"seed": [1, -2]}, "seed must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 1.5}, "seed must be"),
        ({"seed": "abc"}, "seed must be"),
    ],
)
def test_a_malformed_reset_is_refused(name, arguments, message):
    simulator = make_simulator(name, num_envs=2)
    with pytest.raises(SimulatorError, match=message):
        simulator.reset(**arguments)


def test_options_reach_the_environment_and_stay_as_they_were():
    simulator = make_simulator(f"{HERE}:Counter", num_envs=2)
    options = {"reset_mask": np.array([True, True]), "track": "wet"}
    simulator.reset(seed=0, options=options)
    assert set(options) == {"reset_mask", "track"}
    assert simulator.env.envs[0].unwrapped.options == {"track": "wet"}


@pytest.mark.parametrize(
    ("name", "limit", "expected"),
    [("Pendulum-v1", None, 200), ("Pendulum-v1", 5, 5), (f"{HERE}:Counter", 3, 3), ("Hopper", 2, 2)],
)
def test_time_limits(name, limit, expected):
    simulator = make_simulator(name, num_envs=1, max_episode_steps=limit)
    simulator.reset(seed=0)
    actions = np.zeros(simulator.action_space.shape, np.float32)
    truncated = [bool(simulator.step(actions)[3][0]) for _ in range(expected)]
    assert truncated == [False] * (expected - 1) + [True]


def test_a_gymnasium_id_is_that_environment():
    simulator = make_simulator("MountainCarContinuous-v0", num_envs=2)
    env = gymnasium.make("MountainCarContinuous-v0")
    observation, _ = simulator.reset(seed=[4, 5])
    assert np.array_equal(observation[1], env.reset(seed=5)[0])
    action = np.array([0.3], np.float32)
    for ours, theirs in zip(
        simulator.step(np.stack([action, action]))[:4], env.step(action)[:4], strict=True
    ):
        assert np.array_equal(ours[1], theirs)
    assert simulator.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert str(simulator) == "MountainCarContinuous-v0, 2 instances"


def test_gymnasiums_own_form_of_an_importable_id_works():
    gymnasium.register("RegisteredCounter-v0", entry_point=Counter)
    try:
        assert make_simulator(f"{HERE}:RegisteredCounter-v0", num_envs=1).reset()[0].shape == (1, 2)
    finally:
        del gymnasium.registry["RegisteredCounter-v0"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("HalfCheta-v5", "unknown simulator 'HalfCheta-v5' .did you mean .*HalfCheetah-v5"),
        ("Pendulun-v1", "did you mean Pendulum-v1"),
        ("qqqqqqqq", "unknown simulator 'qqqqqqqq'; built-in are HalfCheetah-v5"),
        ("Pendulum-v77", "unknown simulator"),
        ("not an id at all", "Gymnasium cannot make it"),
        ("no_such_module:make", "No module named 'no_such_module'; is it installed"),
        (f"{HERE}:no_such_factory", r"AttributeError: .*; it has: Counter, Faulty, ([a-z_A-Z]+, ){8}\.\.\.$"),
        (f"{HERE}:HERE", "HERE is str, not a function"),
        (f"{HERE}:raise_on_call", "the factory raised ValueError: no licence"),
        (f"{HERE}:make_text", "must return a gymnasium.Env, got str; derive it from gymnasium.Env"),
        (f"{HERE}:same_one", "must return a new environment at every call"),
        (f"{HERE}:make_different", "cannot be run side by side"),
        ("CartPole-v1", "action space is Discrete.*1-D Box of floats with finite bounds"),
        (f"{HERE}:DiscreteObservation", "observation space is Discrete"),
        (f"{HERE}:MatrixObservation", "observation space is Box.*FlattenObservation"),
        (f"{HERE}:UnboundedAction", "action bounds are"),
        (f"{HERE}:IntegerAction", "action space is Box"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(name, message):
    with pytest.raises(SimulatorError, match=message):
        make_simulator(name, num_envs=2)


BESIDE = """
raise SystemExit("it was imported")
"""
PENDULUM = """
from dataclasses import dataclass
from pathlib import Path
import gymnasium
NUMBER = 3
class Pendulum(gymnasium.Env): pass
def make(): return Pendulum()
def _hidden(): pass
"""


@pytest.mark.parametrize("name", ["standing_pendulum", "standing_pendulum.py"])
def test_a_module_without_its_factory_is_told_from_an_id_and_not_imported(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SimulatorError) as before:
        make_simulator(name, num_envs=1)
    assert "module:factory, such as" not in str(before.value)
    (tmp_path / "standing_pendulum.py").write_text(BESIDE)
    with pytest.raises(
        SimulatorError, match=r"lies here.* as module:factory, such as standing_pendulum:make$"
    ):
        make_simulator(name, num_envs=1)


@pytest.mark.parametrize("name", ["x" * 300, "folder/standing_pendulum.py", "../standing_pendulum"])
def test_a_path_or_a_long_name_is_no_module(tmp_path, monkeypatch, name):
    for folder in ("here", "here/folder"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "standing_pendulum.py").write_text(BESIDE)
    (tmp_path / "standing_pendulum.py").write_text(BESIDE)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(SimulatorError, match=r"unknown simulator|cannot make it"):
        make_simulator(name, num_envs=1)


def test_a_missing_factory_is_told_with_those_that_the_module_defines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_pendulum.py").write_text(PENDULUM)
    (tmp_path / "own_numbers.py").write_text("NUMBER = 3")
    (tmp_path / "own_failure.py").write_text("import math\nmath.nothing")
    for name, told in {
        "own_pendulum:mke": "it has: Pendulum, make",
        "own_numbers:make": "it defines no function or class",
        "own_pendulum.py:make": "without .py: own_pendulum:make",
        "own_failure:make": "'math' has no attribute 'nothing'",
        "own_pendulum:Pendulum.mke": "has no attribute 'mke'",
    }.items():
        with pytest.raises(SimulatorError, match=re.escape(told) + "$"):
            make_simulator(name, num_envs=1)


def raise_on_call():
    raise ValueError("no licence")


def make_text():
    return "an environment"


SAME = Counter()


def same_one():
    return SAME


def make_different():
    env = Counter()
    env.action_space = Box(-1.0, 1.0, (env.serial + 1,), np.float32)
    return env


class DiscreteObservation(Counter):
    observation_space = Discrete(3)


class MatrixObservation(Counter):
    observation_space = Box(0.0, 1.0, (2, 2), np.float32)


class UnboundedAction(Counter):
    action_space = Box(-np.inf, 1.0, (2,), np.float32)


class IntegerAction(Counter):
    action_space = Box(0, 3, (2,), np.int64)


class Kept:
    """Whose factory is not at the top of the module."""

    @staticmethod
    def make():
        return Counter()

    @classmethod
    def create(cls):
        return cls.make()


@pytest.mark.parametrize(
    ("given", "name"), [(Counter, "Counter"), (Kept.make, "Kept.make"), (Kept.create, "Kept.create")]
)
def test_a_simulator_may_be_given_as_what_makes_it(given, name):
    assert simulator_name(given) == f"{HERE}:{name}"
    simulator = make_simulator(given, num_envs=2)
    assert simulator.name == f"{HERE}:{name}"
    simulator.reset(seed=0)
    assert simulator.step(np.full((2, 2), 0.5))[0].tolist() == [[1.0, 0.5]] * 2
    assert simulator_name("HalfCheetah-v5") == "HalfCheetah-v5"


def test_what_makes_it_must_be_found_again_by_its_name():
    def local():
        return Counter()

    renamed = functools.wraps(Counter)(lambda: Counter())
    unnamed = (lambda: Counter(), local, renamed, functools.partial(Counter), Counter().reset)
    for function in unnamed:
        with pytest.raises(SimulatorError, match="cannot be found again by a name; define a function"):
            make_simulator(function, num_envs=1)
    for thing in (Counter(), 3, None):
        with pytest.raises(SimulatorError, match="give the function or the class itself, without calling it"):
            make_simulator(thing, num_envs=1)


@pytest.mark.parametrize("name", ["Pendulum-v1", f"{HERE}:Counter"])
def test_shifts_are_for_built_in_tasks(name):
    with pytest.raises(ShiftError, match=r"supports no shifts \(gravity=2.0\); only HalfCheetah-v5.*factory"):
        make_simulator(name, num_envs=1, shifts=parse_shifts(["gravity=2"]))


@pytest.mark.parametrize(
    "arguments", [{"num_envs": 0}, {"num_envs": 1.5}, {"num_envs": 1, "max_episode_steps": 0}]
)
def test_counts_must_be_positive_integers(arguments):
    with pytest.raises(ConfigError, match="must be a positive integer"):
        make_simulator("Hopper", **arguments)


def test_only_tasks_can_be_set_to_a_state():
    simulator = make_simulator("Pendulum-v1", num_envs=1)
    with pytest.raises(SimulatorError, match="Pendulum-v1 cannot be set to a state"):
        simulator.set_state(np.zeros((1, 2)), np.zeros((1, 2)))


class Careless(VectorEnv):
    """A vector environment of two whose observations have lost an instance."""

    num_envs = 2
    observation_space = Box(-np.inf, np.inf, (2, 3), np.float32)
    action_space = Box(-1.0, 1.0, (2, 1), np.float32)
    single_observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    single_action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros((1, 3), np.float32), {}


def test_the_guard_checks_the_stacked_shape_too():
    with pytest.raises(SimulatorError, match=r"careless: observations have shape \(1, 3\), not \(2, 3\)"):
        GuardedSimulator(Careless(), "careless").reset()
