"""A number that is not finite stops the run, is named with what led there, and costs no checkpoint."""

import json
import math
import shutil
from pathlib import Path

import gymnasium
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equinox import tree_at
from gymnasium.spaces import Box
from safetensors.numpy import load_file

import simtrust
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.data.replay import ReplayBuffer
from simtrust.errors import ConfigError, NonFiniteAnswer, RunError
from simtrust.training import running
from simtrust.training.callbacks import Callback
from simtrust.training.checkpoint import CheckpointStore, tree_to_arrays, write_tensors
from simtrust.training.config import TrainConfig
from simtrust.training.diagnosis import NonFiniteError
from simtrust.training.fleet import UPDATE, Fleet, seed_keys
from simtrust.training.setup import prepare

ROUND = 10
TINY = {
    "hidden_sizes": (8,), "batch_size": 8, "classifier_hidden_sizes": (8,), "classifier_batch_size": 8,
    "rollout_steps": ROUND, "checkpoint_every": ROUND, "evaluate_every": 0, "evaluation_episodes": 1,
}  # fmt: skip
EPISODES, LENGTH = 12, 5


class Bounded(gymnasium.Env):
    """Three observations in [-1, 1], an action in [-2, 2], episodes of five steps; one reward may be huge."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, at: int | None = None, reward: float = 0.0):
        self.at, self.reward, self.total, self.steps = at, reward, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        reward = self.reward if self.total == self.at else float(-abs(action[0]))
        self.steps, self.total = self.steps + 1, self.total + 1
        observation = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return observation, reward, False, self.steps == LENGTH, {}


@pytest.fixture(scope="module", autouse=True)
def simulators():
    names = {"Bounded-v0": {}, "Huge-v0": {"at": 13, "reward": 1e30}, "Beyond-v0": {"at": 13, "reward": 1e39}}
    for name, options in names.items():
        gymnasium.register(name, lambda options=options: Bounded(**options))
    yield
    for name in names:
        del gymnasium.registry[name]


def write_log(path: Path, planted: int, reward: float) -> Path:
    """Twelve episodes of five rows, of which the fifth is dropped: nobody recorded what follows it."""
    random, rows = np.random.default_rng(0), EPISODES * LENGTH
    rewards = random.uniform(-1, 0, rows)
    rewards[planted] = reward
    with h5py.File(path, "w") as file:
        file["observations"] = random.uniform(-1, 1, (rows, 3)).astype(np.float32)
        file["actions"] = random.uniform(-2, 2, (rows, 1)).astype(np.float32)
        file["rewards"] = rewards.astype(np.float32)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(rows) % LENGTH == LENGTH - 1
    return path


def train(out: Path, recipe: str = "sac", *, sim: str = "Bounded-v0", steps: int = 3 * ROUND, **options):
    given = {"sim": sim, "real_env": "Bounded-v0", "steps": steps, "out": out, **TINY, **options}
    return simtrust.train(recipe, quiet=True, **given)


def diagnosis_of(error: NonFiniteError) -> tuple[dict, dict[str, np.ndarray]]:
    assert error.bundle is not None
    found = json.loads((error.bundle / "diagnosis.json").read_text())
    assert found["format"] == 1
    assert f"became {found['first_bad']['first_value']}" in str(error)
    assert found["first_bad"]["name"] in str(error)
    assert str(error.bundle) in str(error)
    assert str(error).partition(". What led")[0] in (error.bundle / "README.txt").read_text()
    batch = error.bundle / "batch.npz"
    if not batch.exists():
        return found, {}
    with np.load(batch, allow_pickle=False) as arrays:
        return found, dict(arrays)


def saved(directory: Path) -> int | None:
    manifest = CheckpointStore(directory / "checkpoints").latest()
    return None if manifest is None else manifest.step


def assert_checkpoints_are_finite(directory: Path) -> None:
    for path in (directory / "checkpoints").glob("*.safetensors"):
        for name, array in load_file(path).items():
            assert np.isfinite(array).all(), f"{path} {name}"


def drawn(seed: int, update: int, rows: int, count: int) -> np.ndarray:
    """Which rows on the device an update draws from the log, written down once more."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), update)
    batch_key, _ = jax.random.split(key)
    real_key, _, _ = jax.random.split(batch_key, 3)
    return np.asarray(jax.random.randint(real_key, (count,), 0, rows))


@pytest.mark.parametrize(("planted", "update", "seed"), [(46, 21, 0), (53, 8, 1)])
def test_a_huge_reward_in_the_log_is_found_in_its_row_of_the_file(tmp_path, planted, update, seed):
    """The squared error overflows: in the first update, of either seed, that draws the row."""
    log = write_log(tmp_path / "log.hdf5", planted, 1e30)
    options = {"real": str(log), "sim": "Bounded-v0", "real_env": "Bounded-v0"}
    on_device = np.asarray(prepare(TrainConfig(recipe="h2o_reg_dr", **options)).log.rows)
    (row,) = np.flatnonzero(on_device[:, 4] > 1e29)
    dropped_before = planted // LENGTH
    assert row != planted - dropped_before, "held-out rows have moved"
    draws = {(u, s): drawn(s, u, len(on_device), 4) for u in range(3 * ROUND) for s in (0, 1)}
    assert next(each for each, rows in draws.items() if row in rows) == (update, seed)
    places = np.flatnonzero(draws[update, seed] == row)

    with pytest.raises(NonFiniteError) as caught:
        train(tmp_path / "run", "h2o_reg_dr", real=str(log), seeds=2)
    found, arrays = diagnosis_of(caught.value)
    assert (found["step"], found["seed"]) == (update, seed)
    assert found["first_bad"]["name"] == "loss term critic_bellman_real, row by row"
    assert found["first_bad"]["not_finite"] == 2 * len(places), "of both critics"
    assert [each["row_of_batch"] for each in found["rows"]] == places.tolist()
    assert {(each["log_row"], each["episode"]) for each in found["rows"]} == {(planted, planted // LENGTH)}
    assert f"row {planted} of the log, episode {planted // LENGTH}" in str(caught.value)
    with h5py.File(log) as file:
        rows = arrays["real/log_row"]
        np.testing.assert_array_equal(arrays["real/reward"], file["rewards"][:][rows])
        np.testing.assert_array_equal(arrays["real/observation"], file["observations"][:][rows])
    assert arrays["computed/Q(s, a), log rows"].shape == (2, 4)
    names = [each["name"] for each in found["computed_before"]]
    assert names.index("reward, log rows") < names.index("Q(s, a), log rows")
    assert all(math.isfinite(each["max"]) for each in found["computed_before"])
    assert found["last_good_checkpoint"] == update // ROUND * ROUND == (saved(tmp_path / "run") or 0)
    assert_checkpoints_are_finite(tmp_path / "run")


def test_a_simulators_huge_reward_is_found_by_its_step(tmp_path):
    with pytest.raises(NonFiniteError) as caught:
        train(tmp_path / "run", sim="Huge-v0", steps=10 * ROUND)
    found, arrays = diagnosis_of(caught.value)
    assert found["first_bad"]["name"] == "loss term critic_bellman_sim, row by row"
    assert {each["step"] for each in found["rows"]} == {13}
    assert {each["buffer_row"] for each in found["rows"]} == {13}
    places = [each["row_of_batch"] for each in found["rows"]]
    np.testing.assert_array_equal(np.flatnonzero(arrays["sim/reward"] > 1e29), places)
    assert "the simulated row of step 13" in str(caught.value)


def test_a_row_is_found_where_the_ring_was_overwritten(tmp_path):
    """Of a ring of 10 rows, the simulator's step 13 is in slot 3."""
    with pytest.raises(NonFiniteError) as caught:
        train(tmp_path / "run", sim="Huge-v0", steps=10 * ROUND, buffer_capacity=ROUND)
    found, _ = diagnosis_of(caught.value)
    assert {(each["buffer_row"], each["step"]) for each in found["rows"]} == {(3, 13)}


def test_a_reward_beyond_float32_is_found_when_it_is_collected(tmp_path):
    """1e39 is finite where the simulator makes it."""
    with pytest.raises(NonFiniteError) as caught:
        train(tmp_path / "run", sim="Beyond-v0")
    found, arrays = diagnosis_of(caught.value)
    assert (found["first_bad"]["name"], found["step"]) == ("reward of a simulated row", 13)
    assert arrays["rollout/reward"][3] == 1e39
    assert arrays["rollout/step"][3] == 13
    assert caught.value.bundle == tmp_path / "run" / "diagnosis-13"
    assert saved(tmp_path / "run") == 10


def rewrite_state(directory: Path, key: str, change) -> None:
    """Change an array of the last checkpoint, as nothing but a hand can."""
    store = CheckpointStore(directory / "checkpoints")
    manifest = store.latest()
    arrays = load_file(store.directory / manifest.state.name)
    arrays[key] = change(arrays[key].copy())
    stored = write_tensors(store.directory, manifest.state.name, arrays)
    path = store.directory / f"checkpoint-{manifest.step:012d}.json"
    content = json.loads(path.read_text())
    content["state"]["sha256"] = stored.sha256
    path.write_text(json.dumps(content))


class Interrupting(Callback):
    def __init__(self, at: int):
        self.at = at

    def on_metrics(self, records):
        if records[0].step == self.at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """Two seeds, stopped in their third round; the checkpoint is that of step 20."""
    directory = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        train(directory, seeds=2, callbacks=[Interrupting(30)], steps=4 * ROUND)
    assert saved(directory) == 20
    return directory


@pytest.fixture
def interrupted(stopped, tmp_path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def poison(array: np.ndarray) -> np.ndarray:
    array[1].flat[3] = np.nan
    return array


def test_a_poisoned_checkpoint_names_seed_and_tensor(interrupted):
    rewrite_state(interrupted, ".critic.members.layers[1].weight", poison)
    before = {p: p.read_bytes() for p in (interrupted / "checkpoints").iterdir()}
    with pytest.raises(NonFiniteError) as caught:
        simtrust.resume(interrupted, quiet=True)
    found, _ = diagnosis_of(caught.value)
    assert (found["seed"], found["other_seeds"]) == (1, [])
    assert found["first_bad"]["name"] == "critic.members.layers[1].weight in the state"
    assert (found["first_bad"]["not_finite"], found["first_bad"]["nan"]) == (1, 1)
    assert {p: p.read_bytes() for p in (interrupted / "checkpoints").iterdir()} == before
    (interrupted / "checkpoints" / "checkpoint-000000000020.json").unlink()
    assert "delete" in str(caught.value)
    assert "checkpoint-000000000020.json" in str(caught.value)
    assert simtrust.resume(interrupted, quiet=True).summary["steps"] == 40


@pytest.mark.parametrize("optimiser", [False, True])
def test_poison_in_the_midst_of_a_run_is_named_before_what_comes_of_it(tmp_path, monkeypatch, optimiser):
    """In the state before a round, of seed 1 of 2; an infinite Adam moment shows in no loss."""
    begin = running.Training._round

    def poisoned(training):
        if training.step == ROUND:
            where = lambda a: (  # noqa: E731
                a.critic_optimiser[0].nu.members.layers[0].bias
                if optimiser
                else a.critic.members.layers[0].bias
            )
            leaf = where(training.agents)
            training.agents = tree_at(where, training.agents, leaf.at[1, 0, 2].set(jnp.inf))
        yield from begin(training)

    monkeypatch.setattr(running.Training, "_round", poisoned)
    with pytest.raises(NonFiniteError) as caught:
        train(tmp_path / "run", seeds=2)
    found, _ = diagnosis_of(caught.value)
    name = "critic_optimiser[0].nu.members.layers[0].bias" if optimiser else "critic.members.layers[0].bias"
    assert found["first_bad"]["name"] == f"{name} before the update"
    assert (found["seed"], found["step"], found["where"]) == (1, 10, "update 10")
    assert (found["first_bad"]["not_finite"], found["first_bad"]["first_index"]) == (1, [0, 2])
    assert found["rows"] == []
    assert saved(tmp_path / "run") == 10
    assert_checkpoints_are_finite(tmp_path / "run")


def test_an_action_that_is_not_finite_is_the_policys_and_not_the_simulators_fault(interrupted):
    """Finite weights of seed 1 that overflow: inf − inf in the actor's last layer."""

    def overflow(array):
        array[1] = 3e38
        return array

    def alternate(array):
        array[1] = np.where(np.arange(8) % 2, 1.0, -1.0)[:, None]
        return array

    rewrite_state(interrupted, ".actor.network.layers[0].weight", overflow)
    rewrite_state(interrupted, ".actor.network.layers[0].bias", overflow)
    rewrite_state(interrupted, ".actor.network.layers[1].weight", alternate)
    with pytest.raises(NonFiniteError) as caught:
        simtrust.resume(interrupted, quiet=True)
    found, arrays = diagnosis_of(caught.value)
    assert (found["seed"], found["first_bad"]["name"]) == (1, "action of the policy")
    assert np.isfinite(arrays["policy/observation, as the policy reads it"]).all()
    assert saved(interrupted) == 20


DIVERGING = {"target_entropy": 1e6, "steps": 56, "rollout_steps": 28, "checkpoint_every": 28}


def test_divergence_leaves_a_bundle_and_a_lower_rate_finishes(tmp_path):
    """No entropy is that large: Adam adds the rate to log λ at every update, until the actor's gradient,
    which is of the size of λ, has a square beyond float32."""
    directory = tmp_path / "run"
    with pytest.raises(NonFiniteError) as caught:
        train(directory, learning_rate=1.0, **DIVERGING)
    found, _ = diagnosis_of(caught.value)
    assert f"go on from there with a lower rate: simtrust resume {directory} --learning-rate 0.1" in str(
        caught.value
    )
    assert found["learning_rate"] == 1.0
    at = saved(directory)
    assert found["last_good_checkpoint"] == at == 28
    assert 42 <= found["step"] < 56, "in the second block of a round that is drawn in two"
    assert "actor" in found["first_bad"]["name"]
    assert f"became inf in update {found['step']}. The last good" in str(caught.value), "no row is blamed"
    before = {each["name"]: each for each in found["computed_before"]}
    assert before["log_temperature before the update"]["max"] == pytest.approx(found["step"], abs=0.1)
    assert_checkpoints_are_finite(directory)

    with pytest.raises(NonFiniteError) as again:
        simtrust.resume(directory, quiet=True)
    assert diagnosis_of(again.value)[0]["first_bad"] == found["first_bad"], "it fails again, likewise"
    assert again.value.bundle == caught.value.bundle.with_name(f"{caught.value.bundle.name}-2")

    result = simtrust.resume(directory, learning_rate=1e-4, quiet=True)
    assert result.summary["steps"] == 56
    change = {"step": at, "learning_rate": 1e-4, "was": 1.0}
    (recorded,) = result.summary["changes"]
    assert recorded == {**change, "command": f"simtrust.resume({str(directory)!r}, learning_rate=0.0001)"}
    assert json.loads((directory / "result.json").read_text())["changes"] == [recorded]
    stored = json.loads((directory / "config.json").read_text())
    assert (stored["algorithm"]["learning_rate"], stored["changes"]) == (1e-4, [recorded])
    assert_checkpoints_are_finite(directory)


def state(directory: Path) -> bytes:
    return (directory / "checkpoints" / "state-000000000040.safetensors").read_bytes()


def test_another_rate_stays_and_the_same_rate_changes_nothing(interrupted, tmp_path):
    """Plain, with the same rate, with another one, and with another one killed and resumed plainly."""
    copies = [Path(shutil.copytree(interrupted, tmp_path / name)) for name in ("same", "other", "killed")]
    same, other, killed = copies
    simtrust.resume(interrupted, quiet=True)
    assert "changes" not in simtrust.resume(same, quiet=True, learning_rate=3e-4).summary
    simtrust.resume(other, quiet=True, learning_rate=1e-3)
    with pytest.raises(KeyboardInterrupt):
        simtrust.resume(killed, quiet=True, learning_rate=1e-3, callbacks=[Interrupting(30)])
    assert saved(killed) == 20
    result = simtrust.resume(killed, quiet=True)
    assert state(interrupted) == state(same) != state(other) == state(killed)
    assert (same / "metrics.jsonl").read_bytes() == (interrupted / "metrics.jsonl").read_bytes()
    assert [change["learning_rate"] for change in result.summary["changes"]] == [1e-3]
    with pytest.raises(RunError, match="has finished; its learning rate can no longer be another"):
        simtrust.resume(killed, quiet=True, learning_rate=1e-5)
    assert simtrust.resume(killed, quiet=True, learning_rate=1e-3).summary == result.summary


@pytest.mark.parametrize("rate", [0.0, -1e-4, math.nan, math.inf, 1.5, "fast", True])
def test_a_rate_that_cannot_work_is_refused_before_any_work(interrupted, monkeypatch, rate):
    monkeypatch.setattr("simtrust.training.loop.prepare", lambda *_: pytest.fail("work was begun"))
    before = (interrupted / "config.json").read_bytes()
    with pytest.raises(ConfigError, match=r"^--learning-rate is "):
        simtrust.resume(interrupted, quiet=True, learning_rate=rate)
    assert (interrupted / "config.json").read_bytes() == before


def test_blocks_repeat_a_round_bit_for_bit():
    """How the replay finds the first bad block: 40 updates at once, or twice 20."""
    algorithm = AlgorithmOptions(hidden_sizes=(8,), batch_size=8)
    problem = prepare(TrainConfig(recipe="sac", algorithm=algorithm, sim="Bounded-v0"))
    fleet, keys = Fleet(problem.algorithm), seed_keys((0, 1), UPDATE)
    rows = jax.random.normal(jax.random.key(0), (2, 50, problem.algorithm.simulated_row_size))
    buffer = ReplayBuffer(rows, jnp.asarray(50), jnp.asarray(0))
    agents = fleet.create((0, 1))
    whole, _ = fleet.train(fleet.copy(agents), problem.log, buffer, keys, step=7, updates=40)
    for first in (7, 27):
        agents, _ = fleet.train(agents, problem.log, buffer, keys, step=first, updates=20)
    ours, theirs = tree_to_arrays(agents), tree_to_arrays(whole)
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_a_bundle_that_cannot_be_written_does_not_hide_the_error(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simtrust.training.diagnosis.write_atomically", full)
    with pytest.raises(NonFiniteError, match=r"reward of a simulated row.*could not be written: .*No space"):
        train(tmp_path / "run", sim="Beyond-v0")


@pytest.mark.parametrize(("at", "what"), [(13, "reward"), (0, "reward")])
def test_a_simulator_that_answers_nan_leaves_a_bundle_and_its_state_is_saved(tmp_path, at, what):
    class Broken(Bounded):
        pass

    gymnasium.register("Broken-v0", lambda: Broken(at=at, reward=math.nan))
    try:
        with pytest.raises(NonFiniteAnswer) as caught:
            train(tmp_path / "run", sim="Broken-v0", seeds=2)
    finally:
        del gymnasium.registry["Broken-v0"]
    bundle, saved_now = caught.value.__notes__
    folder = Path(bundle.removeprefix("What led there is in "))
    found = json.loads((folder / "diagnosis.json").read_text())
    assert found["first_bad"]["name"] == f"{what} of the simulator"
    assert found["first_bad"]["nan"] == 1
    assert found["seed"] == 0
    assert "simtrust resume" in found["go_on"]
    with np.load(folder / "batch.npz", allow_pickle=False) as arrays:
        assert np.isnan(arrays["simulator/reward"])
        assert arrays["policy/action of the policy"].shape == (1, 1)
    assert f"The training state at step {at // ROUND * ROUND} is saved" in saved_now
