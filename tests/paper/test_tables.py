"""Tables by command: what is trained and what is not, how runs are judged, and what a page says of them."""

import csv
import json
import shutil
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box
from PIL import Image

from simtrust import api, cli
from simtrust.data import load_dataset, save_dataset
from simtrust.errors import ConfigError, DataError, RunError
from simtrust.gap.rollouts import random_policy, roll_out
from simtrust.paper import cell_training, figure4, figure5, tables
from simtrust.paper.cell_training import chosen_cells, run_directory
from simtrust.paper.robot import STUDIES as STUDIES_OF_ROBOT
from simtrust.paper.robot import judge, save_cell, train_cell
from simtrust.paper.scores import best_deciles, score, scores
from simtrust.paper.studies import STUDIES, Setting
from simtrust.reports.run_record import read_run
from simtrust.simulators import make_simulator
from simtrust.simulators.log_recording import generate_wheel_legged_log
from simtrust.training.config import TrainConfig, config_from_json, config_to_json
from simtrust.training.diagnosis import NonFiniteError
from simtrust.training.result import RunResult
from simtrust.training.setup import prepare

SETTING = Setting("halfcheetah", "medium-replay", "gravity")
TINY = {
    "hidden_sizes": (8,),
    "classifier_hidden_sizes": (8,),
    "batch_size": 16,
    "classifier_batch_size": 16,
    "rollout_steps": 20,
    "evaluate_every": 20,
    "checkpoint_every": 20,
    "evaluation_episodes": 1,
    "buffer_capacity": 100,
    "steps": 40,
    "seeds": 2,
}
TRAINED = ("*-replay-gravity-h2o",)


def pretend(out, one, evaluations, *, steps=1_000, final=None, every=100):
    """A run directory as training leaves it: returns [R] of every evaluation, and those of its end."""
    directory = run_directory(out, one)
    directory.mkdir(parents=True)
    seeds = len(evaluations[0])
    config = TrainConfig(recipe=one.recipe, steps=steps, seeds=seeds, rollout_steps=every)
    (directory / "config.json").write_text(config_to_json(replace(config, evaluate_every=every)))
    lines = [
        {"step": every * number, "seed": seed, "return_mean": value, "critic_loss": 1.0}
        for number, values in enumerate(evaluations, 1)
        for seed, value in enumerate(values)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if final is not None:
        runs = [
            {"seed": seed, "return_mean": value, "return_std": 0.0, "episode_returns": [value]}
            for seed, value in enumerate(final)
        ]
        (directory / "result.json").write_text(json.dumps({"format": 1, "steps": steps, "runs": runs}))
    return read_run(directory)


def pretend_facts(out, best):
    facts = {"sha256": "sum", "rows": 1, "episodes": 1, "best_decile": best}
    (out / "datasets.json").write_text(json.dumps({"halfcheetah_medium_replay-v5.hdf5": facts}))


def lines_of(text, recipe, of="published"):
    """The cells of a recipe's line in the table that has a column of that name, by column."""
    table = next(t for t in text.split("\n\n") if t.startswith("|") and f"| {of}" in t)
    heads, _, *lines = ([part.strip() for part in line.split("|")[1:-1]] for line in table.splitlines())
    (found,) = (dict(zip(heads, line, strict=True)) for line in lines if recipe in line)
    return found


class TestScores:
    def test_a_run_is_judged_by_its_last_five_evaluations(self, tmp_path):
        evaluations = [[1000.0, 0.0]] * 5 + [[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0], [5.0, 50.0]]
        found = score(
            SETTING.cell("h2o"), pretend(tmp_path, SETTING.cell("h2o"), evaluations, final=[5.0, 50.0])
        )
        assert found is not None
        assert found.returns.tolist() == [3.0, 30.0]
        assert (found.evaluations, found.step, found.finished) == (5, 1_000, True)
        assert (found.mean, found.std) == (16.5, pytest.approx(27 / np.sqrt(2)))

    def test_an_unfinished_run_is_judged_by_what_there_is(self, tmp_path):
        found = score(SETTING.cell("h2o"), pretend(tmp_path, SETTING.cell("h2o"), [[1.0, 4.0], [3.0, None]]))
        assert found is not None
        assert found.returns.tolist() == [2.0, 4.0]
        assert (found.evaluations, found.step, found.steps, found.finished) == (2, 200, 1_000, False)

    def test_a_run_that_was_evaluated_at_its_end_alone_is_judged_by_that(self, tmp_path):
        run = pretend(tmp_path, SETTING.cell("h2o"), [[None, None]], final=[7.0, 9.0])
        found = score(SETTING.cell("h2o"), run)
        assert found is not None
        assert found.returns.tolist() == [7.0, 9.0]
        assert found.curve[0].tolist() == [1_000]

    def test_a_run_that_has_just_begun_is_not_judged(self, tmp_path):
        pretend(tmp_path, SETTING.cell("h2o"), [[None, None]])
        assert scores([SETTING.cell("h2o"), SETTING.cell("cql")], tmp_path) == {}

    def test_returns_are_not_divided_by_a_negative_one(self, tmp_path):
        pretend_facts(tmp_path, -200.0)
        assert best_deciles([SETTING], tmp_path) == {}
        pretend_facts(tmp_path, 500.0)
        assert best_deciles([SETTING], tmp_path) == {SETTING: 500.0}


class TestPage:
    @pytest.fixture
    def out(self, tmp_path):
        pretend(tmp_path, SETTING.cell("h2o"), [[6_000.0, 6_100.0, 6_200.0]] * 10, final=[6_000.0] * 3)
        pretend(tmp_path, SETTING.cell("h2o_dr"), [[7_000.0, 7_010.0, 6_150.0]] * 10, final=[7_000.0] * 3)
        pretend(tmp_path, SETTING.cell("sac"), [[100.0, 110.0, 120.0]] * 10, final=[100.0] * 3)
        pretend(tmp_path, SETTING.cell("cql"), [[5_000.0, 5_100.0]] * 4)
        pretend_facts(tmp_path, 5_000.0)
        return tmp_path

    @pytest.fixture
    def text(self, out):
        tables.write_results("table2", out, "the command")
        return (out / "table2.md").read_text()

    def test_numbers_stand_beside_the_published_ones(self, text):
        h2o = lines_of(text, "H2O")
        assert h2o["return"] == "6,100 ± 100"
        assert h2o["IQM"].startswith("6,100 (6,0")
        assert h2o["÷ best"] == "1.22"
        assert (h2o["updates"], h2o["seeds"]) == ("1,000", "3")
        assert h2o["published"] == "6,813 ± 289 (D2C: 6,543 ± 230)"
        assert h2o["P(H2O better)"] == "–"

    def test_h2o_is_compared_with_every_other_recipe_that_went_as_far(self, text):
        assert lines_of(text, "SAC(sim)")["P(H2O better)"] == "1.00 (1.00 to 1.00)"
        # Of nine pairs, one: 6,200 above 6,150.
        assert lines_of(text, "H2O-dr")["P(H2O better)"].startswith("0.11 (0.00 to ")
        assert lines_of(text, "CQL(real)")["P(H2O better)"] == "–"

    def test_what_was_not_run_or_not_finished_says_so(self, text):
        assert lines_of(text, "CQL(real)")["updates"] == "400 of 1,000"
        assert lines_of(text, "H2O-reg")["return"] == "–"
        assert lines_of(text, "H2O-reg")["published"] == "6,501 ± 147"
        assert "Of 8 cells 3 are finished, 1 begun, 4 not evaluated yet." in text

    def test_orderings_hold_or_not_or_cannot_be_told(self, text):
        def among_ours(ordering):
            return lines_of(text, ordering, of="among ours")["among ours"]

        assert among_ours("H2O > SAC(sim)") == "holds"
        assert among_ours("H2O > H2O-dr") == "cannot be told apart"
        assert among_ours("H2O > CQL(real)") == "not compared (after 1,000 and 400 updates)"
        assert "H2O > H2O-reg |" not in text
        assert "holds 1, cannot be told apart 1" in text

    def test_it_says_what_it_is_of(self, text):
        assert text.startswith("# table2: ")
        assert "D4RL v2" in text
        assert "last 5 evaluations" in text
        assert "`the command`" in text

    def test_the_csv_has_every_number_of_every_cell(self, text, out):
        with (out / "table2.csv").open() as file:
            lines = {line["recipe"]: line for line in csv.DictReader(file)}
        assert len(lines) == 8
        h2o = lines["h2o"]
        assert h2o["cell"] == "halfcheetah-medium-replay-gravity-h2o"
        assert [float(x) for x in h2o["seed_returns"].split()] == [6_000, 6_100, 6_200]
        assert (h2o["mean"], h2o["std"], h2o["relative_to_best_decile"]) == ("6100", "100", "1.22")
        assert (h2o["published_mean"], h2o["published_std"]) == ("6813", "289")
        assert (lines["cql"]["updates"], lines["cql"]["updates_planned"]) == ("400", "1000")
        assert lines["h2o_reg"]["mean"] == lines["h2o_reg"]["seed_returns"] == ""

    def test_over_all_settings_only_what_h2o_was_run_in_counts(self, out):
        friction = Setting("halfcheetah", "medium-replay", "friction")
        pretend(out, friction.cell("h2o"), [[5_000.0] * 3] * 10, final=[5_000.0] * 3)
        tables.write_results("table1", out, "the command")
        found = lines_of((out / "table1.md").read_text(), "H2O", of="settings")
        # 1.20, 1.22, 1.24 and three times 1: of the six, the middle four.
        assert found["settings"] == "2"
        assert found["IQM ÷ best"].startswith(f"{(1 + 1 + 1.2 + 1.22) / 4:.2f} (")

    @pytest.mark.parametrize("study", ["table2", "table1", "figure6", "figure7"])
    def test_pictures_are_drawn(self, out, study):
        if study == "figure6":
            for thousands in (10, 20):
                pretend(
                    out, SETTING._replace(thousands=thousands).cell("h2o"), [[1.0, 2.0]], final=[3.0, 4.0]
                )
        tables.write_results(study, out, "the command")
        with Image.open(out / f"{study}.png") as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(10**6) or ()) > 20


class TestCells:
    def test_patterns_choose(self):
        study = STUDIES["table1"]
        assert chosen_cells(study, ()) == study.cells
        assert chosen_cells(study, ("none",)) == ()
        assert {c.recipe for c in chosen_cells(study, ("*-sac",))} == {"sac"}
        some = chosen_cells(study, ("halfcheetah-medium-gravity-*", "*-medium-cql"))
        assert [c.recipe for c in some] == ["cql", "darc", "darc_plus", "h2o"]

    def test_a_pattern_that_matches_nothing_is_told_with_what_there_is(self):
        with pytest.raises(ConfigError, match=r"'\*-sacc' matches no cell of table2(.|\n)*-h2o_reg_dr\n"):
            chosen_cells(STUDIES["table2"], ("*-sac", "*-sacc"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Random actions on HalfCheetah under the name of a replay buffer."""
    simulator = make_simulator("HalfCheetah-v5", num_envs=2)
    space = simulator.single_action_space
    assert isinstance(space, Box)
    rows = roll_out(simulator, random_policy(space, np.random.default_rng(0)), 600, 0)
    keys = ("observations", "actions", "rewards", "next_observations", "terminals")
    columns = dict(zip(keys, rows, strict=True)) | {"timeouts": np.arange(1, 601) % 100 == 0}
    folder = tmp_path_factory.mktemp("data")
    save_dataset(folder / "halfcheetah_medium_replay-v5.hdf5", {**columns, "terminals": np.zeros(600, bool)})
    return folder


def run(out, data, **changes):
    given = {"data": data, "cells": TRAINED, "quiet": True, **TINY, **changes}
    return tables.reproduce(given.pop("study", "table2"), out, **given)


@pytest.fixture(scope="module")
def out(tmp_path_factory, data, quick_compilation):
    folder = tmp_path_factory.mktemp("tables")
    run(folder, data)
    return folder


class TestTraining:
    def test_a_cell_is_a_run_as_the_table_says(self, out, data):
        (directory,) = (out / "runs").iterdir()
        assert directory.name == "halfcheetah-medium-replay-gravity-h2o"
        config = config_from_json(directory / "config.json")[0]
        assert config.real == str(data / "halfcheetah_medium_replay-v5.hdf5")
        assert config.sim == config.real_env == "HalfCheetah-v5"
        assert (config.recipe, config.steps, config.seeds) == ("h2o", 40, 2)
        assert config.algorithm.hidden_sizes == (8,)

    def test_recipes_of_one_source_are_given_that_alone(self, data, tmp_path, monkeypatch):
        begun = {}

        def prepared(config, **_):
            with closing(prepare(config)):
                begun[config.recipe] = config
            return RunResult(Path(config.out), {})

        monkeypatch.setattr(api, "train_config", prepared)
        run(tmp_path, data, cells=("*-sac", "*-cql"))
        sac, cql = begun["sac"], begun["cql"]
        assert (sac.real, sac.sim, sac.shifts) == (None, "HalfCheetah-v5", ("gravity=2",))
        assert (cql.sim, cql.real_env) == (None, "HalfCheetah-v5")
        assert cql.real == str(data / "halfcheetah_medium_replay-v5.hdf5")
        assert cql.out == str(tmp_path / "runs" / "halfcheetah-medium-replay-cql")

    def test_results_are_the_runs(self, out):
        directory = out / "runs" / "halfcheetah-medium-replay-gravity-h2o"
        with (out / "table2.csv").open() as file:
            (h2o,) = (line for line in csv.DictReader(file) if line["recipe"] == "h2o")
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        returns = [line["return_mean"] for line in lines]
        assert len(returns) == 4
        assert float(h2o["mean"]) == pytest.approx(np.mean(returns), rel=1e-4)
        assert h2o["evaluations"] == "2"
        decile = json.loads((out / "datasets.json").read_text())["halfcheetah_medium_replay-v5.hdf5"][
            "best_decile"
        ]
        assert decile < 0
        assert h2o["relative_to_best_decile"] == ""

    def test_a_finished_cell_is_not_trained_again_and_shared_with_other_tables(self, out, monkeypatch):
        def refuse(*_, **__):
            raise AssertionError("trained again")

        monkeypatch.setattr(cell_training, "train", refuse)
        monkeypatch.setattr(cell_training, "resume", refuse)
        run(out, None)
        found = run(out, None, study="table5", cells=TRAINED)
        assert [one.name for one in found] == ["halfcheetah-medium-replay-gravity-h2o"]

    def test_a_stopped_cell_goes_on(self, out, data, tmp_path, monkeypatch):
        copy = shutil.copytree(out, tmp_path / "copy")
        moved = shutil.copytree(data, tmp_path / "moved")
        directory = copy / "runs" / "halfcheetah-medium-replay-gravity-h2o"
        before = (directory / "metrics.jsonl").read_bytes()
        (directory / "result.json").unlink()
        for path in (directory / "checkpoints").glob("*-000000000040.*"):
            path.unlink()
        monkeypatch.delattr(cell_training, "train")
        run(copy, moved)
        assert (directory / "metrics.jsonl").read_bytes() == before
        assert config_from_json(directory / "config.json")[0].real == str(
            moved / "halfcheetah_medium_replay-v5.hdf5"
        )

    def test_nothing_is_trained_for_none_and_what_there_is_is_written(self, out, tmp_path):
        copy = shutil.copytree(out, tmp_path / "copy")
        (copy / "table2.md").unlink()
        assert len(run(copy, None, cells=("none",), steps=1, seeds=1)) == 1
        assert "Of 8 cells 1 are finished" in (copy / "table2.md").read_text()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"steps": 60}, "begun with 40 steps, not 60; give --steps 40"),
            ({"seeds": 3}, "begun with 2 seeds, not 3; give --seeds 2"),
            ({"hidden_sizes": (9,)}, r"begun with hidden_sizes \(8,\), not \(9,\)"),
        ],
    )
    def test_runs_of_other_settings_are_not_mixed(self, out, data, change, message):
        with pytest.raises(RunError, match=message):
            run(out, data, **change)

    def test_a_cell_that_diverges_does_not_stop_the_others(self, tmp_path, data, monkeypatch):
        trained = []

        def train_cell(one, *_, **__):
            trained.append(one.recipe)
            if one.recipe == "h2o":
                raise NonFiniteError("the loss is NaN", None)

        monkeypatch.setattr(tables, "train_cell", train_cell)
        with pytest.raises(RunError, match="medium-replay-gravity-h2o: the loss is NaN"):
            run(tmp_path, data, cells=("*-h2o", "*-cql", "*-sac"))
        assert trained == ["h2o", "cql", "sac"]

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"steps": 0}, ConfigError, "--steps is 0"),
            ({"seeds": 0}, ConfigError, "--seeds is 0"),
            ({"cells": ("nothing",)}, ConfigError, "matches no cell"),
            ({"data": None}, ConfigError, "learns from a dataset: give the folder"),
            ({"study": "table6"}, DataError, "simtrust generate Walker2d-v5 medium-replay --out"),
        ],
    )
    def test_mistakes_are_told_before_any_work(self, data, tmp_path, change, error, message):
        with pytest.raises(error, match=message):
            run(tmp_path / "none", **{"data": data, **change})
        assert not (tmp_path / "none").exists()


class TestRobot:
    def test_figure_4_is_of_the_operators_logs(self, tmp_path):
        for name in ("standing-still", "moving-straight"):
            generate_wheel_legged_log(tmp_path / f"{name}.hdf5", name, rows=1_200, quiet=True)
        rewards = figure4.figure4(tmp_path, quiet=True)
        recorded = load_dataset(tmp_path / "moving-straight.hdf5").transitions.reward
        np.testing.assert_array_equal(rewards["moving-straight"], recorded)
        assert (tmp_path / "figure4-standing-still.png").exists()
        line = next(
            line for line in (tmp_path / "figure4.md").read_text().splitlines() if "moving-straight" in line
        )
        assert f"{recorded.mean(dtype=float):.3f}" in line
        assert line.endswith("| 15.000 |")

    def test_figure_5_is_of_whole_episodes_of_figure_2s_policies(self, tmp_path, quick_compilation):
        """What is gathered in the end is the return of the episode."""
        study = replace(STUDIES_OF_ROBOT["standing-still"], steps=50)
        log = generate_wheel_legged_log(
            tmp_path / "standing-still.hdf5", "standing-still", rows=1_200, quiet=True
        )
        options = {"hidden_sizes": (8,), "batch_size": 16, "rollout_steps": 50, "checkpoint_every": 50}
        directory = train_cell(
            study, "sac", tmp_path, log, quiet=True, seeds=2, evaluation_episodes=1, **options
        )
        with pytest.raises(RunError, match="no finished recipe"):
            figure5.figure5(tmp_path, quiet=True)
        measured, _ = judge(study, "sac", directory, episodes=1)
        save_cell(measured, directory / "measures.json")
        curves = figure5.figure5(tmp_path, quiet=True)["standing-still", "sac"]
        lengths = np.isfinite(curves).sum(1)
        np.testing.assert_allclose(lengths / 200, np.ravel(measured.measures["real seconds"]))
        gathered = [curve[length - 1] for curve, length in zip(curves, lengths, strict=True)]
        np.testing.assert_allclose(gathered, np.ravel(measured.measures["real return"]), rtol=1e-6)
        with (tmp_path / "figure5.csv").open() as file:
            lines = [line for line in csv.DictReader(file) if line["run"] == "1"]
        assert float(lines[-1]["cumulative_reward"]) == pytest.approx(gathered[1], rel=1e-4)
        assert float(lines[-1]["seconds"]) == pytest.approx(lengths[1] / 200)
        assert float(lines[0]["seconds"]) == pytest.approx(min(0.1, lengths[1] / 200))
        assert (tmp_path / "figure5-standing-still.png").exists()

    def test_figure_5_needs_the_runs_of_figure_2(self, tmp_path):
        with pytest.raises(RunError, match="simtrust paper figure2 --out"):
            figure5.figure5(tmp_path)


class TestCommand:
    @pytest.fixture
    def paper(self, monkeypatch, capsys, tmp_path):
        """What `reproduce` is asked for, and what a user is told."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", sys.path[:])
        asked = []
        monkeypatch.setattr(tables, "reproduce", lambda *given, **more: asked.append((*given, more)))

        def paper(*arguments):
            monkeypatch.setattr(sys, "argv", ["simtrust", "paper", *arguments])
            try:
                cli.main()
            except SystemExit as end:
                return end.code, " ".join(capsys.readouterr()[0 if end.code == 0 else 1].split())
            return asked.pop()

        return paper

    def test_options_arrive(self, paper):
        study, out, given = paper(
            "table2", "--data", "d", "--steps", "200", "--seeds", "2", "--cells", "*-h2o", "a"
        )
        assert (study, str(out)) == ("table2", "runs/paper")
        assert given.pop("command").startswith("simtrust paper table2 --data d --steps 200")
        assert given == {"data": "d", "steps": 200, "seeds": 2, "cells": ("*-h2o", "a")}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["table2", "--real", "x"], "table2 has no option --real"),
            (["figure4", "--seeds", "2"], "figure4 has no option --seeds"),
            (["theory", "--data", "d"], "theory has no option --data"),
            (["figure6", "--seed", "2"], "figure6 has no option --seed;"),
        ],
    )
    def test_options_that_do_not_apply_are_refused(self, paper, arguments, message):
        status, told = paper(*arguments)
        assert status == 2
        assert message in told

    def test_help_teaches(self, paper):
        status, told = paper("--help")
        assert status == 0
        assert "simtrust paper table2 --data datasets" in told
        for study in STUDIES:
            assert study in told
