"""The paper's numbers are the paper's, and cells are what its tables are made of."""

from contextlib import closing
from dataclasses import fields

import pytest

from simtrust.algorithms.critic import Reads
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import RECIPES as KNOWN
from simtrust.api import ALGORITHM_OPTIONS, TRAIN_OPTIONS
from simtrust.paper.cells import SHIFTS, TASKS, UNTOLD, WITHOUT_LOG, WITHOUT_SIMULATOR, cell
from simtrust.paper.published import D2C, PUBLISHED, Published
from simtrust.paper.same_runs import UNSET
from simtrust.paper.studies import RECIPES, STUDIES, Setting
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.training.config import TrainConfig


def published(level, shift, recipe, task="halfcheetah"):
    return cell(task, level, shift, recipe).published


def test_the_difference_column_of_table_4_follows():
    """The paper prints H2O − H2O(v), which nothing here holds."""
    found = []
    for setting in STUDIES["table4"].settings:
        h2o, by_mean = setting.cell("h2o").published, setting.cell("h2o_v").published
        assert h2o is not None
        assert by_mean is not None
        found.append(h2o.mean - by_mean.mean)
    assert found == [45, 1716, 96, 224, -709, -75, -91, 2019, 657]


def test_some_numbers_of_each_table():
    assert published("medium", "friction", "sac") == Published(2684, 2646, 5)
    assert published("medium-expert", "gravity", "darc_plus") == (72, 109, 5)
    assert published("medium-replay", "gravity", "h2o_reg_dr") == (5290, 356, 5)
    assert published("medium-replay", "gravity", "h2o_v") == (6589, 281, 3)
    assert published("medium-expert", "gravity", "h2o_reverse_kl") == (4709, 274, 5)
    assert published("medium-replay", "joint-noise", "h2o", "walker2d") == (2998, 854, 3)
    assert published("random", "gravity", "darc_plus") == (-97, 121, 3)
    assert cell("halfcheetah", "medium-expert", "friction", "h2o").elsewhere == (4890, 177, 5)


def test_every_cell_of_a_table_has_a_number_and_every_number_a_cell():
    of_tables = {c.name for name, study in STUDIES.items() if name != "figure6" for c in study.cells}
    assert of_tables == set(PUBLISHED)
    assert set(D2C) < of_tables


def test_the_tables_are_as_large_as_the_papers():
    sizes = {name: (len(study.settings), len(study.recipes)) for name, study in STUDIES.items()}
    assert sizes == {
        "table1": (9, 5), "table2": (1, 8), "table4": (9, 2), "table5": (3, 2), "table6": (3, 5),
        "table7": (2, 5), "figure6": (10, 2), "figure7": (9, 6),
    }  # fmt: skip


def test_what_does_not_depend_on_the_log_or_the_shift_is_trained_once():
    names = {c.name for c in STUDIES["table1"].cells}
    assert len(names) == 9 * 3 + 3 + 3
    assert {name for name in names if name.endswith("-sac")} == {
        f"halfcheetah-{shift}-sac" for shift in SHIFTS
    }
    assert "halfcheetah-medium-replay-cql" in names
    for recipe in RECIPES:
        reads = KNOWN[recipe].reads
        assert (recipe in WITHOUT_LOG) == (not KNOWN[recipe].needs_log)
        assert (recipe in WITHOUT_SIMULATOR) == (Reads.SIM not in reads)


def test_tables_share_their_cells():
    table1 = set(STUDIES["table1"].cells)
    assert {c.recipe for c in set(STUDIES["table4"].cells) - table1} == {"h2o_v"}
    assert {c.recipe for c in set(STUDIES["table5"].cells) - table1} == {"h2o_reverse_kl"}
    assert {c.name for c in set(STUDIES["table7"].cells) & table1} == {
        "halfcheetah-gravity-sac", "halfcheetah-friction-sac"
    }  # fmt: skip
    assert set(STUDIES["figure7"].cells) == table1 | set(STUDIES["table4"].cells)


def test_settings_are_table_3s():
    settings = cell("halfcheetah", "medium", "gravity", "h2o").settings()
    assert settings["hidden_sizes"] == (256, 256)
    assert settings["classifier_hidden_sizes"] == (256,)
    assert (settings["batch_size"], settings["classifier_batch_size"]) == (256, 512)
    assert (settings["learning_rate"], settings["discount"]) == (3e-4, 0.99)
    assert settings["target_update_rate"] == 5e-3
    assert (settings["beta"], settings["cql_alpha"]) == (0.01, 2.0)
    assert (settings["steps"], settings["seeds"]) == (1_000_000, 5)
    assert "buffer_capacity" not in settings
    for recipe in ("sac", "darc", "darc_plus"):
        assert cell("halfcheetah", "medium", "gravity", recipe).settings()["buffer_capacity"] == 1_000_000
    assert cell("halfcheetah", "random", "gravity", "h2o").settings()["beta"] == 0.005
    for study in STUDIES.values():
        for one in study.cells:
            assert set(one.settings()) <= TRAIN_OPTIONS | ALGORITHM_OPTIONS


MAY_DIFFER = {
    # The cell's, and where its files lie.
    "recipe", "real", "out",
    # How a file is read that D4RL's layout does not say; the datasets are of that.
    "dones_mean", "columns",
    # What changes no number.
    "sim_workers", "step_timeout", "track",
    # Of `trust` alone, which no table has.
    "gap_probe_rows", "gap_epochs", "gap_sharpness",
}  # fmt: skip


def test_no_default_decides_a_number():
    named = {field.name for kind in (AlgorithmOptions, TrainConfig) for field in fields(kind)} - {"algorithm"}
    settings = cell("halfcheetah", "medium", "gravity", "h2o").settings(rows=200)
    assert named - set(settings) <= MAY_DIFFER
    assert settings["buffer_capacity"] == 2_000
    for study in STUDIES.values():
        for one in study.cells:
            without = set() if one.shift else {"sim", "shifts"}
            assert set(one.settings(rows=200)) | without == set(settings)


def test_settings_are_what_none_stands_for():
    """A run that was begun without them had the recipe's own."""
    for recipe in RECIPES:
        own = AlgorithmOptions().resolved(KNOWN[recipe].defaults, 6)
        assert {name: UNTOLD[name] for name in ("critic_layer_norm", "target_entropy")} == {
            "critic_layer_norm": own.critic_layer_norm, "target_entropy": own.target_entropy
        }  # fmt: skip
        assert not {"reward_scale", "normalise_observations"} & set(KNOWN[recipe].defaults)
    assert set(UNSET) < set(UNTOLD)
    for task in TASKS.values():
        with closing(make_simulator(task, num_envs=1)) as simulator:
            assert simulator.single_action_space.shape == (6,)


def test_the_papers_seeds_are_the_default():
    seeds = {name: {c.seeds for c in study.cells} for name, study in STUDIES.items()}
    assert seeds["table1"] == seeds["table2"] == seeds["table5"] == {5}
    assert seeds["table4"] == {3, 5}
    assert seeds["table6"] == seeds["figure6"] == {3}


def test_the_simulator_is_shifted_and_the_judge_is_not():
    settings = cell("walker2d", "medium-replay", "friction", "h2o").settings()
    assert (settings["sim"], settings["shifts"]) == ("Walker2d-v5", ("friction=0.3",))
    assert settings["real_env"] == "Walker2d-v5"
    alone = cell("halfcheetah", "medium", "friction", "cql").settings()
    assert alone["real_env"] == "HalfCheetah-v5"
    assert not {"sim", "shifts"} & set(alone)


def test_less_of_the_log_is_another_cell_with_as_many_simulated_rows():
    setting = Setting("halfcheetah", "medium-replay", "gravity", 20)
    assert setting.cell("h2o").name == "halfcheetah-medium-replay-20k-gravity-h2o"
    assert setting.cell("cql").name == "halfcheetah-medium-replay-20k-cql"
    assert setting.cell("h2o").settings()["buffer_capacity"] == 1_000_000
    assert setting.cell("h2o").published is None


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("shift", SHIFTS)
def test_every_shift_changes_something_in_every_task(task, shift):
    """One that changes nothing is refused."""
    make_simulator(TASKS[task], num_envs=1, shifts=parse_shifts([SHIFTS[shift]])).close()
