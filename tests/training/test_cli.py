"""The command line, and the Python function that takes the same options."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import get_args

import gymnasium
import pytest

import simtrust
from simtrust import api, cli
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import RECIPES
from simtrust.api import ALGORITHM_OPTIONS
from simtrust.commands import generate, hints
from simtrust.data.formats import SUFFIXES
from simtrust.errors import ConfigError, SimulatorError
from simtrust.paper.robot import NETWORKS, STUDIES
from simtrust.simulators.log_recording import TASKS
from simtrust.training import loop
from simtrust.training.collect import Collector
from simtrust.training.config import RecipeName, TrainConfig, config_from_json, config_to_json

ITSELF = "Pendulum-v1 is the simulator that the policy was trained in; it says little about the machine."
TRAIN_SAC = shlex.split(
    "train sac --sim Pendulum-v1 --steps 100 --rollout-steps 50 --checkpoint-every 100 "
    "--evaluation-episodes 1 --hidden-sizes 16 --batch-size 16"
)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """``run(*arguments)`` runs ``simtrust``: its exit status, and what it printed, on one line each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["simtrust", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def parsed(run, monkeypatch):
    """``parsed(*arguments)`` is the configuration that ``simtrust train ARGUMENTS`` asks for."""
    seen: list[TrainConfig] = []

    def stop(config: TrainConfig, command: str) -> None:
        seen.append(config)
        raise SystemExit(0)

    monkeypatch.setattr(loop, "train", stop)

    def parsed(*arguments: str) -> TrainConfig:
        status, _, errors = run("train", *arguments)
        assert status == 0, errors
        return seen.pop()

    return parsed


def test_help_costs_no_heavy_import():
    heavy = ("jax", "mujoco", "gymnasium", "equinox", "h5py", "matplotlib")
    script = f"import sys, simtrust, simtrust.cli; print([m for m in {heavy} if m in sys.modules])"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_every_public_name_can_be_imported():
    for name in simtrust.__all__:
        assert getattr(simtrust, name) is not None
    assert set(simtrust.__all__) <= set(dir(simtrust))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        simtrust.nothing  # noqa: B018


def test_help_shows_the_verbs(run):
    status, output, _ = run("--help")
    assert status == 0
    assert all(verb in output for verb in ("generate", "train", "resume", "evaluate"))


def test_no_file_beside_the_log_passes_for_a_library(run, tmp_path):
    run("--help")
    assert sys.path.index(str(tmp_path)) == len(sys.path) - 1


def test_help_of_train_shows_every_option(run):
    status, output, _ = run("train", "--help")
    assert status == 0
    own = {field.name for field in fields(TrainConfig)} - {"recipe", "shifts", "columns", "algorithm"}
    for name in own | {"shift", "map"} | {field.name for field in fields(AlgorithmOptions)}:
        assert re.search(rf"--{name.replace('_', '-')}[ ,]", output), name
    assert all(recipe in output for recipe in RECIPES)


def test_defaults_are_the_dataclasses(parsed):
    assert parsed() == TrainConfig()


def test_options_arrive(parsed):
    config = parsed(
        *shlex.split("h2o_a --real log.hdf5 --sim Ant-v5 --shift gravity=2 --shift friction=0.5 --seeds 3"),
        *shlex.split("--reward-scale auto --normalise-observations True --beta 0.5 --actor deterministic"),
    )
    assert config == TrainConfig(
        recipe="h2o_a",
        real="log.hdf5",
        sim="Ant-v5",
        shifts=("gravity=2", "friction=0.5"),
        seeds=3,
        reward_scale="auto",
        normalise_observations=True,
        algorithm=AlgorithmOptions(beta=0.5, actor="deterministic"),
    )


@pytest.mark.parametrize("sizes", [(16,), (64, 32), (8, 8, 8)])
def test_hidden_sizes_replace_the_default(parsed, sizes):
    words = [str(size) for size in sizes]
    config = parsed("sac", "--hidden-sizes", *words, "--classifier-hidden-sizes", *words)
    assert config.algorithm.hidden_sizes == config.algorithm.classifier_hidden_sizes == sizes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train sac", "recipe sac learns from a simulator: give --sim ID"),
        ("train h2o --sim Pendulum-v1", "recipe h2o learns from a log: give --real FILE"),
        ("train h2o --real gone.hdf5 --sim Pendulum-v1", "gone.hdf5: no such file"),
        ("train sac --sim Pendulum-v9", "unknown simulator 'Pendulum-v9' (did you mean Pendulum-v1"),
        ("train sac --sim Pendulum-v1 --shift gravity=2", "'Pendulum-v1' supports no shifts"),
        (
            "train sac --sim HalfCheetah-v5 --shift gravity=much",
            "shift 'gravity=much': 'much' is not a number",
        ),
        ("train sac --sim nomodule:factory", "nomodule:factory: No module named 'nomodule'"),
        ("train sac --steps 0", "--steps is 0; it must be at least 1"),
        ("train sac --batch-size 0", "--batch-size is 0; it must be at least 1"),
        (
            "train sac --checkpoint-every 1500",
            "--checkpoint-every 1500 must be a multiple of --rollout-steps",
        ),
        ("train sac --sim Pendulum-v1 --real-env Ant-v5", "they must agree"),
        ("train sac --sim Pendulum-v1 --reward-scale auto", "need a log: give --real"),
        ("train sac --sim Pendulum-v1 --out a_file", "a_file"),
        ("train sac --sim Pendulum-v1 --out a_file/run", "a_file"),
        ("resume nowhere", "nowhere/config.json does not exist: nowhere is not a run directory"),
        ("resume a_file", "a_file"),
        ("evaluate nowhere", "nowhere/config.json does not exist"),
        ("evaluate [bold]/:smile:", "[bold]/:smile:/config.json does not exist"),
        ("generate wheel-legged standing-still --rows 0", "rows: 0 is below 1"),
        ("generate wheel-legged standing-still --seed -1", "seed: -1 is below 0"),
        ("generate wheel-legged standing-still --rows 1 --out a_file/log.hdf5", "a_file"),
        ("generate wheel-legged standing-still --rows 1 --out log.txt", "log.txt: is not a name for HDF5"),
        ("generate wheel-legged standing-still --out a_file", "a_file exists already"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run, tmp_path, arguments, message):
    (tmp_path / "a_file").touch()
    status, output, errors = run(*arguments.split())
    assert status == 2
    assert output == ""
    assert errors.startswith("error: ")
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("train nosuch", "'nosuch'"),
        ("train sac --seeds many", "--seeds"),
        ("train sac --sedes 3", "--sedes"),
        ("train sac --actor random", "random"),
        ("resume", "directory"),
        ("generate", "wheel-legged"),
        ("generate wheel-legged", "standing-still"),
        ("generate wheel-legged dancing", "dancing"),
        ("dance", "dance"),
        ("", "train"),
    ],
)
def test_what_cannot_be_parsed_is_status_2_and_named(run, arguments, named):
    status, output, errors = run(*arguments.split())
    assert status == 2
    assert named in output + errors
    assert "Traceback" not in output + errors


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("train trust wl.hdf5", "did you mean --real wl.hdf5?"),
        ("train wl.CSV --sim Ant-v5", "did you mean --real wl.CSV?"),
        ("gap log.parquet --sim Ant-v5", "did you mean --real log.parquet?"),
        ("resume runs/x --steps 200", "a run's --steps cannot be changed; train anew with another --steps"),
        ("resume runs/x --hidden-sizes=8", "a run's --hidden-sizes cannot be changed"),
        ("train trust word", None),
        ("train trust --real a.csv b.csv", None),
        ("train trust --nothing wl.hdf5", None),
        ("resume runs/x --sim", None),
        ("evaluate --steps 3", None),
        ("", None),
    ],
)
def test_what_cannot_be_parsed_may_have_a_hint(run, arguments, hint):
    status, _, errors = run(*arguments.split())
    assert status == 2
    hints = [line for line in errors.splitlines() if line.startswith("hint: ")]
    assert len(hints) == (hint is not None)
    assert all(hint in line for line in hints)


def test_a_hint_knows_every_ending_of_a_log():
    assert set(hints.LOGS) == set(SUFFIXES)


def test_help_says_that_a_shift_is_for_experiments(run):
    for command in ("train", "gap", "check-data", "check-sim", "evaluate"):
        output = " ".join(run(command, "--help")[1].replace("│", " ").split())
        assert "on purpose, for experiments: gravity=2 doubles it. For your own" in output, command
    assert "Its --steps cannot be changed" in " ".join(run("resume", "--help")[1].replace("│", " ").split())


GENERATE = shlex.split("generate wheel-legged standing-still --rows 400")


def test_generate_writes_a_log_and_its_picture_and_tells_of_both(run, tmp_path):
    status, output, errors = run(*GENERATE)
    assert (status, errors) == (0, "")
    rewards = simtrust.load_dataset(tmp_path / "standing-still.hdf5").transitions.reward
    assert (tmp_path / "standing-still-rewards.png").read_bytes().startswith(b"\x89PNG")
    for told in (
        "400",
        "1, of which 0 ended in a fall",
        f"{rewards.mean():.3f} on average, from {rewards.min():.3f} to {rewards.max():.3f}",
        "standing-still.hdf5",
        "standing-still-rewards.png",
    ):
        assert re.search(rf" {re.escape(told)}$", output, re.MULTILINE), told


@pytest.mark.parametrize("task", ["standing-still", "moving-straight"])
def test_generate_ends_with_the_command_that_trains_trust_with_the_papers_settings(run, parsed, task):
    _, output, _ = run("generate", "wheel-legged", task, "--rows", "20", "--out", "new folder/log.h5")
    command = shlex.split(output.splitlines()[-1])
    assert command[:2] == ["simtrust", "train"]
    study = STUDIES[task]
    settings = {**NETWORKS, "beta": study.beta, "evaluate_every": TrainConfig.evaluate_every}
    own = {name: settings.pop(name) for name in list(settings) if name in ALGORITHM_OPTIONS}
    # α is CQL's alone, and trust has no classifiers.
    for name in ("cql_alpha", "classifier_hidden_sizes", "classifier_batch_size"):
        del own[name]
    assert parsed(*command[2:]) == TrainConfig(
        recipe="trust",
        real="new folder/log.h5",
        sim=study.simulator,
        steps=study.steps,
        algorithm=AlgorithmOptions(**own),
        **settings,
    )


def test_generate_takes_seed_and_rows(run, tmp_path):
    logs = []
    for seed in (0, 1, 0):
        run(*GENERATE, "--seed", str(seed), "--out", f"{len(logs)}.hdf5")
        logs.append(simtrust.load_dataset(tmp_path / f"{len(logs)}.hdf5"))
    assert [len(log) for log in logs] == [400] * 3
    assert logs[0].sha256 == logs[2].sha256 != logs[1].sha256


@pytest.mark.parametrize("there", ["standing-still.hdf5", "standing-still-rewards.png"])
def test_generate_overwrites_nothing_unless_told_to(run, tmp_path, there):
    (tmp_path / there).write_text("precious")
    status, output, errors = run(*GENERATE)
    assert (status, output) == (2, "")
    assert errors == f"error: {there} exists already; replace it with --overwrite, or name another --out\n"
    assert [file.name for file in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"
    assert run(*GENERATE, "--overwrite")[0] == 0
    assert len(list(tmp_path.iterdir())) == 2
    assert (tmp_path / there).read_bytes() != b"precious"


def test_tasks_to_generate_are_the_operators():
    assert get_args(generate.LogTask) == tuple(TASKS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny) -> Path:
    """A finished run of two seeds."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return simtrust.train("sac", quiet=True, **tiny, sim="Pendulum-v1", seeds=2, out=out).directory


def test_train_shows_its_result_and_how_it_was_made(run, tmp_path):
    status, output, progress = run(*TRAIN_SAC, "--out", "run")
    assert status == 0, progress
    assert "sac after 100 steps, in Pendulum-v1" in output
    assert "result in run/result.json" in output
    assert "complete already" not in output
    assert ITSELF in output
    assert "Give --real-env if you have one." in output
    assert "100/100 steps" in progress
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["command"] == " ".join(["simtrust", *TRAIN_SAC, "--out", "run"])
    assert f"{result['runs'][0]['return_mean']:,.1f}" in output
    status, _, errors = run(*TRAIN_SAC, "--out", "run")
    assert (status, errors) == (2, "error: run already holds a run; go on with: simtrust resume run\n")


def test_resume_of_a_finished_run_shows_its_result(run, finished):
    status, output, errors = run("resume", finished)
    assert (status, errors) == (0, "")
    assert "complete already: 100 of 100 steps. It cannot be lengthened; for more, train anew" in output
    assert "sac after 100 steps, in Pendulum-v1" in output
    for line in json.loads((finished / "result.json").read_text())["runs"]:
        assert f"{line['return_mean']:,.1f}" in output


def test_evaluate_shows_every_seed_and_repeats_itself(run, finished, monkeypatch):
    real = replace(gymnasium.spec("Pendulum-v1"), id="RealPendulum-v1")
    monkeypatch.setitem(gymnasium.registry, "RealPendulum-v1", real)
    status, output, _ = run("evaluate", finished, "--episodes", "3")
    assert status == 0
    assert "in Pendulum-v1" in " ".join(output.split())
    rows = [line.split() for line in output.splitlines() if "200" in line.split()]
    assert len(rows) == 2
    again = run("evaluate", finished, "--episodes", "3")[1]
    other = run("evaluate", finished, "--episodes", "3", "--seed", "1")[1]
    assert again == output != other
    assert ITSELF in output
    assert "--env" in output
    assert "says little" not in run("evaluate", finished, "--env", "RealPendulum-v1", "--episodes", "1")[1]


def test_a_directorys_name_is_shown_as_it_is(run, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "[b]:ant:")
    assert "[b]:ant: in Pendulum-v1" in run("evaluate", "[b]:ant:", "--episodes", "1")[1]


def test_evaluate_from_python(finished):
    seeds, name, episodes = simtrust.evaluate(finished, env="Pendulum-v1", episodes=2)
    assert (seeds, name) == ([0, 1], "Pendulum-v1")
    assert episodes.returns.shape == episodes.lengths.shape == (2, 2)
    assert (episodes.lengths == 200).all()


def make_pendulum():
    return gymnasium.make("Pendulum-v1")


def test_functions_stand_for_the_environments_that_they_make(finished):
    named = simtrust.evaluate(finished, env="Pendulum-v1", episodes=1)
    _, name, episodes = simtrust.evaluate(finished, env=make_pendulum, episodes=1)
    assert name == f"{__name__}:make_pendulum"
    assert (episodes.returns == named[2].returns).all()
    config, command = api.configured("sac", sim=make_pendulum, real_env=make_pendulum)
    assert (config.sim, config.real_env) == (name, name)
    assert f"sim={name!r}" in command
    with pytest.raises(SimulatorError, match="cannot be found again by a name"):
        simtrust.train("sac", sim=lambda: make_pendulum())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--env Ant-v5", "Ant-v5"),
        ("--env Pendulum-v9", "unknown simulator 'Pendulum-v9'"),
        ("--shift gravity=2", "'Pendulum-v1' supports no shifts"),
        ("--episodes 0", "episodes"),
        ("--seed -1", "seed"),
    ],
)
def test_evaluation_that_cannot_be_is_one_line_and_status_2(run, finished, arguments, message):
    status, _, errors = run("evaluate", finished, *arguments.split())
    assert status == 2
    assert errors.startswith("error: ")
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_interrupt_tells_how_to_go_on(run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Collector, "collect", interrupt)
    status, output, errors = run(*TRAIN_SAC, "--out", "run")
    assert (status, output) == (130, "")
    assert errors == "stopped. Step 0 is saved; go on with: simtrust resume run\n"


def test_own_simulator_beside_the_user_is_found(run, tmp_path):
    """``simtrust`` is a script elsewhere, so the working directory is not on its path by itself."""
    (tmp_path / "beside_the_user.py").write_text("factory = 3\n")
    _, _, errors = run("train", "sac", "--sim", "beside_the_user:factory")
    assert errors == "error: beside_the_user:factory: factory is int, not a function\n"


def test_recipe_names_are_the_recipes():
    assert get_args(RecipeName) == tuple(RECIPES)


def filled_config() -> TrainConfig:
    options = AlgorithmOptions(
        hidden_sizes=(32, 16), critic_layer_norm=True, target_entropy=-0.5, actor="deterministic"
    )
    return TrainConfig(
        recipe="darc_plus",
        real="log.hdf5",
        sim="Ant-v5",
        shifts=("gravity=2", "friction=0.5"),
        out="runs/x",
        dones_mean="timeout",
        reward_scale="auto",
        buffer_capacity=5_000,
        algorithm=options,
    )


@pytest.mark.parametrize("config", [TrainConfig(), filled_config()], ids=["defaults", "filled"])
def test_configuration_survives_json(tmp_path, config):
    path = tmp_path / "config.json"
    path.write_text(config_to_json(config, versions={"jax": "0.10"}, dataset_sha256=None))
    found, extra = config_from_json(path)
    assert found == config
    assert asdict(found) == asdict(config)
    assert extra == {"versions": {"jax": "0.10"}, "dataset_sha256": None}


def test_run_seeds_count_up():
    assert TrainConfig(seeds=3, first_seed=5).run_seeds == (5, 6, 7)


@pytest.fixture
def asked(monkeypatch):
    """What `simtrust.train` asks of the training loop, as a list of (configuration, keywords)."""
    seen: list[tuple[TrainConfig, dict]] = []
    monkeypatch.setattr(api, "train_config", lambda config, **keywords: seen.append((config, keywords)))
    return seen


def test_python_options_are_the_command_lines(asked):
    api.train(
        "h2o-a",
        real=Path("log.hdf5"),
        sim="Ant-v5",
        shifts=["gravity=2"],
        hidden_sizes=[8],
        beta=0.5,
        quiet=True,
    )
    ((config, keywords),) = asked
    assert config == TrainConfig(
        recipe="h2o_a",
        real="log.hdf5",
        sim="Ant-v5",
        shifts=("gravity=2",),
        algorithm=AlgorithmOptions(hidden_sizes=(8,), beta=0.5),
    )
    assert keywords["quiet"] is True
    expected = "simtrust.train('h2o-a', real='log.hdf5', sim='Ant-v5', shifts=('gravity=2',), "
    assert keywords["command"] == expected + "hidden_sizes=(8,), beta=0.5)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batchsize": 3}, r"no option 'batchsize'; did you mean 'batch_size'\?"),
        ({"shift": ["gravity=2"]}, r"no option 'shift'; did you mean 'shifts'\?"),
        ({"seed": 3}, r"no option 'seed'; did you mean 'seeds'\?"),
        ({"qqqq": 3}, r"no option 'qqqq'$"),
        ({"algorithm": AlgorithmOptions()}, "no option 'algorithm'"),
        ({"steps": 0}, "--steps is 0"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"steps": "100", "seeds": 2}, r"^steps is '100': a value of the wrong type .*simtrust train --help"),
        ({"rollout_steps": 7, "evaluate_every": "x"}, r"^evaluate_every is 'x': a value of the wrong type"),
        ({"beta": 1, "hidden_sizes": 64}, r"^hidden_sizes is 64: a value of the wrong type"),
    ],
)
def test_unknown_or_wrong_python_option_is_refused(asked, options, message):
    with pytest.raises(ConfigError, match=message):
        api.train("sac", sim="Pendulum-v1", **options)
    assert asked == []


def test_unknown_recipe_names_those_there_are(asked):
    with pytest.raises(ConfigError, match="unknown recipe 'h3o'; choose one of trust, h2o, "):
        api.train("h3o")
    assert asked == []
