"""Every instance of a joint simulator answers as it would among its group alone, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrust.errors import ConfigError, ShiftError, SimulatorError
from simtrust.simulators import Shift, make_joint_simulator, make_simulator, parse_shifts
from simtrust.simulators.task_specs import TASKS
from simtrust.simulators.tasks import MujocoTask

CHEETAH = (
    "",
    "gravity=2",
    "friction=0.3",
    "joint-noise=1",
    "velocity-offset=0.5",
    "joint-noise=0.5 battery=0.5",
    "battery=0.5",
)
MOTORS = ("", "", "delay=1", "delay=4", "battery=0.5", "dead-zone=0.3", "mass=1.3 dead-zone=0.1")
SENSORS = ("sensor-noise=1", "", "encoder-step=0.01", "battery=0.5 sensor-noise=3", "joint-noise=0.5")
FLOORS = ("uneven-floor=0.9", "", "uneven-floor=0.4 friction=0.1", "friction=0.1")
TWINS = ("", "dead-zone=0.6", "uneven-floor=0.9", "encoder-step=0.01")


def shifts_of(texts):
    return [parse_shifts(text.split()) for text in texts]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()


def play_both(name, texts, *, each, steps, dtype=np.float32, limit=None):
    """Assert that the joint simulator and one for each group answer alike; the joint one, and the ends seen.

    Whoever finished restarts, and now and then somebody else, with a new seed or going on without one.
    """
    groups = shifts_of(texts)
    joint = make_joint_simulator(name, groups, num_envs_each=each, max_episode_steps=limit)
    alone = [make_simulator(name, num_envs=each, shifts=s, max_episode_steps=limit) for s in groups]
    size = each * len(groups)
    own = [slice(start, start + each) for start in range(0, size, each)]
    generator = np.random.default_rng(0)
    high = joint.single_action_space.high
    ended = {"terminated": 0, "truncated": 0}

    # Instances with the same seed in every group: what differs then are the shifts.
    seeds = list(range(5, 5 + each)) * len(groups)
    observation = joint.reset(seed=seeds)[0]
    for simulator, here in zip(alone, own, strict=True):
        assert_same([observation[here]], [simulator.reset(seed=seeds[here])[0]])
    for _ in range(steps):
        actions = (1.5 * high * generator.uniform(-1, 1, (size, high.size))).astype(dtype)
        *ours, info = joint.step(actions)
        for simulator, here in zip(alone, own, strict=True):
            *theirs, their_info = simulator.step(actions[here])
            assert_same([x[here] for x in ours], theirs)
            assert_same([x[here] for x in joint.state], simulator.state)
            assert_same([x[here] for x in info.values()], their_info.values())
        observation, _, terminated, truncated = ours
        ended["terminated"] += int(terminated.sum())
        ended["truncated"] += int(truncated.sum())
        mask = terminated | truncated | (generator.uniform(size=size) < 0.05)
        if not mask.any():
            continue
        seeds = [int(s) if s % 2 else None for s in generator.integers(99, size=size)]
        observation = joint.reset(seed=seeds, options={"reset_mask": mask})[0]
        for simulator, here in zip(alone, own, strict=True):
            if mask[here].any():
                restarted = simulator.reset(seed=seeds[here], options={"reset_mask": mask[here]})[0]
                assert_same([observation[here]], [restarted])
    return joint, ended


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("each", [1, 8])
def test_a_cheetah_is_that_of_its_group_alone(each, dtype):
    _, ended = play_both("HalfCheetah", CHEETAH, each=each, steps=80, dtype=dtype, limit=30)
    assert ended["truncated"] > 0


def test_a_hopper_falls_as_in_its_group_alone():
    texts = ("gravity=2", "", "friction=0.3", "delay=2")
    _, ended = play_both("Hopper", texts, each=3, steps=150)
    assert ended["terminated"] >= 12 and ended["truncated"] == 0


def test_an_ant_feels_the_contacts_that_it_has_in_its_group_alone():
    joint, _ = play_both("Ant", ("", "gravity=2", "mass=0.5 joint-noise=0.5"), each=2, steps=70)
    contacts = joint.step(np.zeros((6, 8), np.float32))[0][:, 27:].reshape(3, -1)
    assert contacts.any(axis=1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("texts", [MOTORS, SENSORS, FLOORS], ids=["motors", "sensors", "floors"])
def test_a_robot_is_that_of_its_group_alone(texts, each, dtype):
    _, ended = play_both("StandingStill-v0", texts, each=each, steps=120, dtype=dtype, limit=50)
    assert ended["truncated"] > 0


@pytest.mark.parametrize("each", [1, 5])
def test_a_twin_keeps_its_own_shifts_besides_its_groups(each):
    joint, _ = play_both("MovingStraightReal-v0", TWINS, each=each, steps=100)
    floors = [{s.amount for s in group.shifts if s.kind == "uneven-floor"} for group in joint.env.groups]
    assert floors == [{0.3}, {0.3}, {0.9}, {0.3}]


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.sampled_from((*CHEETAH, "delay=3", "mass=1.5")), min_size=1, max_size=5),
    each=st.integers(1, 3),
)
def test_groups_can_be_any_in_any_order_and_alike(texts, each):
    play_both("HalfCheetah", texts, each=each, steps=15)


def test_neighbours_with_the_same_shifts_are_stepped_as_one_and_others_share_the_model():
    joint = make_joint_simulator("Hopper", shifts_of(["", "", "gravity=2", ""]), num_envs_each=3)
    groups = joint.env.groups
    assert [(g.instances.start, g.instances.stop) for g in groups] == [(0, 6), (6, 9), (9, 12)]
    assert groups[0].model is groups[2].model
    assert [g.model.opt.gravity[2] for g in groups] == [-9.81, -19.62, -9.81]
    play_both("Hopper", ["", "", "gravity=2", ""], each=3, steps=40)


def test_noise_is_drawn_for_noisy_groups_alone():
    joint = make_joint_simulator("HalfCheetah", shifts_of(["", "joint-noise=1"]), num_envs_each=2)

    def drawn():
        return [g.bit_generator.state["state"]["state"] for g in joint.env._noise_generators]

    joint.reset(seed=0)
    before = drawn()
    joint.step(np.zeros((4, 6)))
    assert [one == other for one, other in zip(before, drawn(), strict=True)] == [True, True, False, False]


def test_one_group_is_an_ordinary_simulator():
    shifts = parse_shifts(["gravity=2", "joint-noise=1"])
    joint = make_joint_simulator("halfcheetah", [shifts], num_envs_each=2)
    assert str(joint) == str(make_simulator("HalfCheetah", num_envs=2, shifts=shifts))
    assert str(joint) == "HalfCheetah-v5 (gravity=2.0, joint-noise=1.0), 2 instances"


def test_what_is_said_of_several_groups():
    groups = shifts_of(["", "gravity=2 delay=1", "", "friction=0.3"])
    joint = make_joint_simulator("HalfCheetah", groups, num_envs_each=2)
    told = "HalfCheetah-v5 (4 groups: unshifted; gravity=2.0, delay=1.0; friction=0.3)"
    assert str(joint) == f"{told}, 8 instances"
    with pytest.raises(SimulatorError, match=r"\(4 groups.*instance 0 of 8: reset it before this step"):
        joint.step(np.zeros((8, 6)))


def test_a_state_is_set_in_every_group():
    joint = make_joint_simulator("HalfCheetah", shifts_of(["delay=2", "gravity=2"]), num_envs_each=2)
    joint.reset(seed=0)
    joint.step(np.ones((4, 6)))
    position, velocity = joint.state
    one_state = [np.repeat(x[:1], 4, axis=0) for x in (position, velocity)]
    joint.set_state(*one_state)
    following = joint.step(np.ones((4, 6)))[0]
    assert np.array_equal(following[0], following[1]) and np.array_equal(following[2], following[3])
    alone = make_simulator("HalfCheetah", num_envs=1, shifts=[Shift("gravity", 2.0)])
    alone.set_state(*(x[:1] for x in one_state))
    assert np.array_equal(alone.step(np.ones((1, 6)))[0][0], following[3])


def test_a_diverged_instance_is_named_among_all():
    joint = make_joint_simulator("HalfCheetah", shifts_of(["", "gravity=2"]), num_envs_each=2)
    joint.reset(seed=0)
    position, velocity = joint.state
    velocity[3, 3] = 1e11
    joint.set_state(position, velocity)
    with pytest.raises(SimulatorError, match=r"instance 3 of 4, step 1 .* diverged"):
        joint.step(np.zeros((4, 6)))


@pytest.mark.parametrize("name", ["Pendulum-v1", "tests.simulators.unreliable:Anything", "HalfCheetah-v4"])
def test_only_built_in_simulators_share_a_batch(name):
    with pytest.raises(ConfigError, match=f"'{name}' is not built in; only built-in .*HalfCheetah-v5"):
        make_joint_simulator(name, [()], num_envs_each=1)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["", "floor-friction=0.3"], r"floor-friction=0.3 changes nothing in HalfCheetah-v5"),
        (["gravity=2", "encoder-step=0.1"], r"encoder-step=0.1 is for the wheel-legged robot only"),
    ],
)
def test_a_shift_that_cannot_be_is_named(texts, message):
    with pytest.raises(ShiftError, match=message):
        make_joint_simulator("HalfCheetah", shifts_of(texts), num_envs_each=1)


def test_a_kind_twice_in_a_group_is_refused_and_in_two_groups_is_not():
    twice = [Shift("gravity", 2.0), Shift("gravity", 3.0)]
    with pytest.raises(ShiftError, match="shift 'gravity' is given 2 times"):
        make_joint_simulator("HalfCheetah", [(), twice], num_envs_each=1)
    make_joint_simulator("HalfCheetah", [[shift] for shift in twice], num_envs_each=1)


@pytest.mark.parametrize("numbers", [{"num_envs_each": 0}, {"num_envs_each": 1, "max_episode_steps": 0}])
def test_counts_must_be_positive(numbers):
    with pytest.raises(ConfigError, match=f"{list(numbers)[-1]} must be a positive integer, got 0"):
        make_joint_simulator("HalfCheetah", [()], **numbers)


def test_groups_must_be_at_least_one_and_of_one_size():
    with pytest.raises(ConfigError, match="shifts_of_groups is empty"):
        make_joint_simulator("HalfCheetah", [], num_envs_each=1)
    with pytest.raises(ConfigError, match="HalfCheetah-v5: 5 instances cannot be 2 groups of one size"):
        MujocoTask(TASKS["HalfCheetah-v5"], num_envs=5, groups=[(), ()])


def test_shifts_of_all_instances_come_before_those_of_their_group():
    gravity, noise = parse_shifts(["gravity=2", "joint-noise=1"])
    task = MujocoTask(TASKS["HalfCheetah-v5"], num_envs=2, shifts=[gravity], groups=[(), (noise,)])
    assert [group.shifts for group in task.groups] == [(gravity,), (gravity, noise)]
