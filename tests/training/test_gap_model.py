"""The gap model of a run: what it follows from, and how it is kept."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from simtrust.errors import RunError
from simtrust.gap.simulator_gap import SIMULATOR_GAP_OPTIONS, SimulatorGap
from simtrust.training.config import TrainConfig
from simtrust.training.gap_model import gap_model_of_run, load_gap_model, measure
from simtrust.training.setup import prepare
from simtrust.types import Transitions


@pytest.fixture
def fit(log, tmp_path, small_gap_model):
    """``fit(name, **options)`` is the gap model of a run in ``tmp_path / name``."""

    def fit(name: str, **options) -> SimulatorGap:
        config = TrainConfig(
            real=str(log), sim="Pendulum-v1", **{"gap_probe_rows": 200, "gap_epochs": 1, **options}
        )
        (tmp_path / name).mkdir(exist_ok=True)
        return gap_model_of_run(prepare(config), tmp_path / name, quiet=True)

    return fit


def bits(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def rows(*leading: int) -> Transitions[np.ndarray]:
    """Transitions in the shape of Pendulum's."""
    random = np.random.default_rng(0)
    draw = lambda *shape: random.normal(size=(*leading, *shape)).astype(np.float32)  # noqa: E731
    return Transitions(draw(3), draw(1), draw(), draw(3), np.zeros(leading, np.float32))


def test_the_same_run_fits_the_same_bits_and_loads_them(fit, tmp_path):
    first, again, loaded = fit("first"), fit("again"), fit("first")
    assert bits(first) == bits(again) == bits(loaded)
    assert jax.tree.structure(loaded) == jax.tree.structure(first)
    np.testing.assert_array_equal(first.divergence(rows(50)), loaded.divergence(rows(50)))
    assert set(json.loads((tmp_path / "first" / "gap_model.json").read_text())) == {
        "format",
        "versions",
        "file",
        "r_squared",
        "floor",
        "distinction",
    }


def test_it_is_the_first_seeds_however_many_there_are(fit):
    one = fit("one")
    assert bits(one) == bits(fit("three", seeds=3))
    assert bits(one) != bits(fit("other", first_seed=1))


def test_its_options_count(fit, monkeypatch):
    one = fit("one")
    assert bits(one) != bits(fit("longer", gap_epochs=2))
    assert bits(one) != bits(fit("larger", gap_probe_rows=300))


def test_rows_of_several_runs_are_measured_in_one_call(fit):
    model, several = fit("one"), rows(3, 7)
    gap = measure(model, several)
    assert gap.shape == (3, 7)
    assert gap.dtype == np.float32
    for run in range(3):
        alone = model.divergence(Transitions(*(field[run] for field in several)))
        np.testing.assert_allclose(gap[run], alone, rtol=1e-5)


def damaged(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("gap_model.safetensors", damaged, "is damaged: its SHA-256"),
        ("gap_model.safetensors", lambda path: path.unlink(), "cannot be read"),
        ("gap_model.json", lambda path: path.write_text('{"format": 1'), "damaged .*delete it to have"),
        ("gap_model.json", lambda path: path.write_text("[]"), "damaged .*delete it to have"),
        ("gap_model.json", lambda path: path.write_text('{"format": 2, "file": {}}'), "damaged .*delete it"),
        ("gap_model.json", lambda path: path.write_text('{"format": 3, "new": {}}'), "has format 3, this"),
    ],
)
def test_what_cannot_be_used_is_named(fit, tmp_path, name, damage, message):
    fit("run")
    damage(tmp_path / "run" / name)
    with pytest.raises(RunError, match=message):
        fit("run")


def test_another_machines_gap_model_is_refused(fit, tmp_path):
    fit("run")
    with pytest.raises(RunError, match=r"expected float32\[2, 7, 8\]") as caught:
        load_gap_model(tmp_path / "run", observation_size=4, action_size=2)
    assert "To have the gap model fitted again, delete" in caught.value.__notes__[0]


def test_killed_before_the_manifest_it_is_fitted_again(fit, tmp_path):
    first = fit("run")
    (tmp_path / "run" / "gap_model.json").unlink()
    damaged(tmp_path / "run" / "gap_model.safetensors")
    assert bits(fit("run")) == bits(first)


def test_the_default_length_of_the_fit_is_the_estimators():
    epochs = TrainConfig().gap_epochs
    assert replace(SIMULATOR_GAP_OPTIONS, epochs=epochs) == SIMULATOR_GAP_OPTIONS
