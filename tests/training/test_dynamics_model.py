"""The dynamics model of a run: what it follows from, how it is kept, and that it reaches every update."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import simtrust
from simtrust.algorithms.agent import Algorithm
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import RECIPES
from simtrust.data import load_dataset, save_dataset
from simtrust.data.dataset import columns_from_rows
from simtrust.data.replay import ReplayBuffer, insert, row_size
from simtrust.errors import ConfigError, DataError, RunError
from simtrust.gap.dynamics_fitting import REVERSE_GAP_OPTIONS
from simtrust.gap.dynamics_model import DynamicsModel
from simtrust.training import dynamics_model
from simtrust.training.callbacks import Callback
from simtrust.training.config import TrainConfig
from simtrust.training.diagnosis import NonFiniteError
from simtrust.training.dynamics_model import DYNAMICS_MODEL, with_dynamics_model
from simtrust.training.fleet import UPDATE, Fleet, seed_keys
from simtrust.training.setup import Problem, prepare
from simtrust.training.updating import Log

RECIPE = "h2o_reverse_kl"
FILES = ("dynamics_model.json", "dynamics_model.safetensors")


def configured(log: Path, recipe: str = RECIPE, **options) -> TrainConfig:
    return TrainConfig(recipe=recipe, real=str(log), sim="Pendulum-v1", **{"dynamics_epochs": 1, **options})


@pytest.fixture
def fit(log, tmp_path, small_dynamics_model):
    """``fit(name, **options)`` is the problem of a run in ``tmp_path / name``, its model fitted."""

    def fit(name: str, **options) -> Problem:
        (tmp_path / name).mkdir(exist_ok=True)
        return with_dynamics_model(prepare(configured(log, **options)), tmp_path / name, quiet=True)

    return fit


def model_of(problem: Problem) -> DynamicsModel:
    assert problem.log is not None
    assert problem.log.dynamics is not None
    return problem.log.dynamics


def bits(problem: Problem) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(model_of(problem))]


def test_the_same_run_fits_the_same_bits_and_loads_them(fit, tmp_path, monkeypatch):
    first, again = fit("first"), fit("again")
    monkeypatch.setattr(dynamics_model, "_fit", None)
    loaded = fit("first")
    assert bits(first) == bits(again) == bits(loaded)
    assert jax.tree.structure(model_of(loaded)) == jax.tree.structure(model_of(first))
    stored = json.loads((tmp_path / "first" / "dynamics_model.json").read_text())
    assert set(stored) == {"format", "versions", "file", "r_squared", "epochs"}
    assert stored["epochs"] == 1


def test_it_is_the_first_seeds_however_many_there_are(fit):
    one = fit("one")
    assert bits(one) == bits(fit("three", seeds=3))
    assert bits(one) != bits(fit("other", first_seed=1))


def test_its_length_counts_and_the_simulator_does_not(fit):
    one = fit("one")
    assert bits(one) != bits(fit("longer", dynamics_epochs=2))
    assert bits(one) == bits(fit("elsewhere", gap_probe_rows=300))


def test_it_is_of_the_units_of_training(fit):
    """The stored action is half the torque, and states may be standardised."""
    plain, standardised = model_of(fit("plain")), model_of(fit("standardised", normalise_observations=True))
    assert float(plain.input_scale[-1]) == pytest.approx(2 / np.sqrt(12), rel=0.05)
    assert (np.abs(plain.input_scale[:3] - 1.0) > 0.1).any()
    np.testing.assert_allclose(standardised.input_scale[:3], 1.0, atol=0.1)
    np.testing.assert_allclose(standardised.input_mean[:3], 0.0, atol=0.2)


def test_other_recipes_have_none(fit, tmp_path):
    problem = fit("run", recipe="h2o")
    assert problem.log is not None
    assert problem.log.dynamics is None
    assert not list((tmp_path / "run").iterdir())


def damaged(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (FILES[1], damaged, "is damaged: its SHA-256"),
        (FILES[1], lambda path: path.unlink(), "cannot be read"),
        (FILES[0], lambda path: path.write_text("[]"), "delete it to have the dynamics model fitted again"),
        (FILES[0], lambda path: path.write_text('{"format": 2, "new": {}}'), "has format 2, this"),
    ],
)
def test_what_cannot_be_used_is_named(fit, tmp_path, name, damage, message):
    fit("run")
    damage(tmp_path / "run" / name)
    with pytest.raises(RunError, match=message):
        fit("run")


def test_one_of_other_sizes_is_refused(fit, tmp_path, monkeypatch):
    """No model says how large it is: other sizes belong to another format."""
    usual = REVERSE_GAP_OPTIONS
    sizes = (dynamics_model.DYNAMICS_MODEL_FORMAT, usual.members, usual.elites, usual.hidden_sizes)
    assert sizes == (1, 7, 5, (200, 200, 200, 200))
    fit("run")
    monkeypatch.setattr(dynamics_model, "REVERSE_GAP_OPTIONS", usual)
    with pytest.raises(RunError, match=r"expected float32\[5, 4, 200\]") as caught:
        fit("run")
    assert "To have the dynamics model fitted again, delete" in caught.value.__notes__[0]


def test_a_log_that_is_too_short_for_it_is_refused_before_the_run_is_there(tiny, log, tmp_path):
    short = tmp_path / "short.hdf5"
    save_dataset(short, {name: column[:9] for name, column in columns_from_rows(load_dataset(log)).items()})
    out = tmp_path / "run"
    with pytest.raises(DataError, match=r"short\.hdf5: 9 rows have a known next state, too few"):
        simtrust.train(RECIPE, **{**tiny, "real": short, "sim": "Pendulum-v1", "quiet": True}, out=out)
    assert not out.exists()
    prepare(configured(short, "h2o")).close()


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epochs_are_refused(log, epochs):
    with pytest.raises(ConfigError, match=f"--dynamics-epochs is {epochs}; it must be at least 1"):
        configured(log, dynamics_epochs=epochs)


# In the fleet ---------------------------------------------------------------------------------------------

OBSERVATION, ACTION, STEP = 3, 1, 7


@pytest.fixture
def fleet() -> Fleet:
    options = AlgorithmOptions(
        batch_size=8, hidden_sizes=(8,), classifier_hidden_sizes=(8,), classifier_batch_size=8
    )
    sizes = {"observation_size": OBSERVATION, "action_size": ACTION}
    return Fleet(Algorithm(RECIPES[RECIPE], options, **sizes, next_state_noise=jnp.eye(OBSERVATION)))


def random_rows(*leading: int, seed: int) -> jax.Array:
    rows = np.random.default_rng(seed).normal(size=(*leading, row_size(OBSERVATION, ACTION)))
    rows[..., -1] = 0.0
    return jnp.asarray(rows, jnp.float32)


def buffer_of(rows: jax.Array) -> ReplayBuffer:
    return insert(ReplayBuffer.create(len(rows), 32, rows.shape[-1]), rows)


def test_every_simulated_row_of_a_batch_comes_with_its_own_predictions(fit, fleet):
    model = model_of(fit("run"))
    log, buffer = Log(random_rows(60, seed=0), 40, 10, model), buffer_of(random_rows(2, 20, seed=1))
    batch = fleet.draw(log, buffer, seed_keys((3, 4), UPDATE), step=STEP).batch
    assert batch.predicted.mean.shape == batch.predicted.std.shape == (2, 2, 4, OBSERVATION)
    for run in (0, 1):
        sim = jax.tree.map(lambda x, run=run: x[run], batch.sim)
        change, variance = model.change(sim.observation, sim.action)
        np.testing.assert_allclose(batch.predicted.mean[run], sim.observation + change, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(batch.predicted.std[run], np.sqrt(variance), rtol=1e-4)
    assert len(np.unique(np.asarray(batch.predicted.mean))) > 2 * 4 * OBSERVATION


def test_a_fleet_of_two_shares_one_model_and_is_two_fleets_of_one(fit, fleet):
    rows, log = random_rows(2, 20, seed=1), Log(random_rows(60, seed=0), 40, 10, model_of(fit("run")))

    def trained(seeds, rows, log=log):
        keys = seed_keys(seeds, UPDATE)
        return fleet.train(fleet.create(seeds), log, buffer_of(rows), keys, step=STEP, updates=5)

    together, metrics = trained((3, 4), rows)
    for run, seed in enumerate((3, 4)):
        alone, own = trained((seed,), rows[run : run + 1])
        for ours, theirs in zip(
            jax.tree.leaves((together, metrics)), jax.tree.leaves((alone, own)), strict=True
        ):
            np.testing.assert_allclose(ours[run], theirs[0], rtol=1e-4, atol=1e-6)
    other = log._replace(dynamics=model_of(fit("other", first_seed=1)))
    assert (trained((3, 4), rows, other)[1]["gap"] != metrics["gap"]).any()


# In a run -------------------------------------------------------------------------------------------------


class StopAt(Callback):
    """Ctrl-C once a step is written."""

    def __init__(self, step: int):
        self.step = step

    def on_metrics(self, records) -> None:
        if records[0].step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def options(tiny, log) -> dict:
    return {**tiny, "steps": 250, "seeds": 2, "real": log, "sim": "Pendulum-v1", "quiet": True}


def interrupted(*_, **__):
    raise KeyboardInterrupt


def assert_same_run(ours: Path, theirs: Path) -> None:
    names = ("checkpoints/state-000000000250.safetensors", "metrics.jsonl", *FILES)
    assert all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in names)
    runs = [json.loads((folder / "result.json").read_text())["runs"] for folder in (ours, theirs)]
    assert runs[0] == runs[1]


def test_stopped_while_fitting_and_while_training_equals_never_stopped(
    options, tmp_path, small_dynamics_model, monkeypatch
):
    never, stopped = tmp_path / "never", tmp_path / "stopped"
    simtrust.train(RECIPE, **options, out=never)
    with monkeypatch.context() as patch:
        patch.setattr(dynamics_model, "fit_dynamics_model", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            simtrust.train(RECIPE, **options, out=stopped)
    assert caught.value.__notes__ == [f"Step 0 is saved; go on with: simtrust resume {stopped}"]
    assert not list(stopped.glob("dynamics_model*"))
    with pytest.raises(KeyboardInterrupt):
        simtrust.resume(stopped, quiet=True, callbacks=[StopAt(150)])
    monkeypatch.setattr(dynamics_model, "_fit", None)
    simtrust.resume(stopped, quiet=True)
    assert_same_run(stopped, never)
    lines = [json.loads(line) for line in (never / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["gap"] <= 10 and 1 / 8 <= line["omega_max"] <= 1 for line in lines)


def test_another_model_would_have_been_noticed(options, tmp_path, small_dynamics_model):
    one, other = (
        simtrust.train(
            RECIPE, **{**options, "steps": 50, "dynamics_epochs": n}, out=tmp_path / str(n)
        ).directory
        for n in (1, 2)
    )
    metrics = [(folder / "metrics.jsonl").read_bytes() for folder in (one, other)]
    assert metrics[0] != metrics[1]


def test_a_model_that_predicts_no_number_is_named(options, tmp_path, fit):
    broken = jax.tree.map(lambda x: x * jnp.nan, model_of(fit("run")))
    DYNAMICS_MODEL.save(tmp_path / "run", broken)
    with pytest.raises(
        NonFiniteError, match="mean of s' by the log's model, simulated rows of seed 0 became nan"
    ):
        simtrust.train(RECIPE, **options, out=tmp_path / "run")
