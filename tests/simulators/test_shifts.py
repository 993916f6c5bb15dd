"""A shift does what its name says, in memory, and is refused where it would change nothing."""

import hashlib
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

from simtrust.errors import ShiftError
from simtrust.simulators import Shift, make_simulator, parse_shifts
from simtrust.simulators.actuation import noise_generator
from simtrust.simulators.model_edits import contact_friction, shifted_model

SEEDS = [3, 11]


def scale_gravity(model):
    model.opt.gravity[:] = 2.0 * model.opt.gravity


def scale_friction(model):
    model.geom_friction[:] = 0.3 * model.geom_friction


def scale_floor_friction(model):
    model.geom("floor").friction[:] *= 3.0


MODEL_EDITS = {
    "gravity=2.0": scale_gravity,
    "friction=0.3": scale_friction,
    "floor-friction=3": scale_floor_friction,
}


@pytest.mark.parametrize("text", MODEL_EDITS)
def test_a_shifted_task_is_gymnasiums_with_its_model_edited(task_name, text, references, first_difference):
    simulator = make_simulator(task_name, num_envs=2, shifts=parse_shifts([text]))
    edited = references(task_name, 2, MODEL_EDITS[text])
    assert first_difference(simulator, edited, seeds=SEEDS, steps=200)[0] is None
    original = references(task_name, 2)
    assert first_difference(simulator, original, seeds=SEEDS, steps=200)[0] is not None


def test_joint_noise_is_added_inside_the_simulator_and_not_clipped(task_name, references, first_difference):
    simulator = make_simulator(task_name, num_envs=2, shifts=parse_shifts(["joint-noise=1.5"]))
    envs = references(task_name, 2)
    generators = [noise_generator(seed) for seed in SEEDS]

    def disturb(action, _, index):
        return action + 1.5 * generators[index].standard_normal(action.size)

    assert first_difference(simulator, envs, seeds=SEEDS, steps=10, disturb=disturb)[0] is None
    assert first_difference(simulator, envs, seeds=SEEDS, steps=10)[0] == 1


def test_velocity_offset_grows_with_the_velocity_before_the_step(task_name, references, first_difference):
    simulator = make_simulator(task_name, num_envs=2, shifts=parse_shifts(["velocity-offset=0.7"]))
    envs = references(task_name, 2)
    difference, _ = first_difference(
        simulator, envs, seeds=SEEDS, steps=200, disturb=lambda action, velocity, _: action + 0.7 * velocity
    )
    assert difference is None
    assert first_difference(simulator, envs, seeds=SEEDS, steps=200)[0] == 1


def test_all_kinds_combine(references, first_difference):
    texts = ["gravity=2", "friction=0.3", "floor-friction=3", "joint-noise=0.5", "velocity-offset=0.7"]
    simulator = make_simulator("HalfCheetah", num_envs=2, shifts=parse_shifts(texts))
    generators = [noise_generator(seed) for seed in SEEDS]

    def edit(model):
        for change in (scale_gravity, scale_friction, scale_floor_friction):
            change(model)

    def disturb(action, velocity, index):
        return action + 0.5 * generators[index].standard_normal(action.size) + 0.7 * velocity

    envs = references("HalfCheetah-v5", 2, edit)
    assert first_difference(simulator, envs, seeds=SEEDS, steps=200, disturb=disturb)[0] is None
    assert str(simulator) == (
        "HalfCheetah-v5 (gravity=2.0, friction=0.3, floor-friction=3.0, joint-noise=0.5, "
        "velocity-offset=0.7), 2 instances"
    )


def rollout(simulator, seeds, steps=20):
    simulator.reset(seed=seeds)
    zeros = np.zeros((simulator.num_envs, *simulator.single_action_space.shape))
    return np.stack([simulator.step(zeros)[0] for _ in range(steps)])


def test_noise_depends_on_the_instance_seed_alone():
    shifts = parse_shifts(["joint-noise=1"])
    alone = make_simulator("HalfCheetah", num_envs=1, shifts=shifts)
    among_others = make_simulator("HalfCheetah", num_envs=3, shifts=shifts)
    first, again = rollout(alone, [5]), rollout(alone, [5])
    assert np.array_equal(first, again)
    assert np.array_equal(first[:, 0], rollout(among_others, [8, 9, 5])[:, 2])
    assert not np.array_equal(first, rollout(alone, [6]))


def test_noise_leaves_the_start_states_and_the_callers_actions_alone():
    noisy_simulator = make_simulator("Hopper", num_envs=2, shifts=parse_shifts(["joint-noise=1"]))
    clean = make_simulator("Hopper", num_envs=2)
    actions = np.full((2, 3), 0.5, np.float32)
    for simulator in (noisy_simulator, clean):
        simulator.reset(seed=SEEDS)
        for _ in range(3):
            simulator.step(actions)
    assert (actions == 0.5).all()
    everyone = {"reset_mask": np.ones(2, bool)}
    assert np.array_equal(noisy_simulator.reset(options=everyone)[0], clean.reset(options=everyone)[0])


def test_parsing_keeps_order_and_round_trips():
    texts = ["gravity=2.0", " joint-noise = 1e-1", "friction=0"]
    shifts = parse_shifts(texts)
    assert shifts == (Shift("gravity", 2.0), Shift("joint-noise", 0.1), Shift("friction", 0.0))
    assert parse_shifts(map(str, shifts)) == shifts
    assert parse_shifts([]) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "gravty=2",
            "unknown shift 'gravty' .did you mean 'gravity'.{2}; the kinds are gravity=NUMBER: multiply",
        ),
        ("wind=2", "unknown shift 'wind'; the kinds are"),
        ("gravity", "not of the form kind=number"),
        ("gravity=two", "'two' is not a number"),
        ("gravity=", "'' is not a number"),
        ("gravity=-1", "at least 0"),
        ("friction=nan", "finite"),
        ("joint-noise=inf", "finite"),
        ("gravity=1", "gravity=1.0 changes nothing, because it multiplies by 1"),
        ("friction=1.0", "changes nothing"),
        ("floor-friction=1", "changes nothing"),
        ("joint-noise=0", "joint-noise=0.0 changes nothing, because it adds 0"),
        ("velocity-offset=0.0", "changes nothing"),
    ],
)
def test_a_malformed_shift_is_refused_with_the_reason(text, message):
    with pytest.raises(ShiftError, match=message):
        parse_shifts([text])


def test_a_kind_given_twice_is_refused():
    with pytest.raises(ShiftError, match="'gravity' is given 2 times"):
        parse_shifts(["gravity=2", "friction=2", "gravity=3"])
    with pytest.raises(ShiftError, match="'gravity' is given 2 times"):
        make_simulator("Hopper", num_envs=1, shifts=[Shift("gravity", 2.0), Shift("gravity", 3.0)])


def test_less_floor_friction_changes_nothing_and_is_refused(task_name):
    with pytest.raises(
        ShiftError, match=f"floor-friction=0.3 changes nothing in {task_name}.*larger friction"
    ):
        make_simulator(task_name, num_envs=1, shifts=parse_shifts(["floor-friction=0.3"]))


def test_the_refusal_gives_the_numbers():
    with pytest.raises(ShiftError, match=r"foot_geom 2 -> 2, floor 1 -> 0.5: contact before and after 2"):
        make_simulator("Hopper", num_envs=1, shifts=parse_shifts(["floor-friction=0.5"]))


def test_the_refusal_ends_where_the_floor_exceeds_the_foot():
    with pytest.raises(ShiftError, match="changes nothing"):
        make_simulator("Hopper", num_envs=1, shifts=[Shift("floor-friction", 2.0)])
    make_simulator("Hopper", num_envs=1, shifts=[Shift("floor-friction", 2.1)])


CONTACTS = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1" friction="1 .5 .5" {floor}/>
    <body><freejoint/><geom name="foot" size=".1" friction=".4 .6 .1" {foot}/></body>
  </worldbody>
  <contact>{contact}</contact>
</mujoco>
"""


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, [1, 1]),
        ({"floor": "condim='6'"}, [1, 1, 0.6, 0.5, 0.5]),
        ({"floor": "condim='1'", "foot": "condim='1'"}, []),
        ({"foot": "priority='1'"}, [0.4, 0.4]),
        ({"foot": "contype='0' conaffinity='0'"}, None),
        ({"foot": "contype='2' conaffinity='0'", "floor": "conaffinity='2'"}, [1, 1]),
        ({"contact": "<pair geom1='floor' geom2='foot' condim='3' friction='.2 .2 .1 .1 .1'/>"}, [0.2, 0.2]),
    ],
)
def test_friction_of_a_contact(parts, expected):
    xml = CONTACTS.format(**({"floor": "", "foot": "", "contact": ""} | parts))
    model = mujoco.MjModel.from_xml_string(xml)
    friction = contact_friction(model, model.geom("foot").id, model.geom("floor").id)
    assert friction is None if expected is None else np.array_equal(friction, expected)
    check_against_the_engine(model, expected)


def check_against_the_engine(model, expected):
    """MuJoCo's own contact, with the foot sunk into the floor."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    if expected is None:
        assert data.ncon == 0
    else:
        contact = data.contact[0]
        assert contact.dim == len(expected) + 1
        assert np.array_equal(contact.friction[: len(expected)], expected)


@pytest.mark.parametrize("text", ["friction=0.3", "floor-friction=0.3"])
def test_an_explicit_contact_pair_is_out_of_frictions_reach(text):
    pair = "<pair geom1='floor' geom2='foot' condim='3'/>"
    model = mujoco.MjModel.from_xml_string(CONTACTS.format(floor="", foot="", contact=pair))
    with pytest.raises(ShiftError, match="changes nothing in this robot"):
        shifted_model(model, parse_shifts([text]), "this robot")


def test_an_excluded_contact_and_a_missing_gravity_are_noticed():
    xml = """<mujoco><option gravity="0 0 0"/><worldbody><geom type="plane" size="1 1 1"/>
    <body name="ball"><freejoint/><geom size=".1"/></body></worldbody>
    <contact><exclude body1="world" body2="ball"/></contact></mujoco>"""
    model = mujoco.MjModel.from_xml_string(xml)
    assert contact_friction(model, 0, 1) is None
    with pytest.raises(ShiftError, match="no end body of the robot can touch a floor"):
        shifted_model(model, parse_shifts(["friction=2"]), "ball")
    with pytest.raises(ShiftError, match="has no gravity"):
        shifted_model(model, parse_shifts(["gravity=2"]), "ball")


def test_installed_files_and_the_given_model_stay_as_they_are(task_name):
    folder = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"

    def digest():
        return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.xml")))).digest()

    before = digest()
    shifts = parse_shifts(["gravity=2", "friction=0.3"])
    make_simulator(task_name, num_envs=1, shifts=shifts).reset(seed=0)
    assert digest() == before
    unshifted = make_simulator(task_name, num_envs=1).unwrapped.model
    friction, gravity = unshifted.geom_friction.copy(), unshifted.opt.gravity.copy()
    shifted_model(unshifted, shifts, task_name)
    assert np.array_equal(unshifted.geom_friction, friction)
    assert np.array_equal(unshifted.opt.gravity, gravity)
