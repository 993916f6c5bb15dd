"""The robot's Gymnasium environments keep Gymnasium's contract."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import simtrust.simulators
from simtrust.errors import ConfigError, ShiftError
from simtrust.simulators import make_simulator

IDS = ["simtrust/StandingStill-v0", "simtrust/MovingStraight-v0"]
COMMAND_LINE_NAMES = {
    ("simtrust/StandingStill-v0", "simulator"): "StandingStill-v0",
    ("simtrust/StandingStill-v0", "real"): "StandingStillReal-v0",
    ("simtrust/MovingStraight-v0", "simulator"): "MovingStraight-v0",
    ("simtrust/MovingStraight-v0", "real"): "MovingStraightReal-v0",
}
both_twins = pytest.mark.parametrize(("name", "fidelity"), list(COMMAND_LINE_NAMES))


# Torques are in N m, and the state has no bounds: two of Gymnasium's recommendations do not apply.
@pytest.mark.filterwarnings("ignore:.*recommend using a symmetric and normalized space")
@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value is -?infinity")
@both_twins
def test_gymnasiums_checker_has_nothing_to_say(name, fidelity):
    env = gymnasium.make(name, fidelity=fidelity)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


@both_twins
def test_an_environment_is_the_simulator_of_the_command_line(name, fidelity):
    env = gymnasium.make(name, fidelity=fidelity)
    simulator = make_simulator(COMMAND_LINE_NAMES[name, fidelity], num_envs=1)
    observation, info = env.reset(seed=7)
    assert np.array_equal(observation, simulator.reset(seed=[7])[0][0])
    assert np.array_equal(info["state"], simulator.env.true_state[0])
    for torque in (1.0, -2.0, 4.0):
        action = np.array([torque], np.float32)
        answer, expected = env.step(action), simulator.step(action[None])
        for ours, theirs in zip(answer[:4], expected[:4], strict=True):
            assert np.array_equal(ours, theirs[0])
        assert np.array_equal(answer[4]["state"], expected[4]["state"][0])
        assert answer[4]["state"].shape == (4,)
    assert [type(part) for part in answer[1:4]] == [float, bool, bool]
    env.close()


@pytest.mark.parametrize("name", IDS)
def test_the_idealised_robot_is_the_default(name):
    default, ideal = gymnasium.make(name), gymnasium.make(name, fidelity="simulator")
    assert np.array_equal(default.reset(seed=0)[0], ideal.reset(seed=0)[0])
    action = np.array([0.2], np.float32)
    assert np.array_equal(default.step(action)[0], ideal.step(action)[0])


@both_twins
def test_a_seed_decides_the_episode_and_without_one_the_next_differs(name, fidelity):
    env = gymnasium.make(name, fidelity=fidelity)
    first = env.reset(seed=3)[0]
    second = env.reset()[0]
    assert not np.array_equal(first, second)
    assert np.array_equal(env.reset(seed=3)[0], first)
    assert np.array_equal(env.reset()[0], second)
    assert not np.array_equal(env.reset(seed=4)[0], first)
    unseeded = [gymnasium.make(name, fidelity=fidelity).reset()[0] for _ in range(2)]
    assert not np.array_equal(*unseeded)


@both_twins
def test_a_step_takes_a_200th_of_a_second(name, fidelity):
    env = gymnasium.make(name, fidelity=fidelity)
    assert env.metadata["render_fps"] == 200
    state = env.reset(seed=0)[1]["state"]
    for _ in range(3):
        before, state = state, env.step(np.zeros(1, np.float32))[4]["state"]
    # Position and tilt advance by the mean speed of the step.
    advanced = (state - before)[[0, 2]] / ((state + before)[[1, 3]] / 2)
    assert advanced == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize(("name", "steps"), [(IDS[0], 6000), (IDS[1], 4000)])
def test_an_episode_ends_by_the_tasks_own_time(name, steps):
    env = gymnasium.make(name)
    observation, _ = env.reset(seed=0)
    gains = np.array([22.0, 3.5, 2.0, 3.0] if len(observation) == 4 else [22.0, 3.5, 3.0])
    for taken in range(1, steps + 1):
        torque = np.array([observation @ gains], np.float32)
        observation, _, terminated, truncated, _ = env.step(torque)
        assert not terminated
        assert truncated == (taken == steps)


def test_shifts_are_given_by_name_and_replace_the_twins():
    def answers(torque, **options):
        env = gymnasium.make(IDS[0], **options)
        env.reset(seed=0)
        return [env.step(np.array([torque]))[4]["state"] for _ in range(10)]

    assert np.array_equal(answers(0.3, shifts=["dead-zone=0.3"]), answers(0.0))
    late = {"fidelity": "real", "shifts": ["delay=20"]}
    assert np.array_equal(answers(3.0, **late), answers(0.0, **late))
    assert not np.array_equal(answers(3.0, fidelity="real"), answers(0.0, fidelity="real"))


def test_what_is_unknown_is_refused_by_name():
    with pytest.raises(ConfigError, match="fidelity is 'ideal'; it must be 'real' or 'simulator'"):
        gymnasium.make(IDS[0], fidelity="ideal")
    with pytest.raises(ShiftError, match=r"unknown shift 'deadzone'.*did you mean 'dead-zone'"):
        gymnasium.make(IDS[0], shifts=["deadzone=0.3"])
    with pytest.raises(ShiftError, match="'delay' is given 2 times"):
        gymnasium.make(IDS[0], shifts=["delay=1", "delay=2"])


def test_registering_again_changes_nothing():
    before = {name: gymnasium.spec(name) for name in IDS}
    simtrust.simulators.register()
    assert {name: gymnasium.spec(name) for name in IDS} == before


def test_closing_twice_is_fine():
    env = gymnasium.make(IDS[0])
    env.reset(seed=0)
    env.close()
    env.close()


@pytest.mark.parametrize("name", IDS)
def test_an_id_can_import_its_own_module(name):
    program = (
        "import gymnasium\n"
        f"env = gymnasium.make('simtrust.simulators:{name}', fidelity='real')\n"
        "observation, info = env.reset(seed=0)\n"
        "print(len(observation), len(info['state']))\n"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4" if "Standing" in name else "3", "4"]
    assert not done.stderr
