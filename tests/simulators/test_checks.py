"""Each check of a simulator, against a well-behaved one and against one that breaks just this promise."""

import time

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from simtrust.commands.check_sim import check_sim
from simtrust.data import load_dataset, save_dataset
from simtrust.errors import ShiftError, SimulatorError
from simtrust.simulators import check_answers, parse_shifts
from simtrust.simulators.check_answers import step_time
from simtrust.simulators.check_repeatability import settable
from simtrust.simulators.checked_instance import CheckedInstance
from simtrust.simulators.checks import check_simulator
from simtrust.simulators.probing import Row, first_difference

HERE = __name__


class Cart(gymnasium.Env):
    """Position and velocity, pushed by the action; it ends at step 60 and keeps every promise."""

    observation_space = Box(-100.0, 100.0, (2,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        self.state = self.np_random.uniform(-1, 1, 2)
        return self.observe(), {}

    def observe(self):
        return self.state.copy()

    def set_observation(self, observation):
        self.state = observation.copy()

    def push(self, action):
        if not np.isfinite(action).all():
            raise ValueError("not a number")
        return float(np.clip(action[0], -1, 1))

    def step(self, action):
        self.count += 1
        position, velocity = self.state
        velocity = velocity + 0.1 * self.push(action)
        self.state = np.array([position + 0.1 * velocity, velocity])
        return self.observe(), -abs(position), False, self.count >= 60, {}


class StartByClock(Cart):
    starts = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        StartByClock.starts += 1
        self.state[1] += 1e-9 * StartByClock.starts
        return self.observe(), {}


class OneStart(Cart):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state[:] = 0.5
        return self.observe(), {}


class OwnNoise(Cart):
    """Noise of a generator that no seed reaches, in the 31st step."""

    noise = np.random.default_rng(0)

    def step(self, action):
        observation, *rest = super().step(action)
        if self.count == 31:
            observation[0] += 1e-12 * self.noise.normal()
        return observation, *rest


class Delayed(Cart):
    """Pushes with the last action, also with that of the last episode."""

    waiting = 0.0

    def push(self, action):
        pushed, self.waiting = self.waiting, super().push(action)
        return pushed


class SharedState(Cart):
    """Its damping depends on how many instances there are."""

    instances = 0

    def __init__(self):
        SharedState.instances += 1
        self.damping = 0.01 * SharedState.instances

    def push(self, action):
        return super().push(action) - self.damping * self.state[1]


class Explodes(Cart):
    def observe(self):
        return np.where(self.count == 9, np.inf, self.state)


class NarrowSpace(Cart):
    observation_space = Box(np.array([-100.0, -0.01]), np.array([100.0, 0.01]), (2,), np.float64)


class OtherType(Cart):
    def observe(self):
        return self.state.astype(np.float32)


class Unclipped(Cart):
    def push(self, action):
        super().push(action)
        return float(action[0])


class RaisesAtBounds(Cart):
    def push(self, action):
        if action[0] == 1.0:
            raise ZeroDivisionError("singular")
        return super().push(action)


class TakesNan(Cart):
    def push(self, action):
        return float(np.nan_to_num(np.clip(action[0], -1, 1)))


class BrokenByNan(TakesNan):
    broken = False

    def push(self, action):
        self.broken |= bool(np.isnan(action[0]))
        return super().push(action) + self.broken


class Endless(Cart):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, False, info


class NoSetting(Cart):
    set_observation = None


class SetsHalf(Cart):
    def set_observation(self, observation):
        self.state = np.array([observation[0], self.state[1]])


class BadClose(Cart):
    def close(self):
        raise OSError("already gone")


class NoDict(Cart):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], None


class TooWide(Cart):
    def observe(self):
        return np.zeros(3)


class DiscreteAction(Cart):
    action_space = Discrete(2)


def found(name, **options):
    return {check.name: check for check in check_simulator(name, **options)}


def test_it_may_be_given_as_what_makes_it():
    assert next(check_simulator(Cart)) == next(check_simulator(f"{__name__}:Cart"))


def not_passed(checks):
    return {name: check.verdict for name, check in checks.items() if check.verdict != "passed"}


GYMNASIUM = {"Gymnasium's checker": "failed"}
REPEATS = dict.fromkeys(("determinism", "nothing leaks over reset", "a second instance"), "failed")
EXPECTED = {
    Cart: {},
    StartByClock: {"start by seed": "failed", **REPEATS, "Gymnasium's checker": "warning"},
    OneStart: {"start by seed": "note"},
    OwnNoise: REPEATS,
    SharedState: {"a second instance": "failed"},
    NarrowSpace: {"observations": "warning", **GYMNASIUM},
    OtherType: {"observations": "warning", "Gymnasium's checker": "warning"},
    Unclipped: {"actions at the bounds": "note"},
    RaisesAtBounds: {"actions at the bounds": "failed"},
    TakesNan: {"NaN action": "warning"},
    BrokenByNan: {"NaN action": "failed"},
    Endless: {"episode's end": "note"},
    NoSetting: {"set_observation": "note"},
    SetsHalf: {"set_observation": "warning"},
    BadClose: {"close": "failed"},
    NoDict: GYMNASIUM,
}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """No instance is slow here, nor counted from another test's."""
    monkeypatch.setattr(check_answers, "LONGEST_EPISODE", 300)
    monkeypatch.setattr(check_answers, "TIMED_STEPS", 20)
    SharedState.instances = 0


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_only_the_promise_that_is_broken_is_told(kind):
    checks = found(f"{HERE}:{kind.__name__}")
    assert not_passed(checks) == EXPECTED[kind]
    assert all(check.remedy for check in checks.values() if check.verdict in ("note", "warning"))


def test_what_leaks_over_a_reset_is_told_with_its_first_step():
    checks = found(f"{HERE}:Delayed")
    assert checks["start by seed"].verdict == checks["determinism"].verdict == "passed"
    assert checks["nothing leaks over reset"].verdict == "failed"
    assert "from step 1 on" in checks["nothing leaks over reset"].seen


def test_the_first_differing_step_is_named():
    assert "from step 31 on" in found(f"{HERE}:OwnNoise")["determinism"].seen
    row = Row(np.zeros(1), 0.0, False, False)
    assert first_difference([row] * 3, [row] * 3) is None
    assert first_difference([row] * 3, [row] * 2) == 2
    assert first_difference([row, row], [row, row._replace(reward=-0.0)]) == 1
    assert first_difference([row], [row._replace(observation=np.zeros(1, np.float32))]) == 0


def test_every_check_is_made_though_another_raised():
    checks = found(f"{HERE}:Explodes")
    assert checks["observations"].verdict == "failed"
    assert "observation dimension 0 is inf at step 9" in checks["observations"].seen
    assert list(checks) == list(found(f"{HERE}:Cart"))
    assert "shape (3,), its space (2,)" in found(f"{HERE}:TooWide")["start by seed"].seen


def test_unusable_spaces_end_the_checks():
    checks = found(f"{HERE}:DiscreteAction")
    assert list(checks) == ["Gymnasium's checker", "spaces"]
    assert "Discrete(2)" in checks["spaces"].seen


def test_how_an_episode_ends_and_what_comes_after():
    seen = found(f"{HERE}:Cart")["episode's end"].seen
    assert seen.startswith("truncated at step 60") and "is answered" in seen
    seen = found("simtrust/StandingStill-v0")["episode's end"].seen
    assert seen.startswith("terminated at step") and "refused" in seen


def test_gymnasiums_warnings_are_collected_not_shown(recwarn, capsys):
    checks = found(f"{HERE}:OtherType")
    assert "float64" in checks["Gymnasium's checker"].seen
    assert not recwarn.list
    assert capsys.readouterr() == ("", "")


def test_slow_steps_are_told_with_the_time_that_training_would_take():
    class Slow(Cart):
        def step(self, action):
            time.sleep(0.004)
            return super().step(action)

    check = step_time(CheckedInstance(Slow(), "slow", 0, 1))
    assert check.verdict == "note" and "--sim-workers" in check.remedy and "min" in check.seen
    assert step_time(CheckedInstance(Cart(), "quick", 0, 1)).verdict == "passed"


def test_a_built_in_simulator_keeps_every_promise():
    assert not_passed(found("Hopper-v5")) == {"actions at the bounds": "note"}
    # Who sees the position late cannot be put into the state that the observation tells.
    delayed = found("Hopper-v5", shifts=parse_shifts(["delay=2"]))
    assert not_passed(delayed) == {"actions at the bounds": "note", "set_observation": "warning"}


def test_setting_is_compared_by_the_step_after_it():
    class Forgets(Cart):
        def set_observation(self, observation):
            pass

    assert settable(CheckedInstance(Cart(), "cart", 0, 1)).verdict == "passed"
    assert settable(CheckedInstance(Forgets(), "cart", 0, 1)).verdict == "warning"


@pytest.fixture
def log(tmp_path):
    """A log of a Cart, 40 rows, whose first row can be changed."""

    def write(*, velocity=0.0, action=0.0, width=2):
        observations = np.zeros((40, width))
        observations[1::2, -1] = velocity
        actions = np.zeros((40, 1))
        actions[7] = action
        columns = {"observations": observations, "actions": actions, "rewards": np.ones(40)}
        columns |= {"terminals": np.zeros(40, bool), "timeouts": np.arange(40) % 20 == 19}
        return save_dataset(tmp_path / "log.hdf5", columns | {"next_observations": observations})

    return write


@pytest.mark.parametrize(
    ("options", "verdicts", "message"),
    [
        ({}, ("passed", "passed"), "inside"),
        ({"velocity": 150.0}, ("passed", "warning"), "dimension 1 in 50.00% of the rows: 0 to 150"),
        ({"action": 1.5}, ("failed",), "row 7"),
        ({"width": 3}, ("failed",), "is 3 wide where simulator"),
    ],
)
def test_the_log_is_compared_with_the_spaces(log, options, verdicts, message):
    checks = found(f"{HERE}:Cart", dataset=load_dataset(log(**options)))
    told = [check for name, check in checks.items() if name.startswith("the log")]
    assert tuple(check.verdict for check in told) == verdicts
    assert message in told[-1].seen


def test_the_command_ends_with_status_1_if_anything_failed(capsys, monkeypatch, log):
    monkeypatch.setenv("COLUMNS", "200")
    check_sim(f"{HERE}:Cart", real=str(log()))
    assert capsys.readouterr().out.splitlines()[-1] == "15 passed"
    with pytest.raises(SystemExit) as end:
        check_sim(f"{HERE}:BadClose")
    assert end.value.code == 1
    assert "OSError: already gone" in capsys.readouterr().out


def test_what_cannot_be_made_is_an_error():
    with pytest.raises(SimulatorError, match="unknown simulator"):
        found("Pendulun-v1")
    with pytest.raises(ShiftError, match="supports no shifts"):
        found("Pendulum-v1", shifts=parse_shifts(["gravity=2"]))
