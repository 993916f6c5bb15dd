"""Pictures and films of episodes show what they are given."""

import numpy as np
import pytest
from PIL import Image

from simtrust.errors import SimulatorError
from simtrust.reports.animation import FRAMES_PER_SECOND, HEIGHT, WIDTH, animate
from simtrust.reports.trajectories import draw_states
from simtrust.simulators.wheel_legged import STANDING_STILL, WheelLegged

TIME_STEP = 0.005


@pytest.fixture(scope="module")
def states():
    """Two episodes [2, 400, 4]: one leans further and further, one ends at half time."""
    states = np.zeros((2, 400, 4), np.float32)
    states[0, :, 0] = np.linspace(0, 0.4, 400)
    states[0, :, 2] = np.linspace(0, 0.5, 400)
    states[1, 200:] = np.nan
    return states


def drawn(path, columns):
    draw_states(
        columns,
        time_step=TIME_STEP,
        rows=[("tilt (rad)", 0, 0.0), ("position (m)", 2, None)],
        limits=[(-0.5, 0.5), (-1, 1)],
        path=path,
    )
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_a_picture_depends_on_the_states(tmp_path, states):
    one = drawn(tmp_path / "one.png", {"h2o": {"real": states}})
    assert (one == drawn(tmp_path / "same.png", {"h2o": {"real": states}})).all()
    assert (one != drawn(tmp_path / "other.png", {"h2o": {"real": states[::-1] * 0.5}})).any()


def test_a_column_for_each_title(tmp_path, states):
    one = drawn(tmp_path / "one.png", {"h2o": {"real": states}})
    two = drawn(tmp_path / "two.png", {"h2o": {"real": states}, "sac": {"real": states}})
    assert two.shape[1] == 2 * one.shape[1]
    assert two.shape[0] == one.shape[0]


@pytest.fixture(scope="module")
def film(tmp_path_factory, states):
    path = tmp_path_factory.mktemp("film") / "robot.gif"
    model = WheelLegged(STANDING_STILL, num_envs=1).model
    try:
        return animate(
            model,
            dict(zip(("left", "right"), states, strict=True)),
            time_step=TIME_STEP,
            seconds=2.0,
            path=path,
        )
    except SimulatorError as error:
        pytest.skip(str(error))


def frames(film):
    with Image.open(film) as picture:
        for index in range(picture.n_frames):
            picture.seek(index)
            yield np.asarray(picture.convert("RGB")).astype(int)


def test_a_film_runs_in_real_time_with_the_robots_side_by_side(film):
    with Image.open(film) as picture:
        assert picture.size == (2 * WIDTH, HEIGHT)
        assert picture.info["duration"] == 1000 // FRAMES_PER_SECOND
        # Equal neighbours may be stored as one frame that is shown longer.
        assert 2 <= picture.n_frames <= 2 * FRAMES_PER_SECOND


def test_a_robot_whose_episode_ended_stays_as_it_was(film):
    first, *_, last = frames(film)
    left, right = np.abs(last - first)[:, :WIDTH], np.abs(last - first)[:, WIDTH:]
    assert left.mean() > 5
    assert right.mean() < 1
