"""What a sweep file asks for, and how one that asks for nonsense is refused."""

import pytest

from simtrust.algorithms.options import AlgorithmOptions
from simtrust.errors import ConfigError
from simtrust.sweeps.names import label, safe
from simtrust.sweeps.plan import make_plan, same_run
from simtrust.training.config import TrainConfig


def test_every_variant_meets_every_combination_of_the_grid(written):
    plan = make_plan(
        written(
            """
            [common]
            sim = "HalfCheetah-v5"
            real = "minari:D4RL/hopper/medium-v0"
            steps = 1_000
            [grid]
            shifts = [["gravity=2"], []]
            first_seed = [0, 5]
            [[variants]]
            recipe = "sac"
            [[variants]]
            name = "strong"
            recipe = "h2o"
            beta = 1
            hidden_sizes = [8, 8]
            """
        )
    )
    assert [run.name for run in plan.runs] == [
        f"{variant}-{shift}-first_seed={seed}"
        for variant in ("sac", "strong")
        for shift in ("gravity=2", "unshifted")
        for seed in (0, 5)
    ]
    assert plan.runs[5].config == TrainConfig(
        recipe="h2o",
        sim="HalfCheetah-v5",
        real="minari:D4RL/hopper/medium-v0",
        steps=1_000,
        shifts=("gravity=2",),
        first_seed=5,
        algorithm=AlgorithmOptions(beta=1, hidden_sizes=(8, 8)),
    )
    assert plan.varied == ("recipe", "shifts", "first_seed", "beta", "hidden_sizes")


def test_a_log_is_the_same_file_from_anywhere(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = make_plan(written('[grid]\nreal = ["a.hdf5", "b.hdf5"]'))
    assert [run.config.real for run in plan.runs] == [str(tmp_path / f"{name}.hdf5") for name in "ab"]
    assert [run.name for run in plan.runs] == ["real=a", "real=b"]


def test_nothing_but_common_is_one_run_of_the_files_name(written):
    (run,) = make_plan(written('[common]\nrecipe = "sac"')).runs
    assert run == ("sweep", TrainConfig(recipe="sac"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[common", ["not TOML"]),
        ("[grids]\nbeta = [1]", ["'grids'", "did you mean 'grid'"]),
        ('recipe = "sac"', ["unknown key 'recipe'", "[common]"]),
        ("[common]\nbetta = 1", ["common.betta", "did you mean 'beta'"]),
        ("[grid]\nfirst-seed = [1]", ["grid.first-seed", "did you mean 'first_seed'"]),
        ("[common]\nout = 'x'", ["common.out", "--out"]),
        ("[common]\nsteps = 'many'", ["common.steps", "'many'", "wrong type"]),
        ("[common]\nsteps = true", ["common.steps", "wrong type"]),
        ("[common]\nrecipe = 'best'", ["common.recipe", "'best'"]),
        ("[common]\nbeta = 1e999", ["beta", "inf"]),
        ("[grid]\nbeta = 1", ["grid.beta", "list of its values"]),
        ("[grid]\nbeta = []", ["grid.beta", "list of its values"]),
        ("[grid]\nshifts = ['gravity=2']", ["grid.shifts", "'gravity=2'", "list of lists"]),
        ("[common]\nbeta = 1\n[grid]\nbeta = [1]", ["grid.beta", "common as well"]),
        ("[grid]\nbeta = [1]\n[[variants]]\nbeta = 2", ["grid.beta", "variants as well"]),
        ("[variants]\nbeta = 2", ["variants", "[[variants]]"]),
        ("[[variants]]\nname = '../x'", ["the 1. of them", "'../x'"]),
        ("[[variants]]\nname = 'leases'\nbeta = 1", ["leases", "uses itself"]),
        ("[[variants]]\nbeta = 1\n[[variants]]\nbeta = 1", ["two runs have the name beta=1"]),
        ("[[variants]]\nname='a'\nbeta = 1\n[[variants]]\nbeta = 1.0", ["a and beta=1.0", "same options"]),
        ("[grid]\nreal = ['a/x.npz', 'b/x.npz']", ["two runs have the name real=x"]),
        ("[grid]\nbeta = [-1]", ["run beta=-1", "--beta"]),
        ("[common]\nrollout_steps = 300", ["run sweep", "multiple of"]),
        (f"[grid]\nsim_workers = {list(range(101))}\nfirst_seed = {list(range(101))}", ["10,201 runs"]),
        (f"[grid]\nfirst_seed = [1]\nsim = ['{'x' * 300}']", ["characters", "short name"]),
        ("[common]\nbeta = " + "[" * 5_000 + "]" * 5_000, ["not TOML"]),
        (f"[common]\nsim = '{'x' * 2**20}'", ["larger than"]),
        (f"[common]\nseeds = {'9' * 5_000}", ["not TOML"]),
        (f"[common]\nseeds = 0x{'f' * 5_000}", ["common.seeds", "beyond 64 bits"]),
        (f"[grid]\nseeds = 0x{'f' * 5_000}", ["grid.seeds", "beyond 64 bits"]),
        (f"[[variants]]\nname = 0x{'f' * 5_000}", ["variants.name", "beyond 64 bits"]),
        (f"[common]\n{'a.' * 1_500}a = 1", ["nested too deeply"]),
        ("[common]\nshifts = " + "[" * 200 + "]" * 200, ["common.shifts", "nested too deeply"]),
        ("[common]\nreal = ''", ["real is empty"]),
        ("[common]\nreal = '~no such user/x.hdf5'", ["~no such user"]),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(written, text, words):
    file = written(text)
    with pytest.raises(ConfigError) as caught:
        make_plan(file)
    for word in (str(file), *words):
        assert word in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        make_plan(tmp_path / "none.toml")


def test_a_name_that_no_file_can_have_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: File name too long"):
        make_plan(tmp_path / ("x" * 300))


def test_a_log_may_lie_in_the_home_folder(written, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (run,) = make_plan(written("[common]\nreal = '~/x.hdf5'")).runs
    assert run.config.real == str(tmp_path / "x.hdf5")


def test_names_are_safe_on_any_storage():
    assert label("sim", "my_module:make env") == "sim=my_module.make.env"
    assert label("shifts", ("gravity=2", "delay=3")) == "gravity=2+delay=3"
    assert safe("../..") == "_"


def test_where_a_run_lies_makes_no_other_run():
    stored = TrainConfig(out="/tmp/x", algorithm=AlgorithmOptions(beta=0.5))
    assert same_run(TrainConfig(algorithm=AlgorithmOptions(beta=0.5)), stored) == []
    assert same_run(TrainConfig(steps=7), stored) == ["steps 200000 and not 7", "beta 0.5 and not 0.01"]
