"""Tables by command: what is trained and what is not, how runs are judged, and what a page says of them."""

import csv
import json
import shutil
import sys
import weakref
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from gymnasium.spaces import Box
from PIL import Image

from simtrust import cli
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.data import load_dataset, save_dataset
from simtrust.data.dataset import columns_from_rows
from simtrust.errors import ConfigError, DataError, RunError
from simtrust.gap.rollouts import random_policy, roll_out
from simtrust.paper import cell_training, figure2, figure4, figure5, tables
from simtrust.paper.cell_training import check_logs, chosen_cells, groups_of, train_cells
from simtrust.paper.logs import log_of
from simtrust.paper.robot import STUDIES as STUDIES_OF_ROBOT
from simtrust.paper.robot import judge, save_cell, train_cell
from simtrust.paper.same_runs import UNSET, check_same, run_directory
from simtrust.paper.scores import best_deciles, score, scores
from simtrust.paper.studies import STUDIES, Setting
from simtrust.reports.run_record import read_run
from simtrust.simulators import make_simulator
from simtrust.simulators.log_recording import generate_wheel_legged_log
from simtrust.training.config import TrainConfig, config_from_json, config_to_json
from simtrust.training.diagnosis import NonFiniteError
from simtrust.training.memory import NoRoomError
from simtrust.training.run_directory import lock
from simtrust.training.setup import prepare
from simtrust.training.storage import StorageError

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


def pretend(out, one, evaluations, *, steps=1_000, final=None, every=100, log="sum", **options):
    """A run directory as training leaves it: returns [R] of every evaluation, and those of its end."""
    directory = run_directory(out, one)
    directory.mkdir(parents=True)
    seeds = len(evaluations[0])
    config = TrainConfig(recipe=one.recipe, steps=steps, seeds=seeds, rollout_steps=every)
    config = replace(config, evaluate_every=every, algorithm=AlgorithmOptions(**options))
    (directory / "config.json").write_text(config_to_json(config, dataset_sha256=log if one.log else None))
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


def pretend_facts(out, **best):
    """What was kept of a dataset of each SHA-256."""
    facts = {
        sha256: {"sha256": sha256, "rows": 1, "episodes": 1, "best_decile": b} for sha256, b in best.items()
    }
    (out / "datasets.json").write_text(json.dumps(facts))


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
        pretend(tmp_path, SETTING.cell("h2o"), [[1.0]])
        found = scores([SETTING.cell("h2o")], tmp_path)
        pretend_facts(tmp_path, sum=-200.0)
        assert best_deciles(STUDIES["table2"], found, tmp_path) == {}
        pretend_facts(tmp_path, sum=500.0)
        assert best_deciles(STUDIES["table2"], found, tmp_path) == {SETTING: 500.0}

    def test_returns_are_divided_by_what_their_own_dataset_earns(self, tmp_path):
        """Not by that of a later file of the same name, nor by either where runs had one each."""
        pretend(tmp_path, SETTING.cell("h2o"), [[1.0]], log="old")
        pretend(tmp_path, SETTING.cell("sac"), [[1.0]])
        pretend_facts(tmp_path, new=500.0)
        study = STUDIES["table2"]
        assert best_deciles(study, scores(study.cells, tmp_path), tmp_path) == {}
        pretend_facts(tmp_path, old=400.0, new=500.0)
        assert best_deciles(study, scores(study.cells, tmp_path), tmp_path) == {SETTING: 400.0}
        pretend(tmp_path, SETTING.cell("h2o_dr"), [[1.0]], log="new")
        assert best_deciles(study, scores(study.cells, tmp_path), tmp_path) == {}

    def test_seeds_are_those_with_a_return(self, tmp_path):
        found = score(SETTING.cell("h2o"), pretend(tmp_path, SETTING.cell("h2o"), [[2.0, None, 3.0]]))
        assert found is not None
        assert found.seeds == 2
        tables.write_results("table2", tmp_path, "the command")
        assert lines_of((tmp_path / "table2.md").read_text(), "H2O")["seeds"] == "2"
        with (tmp_path / "table2.csv").open() as file:
            assert {line["recipe"]: line["seeds"] for line in csv.DictReader(file)}["h2o"] == "2"


class TestPage:
    @pytest.fixture
    def out(self, tmp_path):
        pretend(tmp_path, SETTING.cell("h2o"), [[6_000.0, 6_100.0, 6_200.0]] * 10, final=[6_000.0] * 3)
        pretend(tmp_path, SETTING.cell("h2o_dr"), [[7_000.0, 7_010.0, 6_150.0]] * 10, final=[7_000.0] * 3)
        pretend(tmp_path, SETTING.cell("sac"), [[100.0, 110.0, 120.0]] * 10, final=[100.0] * 3)
        pretend(tmp_path, SETTING.cell("cql"), [[5_000.0, 5_100.0]] * 4)
        pretend_facts(tmp_path, sum=5_000.0)
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
        assert "of fewer than four runs, their mean" in text

    def test_runs_of_several_kinds_are_told(self, out, text):
        """Three seeds of some and two of another; steps, which all share, are not the paper's either."""
        told = next(part for part in text.split("\n\n") if part.startswith("- seeds: "))
        name = SETTING.cell("h2o").log
        assert f"3 of `{name}-gravity-h2o`" in told
        assert told.splitlines() == [told]
        assert told.endswith(f"2 of `{name}-cql`")
        shutil.rmtree(run_directory(out, SETTING.cell("cql")))
        assert "not of one kind" not in tables.write_results("table2", out, "the command")[1]
        pretend(out, SETTING.cell("h2o_a"), [[1.0, 2.0, 3.0]], log="other", cql_alpha=5.0)
        text = tables.write_results("table2", out, "the command")[1]
        assert f"- cql_alpha: 2.0 of `{name}-gravity-h2o`" in text
        assert (
            f"- file of {name}, SHA-256: sum of `{name}-gravity-h2o`, `{name}-gravity-h2o_dr`; other of"
            in text
        )

    def test_figure_6_has_no_numbers_to_be_clear(self, tmp_path):
        for recipe in ("h2o", "cql"):
            one = SETTING._replace(thousands=60).cell(recipe)
            pretend(tmp_path, one, [[1.0, 2.0]])
        text = tables.write_results("figure6", tmp_path, "the command")[1]
        assert "\n\nno numbers in the paper, 5: cannot be told apart 1, not run 4\n\n" in text
        assert lines_of(text, "H2O > CQL(real)", of="among ours")["clear"] == "no numbers"

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
def out(tmp_path_factory, data):
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
            raise ConfigError("far enough")

        monkeypatch.setattr(cell_training, "beginning", prepared)
        with pytest.raises(RunError, match="far enough"):
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
        (facts,) = json.loads((out / "datasets.json").read_text()).values()
        assert facts["file"] == "halfcheetah_medium_replay-v5.hdf5"
        assert facts["best_decile"] < 0
        assert h2o["relative_to_best_decile"] == ""

    def test_a_finished_cell_is_not_trained_again_and_shared_with_other_tables(self, out, monkeypatch):
        def refuse(*_, **__):
            raise AssertionError("trained again")

        monkeypatch.setattr(tables, "train_cells", refuse)
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
        monkeypatch.delattr(cell_training, "beginning")
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

    def test_cells_that_cannot_be_trained_do_not_stop_the_others(self, tmp_path, data, monkeypatch):
        trained = []
        errors = {"h2o": NonFiniteError("the loss is NaN", None), "cql": ConfigError("9 GiB, 1 GiB are free")}

        def train_cells(group, *_, **__):
            trained.extend(one.recipe for one in group)
            return {one.name: errors.get(one.recipe) for one in group}

        monkeypatch.setattr(tables, "train_cells", train_cells)
        with pytest.raises(RunError, match=r"-gravity-h2o: the loss is NaN\n.*-cql: 9 GiB, 1 GiB are free$"):
            run(tmp_path, data, cells=("*-h2o", "*-cql", "*-sac"))
        assert trained == ["h2o", "cql", "sac"]

    def test_cells_that_the_others_leave_no_memory_for_are_trained_after_them(
        self, tmp_path, data, monkeypatch
    ):
        """One cell at a time fits, but sac never does. Nothing is left then of those before."""
        groups, buffers = [], []

        class Buffer:
            pass

        def refuse(buffer):
            try:
                raise NoRoomError("9 GiB, 1 GiB are free")
            except NoRoomError as error:
                return error

        def train_cells(group, *_, **__):
            assert [each() for each in buffers] == [None] * len(buffers)
            groups.append([one.recipe for one in group])
            buffer = Buffer()
            buffers.append(weakref.ref(buffer))
            ends = {one.name: refuse(buffer) for one in group}
            return ends if group[0].recipe == "sac" else {**ends, group[0].name: None}

        monkeypatch.setattr(tables, "train_cells", train_cells)
        monkeypatch.setattr(tables, "groups_of", lambda cells, _: [tuple(cells)])
        with pytest.raises(RunError, match=r"to its end:\n[a-z-]+-sac: 9 GiB, 1 GiB are free$"):
            run(tmp_path, data, cells=("*-h2o", "*-cql", "*-sac"))
        assert [len(group) for group in groups] == [3, 2, 1]
        assert [group[0] for group in groups][2] == "sac"

    def test_cells_of_one_recipe_are_trained_side_by_side_where_that_fills_the_machine(self, monkeypatch):
        settings = [
            Setting("halfcheetah", level, "gravity") for level in ("medium", "medium-replay", "medium-expert")
        ]
        cells = [setting.cell(recipe) for recipe in ("h2o", "darc") for setting in settings]
        h2o, darc = tuple(cells[:3]), tuple(cells[3:])
        monkeypatch.setattr(cell_training, "usable_processors", lambda: 4)
        assert groups_of(cells, seeds=2) == [h2o[:2], h2o[2:], darc[:2], darc[2:]]
        assert groups_of(cells, seeds=5) == [(each,) for each in cells]
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert groups_of(cells, seeds=None) == [h2o, darc]

    def test_a_log_that_is_too_short_is_told_before_any_training(self, tmp_path, data, monkeypatch):
        monkeypatch.setattr(tables, "train_cells", None)
        with pytest.raises(DataError, match="has 600 rows, 10,000 are wanted"):
            run(tmp_path, data, study="figure6", cells=("*-10k-cql",))

    def test_a_run_keeps_ten_times_its_log_and_what_is_asked_for(self, tmp_path, data, monkeypatch):
        given = {}

        def beginning(config, **_):
            given[config.recipe] = config
            raise ConfigError("far enough")

        monkeypatch.setattr(cell_training, "beginning", beginning)
        for recipe in ("h2o", "darc"):
            ends = train_cells([SETTING.cell(recipe)], data, tmp_path, {"steps": 40})
            assert [str(end) for end in ends.values()] == ["far enough"]
        assert (given["h2o"].buffer_capacity, given["h2o"].steps) == (6_000, 40)
        assert given["darc"].buffer_capacity == 1_000_000

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


@pytest.fixture
def other(tmp_path, data):
    """Another dataset of the same name: its first 500 rows."""
    name = "halfcheetah_medium_replay-v5.hdf5"
    rows = {k: v[:500] for k, v in columns_from_rows(load_dataset(data / name)).items()}
    save_dataset(tmp_path / "other" / name, rows)
    return tmp_path / "other"


class TestOtherRuns:
    def test_those_of_another_file_are_refused(self, out, data, other, tmp_path):
        copy = shutil.copytree(out, tmp_path / "copy")
        with pytest.raises(
            RunError, match=r"-h2o was trained on another file than .*other/half.*another --out"
        ):
            run(copy, other)
        # Nor may another cell of the table be trained on it.
        with pytest.raises(RunError, match="trained on another file than"):
            run(copy, other, cells=("*-cql",))
        run(copy, data)

    def test_those_of_two_files_are_refused_without_either(self, tmp_path):
        pretend(tmp_path, SETTING.cell("h2o"), [[1.0]], log="one")
        pretend(tmp_path, SETTING.cell("sac"), [[1.0]], log="two")
        check_logs(STUDIES["table2"], (), None, tmp_path)
        pretend(tmp_path, SETTING.cell("cql"), [[1.0]], log="two")
        with pytest.raises(RunError, match=r"-cql was trained on another file than .*-h2o was"):
            check_logs(STUDIES["table2"], (), None, tmp_path)

    def test_those_of_parts_of_another_dataset_are_refused(self, tmp_path):
        one, more = (SETTING._replace(thousands=thousands).cell("h2o") for thousands in (10, 20))

        def dataset(rows):
            columns = {"observations": np.arange(2.0 * rows).reshape(-1, 2), "actions": np.zeros((rows, 1))}
            columns |= {"rewards": np.ones(rows), "terminals": np.zeros(rows, bool)}
            columns |= {
                "next_observations": columns["observations"] + 1,
                "timeouts": np.arange(1, rows + 1) % 500 == 0,
            }
            return save_dataset(tmp_path / "data" / "halfcheetah_medium_replay-v5.hdf5", columns).parent

        log = log_of(one, dataset(20_000), tmp_path)
        assert log is not None
        pretend(tmp_path, one, [[1.0]], log=log.facts.sha256)
        check_logs(STUDIES["figure6"], [more], tmp_path / "data", tmp_path)
        with pytest.raises(RunError, match=r"-10k-gravity-h2o was trained on another file than"):
            check_logs(STUDIES["figure6"], [more], dataset(20_500), tmp_path)

    def test_those_not_chosen_are_of_the_same_settings_too(self, out, data, tmp_path):
        copy = shutil.copytree(out, tmp_path / "copy")
        pretend(copy, SETTING.cell("sac"), [[1.0, 2.0]], steps=60, every=20)
        with pytest.raises(RunError, match="gravity-sac was begun with 60 steps, not 40"):
            run(copy, data)
        run(copy, None, cells=("none",))
        assert (
            "\n- steps: 40 of `halfcheetah-medium-replay-gravity-h2o`; 60 of"
            in (copy / "table2.md").read_text()
        )

    @pytest.mark.parametrize(
        ("option", "was"), [("target_entropy", -3.0), ("beta", 0.02), ("cql_actions", 5)]
    )
    def test_every_option_that_decides_a_number_counts(self, option, was, tmp_path):
        one = SETTING.cell("h2o")
        pretend(tmp_path, one, [[1.0]], **{option: was})
        # What was not given then was the recipe's own.
        same = {name: value for name, value in one.settings().items() if name in UNSET and name != option}
        check_same(run_directory(tmp_path, one), same, unset=one.settings())
        with pytest.raises(RunError, match=f"begun with {option} {was}, not"):
            check_same(run_directory(tmp_path, one), {option: one.settings()[option]}, unset=one.settings())

    def test_a_run_of_another_file_is_left_as_it_is(self, out, other, tmp_path):
        copy = shutil.copytree(out, tmp_path / "copy")
        directory = run_directory(copy, SETTING.cell("h2o"))
        (directory / "result.json").unlink()
        before = (directory / "config.json").read_bytes()
        with pytest.raises(RunError, match="trained on another file"):
            raise train_cells([SETTING.cell("h2o")], other, copy, {})[SETTING.cell("h2o").name]
        assert (directory / "config.json").read_bytes() == before

    def test_a_run_that_another_process_has_is_left_as_it_is(self, out, data, tmp_path):
        copy, moved = shutil.copytree(out, tmp_path / "copy"), shutil.copytree(data, tmp_path / "moved")
        directory = run_directory(copy, SETTING.cell("h2o"))
        (directory / "result.json").unlink()
        before = (directory / "config.json").read_bytes()
        with lock(directory), pytest.raises(RunError, match="in use by another process"):
            raise train_cells([SETTING.cell("h2o")], moved, copy, {})[SETTING.cell("h2o").name]
        assert (directory / "config.json").read_bytes() == before


class TestFolders:
    """One that cannot be used is told in a line, before any work."""

    @pytest.fixture(params=["a file", "below a file", "/proc/foo"])
    def unusable(self, request, tmp_path):
        (tmp_path / "file").write_text("mine")
        return {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "out"}.get(
            request.param, Path(request.param)
        )

    @pytest.mark.parametrize("cells", [("none",), TRAINED])
    def test_of_tables(self, unusable, cells, data, monkeypatch):
        monkeypatch.setattr(tables, "train_cells", None)
        with pytest.raises(StorageError, match="cannot be written"):
            run(unusable, data, cells=cells)

    def test_of_figure_4(self, unusable):
        with pytest.raises(StorageError, match="cannot be written"):
            figure4.figure4(unusable, quiet=True)

    def test_of_figure_2(self, unusable):
        with pytest.raises(StorageError, match="cannot be written"):
            figure2.figure2(unusable, quiet=True)

    @pytest.mark.parametrize("name", ["table2.md", "table2.csv", "table2.png"])
    def test_with_a_folder_where_a_result_should_be(self, name, tmp_path, data, monkeypatch):
        monkeypatch.setattr(tables, "train_cells", None)
        (tmp_path / name).mkdir()
        with pytest.raises(StorageError, match=f"{name} cannot be written"):
            run(tmp_path, data)

    def test_of_figure_5(self, tmp_path, monkeypatch):
        """Found before the policies are run."""
        monkeypatch.setattr(figure5, "load_cells", lambda _: {("standing-still", "sac"): None})
        (tmp_path / "file").write_text("mine")
        with pytest.raises(StorageError, match="cannot be written"):
            figure5.figure5(tmp_path / "file", quiet=True)


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
        with (tmp_path / "figure4.csv").open() as file:
            bars = [bar for bar in csv.DictReader(file) if bar["log"] == "moving-straight"]
        edges = [float(bars[0]["from"]), *(float(bar["to"]) for bar in bars)]
        np.testing.assert_allclose(edges[::80], [recorded.min(), recorded.max()], rtol=1e-5)
        rows, _ = np.histogram(recorded.astype(float), 80)
        assert [int(bar["rows"]) for bar in bars] == rows.tolist()
        assert sum(float(bar["share_percent"]) for bar in bars) == pytest.approx(100, abs=1e-3)
        with (tmp_path / "figure4-claims.csv").open() as file:
            told = {(one["of"], one["asked"]): one["verdict"] for one in csv.DictReader(file)}
        positive = "holds" if recorded.min() > 0 else "does not hold"
        assert told["moving-straight", "least reward > 0"] == positive
        assert told["moving-straight", "mean ẋ of the log (m/s) > 0"] == "holds"

    def test_figure_5_is_of_whole_episodes_of_figure_2s_policies(self, tmp_path):
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
        with (tmp_path / "figure5-claims.csv").open() as file:
            assert {one["verdict"] for one in csv.DictReader(file)} == {"not run"}
        assert "## What the paper says" in (tmp_path / "figure5.md").read_text()

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
