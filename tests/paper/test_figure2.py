"""Figure 2 by command: what is trained, kept, measured and printed."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from simtrust.errors import ConfigError, RunError
from simtrust.paper.figure2 import figure2, load_cells
from simtrust.paper.figure2_text import MEASURES, overview, page, rows
from simtrust.paper.figure5 import figure5
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
    assert (out / "figure2.md").read_text().startswith(overview(cells) + "\n\n")


def test_every_cell_has_its_statistics_and_every_claim_its_verdict(out):
    with (out / "figure2-statistics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 6  # recipes, measures
    assert {line["updates"] for line in lines} == {"100"}
    cell = load_cells(out)["standing-still", "sac"]
    (line,) = (one for one in lines if (one["recipe"], one["measure"]) == ("sac", "real seconds"))
    runs = cell.per_run("real seconds")
    assert float(line["mean"]) == pytest.approx(runs.mean(), rel=1e-5)
    assert float(line["std"]) == pytest.approx(runs.std(ddof=1), rel=1e-4, abs=1e-9)
    with (out / "figure2-claims.csv").open() as file:
        claims = list(csv.DictReader(file))
    assert {claim["of"] for claim in claims} == {"standing-still"}
    asked = {claim["asked"]: claim["verdict"] for claim in claims}
    assert asked["cql, seconds upright < 21"] == "not run"
    assert asked["h2o, seconds upright > 21"] not in ("not run", "holds")
    text = (out / "figure2.md").read_text()
    assert "### standing-still" in text
    assert "### moving-straight" not in text


def test_a_cell_without_its_recorded_episodes_says_what_to_do(out, tmp_path):
    copy = shutil.copytree(out, tmp_path / "copy")
    (copy / "standing-still" / "h2o" / "traces.npz").unlink()
    with pytest.raises(RunError, match=r"traces.npz is not there.*remove measures.json"):
        run(copy)


@pytest.mark.parametrize("missing", ["real return", "simulator error"])
@pytest.mark.parametrize("figure", [run, figure5])
def test_a_cell_that_was_kept_with_fewer_measures_says_what_to_do(out, tmp_path, missing, figure):
    copy = shutil.copytree(out, tmp_path / "copy")
    file = copy / "standing-still" / "h2o" / "measures.json"
    kept = json.loads(file.read_text())
    del kept["measures"][missing]
    file.write_text(json.dumps(kept))
    with pytest.raises(RunError, match=rf"h2o/measures\.json was kept without {missing}; remove it"):
        figure(copy)


def made_up(recipe, study="standing-still", steps=100, **measures):
    """A cell of one episode a run, whose other measures are 0."""
    seeds = tuple(range(len(next(iter(measures.values())))))
    given = {measure.key: [[0.0] for _ in seeds] for measure in MEASURES}
    given |= {key.replace("_", " "): [[value] for value in runs] for key, runs in measures.items()}
    return {(study, recipe): Cell(study, recipe, seeds, steps, given)}


def row_of(cells, recipe, key):
    (found,) = (row for row in rows(cells) if (row.recipe, row.measure.key) == (recipe, key))
    return found


def test_statistics_are_over_seeds_and_of_errors_the_smaller_one_is_better():
    cells = made_up("h2o", real_seconds=[1, 2, 3, 10], real_error=[0.1, 0.2, 0.3, 0.4])
    cells |= made_up("cql", real_seconds=[2, 2, 2, 2], real_error=[0.25, 0.25, 0.25, 0.25])
    ours = row_of(cells, "h2o", "real seconds")
    assert ours.sample.mean == 4.0
    assert ours.sample.std == pytest.approx(np.std([1, 2, 3, 10], ddof=1))
    assert ours.iqm.mean == 2.5
    assert np.isnan(ours.better.mean)
    # More than 2 s are two of four, and one ties.
    assert row_of(cells, "cql", "real seconds").better.mean == 0.625
    assert row_of(cells, "cql", "real error").better.mean == 0.5
    cells |= made_up("darc", real_seconds=[2, 2], real_error=[0.35, 0.35])
    assert row_of(cells, "darc", "real error").better.mean == 0.75


def test_runs_of_other_lengths_are_not_said_to_be_better_or_worse():
    cells = made_up("h2o", real_return=[5.0, 6.0]) | made_up("cql", steps=50, real_return=[1.0, 2.0])
    assert np.isnan(row_of(cells, "cql", "real return").better.mean)
    cells |= made_up("sac", real_return=[1.0, 2.0])
    assert row_of(cells, "sac", "real return").better.mean == 1.0


def test_both_tasks_together_count_each_by_itself():
    cells = {}
    for study, ours, theirs in (
        ("standing-still", [30, 30], [3, 3]),
        ("moving-straight", [20, 20], [20, 20]),
    ):
        cells |= made_up("h2o", study, real_seconds=ours, real_return=ours)
        cells |= made_up("cql", study, real_seconds=theirs, real_return=theirs)
    text = page(cells, {})
    # Always better in one task and never in the other, where all are equal; a tenth and the whole time.
    assert "| cql | 2 | 0.75 (0.75 to 0.75) | 0.55 (0.55 to 0.55) |" in text
    assert "| h2o | 2 | – | 1.00 (1.00 to 1.00) |" in text


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
