"""From an observation back to the state behind it, and the names of what is observed."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from simtrust.errors import SimulatorError
from simtrust.simulators import make_simulator
from simtrust.simulators.built_in import BUILT_IN
from simtrust.simulators.guard import StateNotSettable
from simtrust.simulators.model_files import load_model_file
from simtrust.simulators.shifts import Shift
from simtrust.simulators.task_specs import TASKS
from simtrust.simulators.tasks import model_file
from simtrust.simulators.wheel_legged import REAL_ROBOT, SETTLED_HEIGHT, WHEEL_RADIUS

HERE = __name__
ROBOTS = ["StandingStill-v0", "StandingStillReal-v0", "MovingStraight-v0", "MovingStraightReal-v0"]
UNOBSERVED = {"HalfCheetah-v5": 1, "Walker2d-v5": 1, "Hopper-v5": 1, "Ant-v5": 2}


def after_some_steps(name, steps=6):
    simulator = make_simulator(name, num_envs=8)
    observation, _ = simulator.reset(seed=0)
    actions = np.full(simulator.action_space.shape, 0.1)
    for _ in range(steps):
        observation = simulator.step(actions)[0]
    return simulator, observation


def test_states_are_those_that_were_observed(task_name):
    simulator, observation = after_some_steps(task_name)
    position, velocity = simulator.state
    states = BUILT_IN[task_name].state_of(observation)
    hidden = UNOBSERVED[task_name]
    assert np.array_equal(states.position[:, hidden:], position[:, hidden:])
    assert not states.position[:, :hidden].any()
    assert states.determined.any()
    assert np.array_equal(states.velocity[states.determined], velocity[states.determined])


def test_what_is_not_observed_does_not_matter(task_name):
    simulator, observation = after_some_steps(task_name)
    actions = np.full(simulator.action_space.shape, -0.3)
    simulator.set_state(*simulator.state)
    expected = simulator.step(actions)[0]
    determined = simulator.set_observations(observation)
    reached = simulator.step(actions)[0]
    np.testing.assert_allclose(reached[determined], expected[determined], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["Walker2d-v5", "Hopper-v5"])
def test_a_clipped_velocity_leaves_the_state_open(name):
    _, observation = after_some_steps(name, steps=1)
    observation[1, -1], observation[2, -2] = 10.0, -10.0
    assert BUILT_IN[name].state_of(observation).determined.tolist() == [True, False, False, *[True] * 5]


def test_half_cheetah_has_no_clip():
    _, observation = after_some_steps("HalfCheetah-v5")
    observation[1, -1] = 10.0
    assert BUILT_IN["HalfCheetah-v5"].state_of(observation).determined.all()


def test_no_orientation_leaves_the_state_of_the_ant_open():
    simulator = make_simulator("Ant-v5", num_envs=8)
    # Start states are not normalised, which MuJoCo does by itself.
    observation, _ = simulator.reset(seed=0)
    assert np.abs(np.linalg.norm(observation[:, 1:5], axis=1) - 1.0).max() > 1e-3
    observation[3, 1:5] = 0.0
    assert np.flatnonzero(~BUILT_IN["Ant-v5"].state_of(observation).determined).tolist() == [3]


@pytest.mark.parametrize("name", ["StandingStill-v0", "MovingStraight-v0"])
def test_the_robot_returns_exactly_the_observation_it_was_set_to(name):
    simulator = make_simulator(name, num_envs=50)
    observation = np.random.default_rng(0).uniform(-0.4, 0.4, simulator.observation_space.shape)
    position, velocity, determined = BUILT_IN[name].state_of(observation)
    assert np.array_equal(simulator.set_state(position, velocity), observation)
    assert determined.all()


@pytest.mark.parametrize("name", ROBOTS)
def test_the_robot_rolls_without_slipping(name):
    observation = np.random.default_rng(0).uniform(-0.4, 0.4, (9, len(BUILT_IN[name].observation_names)))
    tilt, x = observation[:, 0], observation[:, 2] if observation.shape[1] == 4 else 0.0
    position, velocity, _ = BUILT_IN[name].state_of(observation)
    assert np.array_equal(position[:, 3], x / WHEEL_RADIUS - tilt)
    assert np.array_equal(velocity[:, 3], observation[:, -1] / WHEEL_RADIUS - observation[:, 1])
    assert (position[:, 1] == SETTLED_HEIGHT).all() and not velocity[:, 1].any()


def test_the_robot_is_set_onto_the_floor_not_above_it():
    simulator = make_simulator("StandingStill-v0", num_envs=1)
    simulator.reset(seed=0)
    for _ in range(40):
        simulator.step(np.zeros((1, 1)))
    assert simulator.state[0][0, 1] == pytest.approx(SETTLED_HEIGHT, rel=0.02)
    simulator.set_observations(np.zeros((1, 4)))
    simulator.step(np.zeros((1, 1)))
    assert abs(simulator.state[1][0, 1]) < 1e-5  # m/s; from height 0 it would fall


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_dimension_has_a_name_of_its_own_with_a_unit(name):
    simulator, built_in = make_simulator(name, num_envs=1), BUILT_IN[name]
    spaces = (simulator.single_observation_space, simulator.single_action_space)
    for names, space in zip((built_in.observation_names, built_in.action_names), spaces, strict=True):
        assert len(set(names)) == len(names) == space.shape[0]
        assert all(one.endswith(")") and " (" in one for one in names)


# The joints of Gymnasium's models and what its tables call them.
JOINTS = {
    "HalfCheetah-v5": {
        **{f"b{joint}": f"back {joint}" for joint in ("thigh", "shin", "foot")},
        **{f"f{joint}": f"front {joint}" for joint in ("thigh", "shin", "foot")},
    },
    "Hopper-v5": {f"{joint}_joint": joint for joint in ("thigh", "leg", "foot")},
    "Walker2d-v5": {
        **{f"{joint}_joint": joint for joint in ("thigh", "leg", "foot")},
        **{f"{joint}_left_joint": f"left {joint}" for joint in ("thigh", "leg", "foot")},
    },
    "Ant-v5": {
        f"{joint}_{number}": f"{side} {joint}"
        for number, side in enumerate(("front left", "front right", "back left", "back right"), start=1)
        for joint in ("hip", "ankle")
    },
}


def test_names_stand_in_the_order_of_the_model(task_name):
    spec = TASKS[task_name]
    model = load_model_file(model_file(spec), task_name)
    hidden, joints = UNOBSERVED[task_name], JOINTS[task_name]
    motors = [joints[model.joint(model.actuator_trnid[i, 0]).name] for i in range(model.nu)]
    assert spec.action_names == tuple(f"{motor} torque (of maximum)" for motor in motors)
    for index in range(model.njnt):
        joint = joints.get(model.joint(index).name)
        if joint is not None:
            angle, rate = model.jnt_qposadr[index] - hidden, model.nq - hidden + model.jnt_dofadr[index]
            assert spec.observation_names[angle] == f"{joint} angle (rad)"
            assert spec.observation_names[rate] == f"{joint} angular velocity (rad/s)"


def test_names_of_the_ants_contacts_tell_force_from_torque():
    simulator = make_simulator("Ant-v5", num_envs=1)
    simulator.reset(seed=0)
    for _ in range(100):
        observation = simulator.step(np.zeros((1, 8)))[0][0]
    seen = dict(zip(BUILT_IN["Ant-v5"].observation_names, observation, strict=True))
    for side in ("front left", "front right", "back left", "back right"):
        # It stands on its feet: the floor pushes upwards, and turns nothing about the vertical.
        assert seen[f"{side} ankle link contact force z (N, clipped)"] == 1.0
        assert abs(seen[f"{side} ankle link contact torque z (N m, clipped)"]) < 0.1
        assert seen[f"{side} leg contact force z (N, clipped)"] == 0.0


def test_the_real_robot_is_the_ideal_one_with_all_its_shifts():
    real = BUILT_IN["MovingStraightReal-v0"]
    assert (real.ideal, real.all_shifts()) == ("MovingStraight-v0", REAL_ROBOT)
    assert real.all_shifts([Shift("delay", 3)])[-1] == Shift("delay", 3)
    assert sum(shift.kind == "delay" for shift in real.all_shifts([Shift("delay", 3)])) == 1
    assert BUILT_IN["Hopper-v5"].all_shifts() == ()


class Cart(gymnasium.Env):
    """Observes position and velocity; can be put into any state once it has been reset."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    state = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.zeros(2)
        return self.state.astype(np.float32), {}

    def step(self, action):
        self.state = self.state + np.array([0.1 * self.state[1], action[0]])
        return self.state.astype(np.float32), 0.0, bool(abs(self.state[0]) > 5), False, {}


class SettableCart(Cart):
    def set_observation(self, observation):
        assert self.state is not None, "reset first"
        if observation[0] > 100:
            raise ValueError("off the rails")
        self.state = observation


def test_an_environment_with_the_hook_is_put_into_the_states():
    simulator = make_simulator(f"{HERE}:SettableCart", num_envs=2, max_episode_steps=1)
    observations = np.array([[1.0, 2.0], [-3.0, 0.5]])
    for _ in range(2):  # a time limit starts anew
        assert simulator.set_observations(observations).all()
        reached = simulator.step(np.array([[0.5], [0.0]], np.float32))[0]
        np.testing.assert_allclose(reached, [[1.2, 2.5], [-2.95, 0.5]], rtol=1e-6)
    assert observations.tolist() == [[1.0, 2.0], [-3.0, 0.5]]


def test_an_environment_without_the_hook_says_what_to_add():
    simulator = make_simulator(f"{HERE}:Cart", num_envs=2)
    with pytest.raises(StateNotSettable, match=r"cannot be put into a logged state.*set_observation"):
        simulator.set_observations(np.zeros((2, 2)))
    assert issubclass(StateNotSettable, SimulatorError)


def test_a_hook_that_raises_is_named():
    simulator = make_simulator(f"{HERE}:SettableCart", num_envs=2)
    with pytest.raises(SimulatorError, match=r"SettableCart, instance 1 of 2.*ValueError: off the rails"):
        simulator.set_observations(np.array([[0.0, 0.0], [101.0, 0.0]]))
    with pytest.raises(SimulatorError, match="reset it before this step"):
        simulator.step(np.zeros((2, 1)))


@pytest.mark.parametrize("name", ["Hopper-v5", f"{HERE}:SettableCart"])
def test_observations_of_a_wrong_shape_are_refused(name):
    simulator = make_simulator(name, num_envs=2)
    with pytest.raises(
        SimulatorError, match=r"observations to set must be of shape \(2, \d+\), got \(2, 3\)"
    ):
        simulator.set_observations(np.zeros((2, 3)))


def test_only_built_in_simulators_go_on_after_an_end():
    hopper = make_simulator("Hopper-v5", num_envs=1, max_episode_steps=1)
    hopper.reset(seed=0)
    hopper.step(np.zeros((1, 3)))
    assert hopper.go_on()
    hopper.step(np.zeros((1, 3)))
    cart = make_simulator(f"{HERE}:SettableCart", num_envs=1, max_episode_steps=2)
    cart.reset(seed=0)
    cart.step(np.zeros((1, 1)))
    assert cart.go_on()
    cart.step(np.zeros((1, 1)))
    assert not cart.go_on()
