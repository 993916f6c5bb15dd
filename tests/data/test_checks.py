"""A log against a simulator's spaces, and its summary."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from simtrust.data import check_against_simulator, describe, load_dataset
from simtrust.errors import DataError, SimulatorError

OBSERVATIONS = Box(-np.inf, np.inf, (2,), np.float32)
ACTIONS = Box(-1, 1, (3,), np.float32)


@pytest.fixture
def dataset(log, write):
    return load_dataset(write(log()))


def test_fitting_log_passes(dataset):
    check_against_simulator(dataset, OBSERVATIONS, ACTIONS, "Toy-v0")


@pytest.mark.parametrize(
    ("observation_space", "action_space", "words"),
    [
        (Box(-1, 1, (5,)), ACTIONS, r"key 'observations', row 0: is 2 wide where simulator 'Toy-v0' has 5"),
        (OBSERVATIONS, Box(-1, 1, (1,)), r"key 'actions', row 0: is 3 wide where simulator 'Toy-v0' has 1"),
    ],
)
def test_widths_differ(dataset, observation_space, action_space, words):
    with pytest.raises(DataError, match=rf"log\.hdf5: {words}\. Remedy: "):
        check_against_simulator(dataset, observation_space, action_space, "Toy-v0")


def test_action_outside_bounds_is_named_by_the_rows_of_the_file(log, write):
    arrays = log()
    del arrays["next_observations"]
    arrays["actions"][5, 2] = -1.5
    dataset = load_dataset(write(arrays))
    assert dataset.transitions.action[4, 2] == -1.5, "row 3 is dropped on loading"
    with pytest.raises(
        DataError, match=r"key 'actions', row 5, dimension 2: value -1.5 .*Remedy: "
    ) as caught:
        check_against_simulator(dataset, OBSERVATIONS, ACTIONS, "Toy-v0")
    assert "[-1.0, 1.0] of simulator 'Toy-v0'" in str(caught.value)


@pytest.mark.parametrize(("excess", "refused"), [(0.5e-5, False), (4e-5, True)])
def test_tolerance_is_a_share_of_the_range(log, write, excess, refused):
    arrays = log()
    arrays["actions"] *= 100
    arrays["actions"][0, 0] = 100 * (1 + 2 * excess)
    arguments = (load_dataset(write(arrays)), OBSERVATIONS, Box(-100, 100, (3,)), "Toy-v0")
    if not refused:
        check_against_simulator(*arguments)
        return
    with pytest.raises(DataError, match=r"key 'actions', row 0, dimension 0"):
        check_against_simulator(*arguments)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "words"),
    [
        (Discrete(4), ACTIONS, r"observation space is Discrete\(4\)"),
        (Dict(position=OBSERVATIONS), ACTIONS, r"observation space is Dict"),
        (Box(0, 255, (8, 8, 3), np.uint8), ACTIONS, r"observation space is Box"),
        (Box(-1, 1, (4, 2)), ACTIONS, r"VectorEnv, pass the single_"),
        (OBSERVATIONS, Discrete(2), r"action space is Discrete\(2\)"),
        (OBSERVATIONS, Box(0, 3, (3,), np.int32), r"action space is Box.*floats"),
        (OBSERVATIONS, Box(-1, np.inf, (3,)), r"bounds \[-1.0, inf\] in dimension 0"),
        (OBSERVATIONS, Box(np.array([-1, 0, 0]), np.array([1, 1, 0]), dtype=np.float32), r"in dimension 2"),
    ],
)
def test_unsupported_spaces(dataset, observation_space, action_space, words):
    with pytest.raises(SimulatorError, match=rf"simulator 'Toy-v0'.*{words}.*Remedy: "):
        check_against_simulator(dataset, observation_space, action_space, "Toy-v0")


def test_describe(dataset):
    assert describe(dataset) == (
        f"{dataset.source}: 9 rows in 3 episodes, of which 1 terminated and 2 were cut by a time limit or"
        " the end of the recording. Observations are 2 wide, actions 3. Mean return 15.0 (from 10.0 to"
        " 18.0), mean length 3.0 (from 2 to 4)."
    )


def test_real_log_fits_its_task(real_log):
    observation_space, action_space = Box(-np.inf, np.inf, (17,), np.float64), Box(-1, 1, (6,), np.float32)
    check_against_simulator(load_dataset(real_log), observation_space, action_space, "HalfCheetah-v5")
