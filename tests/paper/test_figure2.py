"""Figure 2 by command: what is trained, kept, measured and printed."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from simtrust.errors import ConfigError, RunError
from simtrust.paper.figure2 import figure2, load_cells, table
from simtrust.paper.robot import NETWORKS, RECIPES, STUDIES, Cell, load_cell, save_cell
from simtrust.simulators import parse_shifts
from simtrust.simulators.log_recording import generate_wheel_legged_log

TINY = {
    "hidden_sizes": (8,),
    "steps": 100,
    "rollout_steps": 50,
    "checkpoint_every": 100,
    "evaluation_episodes": 1,
}


def run(out, **changes):
    arguments = {"seeds": 2, "episodes": 2, "recipes": ["sac", "h2o"], "studies": ["standing-still"]}
    return figure2(out, quiet=True, **{**arguments, **TINY, **changes})


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figure2")
    generate_wheel_legged_log(folder / "standing-still.hdf5", "standing-still", rows=3_000, quiet=True)
    run(folder)
    return folder


def test_settings_are_table_3s_for_the_robot():
    assert NETWORKS["hidden_sizes"] == (32, 32)
    assert NETWORKS["classifier_hidden_sizes"] == (32,)
    assert NETWORKS["batch_size"] == 32
    assert NETWORKS["cql_alpha"] == 10.0
    assert [(s.beta, s.steps) for s in STUDIES.values()] == [(0.1, 50_000), (1.0, 100_000)]


def test_every_run_is_configured_as_the_study_says(out):
    for recipe in ("sac", "h2o"):
        config = json.loads((out / "standing-still" / recipe / "config.json").read_text())
        assert config["recipe"] == recipe
        assert (config["sim"], config["real_env"]) == ("StandingStill-v0", "StandingStillReal-v0")
        assert config["algorithm"]["beta"] == 0.1
        assert config["reward_scale"] == "auto"
        assert config["normalise_observations"] is True
        assert config["seeds"] == 2


def test_the_table_is_the_mean_of_what_the_csv_lists(out):
    with (out / "figure2.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 * 2  # recipes, seeds, fidelities, episodes
    cells = load_cells(out)
    for recipe in ("sac", "h2o"):
        chosen = [r for r in rows if r["recipe"] == recipe and r["fidelity"] == "real"]
        for measure in ("return", "seconds", "error"):
            listed = np.mean([float(r[measure]) for r in chosen])
            found = cells["standing-still", recipe].interval(f"real {measure}").mean
            np.testing.assert_allclose(found, listed, rtol=1e-5)
    assert (out / "figure2.md").read_text() == table(cells) + "\n"


@pytest.mark.parametrize("name", ["figure2-standing-still.png", "figure2-returns.png"])
def test_pictures_are_drawn(out, name):
    with Image.open(out / name) as picture:
        assert min(picture.size) > 200
        assert len(picture.convert("RGB").getcolors(10**6)) > 5


def test_a_finished_study_is_not_trained_again(out):
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/*.json")}
    run(out)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*/*.json")} == before


@pytest.mark.parametrize(("name", "value"), [("seeds", 3), ("episodes", 5), ("steps", 200)])
def test_cells_of_other_numbers_are_not_mixed(out, name, value):
    with pytest.raises(RunError, match=f"--{name} {TINY.get(name, 2)}, not {value}"):
        run(out, **{name: value})


def test_a_run_of_other_settings_is_not_gone_on_with(out, tmp_path):
    shutil.copytree(out, tmp_path / "copy")
    (tmp_path / "copy" / "standing-still" / "h2o" / "measures.json").unlink()
    with pytest.raises(RunError, match=r"begun with hidden_sizes \(8,\), not \(16,\)"):
        run(tmp_path / "copy", hidden_sizes=(16,))


def test_a_stopped_study_goes_on_where_it_was(out):
    measures = out / "standing-still" / "h2o" / "measures.json"
    result = out / "standing-still" / "h2o" / "result.json"
    before, trained = measures.read_text(), result.stat().st_mtime_ns
    measures.unlink()
    assert ("standing-still", "h2o") not in load_cells(out)
    run(out)
    assert measures.read_text() == before
    assert result.stat().st_mtime_ns == trained


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipes": ["sacc"]}, "'sacc' is none of sac, cql"),
        ({"studies": ["flying"]}, "'flying' is none of standing-still"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"episodes": 0}, "--episodes is 0"),
    ],
)
def test_mistakes_are_told_before_any_work(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "none", **change)
    assert not (tmp_path / "none").exists()


def test_errors_are_of_the_state_each_task_is_about():
    state = np.zeros((1, 3, 4))
    state[0, :, 2], state[0, :, 3] = [3.0, 4.0, np.nan], [0.2, 0.6, np.nan]
    standing, moving = (study.root_mean_square_error(state) for study in STUDIES.values())
    np.testing.assert_allclose(standing, [np.sqrt(12.5)])
    np.testing.assert_allclose(moving, [np.sqrt(0.08)])


def test_a_cells_runs_are_averaged_over_episodes_only(tmp_path):
    cell = Cell("standing-still", "h2o", (0, 1), 100, {"real return": [[1.0, 3.0], [10.0, 20.0]]})
    assert cell.per_run("real return").tolist() == [2.0, 15.0]
    save_cell(cell, tmp_path / "measures.json")
    assert load_cell(tmp_path / "measures.json") == cell


def test_side_rows_differ_from_h2o_in_one_thing_each():
    assert RECIPES["h2o"] == ("h2o", {})
    assert RECIPES["h2o_unscaled"] == ("h2o", {"reward_scale": 1.0})
    assert RECIPES["h2o_raw"] == ("h2o", {"normalise_observations": False})
    kinds = {shift.kind for shift in parse_shifts(RECIPES["h2o_sensors"][1]["shifts"])}
    assert kinds == {"sensor-noise", "encoder-step"}


def test_every_recipe_of_the_study_exists():
    from simtrust.algorithms.recipes import RECIPES as KNOWN

    assert {name for name, _ in RECIPES.values()} <= set(KNOWN)
