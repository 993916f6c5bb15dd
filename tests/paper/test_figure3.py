"""Figure 3 by command: what is trained, measured and kept, and that the truth it is compared with is true."""

import csv
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.spaces import Box
from PIL import Image

import simtrust
from simtrust import cli
from simtrust.data import load_dataset, save_dataset
from simtrust.errors import ConfigError, DataError, RunError
from simtrust.gap.rollouts import random_policy, roll_out
from simtrust.gap.step_errors import dimension_scales
from simtrust.paper import cheetah, figure2, figure3
from simtrust.paper.cheetah import COLUMNS, SHIFT, TASK, X_VELOCITY, Point, load_point, save_point
from simtrust.paper.figure3_panels import binned_medians
from simtrust.paper.truth import TrueGapReward, agreement, rank_correlation, true_gap
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.simulators.task_specs import TASKS
from simtrust.training.checkpoint import CheckpointStore
from simtrust.types import Transitions

TINY = {
    "hidden_sizes": (8,),
    "batch_size": 16,
    "classifier_hidden_sizes": (8,),
    "classifier_batch_size": 16,
    "rollout_steps": 20,
    "evaluation_episodes": 1,
    "shares": (0.5, 1.0),
    "steps": 40,
    "seeds": 2,
}
POINTS = [20, 40]


def roll(rows, *, shifts=(), seed=0):
    """Rows of HalfCheetah under random actions, which two instances made."""
    simulator = make_simulator(TASK, num_envs=2, shifts=parse_shifts(shifts))
    space = simulator.single_action_space
    assert isinstance(space, Box)
    policy = random_policy(space, np.random.default_rng(seed))
    return roll_out(simulator, policy, rows, seed)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    rows = roll(600)
    timeouts = np.arange(1, 601) % 300 == 0
    columns = {
        "observations": rows.observation,
        "actions": rows.action,
        "rewards": rows.reward,
        "next_observations": rows.next_observation,
        "terminals": np.zeros(600, bool),
        "timeouts": timeouts,
    }
    return str(save_dataset(tmp_path_factory.mktemp("log") / "cheetah.hdf5", columns))


def run(out, log, **changes):
    return figure3.figure3(out, real=log, quiet=True, **{**TINY, **changes})


@pytest.fixture(scope="module")
def out(tmp_path_factory, log):
    folder = tmp_path_factory.mktemp("figure3")
    run(folder, log)
    return folder


@pytest.fixture(autouse=True)
def drawn(out, monkeypatch):
    """The pictures that a test would draw, which takes longer than all else."""
    paths = []
    monkeypatch.setattr(figure3, "draw", lambda points, statistics, path: paths.append(path))
    return paths


@pytest.fixture
def copy(out, tmp_path):
    return shutil.copytree(out, tmp_path / "copy")


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(cheetah, "train", refuse)
    monkeypatch.setattr(cheetah, "resume", refuse)


def latest(run):
    """The store of a run's checkpoints, and its last one."""
    store = CheckpointStore(run / "checkpoints")
    manifest = store.latest()
    assert manifest is not None
    return store, manifest


def rows_of(out):
    with (out / "figure3.csv").open() as file:
        return list(csv.DictReader(file))


def same(left: Point, right: Point) -> None:
    """Up to rounding: the two may have been compiled separately, in a process that did other things before.

    That resuming is exact to the bit is tested where training is.
    """
    for name in ("row", *COLUMNS):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-2, atol=1e-4)


def test_the_csv_has_every_row_of_every_point_and_seed(out):
    rows = rows_of(out)
    assert list(rows[0]) == ["step", "seed", "row", *COLUMNS]
    keys = [(int(r["step"]), int(r["seed"]), int(r["row"])) for r in rows]
    assert keys == [(step, seed, row) for step in POINTS for seed in (0, 1) for row in range(step)]
    values = np.array([[float(r[name]) for name in COLUMNS] for r in rows])
    assert np.isfinite(values).all()
    u, omega, truth = values[:, 1], values[:, 2], values[:, 4]
    assert ((u > 0) & (u <= 10)).all()
    assert (truth >= 0).all()
    assert np.median(truth) > 1e-3
    for step in POINTS:
        for seed in ("0", "1"):
            share = [float(r["omega"]) for r in rows if (int(r["step"]), r["seed"]) == (step, seed)]
            assert sum(share) == pytest.approx(1.0, abs=1e-3)
    assert len(np.unique(omega)) > 2


def test_the_table_says_what_it_is_of_and_what_made_it(out, log):
    text = (out / "figure3.md").read_text()
    lines = [line for line in text.partition("## ")[0].splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split("|")[1:3] for line in lines[2:]] == [[" 20 ", " 2 "], [" 40 ", " 2 "]]
    assert SHIFT in text
    assert "## What the paper says" in text
    assert load_dataset(log).sha256 in text
    assert "simtrust.paper.figure3.figure3" in text
    assert f"simtrust {simtrust.__version__}" in text


def test_the_table_ranks_the_rows_of_each_run_by_themselves():
    u = np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    truth = np.array([[1.0, 2.0, 3.0, 9.0], [1.0, 2.0, 3.0, 9.0]])
    found = figure3.statistics(
        Point(10, (0, 1), np.arange(4), x_velocity=truth, u=u, omega=u, q=-u, true_gap=truth)
    )
    np.testing.assert_allclose(found["u, true gap"], [1, -1])
    np.testing.assert_allclose(found["u, x-velocity"], [1, -1])
    np.testing.assert_allclose(found["true gap, x-velocity"], [1, 1])
    np.testing.assert_allclose(found["u, Q"], [-1, -1])
    np.testing.assert_allclose(found[figure3.AREA], [1, 0])


def test_the_picture_is_drawn(out):
    with Image.open(out / "figure3.png") as picture:
        assert min(picture.size) > 500
        assert len(picture.convert("RGB").getcolors(10**6) or ()) > 20


def test_the_runs_legs_are_one_run(out, log, tmp_path):
    options = {k: v for k, v in TINY.items() if k != "shares"}
    options |= {"shifts": (SHIFT,), "checkpoint_every": 20, "evaluate_every": 0}
    simtrust.train("h2o", real=log, sim=TASK, out=tmp_path / "whole", quiet=True, **options)
    whole, legs = (latest(run)[1] for run in (tmp_path / "whole", out / "run"))
    assert whole.step == legs.step == 40
    same(cheetah.measure(tmp_path / "whole", load_dataset(log)), load_point(out / "point-000000040.npz"))


def test_a_point_is_of_the_run_as_it_was_then(out, copy, log):
    last = load_point(out / "point-000000040.npz")
    again = cheetah.measure(out / "run", load_dataset(log))
    same(again, last)
    first = load_point(out / "point-000000020.npz")
    np.testing.assert_array_equal(first.x_velocity, last.x_velocity[:, :20])
    np.testing.assert_array_equal(first.true_gap, last.true_gap[:, :20])
    assert (first.q != last.q[:, :20]).any()


def test_a_finished_study_is_only_drawn_again(copy, log, no_training, drawn):
    before = (copy / "figure3.csv").read_bytes()
    for path in copy.glob("figure3.*"):
        path.unlink()
    run(copy, log)
    assert (copy / "figure3.csv").read_bytes() == before
    assert (copy / "figure3.md").exists()
    assert drawn == [copy / "figure3.png"]


def test_a_study_that_was_stopped_after_training_a_leg_measures_it(copy, log, monkeypatch):
    monkeypatch.delattr(cheetah, "train")
    last = copy / "point-000000040.npz"
    before = load_point(last)
    trained = (copy / "run" / "result.json").stat().st_mtime_ns
    last.unlink()
    run(copy, log)
    assert (copy / "run" / "result.json").stat().st_mtime_ns == trained
    same(load_point(last), before)


def test_a_study_that_was_stopped_between_legs_goes_on(tmp_path, log, out, monkeypatch):
    extend = cheetah._extend

    def stop(*arguments):
        extend(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(cheetah, "_extend", stop)
        run(tmp_path, log)
    assert [row["step"] for row in rows_of(tmp_path)] == ["20"] * 40
    monkeypatch.delattr(cheetah, "train")
    run(tmp_path, log)
    same(load_point(tmp_path / "point-000000040.npz"), load_point(out / "point-000000040.npz"))


def test_a_point_that_is_gone_is_not_made_of_a_later_state(copy, log):
    (copy / "point-000000020.npz").unlink()
    with pytest.raises(RunError, match="trained beyond 20 steps"):
        run(copy, log)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 80}, "points at 20, 40 updates, where these --steps put them at 40, 80"),
        ({"seeds": 3}, "begun with seeds 2, not 3"),
        ({"hidden_sizes": (9,)}, r"begun with hidden_sizes \(8,\), not \(9,\)"),
    ],
)
def test_points_of_other_settings_are_not_mixed(out, log, change, message, no_training):
    with pytest.raises(RunError, match=message):
        run(out, log, **change)


def test_points_of_another_log_are_not_mixed(out, log, tmp_path, no_training):
    dataset = load_dataset(log)
    columns = dict(zip(("observations", "actions", "rewards", "next_observations", "terminals"),
                       dataset.transitions, strict=True))  # fmt: skip
    columns |= {"timeouts": dataset.episode_end, "rewards": dataset.transitions.reward + 1}
    other = save_dataset(tmp_path / "other.hdf5", columns)
    with pytest.raises(RunError, match="begun with another log"):
        run(out, str(other))


def test_the_same_log_may_have_moved(copy, log, tmp_path):
    moved = shutil.copy(log, tmp_path / "moved.hdf5")
    (copy / "point-000000040.npz").unlink()
    run(copy, moved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 0}, "--seeds is 0"),
        ({"steps": 0}, "--steps is 0"),
        ({"steps": 50}, "--steps is 50; it must be a multiple of 40"),
    ],
)
def test_mistakes_are_told_before_any_work(tmp_path, log, change, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "none", log, **change)
    assert not (tmp_path / "none").exists()


def test_a_log_that_is_not_there_is_told_before_any_work(tmp_path):
    with pytest.raises(DataError):
        run(tmp_path / "none", str(tmp_path / "missing.hdf5"))
    assert not (tmp_path / "none").exists()


@pytest.fixture
def unit(log):
    return dimension_scales(load_dataset(log), "change")


def with_true_gap(task: str, shifts: tuple[str, ...]) -> Transitions:
    """Rows whose reward is the true gap, in the simulator's units."""
    simulator, reality = (make_simulator(task, num_envs=4, shifts=parse_shifts(s)) for s in (shifts, ()))
    told = TrueGapReward(simulator, reality, np.ones(simulator.single_observation_space.shape))
    policy = random_policy(told.single_action_space, np.random.default_rng(0))
    rows = roll_out(told, policy, 40, 0)
    told.close()
    return rows


class TestTruth:
    def test_without_a_shift_there_is_no_gap(self, unit):
        assert true_gap(roll(300, seed=1), TASK, unit).max() < 1e-4

    def test_the_offset_acts_where_there_is_velocity_and_motors_are_not_saturated(self, unit):
        """From chosen states: at rest, moving, and moving under actions that the offset saturates further."""
        observation = np.zeros((4, 17))
        observation[:, X_VELOCITY] = [0.0, 1.0, 5.0, 5.0]
        action = np.zeros((4, 6), np.float32)
        action[3] = 1.0
        simulator = make_simulator(TASK, num_envs=4, shifts=parse_shifts([SHIFT]))
        simulator.reset(seed=0)
        simulator.set_observations(observation)
        following, reward, terminated, _, _ = simulator.step(action)
        rows = Transitions(
            *(np.asarray(x, np.float32) for x in (observation, action, reward, following, terminated))
        )
        still, slow, fast, saturated = true_gap(rows, TASK, unit)
        assert still < 1e-4
        assert saturated < 1e-4
        assert 1e-2 < slow < fast

    def test_the_whole_state_counts_not_what_is_observed_of_it(self):
        """Observations do not tell how far the robot's wheels have sunk into the floor."""
        rows = with_true_gap("StandingStill-v0", ())
        assert rows.reward.max() < 1e-9
        assert true_gap(rows, "StandingStill-v0", np.ones(4)).max() > 1e-4

    def test_the_reward_is_the_true_gap(self):
        rows = with_true_gap("Hopper-v5", ("gravity=2",))
        assert rows.reward.min() > 1e-3
        np.testing.assert_allclose(rows.reward, true_gap(rows, "Hopper-v5", np.ones(11)), rtol=0.01)

    def test_the_gap_is_in_the_units_given_over_the_dimensions_that_have_one(self):
        rows = roll(3, seed=1)
        unit = np.full(17, np.nan)
        unit[3], unit[8] = 0.5, 2.0
        moved = rows.next_observation.copy()
        moved[:, 3] += 1.0  # two units
        moved[:, 8] -= 4.0  # two units
        moved[:, 5] += 100.0  # without a unit
        found = true_gap(rows._replace(next_observation=moved), TASK, unit)
        np.testing.assert_allclose(found, 2.0, atol=1e-3)


def test_the_velocity_is_the_one_that_the_offset_grows_with():
    assert X_VELOCITY == 8
    assert "velocity" in TASKS[TASK].observation_names[X_VELOCITY]


def test_what_cannot_be_ranked_is_unknown():
    rising = np.arange(10.0)
    assert rank_correlation(rising, np.exp(rising)) == pytest.approx(1)
    assert rank_correlation(rising, np.append(-rising[:9], np.nan)) == pytest.approx(-1)
    assert np.isnan(rank_correlation(rising, np.ones(10)))
    assert agreement(np.zeros(10), rising) == {"spearman": None, "auc": None}
    assert agreement(np.ones(10), rising) == {"spearman": None, "auc": None}
    mostly_none = np.append(np.zeros(80), np.arange(1.0, 21.0))
    assert agreement(mostly_none, mostly_none) == {"spearman": None, "auc": 1.0}


def test_no_more_rows_are_measured_than_allowed_and_they_spread_over_the_buffer(out, monkeypatch):
    monkeypatch.setattr(cheetah, "ROWS", 10)
    number, rows = cheetah.spread_rows(*latest(out / "run"))
    assert len(number) == 10
    assert rows.shape[:2] == (2, 10)
    assert (number[0], number[-1]) == (0, 39)
    assert set(np.diff(number)) <= {4, 5}


def test_points_are_kept_whole(tmp_path, out):
    point = replace(load_point(out / "point-000000020.npz"), seeds=(7, 8))
    save_point(point, tmp_path / "point.npz")
    found = load_point(tmp_path / "point.npz")
    assert (found.step, found.seeds) == (20, (7, 8))
    np.testing.assert_array_equal(found.omega, point.omega)


def test_medians_are_of_bins_of_equally_many_rows_and_equal_x_share_one():
    x = np.append(np.zeros(100), np.arange(1.0, 101.0))
    middle, median = binned_medians(x, 2 * x)
    np.testing.assert_allclose(median, 2 * middle)
    assert middle[0] == 0
    assert (middle == 0).sum() == 1
    assert [part.tolist() for part in binned_medians(np.ones(3), np.arange(3.0))] == [[1.0], [1.0]]


class TestCommand:
    @pytest.fixture
    def paper(self, monkeypatch, capsys, tmp_path):
        """What the studies are asked for, and what a user is told."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", sys.path[:])
        asked = []
        for module in (figure2, figure3):
            name = module.__name__.rpartition(".")[2]
            monkeypatch.setattr(
                module, name, lambda out, name=name, **given: asked.append((name, out, given))
            )

        def paper(*arguments):
            monkeypatch.setattr(sys, "argv", ["simtrust", "paper", *arguments])
            try:
                cli.main()
            except SystemExit as end:
                return end.code, " ".join(capsys.readouterr()[0 if end.code == 0 else 1].split())
            return asked.pop()

        return paper

    def test_options_arrive(self, paper):
        name, out, given = paper("figure3", "--real", "log.hdf5", "--steps", "20000", "--seeds", "2")
        assert (name, str(out)) == ("figure3", "runs/figure3")
        command = given.pop("command")
        assert command == "simtrust paper figure3 --real log.hdf5 --steps 20000 --seeds 2"
        assert given == {"real": "log.hdf5", "steps": 20_000, "seeds": 2}
        name, out, given = paper("figure2", "--recipe", "h2o", "--task", "standing-still", "--out", "here")
        assert (name, str(out)) == ("figure2", "here")
        assert given == {"recipes": ("h2o",), "studies": ("standing-still",)}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["figure3"], "figure3 learns from a log of HalfCheetah-v5: give --real FILE"),
            (["figure3", "--real", "x", "--episodes", "3"], "figure3 has no option --episodes"),
            (["figure3", "--real", "x", "--recipe", "h2o"], "figure3 has no option --recipe"),
            (["figure3", "--real", "x", "--task", "standing-still"], "figure3 has no option --task"),
            (["figure2", "--real", "x"], "figure2 has no option --real"),
        ],
    )
    def test_options_that_do_not_apply_are_refused(self, paper, arguments, message):
        status, told = paper(*arguments)
        assert status == 2
        assert message in told

    def test_help_teaches(self, paper):
        status, told = paper("--help")
        assert status == 0
        assert "simtrust paper figure3 --real log.hdf5" in told
