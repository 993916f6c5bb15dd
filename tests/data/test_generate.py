"""The log of the demo."""

import gymnasium
import h5py
import numpy as np
import pytest

from simtrust.data import check_against_simulator, generate_pendulum_log, load_dataset
from simtrust.errors import ConfigError


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return generate_pendulum_log(tmp_path_factory.mktemp("pendulum") / "log.hdf5", rows=2_100, seed=3)


def test_episodes_end_in_timeouts_and_never_terminate(file):
    dataset = load_dataset(file)
    assert dataset.episode_lengths.tolist() == [200] * 10 + [100]
    assert not dataset.transitions.terminated.any()
    with h5py.File(file) as container:
        assert np.flatnonzero(container["timeouts"][:]).tolist() == list(range(199, 2_100, 200))


def test_next_observations_are_those_before_the_reset(file):
    observation, _, _, next_observation, _ = load_dataset(file).transitions
    same = (next_observation[:-1] == observation[1:]).all(axis=1)
    assert np.flatnonzero(~same).tolist() == list(range(199, 2_099, 200))


def test_fits_the_simulator_and_explores(file):
    dataset = load_dataset(file)
    env = gymnasium.make("Pendulum-v1")
    check_against_simulator(dataset, env.observation_space, env.action_space, "Pendulum-v1")
    env.close()
    action = dataset.transitions.action
    assert (action.min(), action.max()) == (-2.0, 2.0)
    assert (np.abs(action) < 1.9).mean() > 0.3


def test_rows_are_the_simulators_own(file):
    observation, action, reward, next_observation, _ = load_dataset(file).transitions
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    for row in range(0, 2_100, 97):
        cosine, sine, velocity = observation[row].astype(float)
        env.state = np.array([np.arctan2(sine, cosine), velocity])
        following, value, *_ = env.step(action[row])
        np.testing.assert_allclose(next_observation[row], following, atol=1e-5)
        np.testing.assert_allclose(reward[row], value, atol=1e-4)
    env.close()


def test_controller_swings_up_and_holds(file):
    dataset = load_dataset(file)
    upright = dataset.transitions.observation[:2_000, 0].reshape(10, 200)[:, -50:]
    assert (upright > 0.9).mean() > 0.9
    assert dataset.episode_returns[:10].mean() > -400, "a random policy scores about -1200"


def test_same_seed_same_file(file, tmp_path):
    again = generate_pendulum_log(tmp_path / "again.hdf5", rows=2_100, seed=3)
    other = generate_pendulum_log(tmp_path / "other.hdf5", rows=2_100, seed=4)
    assert load_dataset(again).sha256 == load_dataset(file).sha256
    assert load_dataset(other).sha256 != load_dataset(file).sha256


def test_provenance(file):
    with h5py.File(file) as container:
        metadata = {name: value[()] for name, value in container["metadata"].items()}
    assert metadata["env_id"] == b"Pendulum-v1" and metadata["seed"] == 3
    assert metadata["gymnasium_version"].decode() == gymnasium.__version__
    assert b"swing-up" in metadata["behaviour"]


@pytest.mark.parametrize(("option", "value"), [("rows", 0), ("seed", -1)])
def test_options_out_of_range(tmp_path, option, value):
    with pytest.raises(ConfigError, match=rf"{option}: {value}"):
        generate_pendulum_log(tmp_path / "log.hdf5", **{option: value})
