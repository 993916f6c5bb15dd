"""The wheel-legged robot moves as its equations say, and is asked and judged as the paper says."""

import numpy as np
import pytest

from simtrust.simulators import make_simulator
from simtrust.simulators.wheel_legged import BALANCING_TASKS

TASKS = list(BALANCING_TASKS)
TWINS = [name.replace("-v0", ending) for name in TASKS for ending in ("-v0", "Real-v0")]

# The idealised robot: kg, m, kg m².
GRAVITY, RADIUS, LENGTH = 9.81, 0.1, 0.2
BODY, WHEELS = 6.0, 1.2
BODY_INERTIA, WHEELS_INERTIA, ROTOR_INERTIA = 0.08, 0.006, 0.002
ROLLING_FRICTION = 0.0005 * (BODY + WHEELS) * GRAVITY  # N m, at most


def mass_matrix(tilt):
    """Of (x, tilt) of a wheeled pendulum that rolls without slipping, from its kinetic energy."""
    rolling = BODY + WHEELS + (WHEELS_INERTIA + ROTOR_INERTIA) / RADIUS**2
    coupling = BODY * LENGTH * np.cos(tilt) - ROTOR_INERTIA / RADIUS
    tilting = BODY * LENGTH**2 + BODY_INERTIA + ROTOR_INERTIA
    return np.array([[rolling, coupling], [coupling, tilting]])


def accelerations(tilt, torque):
    """Of x and tilt, at rest; the motors push the wheels forwards and the body backwards."""
    forces = [torque / RADIUS, BODY * GRAVITY * LENGTH * np.sin(tilt) - torque]
    return np.linalg.solve(mass_matrix(tilt), forces)


def energy(state):
    """Of states (tilt, tilt velocity, x, velocity), J."""
    tilt, tilt_velocity, _, velocity = state
    motion = np.array([velocity, tilt_velocity])
    return motion @ mass_matrix(tilt) @ motion / 2 + BODY * GRAVITY * LENGTH * np.cos(tilt)


def set_to(simulator, tilt=0.0, tilt_velocity=0.0, x=0.0, velocity=0.0, height=0.0):
    """Start every instance in this state, rolling without slipping."""
    count = simulator.num_envs
    position = [x, height, tilt, x / RADIUS - tilt]
    speeds = [velocity, 0.0, tilt_velocity, velocity / RADIUS - tilt_velocity]
    return simulator.set_state(np.tile(position, (count, 1)), np.tile(speeds, (count, 1)))


@pytest.fixture
def settled():
    """The idealised robot, and the height at which the soft contact carries it (0.4 mm in the floor)."""
    simulator = make_simulator("StandingStill-v0", num_envs=1)
    set_to(simulator)
    for _ in range(40):
        simulator.step(np.zeros((1, 1)))
    height = simulator.state[0][0, 1]
    assert -0.0005 < height < -0.0003
    return simulator, height


@pytest.mark.parametrize(
    ("tilt", "torque"), [(0.02, 0.0), (-0.1, 0.0), (0.3, 0.0), (0.0, 1.0), (0.0, -1.0), (0.1, 2.0)]
)
def test_it_accelerates_as_the_equations_of_a_wheeled_pendulum_say(settled, tilt, torque):
    simulator, height = settled
    set_to(simulator, tilt=tilt, height=height)
    state = simulator.step(np.array([[torque]]))[4]["state"][0]
    assert state[[3, 1]] / 0.005 == pytest.approx(accelerations(tilt, torque), rel=0.01)


def test_the_equations_give_the_numbers_worked_out_by_hand():
    # [[8, 1.18], [1.18, 0.322]], whose determinant is 1.1836.
    assert accelerations(0.001, 0.0) / 0.001 == pytest.approx([-11.74, 79.57], rel=1e-3)
    assert accelerations(0.0, 1.0) == pytest.approx([3.717, -16.73], rel=1e-3)


def test_a_fall_without_torque_loses_no_more_energy_than_rolling_friction_takes(settled):
    simulator, height = settled
    set_to(simulator, tilt=0.1, height=height)
    states = [simulator.env.true_state[0]]
    while states[-1][0] < 0.4:
        states.append(simulator.step(np.zeros((1, 1)))[4]["state"][0])
    energies = np.array([energy(state) for state in states])
    released = BODY * GRAVITY * LENGTH * (np.cos(0.1) - np.cos(0.4))
    taken = ROLLING_FRICTION * abs(states[-1][2]) / RADIUS
    assert energies[0] - energies[-1] == pytest.approx(taken / 2, abs=taken / 2 + 0.005 * released)
    assert (np.diff(energies) < 0).all()


def balance(observation, sign=1.0):
    """Torques [S, 1] of a linear feedback; of three observed numbers, the position is left out."""
    gains = [22.0, 3.5, 2.0, 3.0] if observation.shape[1] == 4 else [22.0, 3.5, 3.0]
    return sign * (observation @ gains)[:, None]


@pytest.mark.parametrize("name", TWINS)
def test_a_linear_feedback_balances_it_and_its_opposite_does_not(name):
    simulator = make_simulator(name, num_envs=4)
    observation, _ = simulator.reset(seed=0)
    for _ in range(1000):
        observation, _, terminated, _, _ = simulator.step(balance(observation))
        assert not terminated.any()
    observation, _ = simulator.reset(seed=0)
    fallen = np.zeros(4, bool)
    for _ in range(100):
        observation, _, terminated, _, _ = simulator.env.step(balance(observation, -1.0))
        fallen |= terminated
    assert fallen.all()


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("StandingStill-v0", 6000),
        ("StandingStillReal-v0", 6000),
        ("MovingStraight-v0", 4000),
        ("MovingStraightReal-v0", 4000),
    ],
)
def test_an_episode_of_30_or_20_seconds_at_200_hz_is_truncated(name, steps):
    simulator = make_simulator(name, num_envs=1)
    assert simulator.env.time_step == 0.005
    observation, _ = simulator.reset(seed=1)
    taken, truncated = 0, [False]
    while not truncated[0]:
        observation, _, terminated, truncated, _ = simulator.step(balance(observation))
        taken += 1
        assert not terminated[0]
    assert taken == steps


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(("tilt", "falls"), [(0.49, False), (0.499, True), (-0.49, False), (-0.499, True)])
def test_it_has_fallen_when_tilted_by_more_than_half_a_radian(name, tilt, falls):
    simulator = make_simulator(name, num_envs=2)
    # 1 rad/s is 0.005 rad in a step.
    set_to(simulator, tilt=tilt, tilt_velocity=np.sign(tilt))
    _, _, terminated, truncated, info = simulator.step(np.zeros((2, 1)))
    assert (terminated == falls).all() and not truncated.any()
    assert ((np.abs(info["state"][:, 0]) > 0.5) == falls).all()


@pytest.mark.parametrize(
    ("name", "torque", "reward"),
    [
        ("StandingStill-v0", 2.0, 30 - 0.01 - 0.04 - 0.09 - 0.16 - 4),
        ("StandingStill-v0", -3.0, 30 - 0.01 - 0.04 - 0.09 - 0.16 - 9),
        ("StandingStill-v0", 9.0, 30 - 0.01 - 0.04 - 0.09 - 0.16 - 16),
        ("MovingStraight-v0", 2.0, 15 - 0.04 - 4),
        ("MovingStraight-v0", -9.0, 15 - 0.04 - 16),
    ],
)
def test_the_reward_is_the_papers_of_the_state_before_the_step(name, torque, reward):
    simulator = make_simulator(name, num_envs=1)
    set_to(simulator, tilt=0.1, tilt_velocity=0.2, x=0.3, velocity=0.4)
    assert simulator.step(np.array([[torque]]))[1] == pytest.approx([reward], rel=1e-12)


def test_the_reward_of_the_twin_is_of_what_it_measured():
    simulator = make_simulator("StandingStillReal-v0", num_envs=50)
    measured, _ = simulator.reset(seed=0)
    true = simulator.env.true_state
    reward = simulator.step(np.full((50, 1), 0.5))[1]
    assert reward == pytest.approx(30 - np.square(measured).sum(axis=1) - 0.25, rel=1e-12)
    assert np.abs(reward - (30 - np.square(true).sum(axis=1) - 0.25)).min() > 1e-9


@pytest.mark.parametrize("name", TWINS)
def test_torque_is_bounded_at_4_newton_metres(name):
    bounded, beyond = (make_simulator(name, num_envs=1) for _ in range(2))
    assert bounded.single_action_space.high == 4 and bounded.single_action_space.low == -4
    for simulator in (bounded, beyond):
        simulator.reset(seed=0)
    for torque in (4.0, -4.0, 4.0):
        of_bounded = bounded.step(np.array([[torque]]))
        of_beyond = beyond.step(np.array([[2 * torque]]))
        for ours, theirs in zip(of_bounded[:4], of_beyond[:4], strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", TWINS)
def test_the_idealised_sensors_tell_the_truth_and_the_twins_do_not(name):
    simulator = make_simulator(name, num_envs=3)
    observed = [0, 1, 3] if name.startswith("Moving") else [0, 1, 2, 3]
    observation, _ = simulator.reset(seed=0)
    assert observation.shape == simulator.observation_space.shape == (3, len(observed))
    state = simulator.env.true_state
    for _ in range(5):
        equal = observation == state[:, observed]
        assert not equal.any() if "Real" in name else equal.all()
        observation, _, _, _, info = simulator.step(np.ones((3, 1)))
        state = info["state"]


@pytest.mark.parametrize("name", TWINS)
def test_the_true_state_is_tilt_position_and_their_velocities(name):
    simulator = make_simulator(name, num_envs=2)
    observation = set_to(simulator, tilt=0.1, tilt_velocity=0.2, x=0.3, velocity=0.4)
    assert (simulator.env.true_state == [0.1, 0.2, 0.3, 0.4]).all()
    expected = [0.1, 0.2, 0.3, 0.4] if name.startswith("Standing") else [0.1, 0.2, 0.4]
    assert np.allclose(observation, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", TASKS)
def test_episodes_start_near_the_balance_all_within_the_same_bounds(name):
    simulator = make_simulator(name, num_envs=300)
    simulator.reset(seed=0)
    state, (position, velocity) = simulator.env.true_state, simulator.state
    bounds = np.array([0.05, 0.1, 0.02, 0.05])
    assert (np.abs(state).max(axis=0) < bounds).all() and (np.abs(state).max(axis=0) > 0.95 * bounds).all()
    # Rolling without slipping, on the floor.
    assert np.allclose(position[:, 0], RADIUS * (position[:, 2] + position[:, 3]))
    assert np.allclose(velocity[:, 0], RADIUS * (velocity[:, 2] + velocity[:, 3]))
    assert not position[:, 1].any() and not velocity[:, 1].any()


def rollout(simulator, seeds, steps=30):
    """Observations, rewards and states of an episode of each instance under the same torques."""
    generator = np.random.default_rng(0)
    answers = [simulator.reset(seed=seeds)[0]]
    for _ in range(steps):
        torque = np.full((simulator.num_envs, 1), generator.uniform(-1, 1))
        observation, reward, _, _, info = simulator.step(torque)
        answers.append(np.column_stack((observation, reward, info["state"])))
    return np.concatenate(answers, axis=1)


@pytest.mark.parametrize("name", TWINS)
def test_an_episode_depends_on_the_seed_of_the_instance_alone(name):
    alone, among_others = make_simulator(name, num_envs=1), make_simulator(name, num_envs=3)
    first = rollout(alone, [5])
    assert np.array_equal(first, rollout(alone, [5]))
    assert np.array_equal(first, rollout(among_others, [8, 9, 5])[2:])
    assert not np.array_equal(first, rollout(alone, [6]))


def test_both_twins_start_an_episode_of_a_seed_in_the_same_state():
    states = []
    for name in TWINS:
        simulator = make_simulator(name, num_envs=2)
        simulator.reset(seed=4)
        states.append(simulator.env.true_state)
    assert all(np.array_equal(states[0], state) for state in states)


@pytest.mark.parametrize("name", TWINS)
def test_restarting_one_instance_leaves_the_others_alone(name):
    disturbed, undisturbed = (make_simulator(name, num_envs=3) for _ in range(2))
    others = [0, 2]
    for simulator in (disturbed, undisturbed):
        simulator.reset(seed=0)
        for _ in range(5):
            latest = simulator.step(np.ones((3, 1)))[0]
        if simulator is disturbed:
            restarted, _ = simulator.reset(seed=77, options={"reset_mask": np.array([False, True, False])})
            assert np.array_equal(restarted[others], latest[others])
            assert not np.array_equal(restarted[1], latest[1])
    for _ in range(10):
        for ours, theirs in zip(
            disturbed.step(np.ones((3, 1)))[:4], undisturbed.step(np.ones((3, 1)))[:4], strict=True
        ):
            assert np.array_equal(ours[others], theirs[others])
    # The restarted one is as fresh as one that never lived: its seed was 77 + 1.
    fresh = make_simulator(name, num_envs=1)
    fresh.reset(seed=78)
    for _ in range(10):
        expected = fresh.step(np.ones((1, 1)))[4]["state"][0]
    assert np.array_equal(disturbed.env.true_state[1], expected)


def test_a_reward_does_not_depend_on_how_many_are_asked_for_at_once():
    """To the last bit: else a robot would be another one beside others."""
    generator = np.random.default_rng(0)
    states, torques = generator.normal(size=(500, 4)), generator.normal(size=500)
    for task in BALANCING_TASKS.values():
        apart = [task.reward(states[i : i + 1], torques[i : i + 1])[0] for i in range(500)]
        np.testing.assert_array_equal(task.reward(states, torques), apart)
