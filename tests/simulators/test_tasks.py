"""The built-in tasks equal Gymnasium's, bit for bit, and restart only when and where told."""

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from simtrust.errors import SimulatorError
from simtrust.simulators import make_simulator
from simtrust.simulators.batched import Diverged
from simtrust.simulators.built_in import BUILT_IN, find_built_in
from simtrust.simulators.model_files import load_model_file
from simtrust.simulators.task_specs import TASKS
from simtrust.simulators.tasks import MujocoTask, model_file

SEEDS = [3, 11, 0]


def test_every_bit_is_gymnasiums_through_whole_episodes(task_name, references, first_difference):
    simulator = make_simulator(task_name, num_envs=3)
    difference, ended = first_difference(simulator, references(task_name, 3), seeds=SEEDS, steps=1050)
    assert difference is None
    if task_name == "HalfCheetah-v5":
        assert ended == {"terminated": 0, "truncated": 3}
    else:
        assert ended["terminated"] >= 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_control_cost_keeps_the_precision_of_the_action(task_name, dtype, references, first_difference):
    simulator = make_simulator(task_name, num_envs=1)
    envs = references(task_name, 1)
    assert first_difference(simulator, envs, seeds=[5], steps=100, dtype=dtype)[0] is None


WRONG = {
    "frame_skip": 3,
    "control_weight": 0.09,
    "reset_scale": 0.11,
    "velocity_noise": lambda generator, scale, size: generator.uniform(0, scale, size),
    "observe": lambda physics: np.concatenate((physics.position[:, 1:], 2 * physics.velocity), axis=1),
    "x_position": lambda physics: physics.position[:, 1],
    "healthy": lambda physics: np.zeros(len(physics.position), bool),
    "contact_weight": 1e-3,
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_spec_is_told_apart(field, references, first_difference):
    name = "Ant-v5" if field == "contact_weight" else "Hopper-v5"
    spec = dataclasses.replace(TASKS[name], **{field: WRONG[field]})
    task = MujocoTask(spec, num_envs=2)
    difference, _ = first_difference(task, references(name, 2), seeds=[1, 2], steps=200)
    assert difference is not None


def contact_forces_of_the_new_state(task):
    """Plausible and wrong: Gymnasium's lag behind the state, as do all its derived quantities."""
    for index, force in enumerate(task._physics.contact_force):
        data = task.batch.get_data(index)
        mujoco.mj_forward(task.model, data)
        mujoco.mj_rnePostConstraint(task.model, data)
        np.clip(data.cfrc_ext, -1.0, 1.0, out=force)


def test_ant_observes_contact_forces_of_the_last_substep(references, first_difference, monkeypatch):
    simulator = make_simulator("Ant", num_envs=2)
    simulator.reset(seed=0)
    contacts = np.stack([simulator.step(np.zeros((2, 8)))[0][:, 27:] for _ in range(40)])
    assert contacts.any(axis=(0, 2)).all() and np.abs(contacts).max() == 1.0
    monkeypatch.setattr(MujocoTask, "_compute_contact_forces", contact_forces_of_the_new_state)
    difference, _ = first_difference(simulator, references("Ant-v5", 2), seeds=[1, 2], steps=100)
    assert difference is not None


def test_time_limit_truncates_and_does_not_terminate():
    simulator = make_simulator("HalfCheetah", num_envs=2, max_episode_steps=3)
    simulator.reset(seed=0)
    flags = [simulator.step(np.zeros((2, 6)))[2:4] for _ in range(3)]
    assert [truncated.tolist() for _, truncated in flags] == [[False] * 2, [False] * 2, [True] * 2]
    assert not any(terminated.any() for terminated, _ in flags)


def test_each_instance_has_its_own_time_limit():
    simulator = make_simulator("HalfCheetah", num_envs=2, max_episode_steps=4)
    simulator.reset(seed=0)
    for _ in range(2):
        simulator.step(np.zeros((2, 6)))
    simulator.reset(options={"reset_mask": np.array([True, False])})
    for _ in range(2):
        truncated = simulator.step(np.zeros((2, 6)))[3]
    assert truncated.tolist() == [False, True]


def test_a_masked_reset_leaves_the_others_alone(task_name):
    simulator = make_simulator(task_name, num_envs=3)
    actions = np.full((3, *simulator.single_action_space.shape), 0.1)
    simulator.reset(seed=SEEDS)
    observation = simulator.step(actions)[0]
    position, velocity = simulator.state
    restarted, _ = simulator.reset(seed=[7, 7, 7], options={"reset_mask": np.array([False, True, False])})
    new_position, new_velocity = simulator.state
    others = [0, 2]
    assert np.array_equal(restarted[others], observation[others])
    assert np.array_equal(new_position[others], position[others])
    assert np.array_equal(new_velocity[others], velocity[others])
    assert not np.array_equal(restarted[1], observation[1])
    assert np.array_equal(restarted[1], make_simulator(task_name, num_envs=1).reset(seed=7)[0][0])


def test_an_integer_seeds_the_instances_one_after_another(task_name):
    simulator = make_simulator(task_name, num_envs=3)
    assert np.array_equal(simulator.reset(seed=4)[0], simulator.reset(seed=[4, 5, 6])[0])
    assert np.array_equal(simulator.reset(seed=np.int64(4))[0], simulator.reset(seed=[4, 5, 6])[0])


def test_observations_already_returned_do_not_change_later(task_name):
    simulator = make_simulator(task_name, num_envs=2)
    actions = np.full((2, *simulator.single_action_space.shape), 0.3)
    first, _ = simulator.reset(seed=0)
    kept = first.copy()
    second = simulator.step(actions)[0]
    kept_second = second.copy()
    simulator.step(actions)
    assert np.array_equal(first, kept) and np.array_equal(second, kept_second)


def test_set_state_continues_as_mujoco_does_from_that_state(task_name):
    simulator = make_simulator(task_name, num_envs=2)
    actions = np.full((2, *simulator.single_action_space.shape), 0.2)
    simulator.reset(seed=0)
    for _ in range(5):
        simulator.step(actions)
    position, velocity = simulator.state
    simulator.set_state(position, velocity)
    simulator.step(actions)
    spec = TASKS[task_name]
    model = load_model_file(model_file(spec), task_name)
    for index in range(2):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = position[index], velocity[index]
        mujoco.mj_forward(model, data)
        data.ctrl[:] = actions[index]
        mujoco.mj_step(model, data, nstep=spec.frame_skip)
        assert np.array_equal(simulator.state[0][index], data.qpos)
        assert np.array_equal(simulator.state[1][index], data.qvel)


def test_set_state_forgets_what_was_before(task_name):
    simulator = make_simulator(task_name, num_envs=1, max_episode_steps=30)
    actions = np.full((1, *simulator.single_action_space.shape), 0.2)
    simulator.reset(seed=0)
    position, velocity = simulator.state
    outcomes = []
    for steps_before in (0, 20):
        for _ in range(steps_before):
            simulator.step(actions)
        observation = simulator.set_state(position, velocity)
        outcomes.append([observation, *(simulator.step(actions)[0] for _ in range(5))])
    assert np.array_equal(*outcomes)


def test_set_state_refuses_wrong_shapes_and_nan():
    simulator = make_simulator("Hopper", num_envs=2)
    simulator.reset(seed=0)
    position, velocity = simulator.state
    with pytest.raises(SimulatorError, match=r"position.*shape \(2, 6\), got shape \(1, 6\)"):
        simulator.set_state(position[:1], velocity)
    velocity[1, 2] = np.nan
    with pytest.raises(SimulatorError, match="velocity to set must be finite"):
        simulator.set_state(position, velocity)


def test_a_diverged_instance_is_an_error_not_a_silent_restart():
    simulator = make_simulator("HalfCheetah", num_envs=2)
    simulator.reset(seed=0)
    position, velocity = simulator.state
    velocity[1, 3] = 1e11
    simulator.set_state(position, velocity)
    with pytest.raises(SimulatorError, match=r"instance 1 of 2, step 1 .* diverged") as caught:
        simulator.step(np.zeros((2, 6)))
    assert isinstance(caught.value.__cause__, Diverged)
    simulator.reset(seed=0)
    simulator.step(np.zeros((2, 6)))


def test_spaces_and_names():
    simulator = make_simulator("walker2D", num_envs=2)
    assert simulator.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert simulator.single_observation_space.shape == (17,)
    assert simulator.action_space.shape == (2, 6)
    assert str(simulator) == "Walker2d-v5, 2 instances"
    assert find_built_in("halfcheetah-V5") is BUILT_IN["HalfCheetah-v5"]
    assert find_built_in("HalfCheetah-v4") is None


def test_loading_leaves_no_log_file(task_name):
    make_simulator(task_name, num_envs=1)
    assert list(Path.cwd().iterdir()) == []
