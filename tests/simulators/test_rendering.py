"""Pictures of the robot show the robot, without a display and without any setting."""

import os
import subprocess
import sys
from ctypes.util import find_library

import gymnasium
import numpy as np
import pytest

import simtrust.simulators  # noqa: F401 (registers the robot)
from simtrust.errors import SimulatorError

NAME = "simtrust/StandingStill-v0"
ORANGE_SPOKE, BLUE_BODY = (0, 2), (2, 0)
"""The strongest and the weakest of red, green, blue."""


@pytest.fixture
def make_env():
    """Environments that draw pictures, closed afterwards."""
    made = []

    def make(name=NAME, **options):
        env = gymnasium.make(name, render_mode="rgb_array", **options)
        made.append(env)
        env.reset(seed=0)
        try:
            env.render()
        except SimulatorError as error:
            pytest.skip(f"no OpenGL without a display: {error}")
        return env

    yield make
    for env in made:
        env.close()


def picture(env, x=0.0, tilt=0.0):
    """The robot drawn at x and tilt."""
    env.unwrapped._robot.set_state(np.array([[x, 0.0, tilt, x / 0.1 - tilt]]), np.zeros((1, 4)))
    return env.render()


def place(drawn, colour):
    """Mean row and column of all pixels clearly of a colour."""
    most, least = (drawn[..., channel].astype(int) for channel in colour)
    rows, columns = np.nonzero(most - least > 60)
    assert rows.size > 500
    return rows.mean(), columns.mean()


@pytest.mark.parametrize(("name", "fidelity"), [(NAME, "real"), ("simtrust/MovingStraight-v0", "simulator")])
def test_a_picture_has_gymnasiums_form_and_is_not_of_one_colour(make_env, name, fidelity):
    drawn = make_env(name, fidelity=fidelity).render()
    assert drawn.shape == (480, 640, 3) and drawn.dtype == np.uint8
    assert drawn.std() > 20


def test_the_robot_stands_upright_in_the_middle_with_its_body_over_its_wheels(make_env):
    drawn = picture(make_env())
    body, wheels = place(drawn, BLUE_BODY), place(drawn, ORANGE_SPOKE)
    assert wheels[0] - body[0] > 100
    assert body[1] == pytest.approx(320, abs=10) and wheels[1] == pytest.approx(320, abs=10)


def test_a_forward_tilt_is_to_the_right(make_env):
    env = make_env()
    for tilt in (0.3, -0.3):
        drawn = picture(env, tilt=tilt)
        body, wheels = place(drawn, BLUE_BODY), place(drawn, ORANGE_SPOKE)
        across, up = body[1] - wheels[1], wheels[0] - body[0]
        assert np.arctan2(across, up) == pytest.approx(tilt, abs=0.05)


def test_the_camera_follows_and_the_tiles_move(make_env):
    env = make_env()
    here, further, far = (picture(env, x=x) for x in (0.0, 0.1, 40.0))
    for drawn in (further, far):
        assert place(drawn, BLUE_BODY) == pytest.approx(place(here, BLUE_BODY), abs=2)
        assert (drawn[400:] > 0).all()
    assert np.abs(further[400:].astype(int) - here[400:]).mean() > 5
    # Two tiles further in the pattern's period of 0.4 m, on a floor without an end.
    assert np.abs(far[400:].astype(int) - here[400:]).mean() < 3


def test_pictures_of_two_environments_do_not_mix(make_env):
    one, other = make_env(), make_env()
    upright = picture(one)
    tilted = picture(other, tilt=0.3)
    assert not np.array_equal(upright, tilted)
    assert np.array_equal(picture(one), upright)
    one.close()
    assert np.array_equal(picture(other, tilt=0.3), tilted)


def test_after_closing_twice_it_can_draw_again(make_env):
    env = make_env()
    before = picture(env)
    env.close()
    env.close()
    assert np.array_equal(picture(env), before)


def test_drawing_does_not_disturb_the_robot(make_env):
    drawn, plain = make_env(), gymnasium.make(NAME)
    for env in (drawn, plain):
        env.reset(seed=3)
    for _ in range(2):
        drawn.render()
        answers = [env.step(np.ones(1, np.float32))[0] for env in (drawn, plain)]
        assert np.array_equal(*answers)


def test_without_a_render_mode_nothing_is_drawn():
    env = gymnasium.make(NAME, disable_env_checker=True)
    env.reset(seed=0)
    assert env.unwrapped.render() is None


PROGRAM = """
import gymnasium, mujoco, simtrust.simulators
from simtrust.errors import SimulatorError
env = gymnasium.make("simtrust/StandingStill-v0", render_mode="rgb_array")
env.reset(seed=0)
try:
    print(env.render().std() > 20)
except SimulatorError as error:
    print("none:", error)
{end}
"""


def draw_elsewhere(backend, end="env.close()"):
    """A process without a display that draws and ends; with MUJOCO_GL only if a backend is given."""
    outside = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MUJOCO_GL")}
    # Importing one of MuJoCo's backends sets it for good, also for the processes begun from here.
    outside.pop("PYOPENGL_PLATFORM", None)
    if backend is not None:
        outside["MUJOCO_GL"] = backend
    command = [sys.executable, "-W", "error", "-c", PROGRAM.format(end=end)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=outside)


BACKENDS = {"egl": "EGL", "osmesa": "OSMesa"}
"""By MUJOCO_GL: the library of each, without which MuJoCo itself is not imported."""


@pytest.mark.parametrize("end", ["env.close()", ""], ids=["closed", "left open"])
@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_it_draws_without_a_display_and_ends_in_silence(backend, end):
    there = [name for name, library in BACKENDS.items() if find_library(library)]
    if backend not in (None, *there):
        pytest.skip(f"there is no library {BACKENDS[backend]}")
    done = draw_elsewhere(backend, end)
    if done.stdout.startswith("none:"):
        assert "install OpenGL for machines without a display" in done.stdout
        if backend is None:
            # What can be had must be found without MUJOCO_GL.
            others = [draw_elsewhere(name).stdout for name in there]
            assert all(other.startswith("none:") for other in others)
        pytest.skip(done.stdout)
    assert done.returncode == 0 and done.stdout == "True\n"
    assert not done.stderr
