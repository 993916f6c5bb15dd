"""Each effect of the real robot, switched on alone, does what its name says and nothing else."""

from math import atan, pi

import numpy as np
import pytest

from simtrust.errors import ConfigError, ShiftError
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.simulators.actuation import noise_generator
from simtrust.simulators.shifts import KINDS, Shift
from simtrust.simulators.wheel_legged import REAL_ROBOT, STANDING_STILL, WheelLegged

ALONE = {shift.kind: str(shift) for shift in REAL_ROBOT}
COUNT = 2 * pi / 4096 * 0.1
"""Metres of one count of the encoder."""
RIGID = -0.0004
"""Height at which the soft contact carries the robot, m; started higher, it first has to sink in."""


def make(*texts, num_envs=1, name="StandingStill-v0"):
    return make_simulator(name, num_envs=num_envs, shifts=parse_shifts(texts))


def play(simulator, torques, seed=0):
    """Observations, rewards, states of an episode under torques [T], the same for all instances."""
    observations, rewards, states = [simulator.reset(seed=seed)[0]], [], [true_state(simulator)]
    for torque in torques:
        # Unguarded, as some go on lying on the floor.
        observation, reward, _, _, info = simulator.env.step(np.full((simulator.num_envs, 1), float(torque)))
        observations.append(observation)
        rewards.append(reward)
        states.append(info["state"])
    return np.stack(observations), np.stack(rewards), np.stack(states)


def true_state(simulator):
    return simulator.env.true_state


def start(simulator, tilt=0.0, velocity=0.0):
    """Start every instance rolling at a velocity, carried by the floor."""
    count = simulator.num_envs
    position, speed = [0.0, RIGID, tilt, -tilt], [velocity, 0.0, 0.0, velocity / 0.1]
    return simulator.set_state(np.tile(position, (count, 1)), np.tile(speed, (count, 1)))


def accelerate(simulator, torque=0.0, **state):
    """Mean accelerations of tilt and x in one step from such a state [S, 2]."""
    start(simulator, **state)
    before = true_state(simulator)
    after = simulator.step(np.full((simulator.num_envs, 1), torque))[4]["state"]
    return (after - before)[:, [1, 3]] / 0.005


TORQUES = np.random.default_rng(3).uniform(-2.0, 2.0, 40)


def fields_of(model):
    names = [name for name in dir(model) if not name.startswith("_")]
    return {name: value for name in names if isinstance(value := getattr(model, name), np.ndarray)}


DERIVED_FROM_MASSES = {"actuator_acc0", "body_invweight0", "dof_M0", "dof_invweight0"}
EDITED = {
    "mass": DERIVED_FROM_MASSES | {"body_mass", "body_inertia", "body_subtreemass"},
    "centre-of-mass": DERIVED_FROM_MASSES | {"body_ipos", "dof_length", "cam_poscom0", "light_poscom0"},
    "friction": {"geom_friction"},
    "static-friction": {"dof_frictionloss"},
    "viscous-friction": {"dof_damping"},
}
IN_SENSORS = {"sensor-noise", "encoder-step"}


@pytest.mark.parametrize("kind", ALONE)
def test_an_effect_edits_its_own_numbers_of_the_model_and_no_others(kind):
    ideal, shifted = (fields_of(simulator.env.model) for simulator in (make(), make(ALONE[kind])))
    assert len(ideal) > 100
    changed = {name for name in ideal if not np.array_equal(ideal[name], shifted[name])}
    assert changed == EDITED.get(kind, set())


@pytest.mark.parametrize("kind", ALONE)
def test_an_effect_is_either_of_the_sensors_or_of_the_motion(kind):
    observed, rewards, states = play(make(ALONE[kind], num_envs=3), TORQUES)
    _, ideal_rewards, ideal_states = play(make(num_envs=3), TORQUES)
    assert np.array_equal(states[0], ideal_states[0])
    assert np.array_equal(states, ideal_states) == (kind in IN_SENSORS)
    assert np.array_equal(observed, states) == (kind not in IN_SENSORS)
    # Of the torque commanded, and of the state as measured, both before the step.
    expected = 30 - np.square(observed[:-1]).sum(axis=2) - np.square(TORQUES)[:, None]
    assert rewards == pytest.approx(expected, rel=1e-12)
    assert not np.array_equal(rewards, ideal_rewards)


def test_all_effects_together_are_the_twin():
    together = make(*ALONE.values(), num_envs=2)
    twin = make(name="StandingStillReal-v0", num_envs=2)
    direct = WheelLegged(STANDING_STILL, num_envs=2, fidelity="simulator", shifts=REAL_ROBOT)
    direct.reset(seed=5)
    for ours, theirs in zip(play(together, TORQUES, 5), play(twin, TORQUES, 5), strict=True):
        assert np.array_equal(ours, theirs)
    for torque in TORQUES:
        _, _, _, _, info = direct.step(np.full((2, 1), torque))
    assert np.array_equal(info["state"], true_state(twin))


def test_an_effect_given_besides_the_twins_replaces_its_amount():
    replaced = WheelLegged(STANDING_STILL, num_envs=1, fidelity="real", shifts=[Shift("dead-zone", 0.5)])
    assert {shift.kind: shift.amount for shift in replaced.groups[0].shifts} == {
        shift.kind: 0.5 if shift.kind == "dead-zone" else shift.amount for shift in REAL_ROBOT
    }
    assert len(replaced.groups[0].shifts) == len(REAL_ROBOT)
    moved = [play(make("dead-zone=0.5", name="StandingStillReal-v0"), [t] * 20)[2] for t in (0.0, 0.4)]
    assert np.array_equal(*moved)
    moved = [play(make(name="StandingStillReal-v0"), [t] * 20)[2] for t in (0.0, 0.4)]
    assert not np.array_equal(*moved)


def test_an_unknown_fidelity_is_refused():
    with pytest.raises(ConfigError, match="fidelity is 'perfect'; it must be 'real' or 'simulator'"):
        WheelLegged(STANDING_STILL, num_envs=1, fidelity="perfect")


# The motors.


@pytest.mark.parametrize("torque", [0.3, -0.3, 0.1])
def test_a_torque_within_the_dead_zone_does_nothing(torque):
    simulator = make("dead-zone=0.3")
    assert np.array_equal(play(simulator, [torque] * 20)[2], play(simulator, [0.0] * 20)[2])


@pytest.mark.parametrize(("commanded", "felt"), [(1.0, 0.75), (-1.0, -0.75), (4.0, 3.75), (9.0, 3.75)])
def test_a_torque_beyond_the_dead_zone_is_lessened_by_it(commanded, felt):
    states = play(make("dead-zone=0.25"), [commanded] * 20)[2]
    assert np.array_equal(states, play(make(), [felt] * 20)[2])


@pytest.mark.parametrize("delay", [1, 2, 5])
def test_a_delayed_torque_arrives_so_many_steps_later_and_nothing_before(delay):
    simulator = make(f"delay={delay}")
    late = np.concatenate((np.zeros(delay), TORQUES[:-delay]))
    expected = play(make(), late)[2]
    # The second episode does not feel what was under way in the first.
    for _ in range(2):
        assert np.array_equal(play(simulator, TORQUES)[2], expected)


def test_a_weak_battery_takes_a_share_drawn_for_the_episode():
    simulator = make("battery=0.15")
    strengths = []
    for seed in range(3):
        strengths.append(0.85 + 0.15 * noise_generator(seed).uniform())
        expected = play(make(), TORQUES * strengths[-1], seed)[2]
        assert np.allclose(play(simulator, TORQUES, seed)[2], expected, rtol=0, atol=1e-12)
    assert len(set(strengths)) == 3


def test_battery_strengths_are_uniform_between_empty_and_full():
    simulator = make("battery=0.15", num_envs=400)
    simulator.reset(seed=0)
    full = accelerate(make(), torque=0.1)

    def strengths():
        return (accelerate(simulator, torque=0.1) / full)[:, 0]

    first, second = strengths(), strengths()
    for drawn in (first, second):
        assert 0.85 - 1e-6 <= drawn.min() < 0.852 and 0.998 < drawn.max() <= 1 + 1e-6
        assert drawn.mean() == pytest.approx(0.925, abs=0.007)
    # A new episode, a new charge.
    assert np.abs(np.corrcoef(first, second)[0, 1]) < 0.2
    simulator.reset(seed=0)
    assert np.array_equal(strengths(), first)


# The sensors.


def test_noise_of_the_inertial_sensors_has_its_standard_deviations():
    observed, _, states = play(make("sensor-noise=1.0", num_envs=400), [0.0] * 30)
    noise = (observed - states).reshape(-1, 4)
    assert noise.std(axis=0)[:2] == pytest.approx([0.0035, 0.01], rel=0.03)
    assert np.abs(noise.mean(axis=0)[:2] / [0.0035, 0.01]).max() < 0.04
    assert np.abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.04
    assert not noise[:, 2:].any()
    twice = np.subtract(*play(make("sensor-noise=2", num_envs=400), [0.0] * 30)[::2])
    assert twice.reshape(-1, 4) == pytest.approx(2 * noise, abs=1e-12)


def test_noise_is_new_in_every_step_and_instance():
    observed, _, states = play(make("sensor-noise=1.0", num_envs=3), [0.0] * 30)
    noise = (observed - states)[..., :2].ravel()
    assert len(set(noise.round(9))) > 0.95 * noise.size


def test_the_encoder_counts_whole_steps_of_the_wheel():
    observed, _, states = play(make(ALONE["encoder-step"], num_envs=20), TORQUES)
    positions, velocities = observed[..., 2] / COUNT, observed[..., 3] / (COUNT / 0.005)
    for counts in (positions, velocities):
        assert counts == pytest.approx(counts.round(), abs=1e-6)
        assert len(set(counts.round().ravel())) > 10
    # The velocity is that of the positions counted.
    assert observed[1:, :, 3] == pytest.approx(np.diff(observed[..., 2], axis=0) / 0.005, abs=1e-9)
    assert np.array_equal(observed[..., :2], states[..., :2])
    # Half a count, and what the tyre slips as it sinks into its contact.
    assert np.abs(observed[0, :, 2] - states[0, :, 2]).max() <= COUNT / 2 + 1e-12
    assert np.abs(observed[..., 2] - states[..., 2]).max() < 0.001


def test_the_encoder_takes_a_slipping_wheel_for_a_way_made():
    simulator = make("friction=0.2", ALONE["encoder-step"])
    start(simulator)
    for _ in range(20):
        observation, _, _, _, info = simulator.step(np.full((1, 1), 4.0))
    assert observation[0, 2] > info["state"][0, 2] + 0.01


# The floor.


def sliding_friction(simulator):
    tread = simulator.env.model.geom("tread").id
    return simulator.env.batch.expand("geom_friction")[:, tread]


def test_an_uneven_floor_varies_the_sliding_friction_along_the_way():
    simulator = make("uneven-floor=0.3", num_envs=2)
    simulator.reset(seed=0)
    start(simulator, velocity=2.0)
    ways, frictions = [], []
    for _ in range(70):
        ways.append(true_state(simulator)[:, 2])
        simulator.env.step(np.zeros((2, 1)))
        frictions.append(sliding_friction(simulator).copy())
    friction, way = np.stack(frictions), np.stack(ways)
    assert (friction[..., 1:] == [0.005, 0.0005]).all()
    for index in range(2):
        phase = 2 * pi * way[:, index] / 0.7
        waves = np.column_stack((np.ones_like(phase), np.sin(phase), np.cos(phase)))
        fitted, residuals, _, _ = np.linalg.lstsq(waves, friction[:, index, 0])
        assert residuals[0] < 1e-20
        assert fitted[0] == pytest.approx(0.8)
        assert np.hypot(*fitted[1:]) == pytest.approx(0.24)
    # Each instance stands elsewhere on the floor.
    assert np.abs(friction[:, 0, 0] - friction[:, 1, 0]).max() > 0.01


def slip(simulator, steps=10, torque=4.0):
    """Metres by which the tyre turned further than the robot went, under full torque from a stand."""
    start(simulator)
    for _ in range(steps):
        simulator.env.step(np.full((simulator.num_envs, 1), torque))
    position = simulator.state[0]
    return 0.1 * (position[:, 2] + position[:, 3]) - position[:, 0]


def test_on_a_slippery_floor_the_tyre_slips_where_it_held():
    # Full torque asks 26.6 N of the floor, 0.38 of the weight.
    assert slip(make())[0] < 0.0005
    assert slip(make("friction=0.6"))[0] < 0.0005  # 0.48
    assert slip(make("friction=0.3"))[0] > 0.005  # 0.24


def test_a_worn_place_of_a_slippery_floor_lets_the_tyre_slip():
    # Between 0.34 and 0.62, by the place.
    slips = slip(make("friction=0.6", "uneven-floor=0.3", num_envs=50))
    assert slips.min() < 0.0005 and slips.max() > 0.001


# The mechanics.


@pytest.mark.parametrize("text", ["static-friction=0.12", "viscous-friction=0.012"])
@pytest.mark.parametrize("velocity", [1.0, -1.0])
def test_friction_of_the_wheels_brakes_like_a_torque(text, velocity):
    # Viscous: 0.012 N m s/rad at the 10 rad/s of a wheel that rolls at 1 m/s.
    braked = accelerate(make(text), velocity=velocity)
    like_a_torque = accelerate(make(), torque=-0.12 * velocity, velocity=velocity)
    assert braked == pytest.approx(like_a_torque, rel=0.03)
    assert np.abs(braked - accelerate(make(), velocity=velocity)).min() > 0.3


def test_a_torque_smaller_than_the_static_friction_does_not_turn_the_wheels():
    def turned(*texts):
        simulator = make(*texts)
        start(simulator)
        for _ in range(10):
            simulator.step(np.full((1, 1), 0.1))
        return simulator.state[0][0, 3]

    # MuJoCo's friction is soft, and creeps.
    assert abs(turned("static-friction=0.12")) < 0.1 * turned()
    # What is not static starts at any torque.
    assert turned("viscous-friction=0.008") > 0.9 * turned()


@pytest.mark.parametrize("text", ["static-friction=0.12", "viscous-friction=0.008"])
def test_friction_is_of_the_wheels_joint_only(text):
    model = make(text).env.model
    amount = parse_shifts([text])[0].amount
    added = model.dof_frictionloss if text.startswith("static") else model.dof_damping
    assert added.tolist() == [0.0, 0.0, 0.0, amount]
    assert model.joint(3).name == "wheel"


def test_more_mass_answers_less_to_a_torque_and_falls_as_fast():
    heavy = make("mass=1.08")
    model = heavy.env.model
    assert model.body_mass.tolist() == pytest.approx([0.0, 6.48, 1.296])
    assert model.body_subtreemass.tolist() == pytest.approx([7.776, 7.776, 1.296])
    assert model.body_inertia[1].tolist() == pytest.approx([0.108, 0.0864, 0.0648])
    # The inertia of the rotors stays: [[8.624, 1.276], [1.276, 0.3476]], whose determinant is 1.3695.
    assert accelerate(heavy, torque=1.0)[0] == pytest.approx([-15.61, 3.470], rel=0.01)
    falling = accelerate(make(), tilt=0.1)
    assert accelerate(heavy, tilt=0.1) == pytest.approx(falling, rel=0.01)


def test_a_centre_of_mass_further_forward_balances_tilted_backward():
    shifted = make("centre-of-mass=0.006")
    balanced = -atan(0.006 / 0.2)
    assert balanced == pytest.approx(-0.03, abs=1e-4)
    assert np.abs(accelerate(shifted, tilt=balanced)).max() < 0.01
    assert accelerate(shifted)[0, 0] == pytest.approx(accelerate(make(), tilt=0.03)[0, 0], rel=0.005)


# Other robots, and refusals.

GENERIC = {
    "mass": "mass=1.08",
    "centre-of-mass": "centre-of-mass=0.006",
    "friction": "friction=0.6",
    "static-friction": "static-friction=0.12",
    "viscous-friction": "viscous-friction=0.2",
    "delay": "delay=1",
    "battery": "battery=0.15",
    "dead-zone": "dead-zone=0.3",
}
EVERY_KIND = {
    **{kind: ("StandingStill-v0", text) for kind, text in ALONE.items()},
    "gravity": ("StandingStill-v0", "gravity=1.1"),
    "joint-noise": ("StandingStill-v0", "joint-noise=0.1"),
    "velocity-offset": ("StandingStill-v0", "velocity-offset=0.1"),
    "floor-friction": ("HalfCheetah-v5", "floor-friction=3"),
    "legacy-inertia": ("HalfCheetah-v5", "legacy-inertia=1"),
    **{f"{kind} elsewhere": ("HalfCheetah-v5", text) for kind, text in GENERIC.items()},
}


def hurry(simulator, steps=30):
    """Observations under full torque, to and fro."""
    simulator.reset(seed=0)
    high = simulator.single_action_space.high[None]
    return np.stack([simulator.env.step(high * np.sign(np.sin(step / 4)))[0] for step in range(steps)])


@pytest.mark.parametrize("case", EVERY_KIND)
def test_every_kind_changes_what_is_observed(case):
    name, text = EVERY_KIND[case]
    first, again = (hurry(make(text, name=name)) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, hurry(make(name=name)), rtol=0, atol=1e-6)


def test_no_kind_is_without_an_effect():
    assert {kind.removesuffix(" elsewhere") for kind in EVERY_KIND} == set(KINDS)
    generic = {kind for kind in ALONE if not KINDS[kind].robot_only}
    assert set(GENERIC) == generic


def test_another_robots_motors_are_late_weak_and_dead_too():
    simulator = make("delay=2", "battery=0.5", "dead-zone=0.25", name="HalfCheetah-v5")
    ideal = make(name="HalfCheetah-v5")
    strength = 0.5 + 0.5 * noise_generator(0).uniform()
    simulator.reset(seed=0)
    ideal.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 1, 6))
    for step in range(20):
        weakened = strength * actions[step - 2] if step >= 2 else np.zeros((1, 6))
        felt = np.sign(weakened) * np.maximum(np.abs(weakened) - 0.25, 0)
        observation, reward = simulator.step(actions[step])[:2]
        expected, expected_reward = ideal.step(felt)[:2]
        assert np.allclose(observation, expected, rtol=0, atol=1e-9)
        # The control cost is of the action given.
        cost = 0.1 * (np.square(actions[step]).sum() - np.square(felt).sum())
        assert reward == pytest.approx(expected_reward - cost, abs=1e-9)


def test_another_robot_gets_friction_in_its_driven_joints_and_its_trunk_shifted():
    texts = ["static-friction=0.1", "viscous-friction=0.2", "centre-of-mass=0.01", "mass=2"]
    shifted, ideal = make(*texts, name="HalfCheetah-v5").env.model, make(name="HalfCheetah-v5").env.model
    assert shifted.dof_frictionloss.tolist() == [0.0] * 3 + [0.1] * 6
    assert shifted.dof_damping - ideal.dof_damping == pytest.approx([0.0] * 3 + [0.2] * 6)
    moved = shifted.body_ipos - ideal.body_ipos
    assert moved[1] == pytest.approx([0.01, 0, 0]) and not np.delete(moved, 1, axis=0).any()
    assert shifted.body_subtreemass == pytest.approx(2 * ideal.body_subtreemass)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].robot_only])
def test_the_robots_sensors_and_floor_are_refused_elsewhere(kind):
    with pytest.raises(
        ShiftError, match=f"{kind}=.* is for the wheel-legged robot only, not for HalfCheetah"
    ):
        make(ALONE[kind], name="HalfCheetah-v5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("delay=0.5", "delay=0.5: a delay is a whole number of control steps"),
        ("delay=1.5", "whole number"),
        ("delay=0", "changes nothing"),
        ("battery=1.1", "battery=1.1: the amount is a share, at most 1"),
        ("uneven-floor=1.5", "a share, at most 1"),
        ("mass=1", "it multiplies by 1"),
        ("centre-of-mass=0", "it adds 0"),
        ("dead-zone=-0.1", "at least 0"),
    ],
)
def test_an_impossible_amount_is_refused_with_the_reason(text, message):
    with pytest.raises(ShiftError, match=message):
        parse_shifts([text])
