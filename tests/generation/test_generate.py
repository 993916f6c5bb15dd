"""Logs of every level from one tiny training of Hopper: rows, provenance, resuming, and what is refused."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import simtrust
from simtrust import cli
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.errors import ConfigError, RunError
from simtrust.generation import training_run
from simtrust.generation.generate import generate_log
from simtrust.generation.log_file import content_sha256
from simtrust.generation.replay_log import FROM_OBSERVATIONS, REPLAYED, replay_log
from simtrust.simulators import make_simulator
from simtrust.simulators.built_in import find_built_in
from simtrust.training.checkpoint import CheckpointStore
from simtrust.training.loop import resume

STEPS, EVERY, ROWS = 3_000, 1_000, 1_200
TINY = {"hidden_sizes": (8,), "batch_size": 16, "learning_rate": 3e-3}
OPTIONS = {"seed": 1, "steps": STEPS, "algorithm": AlgorithmOptions(**TINY), "quiet": True, "command": "made"}
LEVELS = ["random", "medium", "medium-replay", "medium-expert", "expert"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the training lies that the tests share."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def made(folder):
    """``made(level)``: its log, made once, and what the file holds."""
    kept = {}

    def make(level):
        if level not in kept:
            rows = None if level == "medium-replay" else ROWS
            name = f"hopper_{level.replace('-', '_')}-v5.hdf5"
            kept[level] = generate_log("hopper", level, out=folder / name, rows=rows, **OPTIONS)
        return kept[level], columns_of(kept[level].dataset.source)

    return make


def columns_of(path):
    columns = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, held: columns.update({name: held[()]}) if isinstance(held, h5py.Dataset) else None
        )
    about = {
        name.removeprefix("metadata/"): columns.pop(name) for name in list(columns) if "metadata" in name
    }
    return columns, {name: v.decode() if isinstance(v, bytes) else v for name, v in about.items()}


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_a_sound_log_that_says_where_it_is_from(made, folder, level):
    generated, (columns, about) = made(level)
    dataset = generated.dataset
    assert dataset.source == str(folder / f"hopper_{level.replace('-', '_')}-v5.hdf5")
    returns = dataset.episode_returns
    told = {"env_id": "Hopper-v5", "level": level, "seed": 1, "command": "made"}
    told |= {"episodes": dataset.episode_count, "return_mean": returns.mean(), "return_std": returns.std()}
    assert {name: about[name] for name in told} == told
    assert about["content_sha256"] == content_sha256(columns)
    assert dataset.observation_names[0] == "torso height (m)"
    findings = [finding for _, finding in simtrust.check_data(dataset.source).findings]
    assert [finding.found for finding in findings if finding.severity == "error"] == []
    assert not [finding.found for finding in findings if "the next observation is not" in finding.found]
    if level == "random":
        assert generated.run is None
        assert "steps" not in about
        return
    assert generated.run == folder / "hopper_sac_3000_seed_1-v5"
    assert (about["steps"], about["algorithm"]) == (STEPS, "sac")
    for part, score in generated.policies.items():
        assert about[f"{part}_policy_step"] == score.step
        assert about[f"{part}_policy_return_mean"] == score.mean == returns_of(generated.run)[score.step]
        assert about[f"{part}_policy_return_episodes"] == 10


def returns_of(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["return_mean"] for line in lines if "return_mean" in line}


@pytest.mark.parametrize("level", ["expert", "medium-expert"])
def test_rows_are_samples_of_the_policy_of_the_step_that_is_named(made, level):
    """Noise worked out from actions and the policy in numpy is standard normal, and has the density told."""
    generated, (columns, _) = made(level)
    parts = ["medium", "expert"] if level == "medium-expert" else ["expert"]
    size = ROWS // len(parts)
    for index, part in enumerate(parts):
        rows = slice(index * size, (index + 1) * size)
        mean, log_std = actor_output(
            generated.run, generated.policies[part].step, columns["observations"][rows]
        )
        action = columns["actions"][rows].astype(np.float64)
        inner = (np.abs(action) < 0.99).all(1)
        assert inner.sum() > 100
        before_tanh = np.arctanh(action[inner])
        noise = (before_tanh - mean[inner]) / np.exp(log_std[inner])
        # Not quite 1: actions near their bounds are left out.
        assert 0.5 < noise.std() < 1.2
        assert np.abs(noise).max() < 6
        density = -0.5 * noise**2 - log_std[inner] - 0.5 * np.log(2 * np.pi) - np.log(1 - action[inner] ** 2)
        told = columns["infos/action_log_probs"][rows][inner]
        np.testing.assert_allclose(told, density.sum(1), atol=0.02)
        assert columns["terminals"][rows.stop - 1] or columns["timeouts"][rows.stop - 1]


def actor_output(run, step, observation):
    from safetensors.numpy import load_file

    arrays = load_file(run / "policies" / f"policy-{step:012d}.safetensors")
    layers = [
        [next(v[0] for k, v in arrays.items() if f"layers[{n}].{what}" in k) for what in ("weight", "bias")]
        for n in (0, 1)
    ]
    hidden = np.maximum(observation @ layers[0][0] + layers[0][1], 0)
    mean, log_std = np.split((hidden @ layers[1][0] + layers[1][1]).astype(np.float64), 2, axis=1)
    return mean, np.clip(log_std, -20, 2)


def test_halves_of_medium_expert_are_of_equal_size_and_of_different_draws(made):
    generated, (columns, about) = made("medium-expert")
    medium, expert = generated.policies["medium"].step, generated.policies["expert"].step
    assert about["behaviour"] == (
        f"sac at step {medium}, stochastic (600 steps) + sac at step {expert}, stochastic (600 steps)"
    )
    assert len(generated.dataset) == ROWS
    assert (columns["observations"][0] != columns["observations"][600]).any()


def test_medium_replay_is_the_replay_buffer_in_order_of_time(made):
    generated, (columns, about) = made("medium-replay")
    until = generated.policies["medium"].step
    store = CheckpointStore(generated.run / "checkpoints")
    rows = np.concatenate([chunk[0] for _, chunk in store.load_rows(store.latest())])[:until]
    ours = np.concatenate(
        [
            columns["observations"],
            columns["actions"],
            columns["rewards"][:, None],
            columns["next_observations"],
            columns["terminals"][:, None],
        ],
        axis=1,
    )
    np.testing.assert_array_equal(ours, rows)
    assert about["infos"] == REPLAYED
    ends = columns["terminals"] | columns["timeouts"]
    assert ends[EVERY - 1 :: EVERY].all(), "checkpoints cut episodes"
    follows = (columns["next_observations"][:-1] == columns["observations"][1:]).all(1)
    np.testing.assert_array_equal(follows, ~ends[:-1])
    simulator = make_simulator("Hopper-v5", num_envs=until)
    simulator.set_state(columns["infos/qpos"], columns["infos/qvel"])
    following = simulator.step(columns["actions"])[0].astype(np.float32)
    np.testing.assert_array_equal(following, columns["next_observations"])


def test_stretches_between_checkpoints_may_differ_in_length(made):
    """As where a run was saved off its schedule."""
    generated, (columns, _) = made("medium-replay")
    run = generated.run
    machine, scaling = find_built_in("Hopper"), simtrust.Policy(run).scaling
    shorter = replay_log(run, EVERY + 400, machine, scaling, seed=1, quiet=True)
    assert shorter.states == REPLAYED
    for key, values in shorter.columns.items():
        np.testing.assert_array_equal(values[:-1], columns[key][: EVERY + 399])


def test_a_buffer_that_cannot_be_repeated_has_states_as_observed(made, folder, monkeypatch, tmp_path):
    """As after a change of MuJoCo's version: here the training's starts are others."""
    _, (columns, _) = made("medium-replay")
    monkeypatch.setattr(sys.modules[replay_log.__module__], "RESTART", "evaluate")
    out = tmp_path / "other.hdf5"
    again = generate_log(
        "Hopper", "medium-replay", out=out, run=folder / "hopper_sac_3000_seed_1-v5", **OPTIONS
    )
    told, about = columns_of(again.dataset.source)
    assert about["infos"] == FROM_OBSERVATIONS
    for key in ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts"):
        np.testing.assert_array_equal(told[key], columns[key])
    assert not told["infos/qpos"][:, 0].any()
    np.testing.assert_array_equal(told["infos/qpos"][:, 1:], columns["infos/qpos"][:, 1:].astype(np.float32))


def test_the_same_seed_gives_the_same_file(made, folder, tmp_path):
    made("medium")
    original = (folder / "hopper_medium-v5.hdf5").read_bytes()
    run = folder / "hopper_sac_3000_seed_1-v5"
    again = generate_log("Hopper-v5", "medium", out=tmp_path / "a.hdf5", rows=ROWS, run=run, **OPTIONS)
    assert Path(again.dataset.source).read_bytes() == original


KILLED = """
import json, os, signal, sys
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.generation.generate import generate_log
from simtrust.training.checkpoint import CheckpointStore

save = CheckpointStore.save
def dying(self, step, *given, **more):
    if step == 2000:
        os.kill(os.getpid(), signal.SIGKILL)
    return save(self, step, *given, **more)
CheckpointStore.save = dying
options = json.loads(sys.argv[1])
options["algorithm"] = AlgorithmOptions(**{**options["algorithm"], "hidden_sizes": (8,)})
generate_log("Hopper-v5", "medium-replay", **options)
"""


def test_killed_and_begun_again_it_gives_the_same_file(made, folder, tmp_path):
    """Killed in the checkpoint of step 2,000, whose policy was kept; seeds are of the training too."""
    made("medium-replay")
    out = tmp_path / "killed.hdf5"
    options = {**OPTIONS, "out": str(out), "algorithm": TINY}
    words = [sys.executable, "-c", KILLED, json.dumps(options)]
    died = subprocess.run(words, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    run = tmp_path / "hopper_sac_3000_seed_1-v5"
    assert sorted(path.name for path in (run / "policies").glob("*.json"))[-1] == "policy-000000002000.json"
    assert not out.exists()
    with pytest.raises(RunError, match=r"begun with the evaluators \['kept_policies'\]"):
        resume(run, quiet=True)
    generate_log("Hopper-v5", "medium-replay", **{**OPTIONS, "out": out})
    assert out.read_bytes() == (folder / "hopper_medium_replay-v5.hdf5").read_bytes()
    for policy in (folder / run.name / "policies").iterdir():
        assert policy.read_bytes() == (run / "policies" / policy.name).read_bytes()


def test_what_is_interrupted_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_run.KeepPolicies, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt) as raised:
        generate_log("Hopper", "expert", out=tmp_path / "log.hdf5", rows=10, **OPTIONS)
    assert raised.value.__notes__ == ["Step 0 is saved; go on with: made"]


def test_minari(made, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.chdir(folder)
    generated, (_, about) = made("expert")
    again = generate_log("Hopper", "expert", rows=ROWS, format="minari", **OPTIONS)
    assert again.dataset.source == "minari:simtrust/hopper/expert-v0"
    for ours, theirs in zip(again.dataset.transitions, generated.dataset.transitions, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(again.dataset.episode_end, generated.dataset.episode_end)
    description = json.loads((tmp_path / "simtrust/hopper/expert-v0/data/metadata.json").read_text())
    assert about["content_sha256"] in description["description"]
    with pytest.raises(ConfigError, match="--overwrite"):
        generate_log("Hopper", "expert", rows=ROWS, format="minari", **OPTIONS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("generate Swimmer medium", "'Swimmer' is nothing to make logs of; choose one of wheel-legged, Half"),
        (
            "generate Hopper standing-still",
            "Hopper-v5 has no log 'standing-still'; choose one of random, med",
        ),
        (
            "generate wheel-legged medium",
            "wheel-legged has no log 'medium'; choose one of standing-still, mov",
        ),
        (
            "generate wheel-legged standing-still --steps 10",
            "wheel-legged has no option --steps; leave it out",
        ),
        ("generate wheel-legged standing-still --format d4rl", "no option --format"),
        ("generate Hopper medium --steps 1500", "--steps is 1500; it must be a multiple of 1,000"),
        ("generate Hopper medium --steps 0", "--steps is 0; it must be"),
        ("generate Hopper medium --seed -1", "--seed is -1; it must be 0 or more"),
        ("generate Hopper medium --seed 4294967295", "--seed is 4294967295"),
        ("generate Hopper random --rows 0", "--rows is 0; it must be at least 1"),
        ("generate Hopper medium-expert --rows 11", "--rows is 11; it must be at least 2, and even"),
        ("generate Hopper medium-replay --rows 10", "leave it out"),
        ("generate Hopper random --rows 99999999999", "GiB are free; choose fewer --rows"),
        ("generate Hopper random --steps 3000", "no training, to which --steps belongs; leave it out"),
        ("generate Hopper random --run x", "no training, to which --run belongs; leave it out"),
        ("generate Hopper medium --out=", "--out is empty"),
        ("generate Hopper medium --run=", "--run is empty"),
        ("generate wheel-legged standing-still --out=", "--out is empty"),
        (f"generate Hopper medium --out {'x' * 300}.hdf5", "more than 220 bytes; shorten --out"),
        (f"generate Hopper medium --out {'x' * 300}/a.hdf5", "File name too long; name another --out"),
        (f"generate Hopper medium --run {'x' * 300}", "File name too long; name another with --run"),
        (f"generate wheel-legged standing-still --out {'x' * 300}", "File name too long; name another --out"),
        ("generate Hopper medium --out new/log.hdf5 --steps 1", "--steps is 1; it must be"),
        (
            "generate Hopper medium --out folder.hdf5 --overwrite",
            "folder.hdf5 is a folder; name a file with --out",
        ),
        ("generate Hopper medium --out log.csv", "log.csv: is not a name for HDF5"),
        ("generate Hopper medium --out there.hdf5", "there.hdf5 exists already; replace it with --overwrite"),
        ("generate Hopper medium --format minari --out a/b/c", "'a/b/c' is no id of a Minari dataset"),
        ("generate Hopper medium --run full", "full is a folder that holds no run; name another with --run"),
        ("generate Hopper medium --run other", "other was begun with"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    made, folder, tmp_path, monkeypatch, capsys, words, says
):
    made("expert")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.hdf5").touch()
    for name in ("full", "folder.hdf5"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    (tmp_path / "other").symlink_to(folder / "hopper_sac_3000_seed_1-v5")
    before = sorted(path.name for path in tmp_path.iterdir())
    for name in ("train", "resume"):
        monkeypatch.setattr(training_run, name, None)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["simtrust", *words.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    output = capsys.readouterr()
    assert (ended.value.code, output.out) == (2, "")
    assert says in output.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    out, module = tmp_path / "log.hdf5", sys.modules[generate_log.__module__]
    told = module.provenance

    def appearing(*given):
        out.write_bytes(b"another's")
        return told(*given)

    monkeypatch.setattr(module, "provenance", appearing)
    with pytest.raises(ConfigError, match=r"log\.hdf5 has appeared meanwhile"):
        generate_log("Hopper", "random", out=out, rows=10, quiet=True)
    assert out.read_bytes() == b"another's"
    generate_log("Hopper", "random", out=out, rows=10, quiet=True, overwrite=True)
    assert len(columns_of(out)[0]["rewards"]) == 10


def test_medium_replay_needs_four_times_its_rows_and_a_recording_twice(tmp_path, monkeypatch):
    """A row of Hopper: 27 float32, 2 ends, and 12 float64 of its state."""
    row = 4 * 27 + 2 + 8 * 12
    monkeypatch.setattr(training_run, "train", None)
    for level, options, free in (
        ("medium-replay", {"steps": 3_000}, 4 * 3_000 * row - 1),
        ("random", {"rows": 10}, 2 * 10 * row - 1),
    ):
        monkeypatch.setattr(sys.modules[generate_log.__module__], "available_memory", lambda free=free: free)
        with pytest.raises(ConfigError, match="are free; choose fewer --rows"):
            generate_log("Hopper", level, out=tmp_path / "log.hdf5", quiet=True, **options)
    monkeypatch.setattr(sys.modules[generate_log.__module__], "available_memory", lambda: 2 * 10 * row)
    generate_log("Hopper", "random", out=tmp_path / "log.hdf5", quiet=True, rows=10)


def test_a_policy_that_is_gone_or_damaged_is_told(made, folder, tmp_path):
    generated, _ = made("expert")
    step = generated.policies["expert"].step
    manifest = generated.run / "policies" / f"policy-{step:012d}.json"
    content = manifest.read_text()
    changes = {
        "has not kept its policy": None,
        "is damaged": "{}",
        "has format 2": json.dumps(json.loads(content) | {"format": 2}),
        "SHA-256 is not the one": content.replace('"sha256": "', '"sha256": "0'),
    }
    try:
        for says, changed in changes.items():
            manifest.unlink()
            if changed is not None:
                manifest.write_text(changed)
            with pytest.raises(RunError, match=says):
                generate_log(
                    "Hopper", "expert", out=tmp_path / "log.hdf5", rows=10, run=generated.run, **OPTIONS
                )
            manifest.write_text(content)
    finally:
        manifest.write_text(content)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_tells_what_was_made(made, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_run, "AlgorithmOptions", lambda: OPTIONS["algorithm"])
    monkeypatch.chdir(tmp_path)
    generated, _ = made("medium")
    options = ["--steps", "3000", "--seed", "1", "--rows", "1200", "--run", str(generated.run)]
    words = ["simtrust", "generate", "Hopper", "medium", *options]
    monkeypatch.setattr(sys, "argv", words)
    cli.main()
    output = capsys.readouterr().out
    dataset = simtrust.load_dataset("hopper_medium-v5.hdf5")
    score = generated.policies["medium"]
    falls = int(dataset.transitions.terminated.sum())
    for told in (
        "1,200",
        f"{dataset.episode_count}, of which {falls} ended in a fall",
        f"{dataset.episode_returns.mean():,.1f} on average",
        f"return {score.mean:,.1f} ± {score.std:,.1f} with its best action, at step {score.step:,}",
        "simtrust train trust --real hopper_medium-v5.hdf5 --sim Hopper-v5 --shift gravity=2",
    ):
        assert told in output
    assert columns_of("hopper_medium-v5.hdf5")[1]["command"] == " ".join(words)


@pytest.mark.parametrize(
    ("steps", "every"),
    [(1_000, 1_000), (200_000, 2_000), (1_000_000, 10_000), (3_000_000, 10_000), (1_001_000, 7_000)],
)
def test_a_hundred_policies_are_kept_the_last_one_among_them(steps, every):
    config = training_run.training_config("Ant-v5", steps, seed=3, run=Path("run"))
    assert (config.evaluate_every, config.checkpoint_every, config.first_seed) == (every, every, 3)
    assert steps % every == 0
    assert config.buffer_capacity == steps
    assert (config.recipe, config.sim, config.shifts, config.real) == ("sac", "Ant-v5", (), None)
