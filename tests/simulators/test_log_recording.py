"""The logs recorded of the human-like operator on the robot's real twin."""

import h5py
import numpy as np
import pytest

from simtrust.data import check_against_simulator, load_dataset
from simtrust.errors import ConfigError, DataError
from simtrust.simulators import human_operator, make_simulator
from simtrust.simulators.human_operator import HumanOperator
from simtrust.simulators.log_recording import TASKS, generate_wheel_legged_log
from simtrust.simulators.wheel_legged import CONTROL_RATE, MOVING_STRAIGHT, STANDING_STILL, WHEEL_RADIUS

COUNT_SPEED = 2 * np.pi / 4096 * WHEEL_RADIUS * CONTROL_RATE
"""m/s: one count of the wheel encoder in one control step."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def standing(folder):
    """Two episodes, of 6,000 and 3,000 rows."""
    return generate_wheel_legged_log(folder / "standing.hdf5", "standing-still", rows=9_000, seed=3)


@pytest.fixture(scope="module")
def moving(folder):
    """Three episodes, of 4,000, 4,000 and 1,000 rows."""
    return generate_wheel_legged_log(folder / "moving.hdf5", "moving-straight", rows=9_000, seed=3)


def columns(file):
    with h5py.File(file) as container:
        return {name: container[name][:] for name in container if name != "metadata"}


def ends_of(file):
    log = columns(file)
    return np.flatnonzero(log["timeouts"]).tolist(), int(log["terminals"].sum())


def test_episodes_end_in_timeouts_and_nobody_falls(standing, moving):
    assert ends_of(standing) == ([5_999, 8_999], 0)
    assert ends_of(moving) == ([3_999, 7_999, 8_999], 0)


@pytest.mark.parametrize("rows", [1, 50, 6_001])
def test_exactly_so_many_rows(tmp_path, rows):
    file = generate_wheel_legged_log(tmp_path / "log.hdf5", "standing-still", rows=rows)
    assert {len(values) for values in columns(file).values()} == {rows}
    assert ends_of(file)[0][-1] == rows - 1


def test_next_observations_never_cross_episodes(standing, moving):
    for file in (standing, moving):
        log = columns(file)
        breaks = (log["next_observations"][:-1] != log["observations"][1:]).any(axis=1)
        assert np.flatnonzero(breaks).tolist() == ends_of(file)[0][:-1]


def test_rewards_standing_still_are_equation_34(standing):
    log = columns(standing)

    def reward(observation):
        return 30 - np.square(observation).sum(axis=1) - np.square(log["actions"][:, 0])

    assert np.allclose(log["rewards"], reward(log["observations"]), atol=1e-5)
    assert not np.allclose(log["rewards"], reward(log["next_observations"]), atol=1e-3)


def test_rewards_moving_straight_are_equation_35(moving):
    log = columns(moving)

    def reward(observation):
        return 15 - np.square(observation[:, 2] - 0.2) - np.square(log["actions"][:, 0])

    assert np.allclose(log["rewards"], reward(log["observations"]), atol=1e-5)
    assert not np.allclose(log["rewards"], reward(log["next_observations"]), atol=1e-3)


@pytest.mark.parametrize("name", ["StandingStill-v0", "StandingStillReal-v0"])
def test_fits_simulator_and_twin(standing, name):
    simulator = make_simulator(name, num_envs=1)
    spaces = simulator.single_observation_space, simulator.single_action_space
    check_against_simulator(load_dataset(standing), *spaces, name)


def test_log_of_one_task_does_not_fit_the_other(moving):
    simulator = make_simulator("StandingStill-v0", num_envs=1)
    spaces = simulator.single_observation_space, simulator.single_action_space
    with pytest.raises(DataError, match="is 3 wide"):
        check_against_simulator(load_dataset(moving), *spaces, "StandingStill-v0")


def test_was_recorded_on_the_twin_whose_encoder_counts(standing, moving):
    for file, column in ((standing, 3), (moving, 2)):
        counts = columns(file)["next_observations"][:, column] / COUNT_SPEED
        assert np.abs(counts - np.round(counts)).max() < 1e-3
        assert len(np.unique(np.round(counts))) > 10


def test_stands_near_balance(standing):
    tilt, tilt_velocity, position, velocity = columns(standing)["observations"].T
    assert np.abs(tilt).max() < 0.25
    assert np.sqrt(np.mean(tilt**2)) < 0.08
    assert np.abs(tilt_velocity).max() < 1.0
    assert np.abs(position).max() < 1.5
    assert abs(velocity.mean()) < 0.05


def test_moves_at_about_the_speed_asked_with_a_persons_error(moving):
    velocity = columns(moving)["observations"][:8_000, 2].reshape(2, 4_000)
    assert velocity.mean() == pytest.approx(0.2, abs=0.06)
    # Once the drift of the robot is learnt, in five seconds.
    practised = velocity[:, 1_000:]
    assert practised.mean() == pytest.approx(0.2, abs=0.03)
    assert 0.02 < np.sqrt(np.mean((practised - 0.2) ** 2)) < 0.1


def test_torques_are_within_the_limits_and_of_both_signs(standing, moving):
    for file in (standing, moving):
        torque = columns(file)["actions"]
        assert np.abs(torque).max() <= 4.0
        assert (torque < -0.3).mean() > 0.05
        assert (torque > 0.3).mean() > 0.05


def test_same_seed_same_bytes_and_another_seed_others(folder, standing):
    options = {"task": "standing-still", "rows": 9_000}
    again = generate_wheel_legged_log(folder / "again.hdf5", **options, seed=3)
    assert again.read_bytes() == standing.read_bytes()
    other = generate_wheel_legged_log(folder / "other.hdf5", **options, seed=4)
    for key in ("observations", "actions", "rewards"):
        assert (columns(other)[key] != columns(standing)[key]).any(axis=-1).mean() > 0.5


@pytest.mark.parametrize("task", [STANDING_STILL, MOVING_STRAIGHT], ids=lambda task: task.name)
def test_operator_reads_nothing_but_the_observations_logged(tmp_path, task):
    name = next(name for name, known in TASKS.items() if known == task)
    log = columns(generate_wheel_legged_log(tmp_path / "log.hdf5", name, rows=3_000, seed=7))
    operator = HumanOperator(task, num_envs=1, seed=7)
    observations = log["observations"][:, None]
    operator.restart(observations[0], np.array([True]))
    torques = np.concatenate([operator.torque(observation) for observation in observations])
    assert np.array_equal(np.clip(torques, -4, 4), log["actions"])


def test_falls_are_terminals_and_the_robot_is_set_up_again(tmp_path, monkeypatch):
    monkeypatch.setattr(human_operator, "TILT_GAIN", 0.0)
    file = generate_wheel_legged_log(tmp_path / "log.hdf5", "standing-still", rows=6_200)
    log = columns(file)
    timeouts, falls = ends_of(file)
    assert falls > 5
    assert timeouts == [row for row in (5_999, 6_199) if not log["terminals"][row]]
    assert not (log["timeouts"] & log["terminals"]).any()
    ends = log["timeouts"] | log["terminals"]
    breaks = (log["next_observations"][:-1] != log["observations"][1:]).any(axis=1)
    assert np.array_equal(breaks, ends[:-1])
    assert (np.abs(log["next_observations"][log["terminals"], 0]) > 0.45).all()
    assert (np.abs(log["observations"][1:][ends[:-1], 0]) < 0.1).all()


def test_provenance(moving):
    with h5py.File(moving) as container:
        metadata = {name: value[()] for name, value in container["metadata"].items()}
    text = {name: value.decode() for name, value in metadata.items() if isinstance(value, bytes)}
    assert text["env_id"] == "MovingStraightReal-v0"
    assert "human-like operator" in text["behaviour"]
    assert text["observation_names"] == "tilt, tilt_velocity, velocity"
    assert text["observation_units"] == "rad, rad/s, m/s"
    assert (text["action_name"], text["action_unit"]) == ("torque", "N m")
    assert (metadata["control_rate"], text["control_rate_unit"], metadata["seed"]) == (200, "Hz", 3)
    assert text["real_robot_shifts"].startswith("mass=1.08, centre-of-mass=0.006, ")
    assert text["numpy_version"] == np.__version__


@pytest.mark.parametrize(("option", "value"), [("rows", 0), ("rows", -5), ("seed", -1)])
def test_options_out_of_range(tmp_path, option, value):
    with pytest.raises(ConfigError, match=rf"{option}: {value} is below"):
        generate_wheel_legged_log(tmp_path / "log.hdf5", "standing-still", **{option: value})


def test_unknown_task_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'dancing' is none of standing-still, moving-straight"):
        generate_wheel_legged_log(tmp_path / "log.hdf5", "dancing")


@pytest.mark.parametrize(
    ("name", "message"), [("log.txt", "is not a name for HDF5"), ("a_file/log.hdf5", "cannot be written")]
)
def test_unwritable_path_is_named(tmp_path, name, message):
    (tmp_path / "a_file").touch()
    with pytest.raises(DataError, match=f"{name}: {message}"):
        generate_wheel_legged_log(tmp_path / name, "standing-still", rows=1)


def test_a_wrong_name_is_told_before_recording(tmp_path):
    # A recording of so many rows would take hours.
    with pytest.raises(DataError, match="is not a name for HDF5"):
        generate_wheel_legged_log(tmp_path / "log.npz", "standing-still", rows=10**8, quiet=True)
