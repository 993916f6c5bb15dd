"""Training end to end: every recipe, what is stored on the way, and what stops a run."""

import errno
import json
import math
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import simtrust
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import RECIPES
from simtrust.data.replay import unpack
from simtrust.errors import ConfigError, DataError, RunError, SimtrustError, SimulatorError
from simtrust.training import gap_model, judging, memory, setup
from simtrust.training.callbacks import Callback, CallbackError
from simtrust.training.checkpoint import CheckpointStore
from simtrust.training.config import TrainConfig, config_to_json
from simtrust.training.gap_model import load_gap_model
from simtrust.training.setup import prepare
from simtrust.training.stopping import telling_how_to_go_on
from simtrust.training.storage import StorageError
from simtrust.types import Transitions

RESULT_KEYS = {
    "format",
    "recipe",
    "steps",
    "runs",
    "evaluation_environment",
    "updates_per_second",
    "wall_seconds",
    "versions",
    "device",
    "dataset_sha256",
    "command",
}
RUN_KEYS = {"seed", "return_mean", "return_std", "episode_returns", "episode_lengths"}


def read_metrics(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def collected(directory: Path):
    """All simulated transitions of run 0 that the last checkpoint holds."""
    store = CheckpointStore(directory / "checkpoints")
    rows = np.concatenate([rows for _, rows in store.load_rows(store.latest())], axis=1)[0]
    return unpack(jnp.asarray(rows), 2, 1)


def config(recipe="sac", **options) -> TrainConfig:
    return TrainConfig(recipe=recipe, algorithm=AlgorithmOptions(hidden_sizes=(4,)), **options)


ALWAYS = {"step", "seed", "critic_loss", "actor_loss", "temperature", "entropy"}
SIM = {"simulator_return", "critic_bellman_sim", "q_sim"}
REAL = {"critic_bellman_real", "q_real"}
VALUE_GAP = {"critic_value_gap", "gap", "omega_max"}
CLASSIFIERS = {
    *(
        "classifier_loss_sa",
        "classifier_loss_sas",
        "classifier_accuracy_sa_real",
        "classifier_accuracy_sa_sim",
    ),
    *("classifier_accuracy_sas_real", "classifier_accuracy_sas_sim", "log_ratio", "weight"),
}
METRICS = {
    "sac": ALWAYS | SIM,
    "cql": ALWAYS | REAL | {"critic_conservative"},
    "darc": ALWAYS | SIM | CLASSIFIERS,
    "h2o_reg": ALWAYS | SIM | REAL | CLASSIFIERS,
    "h2o": ALWAYS | SIM | REAL | CLASSIFIERS | VALUE_GAP,
    "h2o_reverse_kl": ALWAYS | SIM | REAL | CLASSIFIERS | VALUE_GAP,
    "trust": ALWAYS | SIM | REAL | VALUE_GAP | {"weight"},
}


def assert_complete(directory: Path, recipe: str) -> None:
    result = json.loads((directory / "result.json").read_text())
    assert set(result) == RESULT_KEYS
    assert (result["recipe"], result["steps"]) == (recipe, 100)
    (run,) = result["runs"]
    assert set(run) == RUN_KEYS
    assert run["episode_lengths"] == [200]
    assert -2_000 < run["return_mean"] == run["episode_returns"][0] < 0
    assert result["updates_per_second"] > 0
    lines = read_metrics(directory)
    assert [line["step"] for line in lines] == [50, 100]
    for line in lines:
        line.pop("simulator_return", None)  # No episode of Pendulum ends within 100 steps.
        assert all(math.isfinite(value) for value in line.values()), line


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_trains_end_to_end(train, log, recipe):
    result = train(recipe, real=log, sim="Pendulum-v1")
    assert_complete(result.directory, recipe)
    assert result.summary == json.loads((result.directory / "result.json").read_text())
    assert result.summary["dataset_sha256"] == simtrust.load_dataset(log).sha256
    assert result.summary["versions"]["simtrust"] == simtrust.__version__
    assert result.summary["command"].startswith(f"simtrust.train('{recipe}', ")
    names = set(read_metrics(result.directory)[0])
    assert names == METRICS.get(recipe, names)
    assert ("classifier_loss_sas" in names) == RECIPES[recipe].trains_gap_model
    assert (result.directory / "gap_model.json").exists() == RECIPES[recipe].measures_gap
    assert ("simulator_return" in names) == (recipe != "cql")


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("h2o", {"actor": "deterministic"}),
        ("h2o", {"critic_ensemble": 4}),
        ("h2o", {"next_state_covariance": "full", "normalise_observations": True}),
        ("sac", {"entropy_in_backup": True}),
        ("cql", {"reward_scale": "auto"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_option_trains_end_to_end(train, log, recipe, options):
    result = train(recipe, real=log, sim="Pendulum-v1", **options)
    assert_complete(result.directory, recipe)


def test_actor_stays_finite_however_xla_rounds(train, log, tmp_path):
    """Compiled with few optimisations, as all tests here are, a fusion may compute q once more, otherwise."""
    for recipe, seed in (("sac", 0), ("sac", 10), ("darc_plus", 0)):
        train(
            recipe,
            real=log,
            sim="Pendulum-v1",
            steps=500,
            first_seed=seed,
            out=tmp_path / f"{recipe}-{seed}",
        )


def test_every_simulated_row_carries_its_gap(train, log, small_gap_model):
    """With two runs side by side, in the machine's units, of which the stored action is half."""
    directory = train("trust", real=log, sim="Pendulum-v1", seeds=2).directory
    model = load_gap_model(directory, observation_size=3, action_size=1)
    store = CheckpointStore(directory / "checkpoints")
    ((_, rows),) = store.load_rows(store.latest())
    assert rows.shape == (2, 100, 10)
    for run in rows:
        inside = Transitions(*map(np.asarray, unpack(jnp.asarray(run), 3, 1)))
        machine = inside._replace(action=2 * inside.action)
        np.testing.assert_allclose(run[:, -1], model.divergence(machine), rtol=1e-3, atol=1e-5)
    assert (rows[0, :, -1] != rows[1, :, -1]).all()


def test_simulator_that_breaks_while_it_is_probed_can_be_resumed(
    train, log, small_gap_model, monkeypatch, tmp_path
):
    def broken(*_, **__):
        raise SimulatorError("the motor came off")

    with monkeypatch.context() as patch:
        patch.setattr(gap_model, "probe_rollouts", broken)
        with pytest.raises(SimulatorError) as caught:
            train("trust", real=log, sim="Pendulum-v1")
    assert f"go on with: simtrust resume {tmp_path}/run" in caught.value.__notes__[0]
    assert not list(tmp_path.glob("run/gap_model*"))
    result = simtrust.resume(tmp_path / "run", quiet=True)
    assert_complete(result.directory, "trust")


def test_run_of_a_recipe_that_was_another_is_not_gone_on_with(train, log):
    """Its replay buffer has no measured gaps."""
    directory = train("h2o_layer_norm", real=log, sim="Pendulum-v1").directory
    (directory / "result.json").unlink()
    stored = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**stored, "recipe": "trust", "steps": 200}))
    with pytest.raises(RunError, match=r"begun when recipe trust was another.* 9 numbers, not 10"):
        simtrust.resume(directory, quiet=True)


def test_learning_from_the_log_alone_needs_no_simulator(train, log):
    result = train("cql", real=log, real_env="Pendulum-v1")
    assert_complete(result.directory, "cql")
    assert list(CheckpointStore(result.directory / "checkpoints").latest().chunks) == []


def test_time_limits_are_not_terminals_and_next_observations_stay_in_their_episode(train, misbehaving):
    """A Counter observes (step, episode): s' is always one step on, in the same episode."""
    result = train(sim="misbehaving:truncating", steps=200)
    observation, _, reward, following, terminated = collected(result.directory)
    assert len(observation) == 200
    assert not terminated.any()
    np.testing.assert_array_equal(following - observation, [[1, 0]] * 200)
    # Episodes of 30 steps run on from round to round, and are cut at the checkpoint at step 100.
    lengths = [30, 30, 30, 10] * 2
    np.testing.assert_array_equal(observation[:, 0], np.concatenate([np.arange(n) for n in lengths]))
    np.testing.assert_array_equal(observation[:, 1], np.repeat(np.arange(1, 9), lengths))
    assert (following[:, 0] == 30).sum() == 6, "the last observation of an episode is its own"
    np.testing.assert_array_equal(reward, np.ones(200))
    assert [line["simulator_return"] for line in read_metrics(result.directory)] == [30] * 4


def test_terminals_are_the_tasks_own(train, misbehaving):
    result = train(sim="misbehaving:terminating", steps=200)
    observation, _, _, following, terminated = collected(result.directory)
    np.testing.assert_array_equal(terminated, observation[:, 0] == 29)
    np.testing.assert_array_equal(following - observation, [[1, 0]] * 200)


def test_custom_simulator_is_evaluated_too(train, misbehaving):
    result = train(sim="misbehaving:truncating", seeds=2, evaluation_episodes=3, evaluate_every=100)
    assert [run["seed"] for run in result.summary["runs"]] == [0, 1]
    for run in result.summary["runs"]:
        assert run["episode_returns"] == [30] * 3
        assert run["episode_lengths"] == [30] * 3
        assert run["return_std"] == 0
    line = read_metrics(result.directory)[-1]
    assert (line["return_mean"], line["return_std"], line["episode_length"]) == (30, 0, 30)


def test_tensorboard_writes_a_folder_for_each_seed(train, misbehaving):
    result = train(sim="misbehaving:truncating", track=["tensorboard"], first_seed=5)
    (events,) = result.directory.glob("tensorboard/seed-5/events*")
    assert events.stat().st_size > 100


@pytest.fixture
def faulty(misbehaving, monkeypatch):
    """The class of simulator that breaks at its 170th step if ``fault`` is set."""
    monkeypatch.setattr(misbehaving.Faulty, "fault", None)
    monkeypatch.setattr(misbehaving.Faulty, "steps", 0)
    return misbehaving.Faulty


FAULTY = {"sim": "misbehaving:faulty", "real_env": "misbehaving:truncating"}
RESUME_FAULTY = "--sim misbehaving:faulty --real-env misbehaving:truncating"


@pytest.mark.parametrize(
    ("fault", "problem"),
    [("raise", "ZeroDivisionError: the motor came off"), ("nan", "observation dimension 0 is nan")],
)
def test_broken_simulator_loses_no_finished_round(train, faulty, monkeypatch, tmp_path, fault, problem):
    """It breaks in the fourth round of 50 steps, ten steps into an episode."""
    monkeypatch.setattr(faulty, "fault", fault)
    where = r"misbehaving:faulty, instance 0 of 1, step 10 since its reset, action \["
    with pytest.raises(SimulatorError, match=where + ".*" + problem) as caught:
        train(**FAULTY, steps=200)
    note = f"step 150 is saved; when the simulator is mended, go on with: simtrust resume {tmp_path}/run"
    assert f"{note} {RESUME_FAULTY}" in caught.value.__notes__[-1]
    saved = CheckpointStore(tmp_path / "run" / "checkpoints").latest()
    assert saved.step == 150
    assert not (tmp_path / "run" / "result.json").exists()

    monkeypatch.setattr(faulty, "fault", None)
    unbroken = train(**FAULTY, steps=150, out=tmp_path / "unbroken").directory / "checkpoints"
    assert saved.state.sha256 == CheckpointStore(unbroken).latest().state.sha256

    result = simtrust.resume(tmp_path / "run", quiet=True, **FAULTY)
    assert result.summary["steps"] == 200
    assert len(collected(result.directory).reward) == 200
    assert [line["step"] for line in read_metrics(result.directory)] == [50, 100, 150, 200]


def test_simulator_that_breaks_at_once_can_be_resumed(train, faulty, monkeypatch, tmp_path):
    monkeypatch.setattr(faulty, "fault", "raise")
    monkeypatch.setattr(faulty, "at", 1)
    with pytest.raises(SimulatorError, match="step 1 since its reset"):
        train(**FAULTY)
    assert CheckpointStore(tmp_path / "run" / "checkpoints").latest().step == 0
    monkeypatch.setattr(faulty, "fault", None)
    result = simtrust.resume(tmp_path / "run", quiet=True, **FAULTY)
    assert result.summary["steps"] == len(collected(result.directory).reward) == 100


def test_simulator_that_breaks_after_a_checkpoint_leaves_the_older_one(train, faulty, monkeypatch, tmp_path):
    """Step 200 is saved already when step 201 breaks; saving it again must not cost the one of step 100."""
    monkeypatch.setattr(faulty, "fault", "raise")
    monkeypatch.setattr(faulty, "at", 201)
    with pytest.raises(SimulatorError):
        train(**FAULTY, steps=300)
    checkpoints = tmp_path / "run" / "checkpoints"
    manifests = sorted(path.name for path in checkpoints.glob("checkpoint-*.json"))
    assert manifests == ["checkpoint-000000000100.json", "checkpoint-000000000200.json"]
    (checkpoints / "state-000000000200.safetensors").unlink()
    assert CheckpointStore(checkpoints).latest().step == 100


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {},
            "uses code of your own, misbehaving:truncating; if you trust it, add --sim misbehav",
        ),
        (
            {"sim": "misbehaving:faulty"},
            "was begun with --sim misbehaving:truncating, not misbehaving:faulty",
        ),
        ({"sim": "misbehaving:truncating", "real_env": "Pendulum-v1"}, "was begun with --real-env None, not"),
    ],
)
def test_no_run_directory_decides_which_code_is_imported(tmp_path, named, message):
    """The module is not even on the path here: refused by its name alone."""
    stored = config_to_json(config(sim="misbehaving:truncating"), dataset_sha256=None)
    (tmp_path / "config.json").write_text(stored)
    with pytest.raises(RunError, match=message):
        simtrust.resume(tmp_path, **named)


def test_broken_evaluation_loses_no_line_of_metrics(train, faulty, misbehaving, monkeypatch, tmp_path):
    """The evaluation after the second round breaks: that round's losses must be kept all the same."""
    monkeypatch.setattr(faulty, "fault", "raise")
    monkeypatch.setattr(faulty, "at", 10)
    swapped = {"sim": FAULTY["real_env"], "real_env": FAULTY["sim"]}
    with pytest.raises(SimulatorError, match="step 10 since its reset"):
        train(**swapped, evaluate_every=100, steps=200)
    monkeypatch.setattr(faulty, "fault", None)
    functions = {"sim": misbehaving.truncating, "real_env": misbehaving.faulty}
    result = simtrust.resume(tmp_path / "run", quiet=True, **functions)
    lines = read_metrics(result.directory)
    assert [(line["step"], "return_mean" in line) for line in lines] == [
        (50, False), (100, True), (150, False), (200, True),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 7])
def test_diverged_run_names_number_and_seed_and_saves_nothing(train, tmp_path, seed):
    with pytest.raises(RunError, match=rf" of seed {seed} became (nan|inf|-inf) in update \d+") as caught:
        train(sim="Pendulum-v1", reward_scale=1e30, learning_rate=1.0, first_seed=seed)
    assert CheckpointStore(tmp_path / "run" / "checkpoints").latest() is None
    assert "The last good checkpoint is step 0" in str(caught.value)


def count_evaluations(monkeypatch) -> list[int]:
    steps: list[int] = []
    run_episodes = judging.Judge._run_episodes
    monkeypatch.setattr(
        judging.Judge,
        "_run_episodes",
        lambda judge, agents, step: (steps.append(step), run_episodes(judge, agents, step))[1],
    )
    return steps


def test_last_evaluation_is_the_final_one(train, misbehaving, monkeypatch):
    """The same policies in the same episodes: they are run once, and an evaluator is asked once."""
    evaluated, asked = count_evaluations(monkeypatch), []
    evaluators = {"asked": lambda policy: (asked.append(policy.step), 3.0)[1]}
    result = train(sim="misbehaving:truncating", steps=150, evaluate_every=50, evaluators=evaluators)
    assert evaluated == asked == [50, 100, 150]
    (last, (run,)) = read_metrics(result.directory)[-1], result.summary["runs"]
    for name in ("return_mean", "return_std", "evaluator/asked"):
        assert last[name] == run[name]


def test_final_evaluation_is_made_where_none_was_due(train, misbehaving, monkeypatch):
    evaluated = count_evaluations(monkeypatch)
    train(sim="misbehaving:truncating", steps=150, evaluate_every=100)
    assert evaluated == [100, 150]


@pytest.mark.parametrize("killed_again", [False, True])
def test_evaluation_that_failed_is_made_up_for(train, tmp_path, killed_again):
    """At a regular checkpoint nothing else differs either: also if the run is stopped right after."""

    def fail(policy):
        raise LookupError("no such row")

    good = {"good": lambda policy: 1.0}
    options = {"sim": "Pendulum-v1", "evaluate_every": 100, "steps": 200}
    whole = train(**options, out=tmp_path / "whole", evaluators={**good, "bad": lambda policy: 2.0}).directory
    with pytest.raises(CallbackError):
        train(**options, evaluators={**good, "bad": fail})
    lines = read_metrics(tmp_path / "run")
    assert [(line["step"], line.get("evaluator/good"), line.get("evaluator/bad")) for line in lines] == [
        (50, None, None), (100, 1.0, None),
    ]  # fmt: skip
    mended = {"quiet": True, "evaluators": {**good, "bad": lambda policy: 2.0}}
    if killed_again:
        with pytest.raises(KeyboardInterrupt):
            simtrust.resume(tmp_path / "run", **mended, callbacks=[Interrupting()])
        assert read_metrics(tmp_path / "run")[1]["evaluator/bad"] == 2.0
    told = Told()
    simtrust.resume(tmp_path / "run", **mended, callbacks=[told])
    assert told.steps == [100, "saved 100", 150, 200, "saved 200"]
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    ours, theirs = (CheckpointStore(d / "checkpoints").latest() for d in (tmp_path / "run", whole))
    assert ours.state.sha256 == theirs.state.sha256


class Interrupting(Callback):
    """Stops the run at step 150."""

    def on_metrics(self, records):
        if records[0].step == 150:
            raise KeyboardInterrupt


class Told(Callback):
    def __init__(self):
        self.steps: list[int | str] = []

    def on_metrics(self, records):
        self.steps.append(records[0].step)

    def on_checkpoint(self, step, directory):
        self.steps.append(f"saved {step}")


EXHAUSTED = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte\nmore")


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (OSError(errno.EIO, "Input/output error"), RunError, "cannot go on: OSError: .*Input/output error"),
        (StorageError(Path("x"), OSError(errno.ENOSPC, "No space left")), StorageError, "No space left"),
        (MemoryError("Unable to allocate"), RunError, r"the memory was used up \(Unable to allocate\)"),
        (EXHAUSTED, RunError, "the memory was used up .*Out of memory allocating 1 byte"),
        (DataError("too few rows"), DataError, "too few rows"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_whatever_stops_a_run_is_told_with_the_way_on(error, raised, message):
    """Without an attempt to save, which disk or memory would refuse again."""
    save = lambda: pytest.fail("saved")  # noqa: E731
    with (
        pytest.raises(raised, match=message) as caught,
        telling_how_to_go_on(saved_step=lambda: 7, save=save, command="simtrust resume run"),
    ):
        raise error
    assert caught.value.__notes__ == ["Step 7 is saved; go on with: simtrust resume run"]


def test_another_error_of_jax_is_a_defect_and_stays_one():
    error = jax.errors.JaxRuntimeError("INTERNAL: no such thing")
    with (
        pytest.raises(jax.errors.JaxRuntimeError),
        telling_how_to_go_on(saved_step=lambda: 7, save=lambda: 7, command=""),
    ):
        raise error


def test_a_simulators_error_is_not_hidden_by_a_disk_that_is_full():
    def save():
        raise StorageError(Path("run"), OSError(errno.ENOSPC, "No space left on device"))

    with (
        pytest.raises(SimulatorError, match="the motor came off") as caught,
        telling_how_to_go_on(saved_step=lambda: 7, save=save, command="simtrust resume run"),
    ):
        raise SimulatorError("the motor came off")
    (note,) = caught.value.__notes__
    assert "could not be saved: run cannot be written: No space left" in note
    assert "Step 7 is saved; when both are mended, go on with: simtrust resume run" in note


READS_LOG = sorted(set(RECIPES) - {"sac"})
READS_SIMULATOR = sorted(set(RECIPES) - {"cql"})


@pytest.mark.parametrize("recipe", READS_LOG)
def test_recipe_that_reads_the_log_needs_one(recipe):
    with pytest.raises(ConfigError, match=f"recipe {recipe} learns from a log: give --real"):
        prepare(config(recipe, sim="Pendulum-v1"))


@pytest.mark.parametrize("recipe", READS_SIMULATOR)
def test_recipe_that_reads_the_simulator_needs_one(recipe, log):
    with pytest.raises(ConfigError, match=f"recipe {recipe} learns from a simulator: give --sim"):
        prepare(config(recipe, real=str(log), real_env="Pendulum-v1"))


def test_log_alone_does_not_tell_the_actions_bounds(log):
    with pytest.raises(ConfigError, match="give --real-env ID or --sim ID"):
        prepare(config("cql", real=str(log)))


@pytest.mark.parametrize(
    ("sim", "message"),
    [
        (
            "misbehaving:truncating",
            r"observation of simulator misbehaving:truncating has shape \(2,\).*\(3,\)",
        ),
        ("misbehaving:weak_pendulum", r"action bounds of simulator misbehaving:weak_pendulum are \[-1.\] to"),
    ],
)
def test_simulator_unlike_the_real_environment_is_refused(misbehaving, sim, message):
    with pytest.raises(ConfigError, match=message + ".*they must agree"):
        prepare(config(sim=sim, real_env="Pendulum-v1"))


def test_log_of_another_machine_is_refused(misbehaving, log):
    with pytest.raises(SimtrustError, match="is 3 wide where simulator 'misbehaving:truncating' has 2"):
        prepare(config("h2o", real=str(log), sim="misbehaving:truncating"))


@pytest.mark.parametrize(
    ("options", "capacity"),
    [
        ({"recipe": "sac", "steps": 2_000_000}, 1_000_000),
        ({"recipe": "h2o", "steps": 2_000_000}, 20_000),
        ({"recipe": "h2o", "steps": 2_000_000, "buffer_capacity": 5_000}, 5_000),
        ({"recipe": "h2o", "steps": 2_500}, 3_000),
        ({"recipe": "h2o", "steps": 10}, 1_000),
    ],
)
def test_buffer_holds_ten_logs_unless_told_or_never_filled(log, monkeypatch, options, capacity):
    monkeypatch.setattr(setup, "check_memory", lambda *_: None)
    real = None if options["recipe"] == "sac" else str(log)
    assert prepare(config(real=real, sim="Pendulum-v1", **options)).capacity == capacity


def test_whole_episodes_are_held_out(log):
    """Of ten episodes of 200 rows, one, from the middle; the classifiers' rows come first."""
    problem = prepare(config("h2o", real=str(log), sim="Pendulum-v1"))
    ours, dataset = problem.log, problem.dataset
    assert (ours.training, ours.held_out, len(ours.rows)) == (1_800, 200, 2_000)
    held_out = np.asarray(ours.rows)[1_800:, :3]
    episodes = dataset.transitions.observation.reshape(10, 200, 3)
    (found,) = [i for i in range(10) if (episodes[i] == held_out).all()]
    assert 0 < found < 9
    rest = np.delete(episodes, found, axis=0).reshape(-1, 3)
    np.testing.assert_array_equal(np.asarray(ours.rows)[:1_800, :3], rest)


def test_terminals_without_a_next_state_are_the_critics_alone(tmp_path):
    """Twelve episodes of five rows, whose last next state the file does not hold."""
    terminals = np.arange(60) % 5 == 4
    with h5py.File(tmp_path / "log.hdf5", "w") as file:
        file["observations"] = np.random.default_rng(0).uniform(-0.5, 0.5, (60, 3)).astype(np.float32)
        file["actions"] = np.zeros((60, 1), np.float32)
        file["rewards"] = np.ones(60, np.float32)
        file["terminals"] = terminals
    log = prepare(config("h2o", real=str(tmp_path / "log.hdf5"), sim="Pendulum-v1")).log
    seen = log.training + log.held_out
    assert (seen, len(log.rows)) == (48, 60)
    assert not log.rows[:seen, -1].any()
    assert log.rows[seen:, -1].all()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("steps", 0),
        ("seeds", 0),
        ("rollout_steps", 0),
        ("evaluation_episodes", 0),
        ("checkpoint_every", 0),
        ("evaluate_every", -1_000),
        ("first_seed", -1),
        ("checkpoint_every", 1_500),
        ("evaluate_every", 1_500),
        ("reward_scale", 0.0),
        ("reward_scale", -1),
        ("reward_scale", math.nan),
        ("reward_scale", math.inf),
        ("buffer_capacity", 999),
        ("gap_probe_rows", 99),
        ("gap_epochs", 0),
    ],
)
def test_wrong_option_names_its_flag(option, value):
    flag = f"--{option.replace('_', '-')}"
    with pytest.raises(ConfigError, match=f"^{flag} "):
        TrainConfig(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0),
        ("real_fraction", 1.0),
        ("discount", 1.0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("target_update_rate", 1.1),
        ("hidden_sizes", ()),
        ("hidden_sizes", (16, 0)),
        ("critic_ensemble", 0),
        ("actor", "random"),
        ("exploration_noise", -0.1),
        ("target_entropy", math.nan),
        ("beta", math.inf),
        ("cql_alpha", -1.0),
        ("cql_actions", 0),
        ("classifier_batch_size", 7),
        ("classifier_hidden_sizes", ()),
        ("classifier_input_noise", math.nan),
        ("next_state_samples", 0),
        ("next_state_covariance", "none"),
        ("next_state_noise_scale", -1.0),
    ],
)
def test_wrong_algorithm_option_names_its_flag(option, value):
    with pytest.raises(ConfigError, match=f"^--{option.replace('_', '-')} is "):
        AlgorithmOptions(**{option: value})


CLOSING = {"sim": "misbehaving:closing", "real_env": "misbehaving:closing", "evaluation_episodes": 2}


@pytest.fixture
def closing(misbehaving, monkeypatch):
    """The class of an environment that notes what is closed; three instances of it are made by a run."""
    monkeypatch.setattr(misbehaving.Closing, "made", 0)
    monkeypatch.setattr(misbehaving.Closing, "closed", [])
    monkeypatch.setattr(misbehaving.Closing, "breaks_closing", False)
    monkeypatch.setattr(misbehaving.Closing, "breaks_step", None)
    return misbehaving.Closing


def test_every_environment_is_closed_once_at_the_end(train, closing, tmp_path):
    directory = train(**CLOSING).directory
    assert sorted(closing.closed) == [0, 1, 2]
    simtrust.evaluate(directory, env="misbehaving:closing", episodes=2)
    assert sorted(closing.closed) == [0, 1, 2, 3, 4]
    (directory / "result.json").unlink()
    again = simtrust.resume(directory, quiet=True, **{k: CLOSING[k] for k in ("sim", "real_env")})
    assert again.summary["steps"] == 100
    assert sorted(closing.closed) == list(range(8))


@pytest.mark.parametrize(("raised", "told"), [(ValueError, SimulatorError), (KeyboardInterrupt,) * 2])
def test_every_environment_is_closed_after_an_error(train, closing, monkeypatch, raised, told):
    monkeypatch.setattr(closing, "breaks_step", raised)
    with pytest.raises(told, match="while stepping") as caught:
        train(**CLOSING)
    assert "go on with: simtrust resume" in caught.value.__notes__[0]
    assert sorted(closing.closed) == [0, 1, 2]


def test_what_closing_raises_costs_neither_the_result_nor_the_first_error(
    train, closing, monkeypatch, tmp_path
):
    monkeypatch.setattr(closing, "breaks_closing", True)
    with pytest.warns(RuntimeWarning, match="closing it raised OSError: the port is gone") as told:
        result = train(**CLOSING)
    assert len(told) == 3
    assert sorted(closing.closed) == [0, 1, 2], "also those after the first that raises"
    with pytest.warns(RuntimeWarning, match="the port is gone"):
        _, _, returns = simtrust.evaluate(result.directory, env="misbehaving:closing", episodes=1)
    assert returns.lengths.tolist() == [[30]]
    monkeypatch.setattr(closing, "breaks_step", ValueError)
    with (
        pytest.warns(RuntimeWarning, match="the port is gone"),
        pytest.raises(SimulatorError, match="while stepping"),
    ):
        train(**CLOSING, out=tmp_path / "other")


@pytest.mark.parametrize("sim", ["misbehaving:weak_pendulum", "misbehaving:nowhere", "misbehaving:closing"])
def test_what_was_opened_is_closed_if_the_rest_cannot_be(closing, monkeypatch, sim):
    """The spaces disagree, there is no simulator, or there is too little memory."""
    monkeypatch.setattr(memory, "available_memory", lambda: 1)
    with pytest.raises(SimtrustError):
        prepare(config(**{**CLOSING, "sim": sim}))
    assert sorted(closing.closed) == list(range(closing.made))
    assert closing.made == (3 if sim == "misbehaving:closing" else 2)


def test_evaluation_closes_what_the_policy_does_not_fit(train, closing, tmp_path):
    directory = train(sim="Pendulum-v1").directory
    with pytest.raises(ConfigError, match="but the policy was trained on"):
        simtrust.evaluate(directory, env="misbehaving:closing", episodes=2)
    assert sorted(closing.closed) == [0, 1]
