"""Capsules weigh what they did before MuJoCo 2.1.1: as cylinders, longer by half the radius at both ends."""

from math import pi

import mujoco
import numpy as np
import pytest

from simtrust.errors import ShiftError, SimulatorError
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.simulators.legacy_inertia import with_legacy_inertia
from simtrust.simulators.model_files import load_edited_model_file, load_model_file
from simtrust.simulators.task_specs import TASKS
from simtrust.simulators.tasks import model_file

RADIUS, MIDDLE = 0.1, 0.6
"""Of the capsule below, whose middle is 0.6 m long, m."""
BODY = """
<mujoco><compiler {compiler}/><worldbody>
  <body pos="0 0 1"><freejoint/>{inertial}<geom type="capsule" {geom} density="1000"/>{besides}</body>
</worldbody></mujoco>
"""
SIZED = f"size='{RADIUS} {MIDDLE / 2}'"
SPANNED = f"size='{RADIUS}' fromto='0.1 0.2 0 0.1 0.2 {MIDDLE}'"


@pytest.fixture
def compiled(tmp_path):
    """A body of a capsule as of today, and as of old."""

    def compile_body(geom=SIZED, *, compiler="", inertial="", besides=""):
        file = tmp_path / "body.xml"
        file.write_text(BODY.format(geom=geom, compiler=compiler, inertial=inertial, besides=besides))
        today = load_model_file(file, "a capsule")
        return today, with_legacy_inertia(today, file, "a capsule")

    return compile_body


def cylinder(radius, length, density=1000.0):
    """Mass, and moments of inertia across and along the axis."""
    mass = density * pi * radius**2 * length
    return mass, mass * (3 * radius**2 + length**2) / 12, mass * radius**2 / 2


def capsule(radius, middle, density=1000.0):
    """The same of a cylinder with two half-spheres, each 3r/8 beyond the cylinder's end (parallel axes)."""
    mass, across, along = cylinder(radius, middle, density)
    half = density * 2 / 3 * pi * radius**3
    about_own_centre = half * radius**2 * (2 / 5 - (3 / 8) ** 2)
    across += 2 * (about_own_centre + half * (middle / 2 + 3 / 8 * radius) ** 2)
    return mass + 2 * half, across, along + 2 * half * 2 / 5 * radius**2


@pytest.mark.parametrize("geom", [SIZED, SPANNED])
def test_a_capsules_inertia_is_that_of_the_formulas(compiled, geom):
    today, old = compiled(geom)
    for model, (mass, across, along) in (
        (today, capsule(RADIUS, MIDDLE)),
        (old, cylinder(RADIUS, MIDDLE + RADIUS)),
    ):
        assert model.body_mass[1] == pytest.approx(mass, rel=1e-12)
        assert model.body_inertia[1] == pytest.approx([across, across, along], rel=1e-12)
        assert model.body_subtreemass[0] == pytest.approx(mass, rel=1e-12)
    assert np.allclose(old.body_ipos, today.body_ipos, rtol=0, atol=1e-15)


def test_geoms_of_one_body_are_added_about_their_common_centre(compiled):
    """By parallel axes; with the ball beside the capsule, the principal axes are not the body's."""
    place = np.array([0.5, 0.0, 1.0])
    _, old = compiled(besides="<geom type='sphere' size='0.2' pos='0.5 0 1' density='1000'/>")
    mass, across, along = cylinder(RADIUS, MIDDLE + RADIUS)
    ball = 1000 * 4 / 3 * pi * 0.2**3
    centre = ball * place / (mass + ball)
    expected = np.diag([across, across, along]) + 2 / 5 * ball * 0.2**2 * np.eye(3)
    for weight, arm in ((mass, centre), (ball, place - centre)):
        expected += weight * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    axes = np.zeros(9)
    mujoco.mju_quat2Mat(axes, old.body_iquat[1])
    axes = axes.reshape(3, 3)
    assert old.body_mass[1] == pytest.approx(mass + ball, rel=1e-12)
    assert old.body_ipos[1] == pytest.approx(centre, abs=1e-12)
    assert axes @ np.diag(old.body_inertia[1]) @ axes.T == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_mass_that_the_model_prescribes_is_kept(compiled):
    today, old = compiled(f"{SIZED} mass='3'")
    mass, across, _ = cylinder(RADIUS, MIDDLE + RADIUS)
    assert today.body_mass[1] == old.body_mass[1] == pytest.approx(3)
    assert old.body_inertia[1, 0] == pytest.approx(3 / mass * across, rel=1e-12)


def test_inertias_that_the_model_states_are_not_a_capsules(compiled):
    inertial = "<inertial pos='0 0 0' mass='1' diaginertia='1 1 1'/>"
    with pytest.raises(ShiftError, match="shift legacy-inertia changes nothing in a capsule: no body of it"):
        compiled(inertial=inertial)
    compiled(inertial=inertial, compiler="inertiafromgeom='true'")


@pytest.mark.parametrize("name", ["StandingStill-v0", "StandingStillReal-v0", "MovingStraight-v0"])
def test_it_is_refused_for_the_wheel_legged_robot(name):
    with pytest.raises(ShiftError, match=r"legacy-inertia changes nothing in .*from a capsule; leave it out"):
        make_simulator(name, num_envs=1, shifts=parse_shifts(["legacy-inertia=1"]))


@pytest.mark.parametrize("amount", [0.5, 2])
def test_there_is_nothing_between_todays_and_the_old(amount):
    with pytest.raises(ShiftError, match="there is nothing between; give 1"):
        parse_shifts([f"legacy-inertia={amount}"])
    with pytest.raises(ShiftError, match="changes nothing"):
        parse_shifts(["legacy-inertia=0"])


def model_of(name, *texts):
    return make_simulator(name, num_envs=1, shifts=parse_shifts(texts)).env.model


# Of Gym's v2 tasks, as programs that randomised their masses had written them down.
OLD_MASSES = {
    "HalfCheetah-v5": [
        6.36031332, 1.53524804, 1.58093995, 1.0691906, 1.42558747, 1.17885117, 0.84986945,
    ],
    "Hopper-v5": [3.53429174, 3.92699082, 2.71433605, 5.0893801],
    "Walker2d-v5": [3.53429174, *2 * [3.92699082, 2.71433605, 2.94053072]],
}  # fmt: skip


@pytest.mark.parametrize("name", OLD_MASSES)
def test_masses_are_those_of_the_old_tasks(name):
    old = model_of(name, "legacy-inertia=1").body_mass[1:]
    assert old == pytest.approx(OLD_MASSES[name], abs=6e-9)
    assert np.abs(model_of(name).body_mass[1:] / old - 1).min() > 0.001


def test_the_ants_torso_is_a_ball_and_weighs_what_it_did():
    old, today = model_of("Ant-v5", "legacy-inertia=1"), model_of("Ant-v5")
    assert old.body_mass[1] == today.body_mass[1] and np.array_equal(
        old.body_inertia[1], today.body_inertia[1]
    )
    assert (old.body_mass[2:] < today.body_mass[2:]).all()


def test_nothing_but_masses_changes(task_name):
    """The geoms are where they were, and still capsules, whatever frame MuJoCo stores them in."""
    models = model_of(task_name, "legacy-inertia=1"), model_of(task_name)
    states = []
    for model in models:
        data = mujoco.MjData(model)
        data.qpos[:] += np.random.default_rng(0).uniform(-0.5, 0.5, model.nq)
        mujoco.mj_forward(model, data)
        states.append(data)
    assert np.array_equal(models[0].geom_type, models[1].geom_type)
    assert np.array_equal(models[0].geom_size, models[1].geom_size)
    assert np.allclose(states[0].geom_xpos, states[1].geom_xpos, rtol=0, atol=1e-12)
    assert np.allclose(states[0].geom_xmat, states[1].geom_xmat, rtol=0, atol=1e-12)
    assert not np.allclose(states[0].qfrc_bias, states[1].qfrc_bias, rtol=1e-4, atol=0)


def test_derived_constants_are_those_that_mujoco_compiles(task_name):
    def state_inertias(specification):
        specification.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_FALSE
        specification.compiler.settotalmass = -1
        for body in specification.bodies[1:]:
            index = index_of[body.name or body.geoms[0].name]
            body.explicitinertial = True
            body.mass, body.inertia = old.body_mass[index], old.body_inertia[index]
            body.ipos, body.iquat = old.body_ipos[index], old.body_iquat[index]

    old = model_of(task_name, "legacy-inertia=1")
    index_of = {old.body(i).name or old.geom(old.body_geomadr[i]).name: i for i in range(1, old.nbody)}
    compiled = load_edited_model_file(model_file(TASKS[task_name]), task_name, state_inertias)
    for name in ("body_subtreemass", "body_invweight0", "dof_M0", "dof_invweight0", "actuator_acc0"):
        assert np.allclose(getattr(old, name), getattr(compiled, name), rtol=1e-9), name
    assert np.array_equal(old.body_sameframe, compiled.body_sameframe)


def step_from_one_state(*texts):
    simulator = make_simulator("Walker2d-v5", num_envs=1, shifts=parse_shifts(texts))
    simulator.reset(seed=0)
    position = np.array([[0, 1.25, 0.05, -0.2, -0.3, 0.1, -0.1, -0.4, 0.2]])
    velocity = np.linspace(-1, 1, 9)[None]
    simulator.set_state(position, velocity)
    return simulator.step(np.full((1, 6), 0.5))[0] - simulator.env.task_spec.observe(
        simulator.env._physics._replace(position=position, velocity=velocity)
    )


def test_a_step_of_walker2d_differs_and_gravity_comes_on_top():
    today, old = step_from_one_state(), step_from_one_state("legacy-inertia=1")
    assert np.array_equal(today, step_from_one_state())
    assert 1e-3 < np.linalg.norm(old - today) / np.linalg.norm(today) < 0.5
    both = step_from_one_state("gravity=2", "legacy-inertia=1")
    assert not np.allclose(both, old, rtol=1e-3)
    assert not np.allclose(both, step_from_one_state("gravity=2"), rtol=1e-3)
    assert np.array_equal(both, step_from_one_state("legacy-inertia=1", "gravity=2"))


@pytest.mark.parametrize("order", [1, -1])
def test_other_masses_scale_and_move_the_old_ones(order):
    texts = ["mass=2", "centre-of-mass=0.05", "legacy-inertia=1"][::order]
    both, old = model_of("Walker2d-v5", *texts), model_of("Walker2d-v5", "legacy-inertia=1")
    assert both.body_mass == pytest.approx(2 * old.body_mass)
    assert both.body_inertia == pytest.approx(2 * old.body_inertia)
    assert both.body_ipos[1] - old.body_ipos[1] == pytest.approx([0.05, 0, 0])


def test_the_given_model_stays_as_it_is_and_a_missing_file_is_named(tmp_path):
    file = model_file(TASKS["Walker2d-v5"])
    model = load_model_file(file, "Walker2d-v5")
    masses = model.body_mass.copy()
    with_legacy_inertia(model, file, "Walker2d-v5")
    assert np.array_equal(model.body_mass, masses)
    with pytest.raises(SimulatorError, match=r"Walker2d-v5: cannot load the model .*gone\.xml"):
        with_legacy_inertia(model, tmp_path / "gone.xml", "Walker2d-v5")
