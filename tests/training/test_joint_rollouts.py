"""Trainings that share a simulator: each is what it is alone, and one that fails there fails alone."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import simtrust
from simtrust.algorithms.agent import Algorithm
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import get_recipe
from simtrust.api import configured
from simtrust.errors import NonFiniteAnswer, SimulatorError
from simtrust.simulators import built_in
from simtrust.simulators.batched import BatchedTask, Diverged
from simtrust.training import side_by_side
from simtrust.training.callbacks import Callback, CallbackError
from simtrust.training.diagnosis import NonFiniteError
from simtrust.training.fleet import EXPLORE, Fleet, act_as_one, act_one_by_one, seed_keys
from simtrust.training.loop import beginning, going_on
from simtrust.training.side_by_side import train_side_by_side

ROUND = 20
OPTIONS = {
    "hidden_sizes": (8,),
    "batch_size": 8,
    "classifier_hidden_sizes": (8,),
    "classifier_batch_size": 8,
    "rollout_steps": ROUND,
    "checkpoint_every": 2 * ROUND,
    "evaluate_every": 0,
    "evaluation_episodes": 1,
    "buffer_capacity": 100,
    "steps": 5 * ROUND,
    "seeds": 2,
    "normalise_observations": True,
}
SHIFTS = ("gravity=2", "friction=0.3", "joint-noise=1")
EPISODE = 35
"""Steps after which an episode is truncated: in the midst of a round."""


@pytest.fixture(scope="module", autouse=True)
def short_episodes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built_in, "MAX_EPISODE_STEPS", EPISODE)
        yield


FLEETS: dict[str, Fleet] = {}


def fleet_of(algorithm: Algorithm) -> Fleet:
    """One for all runs of the same sizes: to trace a fleet's programs takes longer than to train."""
    return FLEETS.setdefault(str(algorithm.shape()), Fleet(algorithm))


@pytest.fixture(autouse=True)
def few_fleets(monkeypatch):
    monkeypatch.setattr(side_by_side, "Fleet", fleet_of)


def options_of(record: Callable[..., Path], folder: Path, name: str) -> list[dict]:
    """Three runs in other shifts, of other seeds, logs and so other scalings."""
    return [
        {
            **OPTIONS,
            "sim": name,
            "shifts": (shift,),
            "first_seed": 3 * index,
            "real": str(record(folder / f"{index}.hdf5", name, index)),
        }
        for index, shift in enumerate(SHIFTS)
    ]


@pytest.fixture(scope="module")
def cheetahs(record_built_in, tmp_path_factory) -> list[dict]:
    return options_of(record_built_in, tmp_path_factory.mktemp("logs"), "HalfCheetah-v5")


@pytest.fixture(scope="module")
def alone(cheetahs, tmp_path_factory) -> list[Path]:
    return train_alone(cheetahs, tmp_path_factory.mktemp("alone"))


def begin(directory: Path, options: dict, callbacks=()):
    config, command = configured("h2o", out=directory, **options)
    return partial(beginning, config, command=command, callbacks=callbacks)


def run(begin) -> Path:
    with begin(fleet_of=fleet_of) as training:
        return training.run(quiet=True).directory


def train_alone(options: list[dict], folder: Path) -> list[Path]:
    return [run(begin(folder / str(index), each)) for index, each in enumerate(options)]


def train_together(options: list[dict], folder: Path):
    runs = {str(index): begin(folder / str(index), each) for index, each in enumerate(options)}
    return list(train_side_by_side(runs, quiet=True).values())


def metrics(directory: Path) -> bytes:
    return (directory / "metrics.jsonl").read_bytes()


def assert_same(outcome, directory: Path) -> None:
    assert isinstance(outcome, simtrust.RunResult), outcome
    assert metrics(outcome.directory) == metrics(directory)
    runs = [json.loads((each / "result.json").read_text())["runs"] for each in (outcome.directory, directory)]
    assert runs[0] == runs[1]


@pytest.fixture
def made(monkeypatch) -> list[list[str]]:
    """The shifts of the runs of every shared simulator that is made."""
    made = []

    def make(name, shifts_of_groups, **options):
        made.append([" ".join(map(str, shifts)) for shifts in shifts_of_groups])
        return make_joint_simulator(name, shifts_of_groups, **options)

    make_joint_simulator = side_by_side.make_joint_simulator
    monkeypatch.setattr(side_by_side, "make_joint_simulator", make)
    return made


ALL = ["friction=0.3"] * 2 + ["gravity=2.0"] * 2 + ["joint-noise=1.0"] * 2


def test_in_one_simulator_each_is_bit_for_bit_what_it_is_alone(cheetahs, alone, made, tmp_path):
    for outcome, directory in zip(train_together(cheetahs, tmp_path), alone, strict=True):
        assert_same(outcome, directory)
    assert made == [ALL]
    assert len({metrics(each) for each in alone}) == 3
    assert b'"simulator_return"' in metrics(alone[0])


def test_those_of_one_lane_share_a_simulator(cheetahs, alone, made, monkeypatch, tmp_path):
    monkeypatch.setattr(side_by_side, "Fleet", partial(Fleet, lanes=2))
    for outcome, directory in zip(train_together(cheetahs, tmp_path), alone, strict=True):
        assert_same(outcome, directory)
    assert made == [["friction=0.3"] * 2 + ["gravity=2.0"] * 2]


def test_episodes_that_end_at_other_times(record_built_in, made, tmp_path):
    options = options_of(record_built_in, tmp_path, "Hopper-v5")
    ours = train_together(options, tmp_path / "together")
    for outcome, directory in zip(ours, train_alone(options, tmp_path / "alone"), strict=True):
        assert_same(outcome, directory)
        lines = [json.loads(line) for line in metrics(directory).splitlines()]
        assert sum(line.get("simulator_return") is not None for line in lines) > 3
    assert made == [ALL]


UNLIKE = {
    "another simulator": {"sim": "Walker2d-v5", "real_env": "HalfCheetah-v5"},
    "two instances a run": {"sim_instances": 2},
    "rollouts twice as long": {"rollout_steps": 2 * ROUND, "steps": 4 * ROUND},
    "a last rollout that is shorter": {"steps": 9 * ROUND // 2},
}


def test_what_is_not_alike_is_not_shared_and_everyone_is_what_it_is_alone(cheetahs, alone, made, tmp_path):
    unlike = [{**cheetahs[2], "seeds": 1, **other} for other in UNLIKE.values()]
    its_own = train_alone(unlike, tmp_path / "alone")
    ours = train_together([*cheetahs[:2], *unlike], tmp_path)
    for outcome, directory in zip(ours, [*alone[:2], *its_own], strict=True):
        assert_same(outcome, directory)
    assert made == [ALL[:4]]


@pytest.mark.parametrize(
    ("other", "shared"), [({"sim": "halfcheetah"}, ALL), ({"seeds": 1}, ALL[:5]), ({"first_seed": 9}, ALL)]
)
def test_names_and_seeds_may_differ(cheetahs, made, tmp_path, other, shared):
    short = [{**each, "steps": ROUND} for each in (*cheetahs[:2], {**cheetahs[2], **other})]
    for outcome in train_together(short, tmp_path):
        assert isinstance(outcome, simtrust.RunResult)
    assert made == [shared]


def test_several_instances_a_run(cheetahs, made, tmp_path):
    options = [{**each, "sim_instances": 2, "steps": 2 * ROUND} for each in cheetahs[:2]]
    ours = train_together(options, tmp_path / "together")
    for outcome, directory in zip(ours, train_alone(options, tmp_path / "alone"), strict=True):
        assert_same(outcome, directory)
    assert made == [ALL[:4]]


class Stopping(Callback):
    """Raises where the lines of a step are written."""

    def __init__(self, step: int, error: type[BaseException]):
        self.step, self.error = step, error

    def on_metrics(self, records):
        if records[0].step == self.step:
            raise self.error


def stopped(directory: Path, options: dict, step: int, error: type[BaseException]) -> Path:
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else CallbackError):
        run(begin(directory, options, [Stopping(step, error)]))
    return directory


def test_a_resumed_one_is_restarted_by_its_own_checkpoints_beside_a_fresh_one(
    cheetahs, alone, made, tmp_path
):
    """It ends first; its instances rest until the others' next checkpoint."""
    resumed = stopped(tmp_path / "0", cheetahs[0], 3 * ROUND, KeyboardInterrupt)
    fresh = {**cheetahs[1], "checkpoint_every": 3 * ROUND, "steps": 7 * ROUND}
    (its_own,) = train_alone([fresh], tmp_path / "alone")
    runs = {"0": partial(going_on, resumed), "1": begin(tmp_path / "1", fresh)}
    ends = train_side_by_side(runs, quiet=True)
    assert_same(ends["0"], alone[0])
    assert_same(ends["1"], its_own)
    assert made == [ALL[:4], ["friction=0.3"] * 2]


FAILS_AT = ROUND + 11
"""A step in the second round, which is between two checkpoints."""


@pytest.fixture
def fail(monkeypatch):
    """``fail(answer, envs, instance)``: a step of the simulator of so many envs goes wrong."""
    step = BatchedTask.step

    def fail(answer, envs: int, instance: int, at: int = FAILS_AT):
        steps = []

        def failing(task, actions):
            answered = step(task, actions)
            if task.num_envs == envs:
                steps.append(task)
            return answer(answered, instance) if len(steps) == at and task is steps[-1] else answered

        monkeypatch.setattr(BatchedTask, "step", failing)

    return fail


def diverges(answer, instance):
    raise Diverged(np.array([instance]))


def becomes_nan(answer, instance):
    answer[1][instance] = np.nan
    return answer


def said(error: BaseException, directory: Path) -> str:
    return "\n".join([str(error), *error.__notes__]).replace(str(directory), "DIR")


@pytest.mark.parametrize("answer", [diverges, becomes_nan])
def test_one_whose_instance_fails_says_what_it_says_alone_and_the_others_finish(
    cheetahs, made, fail, tmp_path, answer
):
    """The second seed of the second that is given, whose instances are the first of the shared simulator."""
    fail(answer, 2, 1)
    with pytest.raises(SimulatorError) as its_own:
        train_alone(cheetahs[1:2], tmp_path / "alone")
    fail(answer, 6, 1)
    ours = train_together(cheetahs, tmp_path)
    failed = ours[1]
    assert isinstance(failed, SimulatorError) and type(failed) is its_own.type
    assert said(failed, tmp_path / "1") == said(its_own.value, tmp_path / "alone" / "0")
    assert f"(friction=0.3), instance 1 of 2, step {FAILS_AT} since its reset, action [" in str(failed)
    assert f"The training state at step {ROUND} is saved" in failed.__notes__[-1]
    fail(answer, 0, 0)
    for index in (0, 2):
        goes_on_as_if_resumed(ours[index], cheetahs[index], tmp_path / f"resumed{index}")
    assert made == [ALL, ALL[2:]]


def goes_on_as_if_resumed(outcome, options: dict, folder: Path) -> None:
    """As one that was stopped before the second round."""
    directory = stopped(folder, options, ROUND, ValueError)
    run(partial(going_on, directory))
    assert_same(outcome, directory)


def bundle(directory: Path) -> tuple[dict, dict[str, np.ndarray]]:
    (folder,) = directory.glob("diagnosis-*")
    text = (folder / "diagnosis.json").read_text().replace(str(directory), "DIR")
    with np.load(folder / "batch.npz", allow_pickle=False) as arrays:
        return json.loads(text), dict(arrays)


@pytest.mark.parametrize("instance", [2, 5])
def test_a_reward_that_is_nan_is_diagnosed_as_its_own(cheetahs, alone, fail, tmp_path, instance):
    index, seed, within = (0, 0, 0) if instance == 2 else (2, 7, 1)
    fail(becomes_nan, 2, within)
    with pytest.raises(NonFiniteAnswer) as its_own:
        train_alone(cheetahs[index : index + 1], tmp_path / "alone")
    fail(becomes_nan, 6, instance)
    ours = train_together(cheetahs, tmp_path)[index]
    assert isinstance(ours, NonFiniteAnswer)
    assert (ours.instance, ours.what) == (its_own.value.instance, "reward") == (within, "reward")
    (mine, my_arrays), (its, its_arrays) = bundle(tmp_path / str(index)), bundle(tmp_path / "alone" / "0")
    assert mine["seed"] == its["seed"] == seed
    assert mine["first_bad"] == its["first_bad"] and mine["computed_before"] == its["computed_before"]
    assert my_arrays.keys() == its_arrays.keys() and len(its_arrays) == 3
    for name, value in its_arrays.items():
        np.testing.assert_array_equal(my_arrays[name], value)


def test_a_policy_that_acts_by_nan_stops_its_training_alone(cheetahs, monkeypatch, tmp_path):
    """The second seed of the third that is given, whose runs are the last of the shared simulator."""
    actors = Fleet.actors

    def poisoned(fleet, agents, keys):
        act, keys = actors(fleet, agents, keys)

        def acting(observation, keys, step):
            action = np.array(act(observation, keys, step))
            if len(action) == 6 and step[0] == FAILS_AT:
                action[5, 0, 3] = np.nan
            return action

        return acting, keys

    monkeypatch.setattr(Fleet, "actors", poisoned)
    first, second, third = train_together(cheetahs, tmp_path)
    assert isinstance(first, simtrust.RunResult) and isinstance(second, simtrust.RunResult)
    assert isinstance(third, NonFiniteError)
    assert "action of the policy of seed 7 became nan" in str(third)
    assert "(joint-noise=1.0), instance 1 of 2" in str(third)
    found, arrays = bundle(tmp_path / "2")
    assert found["first_bad"]["first_index"] == [0, 3]
    assert arrays["policy/action of the policy"].shape == (1, 6)


def test_one_that_has_ended_can_no_longer_fail(cheetahs, made, fail, tmp_path):
    options = [{**cheetahs[0], "steps": 3 * ROUND}, cheetahs[1]]
    fail(diverges, 4, 2, at=3 * ROUND + 5)
    for outcome in train_together(options, tmp_path):
        assert isinstance(outcome, simtrust.RunResult)
    assert made == [ALL[:4], ALL[:2]]


def test_where_nobody_can_tell_whose_fault_it_is_all_fail(cheetahs, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise SimulatorError("no model")

    monkeypatch.setattr(side_by_side, "make_joint_simulator", refuse)
    assert [str(end) for end in train_together(cheetahs, tmp_path)] == ["no model"] * 3


def test_all_actors_in_one_program_as_on_a_gpu_do_nearly_what_each_does_alone():
    """Each with its own keys, at its own step."""
    algorithm = Algorithm(
        get_recipe("sac"),
        AlgorithmOptions(hidden_sizes=(16,)),
        observation_size=17,
        action_size=6,
        next_state_noise=jnp.zeros((17, 17)),
    )
    fleet, runs, step = Fleet(algorithm), ([0, 1], [2], [3, 4]), np.array([40, 40, 0, 7, 7])
    observation = np.random.default_rng(0).normal(size=(5, 3, 17)).astype(np.float32)
    agents, keys = [fleet.create(each) for each in runs], [seed_keys(each, EXPLORE) for each in runs]
    for way, tolerance in ((act_one_by_one, 0.0), (act_as_one, 1e-5)):
        act, joined = way(fleet, agents, keys)
        ours = act(observation, joined, step)
        for own, key, here in zip(agents, keys, runs, strict=True):
            theirs = fleet.actor(own)(observation[here], key, step[here[0]])
            np.testing.assert_allclose(ours[here], theirs, atol=tolerance)


def test_in_one_program_as_on_a_gpu_each_collects_nearly_what_it_does_alone(
    cheetahs, alone, monkeypatch, tmp_path
):
    """In a first round, so that the first losses are nearly the same; later, roundings grow."""
    monkeypatch.setattr(side_by_side, "Fleet", partial(Fleet, act_all=act_as_one))
    short = [{**each, "steps": ROUND} for each in cheetahs]
    for outcome, directory in zip(train_together(short, tmp_path), alone, strict=True):
        assert isinstance(outcome, simtrust.RunResult)
        ours, theirs = (
            [json.loads(line) for line in metrics(each).splitlines()] for each in (outcome[0], directory)
        )
        for mine, its in zip(ours, theirs, strict=False):
            assert mine["seed"] == its["seed"]
            for name in ("critic_loss", "actor_loss", "classifier_loss_sas"):
                np.testing.assert_allclose(mine[name], its[name], rtol=1e-3)
