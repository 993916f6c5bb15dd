"""A trained policy on the robot: the same actions, and the truth about where the log never was."""

import ast
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import simtrust
from simtrust.commands.export import _told
from simtrust.commands.export import export as export_command
from simtrust.data import save_dataset
from simtrust.errors import ConfigError, ExportError, RunError
from simtrust.export import policy_bundle, policy_runner
from simtrust.export.latency import measure_latency
from simtrust.export.machine import Dimensions, Machine, describe_machine
from simtrust.export.model_card import model_card
from simtrust.export.policy_arrays import MARGIN, ObservedRange, policy_arrays
from simtrust.export.policy_bundle import FILES, PolicyBundle, export_policy
from simtrust.export.policy_graph import policy_graph
from simtrust.export.policy_metadata import as_texts, policy_metadata
from simtrust.export.policy_parity import check_parity, parity_rows
from simtrust.export.policy_runner import PolicyRunner, deviation
from simtrust.export.policy_source import load_trained
from simtrust.training.policy import Policy
from simtrust.training.scaling import Scaling

TINY = {
    "hidden_sizes": (16, 8),
    "batch_size": 16,
    "rollout_steps": 50,
    "checkpoint_every": 100,
    "evaluate_every": 0,
    "evaluation_episodes": 1,
    "steps": 100,
}
SHIFTED = np.array([3.0, -40.0, 1000.0], np.float32)
"""Units in which a policy that forgot its normaliser would be found out."""


def record_log(path: Path) -> Path:
    generator = np.random.default_rng(0)
    observations = (SHIFTED + [1.0, 10.0, 0.1] * generator.normal(size=(300, 3))).astype(np.float32)
    return save_dataset(
        path,
        {
            "observations": observations,
            "actions": generator.uniform(-2, 2, (300, 1)).astype(np.float32),
            "rewards": generator.normal(size=300).astype(np.float32),
            "terminals": np.zeros(300, bool),
            "timeouts": np.arange(300) % 100 == 99,
        },
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return record_log(tmp_path_factory.mktemp("log") / "log.hdf5")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, log) -> dict[str, Path]:
    """Run directories: of the log alone with each actor and normalisation; without a log, of two seeds."""
    root = tmp_path_factory.mktemp("runs")
    offline = {"real": log, "real_env": "Pendulum-v1", **TINY}
    kinds = {
        "normalised": ("cql", {**offline, "normalise_observations": True}),
        "deterministic": ("cql", {**offline, "actor": "deterministic"}),
        "no log": ("sac", {"sim": "Pendulum-v1", "seeds": 2, "first_seed": 5, **TINY}),
    }
    return {
        name: simtrust.train(recipe, quiet=True, out=root / name, **options).directory
        for name, (recipe, options) in kinds.items()
    }


@pytest.fixture(scope="module")
def bundles(runs, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("robot")
    return {name: export_policy(run, root / "new" / name).folder for name, run in runs.items()}


@pytest.fixture(params=["normalised", "deterministic", "no log"])
def kind(request) -> str:
    return request.param


def metadata_of(folder: Path) -> dict:
    return json.loads((folder / "metadata.json").read_text())


def in_onnxruntime(folder: Path):
    session = onnxruntime.InferenceSession(folder / "policy.onnx", providers=["CPUExecutionProvider"])
    return lambda rows: session.run(["action", "valid"], {"observation": rows})


def in_reference(folder: Path):
    evaluator = ReferenceEvaluator(onnx.load(folder / "policy.onnx"))

    def call(rows):
        with np.errstate(all="ignore"):
            return evaluator.run(["action", "valid"], {"observation": rows})

    return call


ON_ROBOT = {
    "onnxruntime": in_onnxruntime,
    "reference": in_reference,
    "numpy": lambda folder: PolicyRunner(folder / "policy.npz"),
}


@pytest.fixture(params=list(ON_ROBOT))
def on_robot(request):
    return ON_ROBOT[request.param]


def logged_range(log: Path) -> tuple[np.ndarray, np.ndarray]:
    observation = simtrust.load_dataset(log).transitions.observation
    return observation.min(0), observation.max(0)


def trained(run: Path, observation: np.ndarray, seed: int = 0) -> np.ndarray:
    policy = Policy(run)
    return policy(np.stack([observation] * len(policy.seeds)))[seed]


@pytest.mark.parametrize("count", [0, 1, 7, 300])
def test_the_robot_acts_as_the_trained_policy(runs, bundles, kind, on_robot, count):
    middle, reach = (np.zeros(3), np.ones(3)) if kind == "no log" else (SHIFTED, np.array([1, 10, 0.1]))
    rows = (middle + reach * np.random.default_rng(1).normal(size=(count, 3))).astype(np.float32)
    action, valid = on_robot(bundles[kind])(rows)
    assert (action.dtype, action.shape) == (np.float32, (count, 1))
    assert (valid.dtype, valid.shape) == (bool, (count,))
    np.testing.assert_allclose(action, trained(runs[kind], rows), rtol=0, atol=4e-5)
    assert count < 300 or np.ptp(action) > 1e-3 or kind == "deterministic"


def test_the_edge_of_the_range_is_where_the_log_ends(runs, bundles, log, on_robot):
    """Valid up to the log's least and greatest values and the margin, in each dimension, and no further."""
    low, high = logged_range(log)
    width = (high - low).astype(float)
    robot, rows, expected = on_robot(bundles["normalised"]), [low, high], [True, True]
    for dimension in range(3):
        for end, sign in ((low, -1), (high, 1)):
            for share, valid in ((0.9 * MARGIN, True), (1.1 * MARGIN, False), (5.0, False)):
                row = SHIFTED.copy()
                row[dimension] = end[dimension] + sign * share * width[dimension]
                rows.append(row)
                expected.append(valid)
    action, valid = robot(np.stack(rows))
    assert valid.tolist() == expected
    # Outside of the range it is still the policy's.
    np.testing.assert_allclose(action, trained(runs["normalised"], np.stack(rows)), rtol=0, atol=4e-5)
    stated = metadata_of(bundles["normalised"])
    assert (stated["observation_min"], stated["observation_max"]) == (low.tolist(), high.tolist())
    beyond = np.nextafter(np.float32(stated["valid_high"]), np.float32(np.inf))
    assert robot(np.float32([stated["valid_low"], stated["valid_high"], beyond]))[1].tolist() == [1, 1, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_gives_no_action(bundles, kind, on_robot, bad):
    rows = np.stack([np.zeros(3) if kind == "no log" else SHIFTED] * 4).astype(np.float32)
    rows[1, 2], rows[3, 0] = bad, bad
    action, valid = on_robot(bundles[kind])(rows)
    assert valid.tolist() == [True, False, True, False]
    assert np.isnan(action[[1, 3]]).all()
    assert np.isfinite(action[[0, 2]]).all()


def test_without_a_log_any_finite_observation_is_valid_and_the_files_say_so(bundles, on_robot):
    rows = np.float32([[1e6, -1e6, 1e6], [0, 0, 0]])
    assert on_robot(bundles["no log"])(rows)[1].tolist() == [True, True]
    stated = metadata_of(bundles["no log"])
    assert (stated["valid_low"], stated["dataset_sha256"]) == (None, None)
    assert stated["valid_means"].startswith("finite: the run had no log")
    assert stated["valid_means"] in (bundles["no log"] / "README.md").read_text()


def test_the_bundle_is_whole_and_the_graph_embeds_its_weights(bundles, kind):
    folder = bundles[kind]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    model = onnx.load(folder / "policy.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert not any(x.external_data or x.data_location for x in model.graph.initializer)
    assert {x.data_type for x in model.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    shapes = {
        value.name: (
            value.type.tensor_type.elem_type,
            [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "observation": (onnx.TensorProto.FLOAT, ["rows", 3]),
        "action": (onnx.TensorProto.FLOAT, ["rows", 1]),
        "valid": (onnx.TensorProto.BOOL, ["rows"]),
    }


def test_the_files_say_where_the_policy_comes_from(runs, bundles, log):
    stated = metadata_of(bundles["normalised"])
    result = json.loads((runs["normalised"] / "result.json").read_text())
    assert stated["evaluation"]["return_mean"] == result["runs"][0]["return_mean"]
    assert (stated["training_command"], stated["training_versions"]) == (
        result["command"],
        result["versions"],
    )
    assert (stated["dataset"], stated["dataset_sha256"]) == (str(log), result["dataset_sha256"])
    assert (stated["recipe"], stated["steps"], stated["seed"], stated["rate_hz"]) == ("cql", 100, 0, 20.0)
    assert (stated["action_low"], stated["action_high"]) == ([-2.0], [2.0])
    assert stated["observation_names"] == [f"observation {i}" for i in range(3)]
    carried = {x.key: x.value for x in onnx.load(bundles["normalised"] / "policy.onnx").metadata_props}
    assert carried == as_texts(stated)
    card = (bundles["normalised"] / "README.md").read_text()
    for told in (stated["dataset_sha256"], stated["training_command"], "is NaN", "20 Hz", str(log)):
        assert told in card


def test_the_first_seed_is_taken_and_the_card_says_so(runs, bundles, tmp_path):
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    second = export_policy(runs["no log"], tmp_path / "second", seed=6).folder
    for folder, run, seed in ((bundles["no log"], 0, 5), (second, 1, 6)):
        found = PolicyRunner(folder / "policy.npz")(rows)[0]
        np.testing.assert_allclose(found, trained(runs["no log"], rows, run), rtol=0, atol=4e-5)
        stated = metadata_of(folder)
        assert (stated["seed"], stated["seeds_of_the_run"]) == (seed, [5, 6])
    assert (
        "Seed 5, of the run's 5, 6 (the first, not the best)" in (bundles["no log"] / "README.md").read_text()
    )
    assert "Seed 6, of the run's 5, 6." in (second / "README.md").read_text()
    with pytest.raises(ConfigError, match=r"--seed is 7; .* has 5, 6"):
        export_policy(runs["no log"], tmp_path / "third", seed=7)


def test_the_card_says_whether_the_policy_was_judged_in_its_own_simulator(bundles):
    told = "This is the simulator of the run itself: it says little about the machine."
    found = {name: told in (folder / "README.md").read_text() for name, folder in bundles.items()}
    assert found == {"normalised": False, "deterministic": False, "no log": True}


def test_the_command_tells_the_only_seed_and_a_rate_that_is_not_known(bundles):
    metadata = metadata_of(bundles["normalised"])
    latency = json.loads((bundles["normalised"] / "latency.json").read_text())
    machine = describe_machine("my_machine:make", (3, 1), None)
    metadata |= {"rate_hz": machine.rate, "rate_note": machine.rate_note}
    told = _told(PolicyBundle(bundles["normalised"], metadata, latency, {"x": 0.0}))
    assert "seed 0 (the only one), at step 100" in told
    assert re.search(r"^rate +unknown; add --rate HZ$", told, re.MULTILINE)
    assert "my\\_machine:make does not tell; add --rate HZ" in model_card(metadata, latency, {})


def test_parity_rows_are_of_every_kind(bundles):
    with np.load(bundles["normalised"] / "parity.npz") as stored:
        parity = dict(stored)
    kinds = {name: parity["valid"][parity["case"] == name] for name in np.unique(parity["case"])}
    assert {name: set(valid.tolist()) for name, valid in kinds.items()} == {
        "inside": {True},
        "edge": {True},
        "outside": {False},
        "not finite": {False},
    }
    assert np.isnan(parity["action"][parity["case"] == "not finite"]).all()
    assert np.isfinite(parity["action"][parity["case"] != "not finite"]).all()


def run_isolated(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-I", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_the_runner_is_short_needs_only_numpy_and_checks_itself(bundles, tmp_path):
    folder = bundles["normalised"]
    source = (folder / "policy_runner.py").read_text()
    assert len(source.splitlines()) < 100
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [x.name for x in node.names])
    }
    assert imported - sys.stdlib_module_names == {"numpy"}
    done = run_isolated(folder / "policy_runner.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+ us a call \(p50\), \d+ us \(p99\), deviation \S+\n", done.stdout)


@pytest.mark.parametrize("name", ["weight_0", "bias_2", "action_half", "valid_high", "observation_mean"])
def test_the_runner_notices_that_its_numbers_are_others(bundles, tmp_path, name):
    shutil.copy(bundles["normalised"] / "parity.npz", tmp_path)
    arrays = dict(np.load(bundles["normalised"] / "policy.npz"))
    arrays[name] = arrays[name] * np.float32(1.01)
    np.savez(tmp_path / "policy.npz", **arrays)
    done = run_isolated(bundles["normalised"] / "policy_runner.py", tmp_path / "policy.npz", cwd=tmp_path)
    assert done.returncode == 1
    assert "not the exporter's answers" in done.stderr


def test_the_runner_takes_one_row_or_many_and_refuses_other_shapes(bundles):
    runner = PolicyRunner(bundles["normalised"] / "policy.npz")
    rows = np.stack([SHIFTED, SHIFTED + 1])
    action, valid = runner(rows)
    alone, alone_valid = runner(rows[1].astype(float).tolist())
    assert (alone.shape, alone_valid.shape) == ((1,), ())
    np.testing.assert_allclose(alone, action[1], rtol=1e-5)
    assert alone_valid == valid[1]
    for shape in ((), (4,), (2, 4), (2, 2, 3)):
        with pytest.raises(ValueError, match=re.escape(f"not {list(shape)}")):
            runner(np.zeros(shape))


def test_the_runner_reads_neither_pickles_nor_other_files(tmp_path):
    np.savez(tmp_path / "pickle.npz", format=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        PolicyRunner(tmp_path / "pickle.npz")
    np.savez(tmp_path / "other.npz", format=np.array(2))
    with pytest.raises(ValueError, match="format 1"):
        PolicyRunner(tmp_path / "other.npz")


true_graph, true_act = policy_bundle.policy_graph, PolicyRunner._act


def tampered_graph(name, factor):
    def tampered(arrays, *rest):
        return true_graph(dict(arrays) | {name: arrays[name] * np.float32(factor)}, *rest)

    return policy_bundle, "policy_graph", tampered


def valid_everywhere(self, rows):
    return true_act(self, rows)[0], np.ones(len(rows), bool)


def acts_on_nan(self, rows):
    action, valid = true_act(self, rows)
    return np.nan_to_num(action), valid


@pytest.mark.parametrize(
    "tamper",
    [
        tampered_graph("bias_2", 1.001),
        tampered_graph("valid_low", 1.0001),
        (policy_runner.PolicyRunner, "_act", valid_everywhere),
        (policy_runner.PolicyRunner, "_act", acts_on_nan),
    ],
    ids=["weights", "range", "valid", "nan"],
)
def test_files_that_would_act_otherwise_are_not_written(runs, tmp_path, monkeypatch, tamper):
    monkeypatch.setattr(*tamper)
    with pytest.raises(ExportError, match="does not compute the same as the trained policy"):
        export_policy(runs["normalised"], tmp_path / "robot")
    assert list(tmp_path.iterdir()) == []


def small_network(gain: float, inputs: int, outputs: int):
    generator = np.random.default_rng(0)
    sizes = (inputs, 8, 8, outputs)
    return [
        (
            (gain * generator.normal(size=(a, b))).astype(np.float32),
            generator.normal(size=b).astype(np.float32),
        )
        for a, b in pairwise(sizes)
    ]


def act_in_scaling(layers, scaling: Scaling):
    """As `Policy` does, with numpy for JAX."""

    def act(observation):
        hidden = scaling.observe(observation)
        for weight, bias in layers[:-1]:
            hidden = np.maximum(hidden @ weight + bias, 0)
        return scaling.to_machine_action(np.tanh(hidden @ layers[-1][0] + layers[-1][1]))

    return act


def archive_of(arrays) -> bytes:
    return policy_bundle._archive(arrays)


@settings(max_examples=40)
@given(
    mean=st.floats(-1e5, 1e5),
    spread=st.floats(1e-3, 1e4),
    low=st.floats(-1e4, 1e4),
    width=st.floats(1e-3, 1e6),
    gain=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_any_scaling_is_baked_in(mean, spread, low, width, gain):
    """Means far larger than deviations, bounds that float32 rounds, actions that saturate."""
    scaling = Scaling((mean, 0.0), (spread, 1.0), (low, -1.0), (low + width, 1.0))
    layers = small_network(gain, 2, 2)
    ends = (np.float32([mean + sign * 3 * spread, sign]) for sign in (-1, 1))
    arrays = policy_arrays(layers, scaling, ObservedRange(*ends).widened())
    parity = parity_rows(act_in_scaling(layers, scaling), arrays, ranged=True)
    deviations = check_parity(policy_graph(arrays, {}, ""), archive_of(arrays), parity)
    assert set(deviations) == {
        "policy.onnx in ONNX's reference",
        "policy.onnx in onnxruntime",
        "policy_runner.py",
    }
    action, _ = PolicyRunner(_file(archive_of(arrays)))(parity["observation"])
    known = action[~np.isnan(action[:, 0]), 0].astype(float)
    assert (low <= known).all()
    assert (known <= low + width).all()


def _file(content: bytes):
    return policy_bundle.io.BytesIO(content)


def test_no_action_is_a_rounding_beyond_its_bounds():
    """The float32 next to 0.1 is larger, and the machine may refuse it."""
    scaling = Scaling((0.0,), (1.0,), (0.1,), (0.7,))
    layers = [(np.float32([[1e4]]), np.float32([0]))]
    arrays = policy_arrays(layers, scaling, None)
    graph = policy_graph(arrays, {}, "").SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rows = np.float32([[-5], [5]])
    for action, _ in (
        PolicyRunner(_file(archive_of(arrays)))(rows),
        session.run(None, {"observation": rows}),
    ):
        assert 0.1 <= float(action[0, 0]) < 0.1 + 1e-7
        assert 0.7 - 1e-7 < float(action[1, 0]) <= 0.7
    parity = parity_rows(act_in_scaling(layers, scaling), arrays, ranged=False)
    beyond = policy_graph(
        arrays | {"action_high": np.float32([0.8]), "action_half": np.float32([0.4])}, {}, ""
    )
    with pytest.raises(ExportError, match="differ by inf"):
        check_parity(beyond, archive_of(arrays), parity)


def test_steepness_excuses_rounding_and_nothing_else():
    layers = small_network(0.3, 17, 1)
    # A step of float32 near 1,000 is six hundredths of the second unit.
    for mean, std, excuse in ((0.0, 1.0, 1.0), (1e3, 1e-3, 100.0)):
        scaling = Scaling((mean,) * 17, (std,) * 17, (-1.0,), (1.0,))
        parity = parity_rows(
            act_in_scaling(layers, scaling), policy_arrays(layers, scaling, None), ranged=False
        )
        assert parity["action_unit"].min() == 2.0
        assert parity["action_unit"].max() == pytest.approx(2.0 * excuse)
        wrong = parity["action"] * np.float32(1 - 0.01)
        assert deviation(wrong, parity["valid"], parity) > policy_runner.TOLERANCE


def test_an_overflow_within_the_network_gives_no_action():
    layers = [
        (np.float32([[1e30, 1e30]]), np.zeros(2, np.float32)),
        (np.float32([[1], [-1]]), np.float32([0])),
    ]
    arrays = policy_arrays(layers, Scaling((0.0,), (1.0,), (-1.0,), (1.0,)), None)
    graph = policy_graph(arrays, {}, "").SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rows = np.float32([[1e30], [0.0]])
    for action, valid in (
        PolicyRunner(_file(archive_of(arrays)))(rows),
        session.run(None, {"observation": rows}),
    ):
        assert valid.tolist() == [False, True]
        assert np.isnan(action[:, 0]).tolist() == [True, False]


def test_what_float32_cannot_hold_is_refused():
    layers, scaling = small_network(1.0, 1, 1), Scaling((0.0,), (1.0,), (-1.0,), (1.0,))
    for broken, named in (
        (dataclasses.replace(scaling, observation_std=(1e-60,)), "observation_std"),
        (dataclasses.replace(scaling, observation_mean=(float("nan"),)), "observation_mean"),
        (dataclasses.replace(scaling, action_high=(1e60,)), "action_half"),
    ):
        with pytest.raises(ExportError, match=named):
            policy_arrays(layers, broken, None)


def test_a_dimension_that_never_varied_may_round_but_not_vary():
    constant = ObservedRange(np.float32([0.1, 0.0]), np.float32([0.1, 0.0])).widened()
    assert (constant.low < [0.1, 0.0]).all()
    assert (constant.high - constant.low < 1e-6).all()


def test_a_run_without_a_checkpoint_is_refused(runs, tmp_path):
    shutil.copytree(runs["normalised"], tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(RunError, match="holds no checkpoint yet"):
        export_policy(tmp_path / "run", tmp_path / "robot")
    with pytest.raises(RunError, match="is not a run directory"):
        export_policy(tmp_path, tmp_path / "robot")
    assert not (tmp_path / "robot").exists()


def test_an_unfinished_run_says_so(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["deterministic"], run)
    (run / "result.json").unlink()
    stored = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(stored | {"steps": 900}))
    folder = export_policy(run, tmp_path / "robot").folder
    assert metadata_of(folder)["evaluation"] is None
    card = (folder / "README.md").read_text()
    assert "100 steps of 900 asked for: **the training was not finished**" in card
    assert "Not evaluated" in card
    (run / "result.json").write_text("{")
    with pytest.raises(RunError, match=r"result\.json is damaged"):
        export_policy(run, tmp_path / "other")


def older_run(run: Path, copy: Path, **changed) -> Path:
    """As runs were before they recorded their log's range."""
    shutil.copytree(run, copy)
    stored = json.loads((copy / "config.json").read_text()) | changed
    del stored["observation_min"], stored["observation_max"]
    (copy / "config.json").write_text(json.dumps(stored))
    return copy


def test_an_older_run_takes_the_range_from_its_log(runs, bundles, log, tmp_path):
    older = older_run(runs["normalised"], tmp_path / "older")
    moved = older_run(runs["normalised"], tmp_path / "moved", real="gone.hdf5")
    for run, real in ((older, None), (moved, log)):
        found = metadata_of(export_policy(run, tmp_path / f"from {run.name}", real=real).folder)
        assert found["observation_min"] == metadata_of(bundles["normalised"])["observation_min"]
    with pytest.raises(ExportError, match=r"gone\.hdf5: no such file.*Name the log with --real FILE"):
        export_policy(moved, tmp_path / "robot")
    other = save_dataset(
        tmp_path / "other.hdf5",
        {
            "observations": np.zeros((2, 3), np.float32),
            "actions": np.zeros((2, 1), np.float32),
            "rewards": np.zeros(2, np.float32),
            "terminals": np.ones(2, bool),
        },
    )
    with pytest.raises(ConfigError, match="is not the log that"):
        export_policy(moved, tmp_path / "robot", real=other)
    for run in (runs["no log"], runs["normalised"]):
        with pytest.raises(ConfigError, match="leave it out"):
            export_policy(run, tmp_path / "robot", real=log)


def test_training_records_the_range_of_its_log(runs, log):
    stored = json.loads((runs["normalised"] / "config.json").read_text())
    expected = [end.tolist() for end in logged_range(log)]
    assert [stored["observation_min"], stored["observation_max"]] == expected
    assert json.loads((runs["no log"] / "config.json").read_text())["observation_min"] is None


def test_a_damaged_range_is_refused(runs, tmp_path):
    for wrong in ([1.0, 2.0], [float("nan")] * 3, "abc", [9e9] * 3):
        run = tmp_path / str(wrong)
        shutil.copytree(runs["normalised"], run)
        stored = json.loads((run / "config.json").read_text()) | {"observation_min": wrong}
        (run / "config.json").write_text(json.dumps(stored))
        with pytest.raises(RunError, match="is damaged"):
            export_policy(run, tmp_path / "robot")


def test_what_is_there_is_only_replaced_when_told_to_and_if_it_is_a_bundle(runs, tmp_path):
    out = tmp_path / "robot"
    export_policy(runs["no log"], out)
    with pytest.raises(ExportError, match="exists already; replace it with --overwrite"):
        export_policy(runs["no log"], out, seed=6)
    assert metadata_of(out)["seed"] == 5
    export_policy(runs["no log"], out, seed=6, overwrite=True)
    assert metadata_of(out)["seed"] == 6
    (out / "notes.txt").write_text("precious")
    with pytest.raises(ExportError, match=r"holds notes\.txt, which no export wrote"):
        export_policy(runs["no log"], out, overwrite=True)
    (tmp_path / "file").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(ExportError, match="file "):
            export_policy(runs["no log"], tmp_path / "file", overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "robot"]
    assert (tmp_path / "file").read_text() == (out / "notes.txt").read_text() == "precious"


def test_a_failed_write_leaves_the_older_bundle_and_nothing_else(runs, tmp_path, monkeypatch):
    out = tmp_path / "robot"
    export_policy(runs["no log"], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write, rename = policy_bundle.write_atomically, Path.rename

    def full_disk(path, content):
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        write(path, content)

    def interrupted(path, target):
        if path.name == "new":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    for owner, name, failing, told in (
        (policy_bundle, "write_atomically", full_disk, "No space left"),
        (Path, "rename", interrupted, "Input/output"),
    ):
        with monkeypatch.context() as patched, pytest.raises(ExportError, match=told):
            patched.setattr(owner, name, failing)
            export_policy(runs["no log"], out, seed=6, overwrite=True)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        assert list(tmp_path.iterdir()) == [out]


HOSTILE = ("Gelenk «ä» 🤖 (°)", "a | b`c\n# d <script>", "\ud800 half")


def test_odd_names_travel_and_do_not_break_the_page(runs, bundles):
    source = load_trained(runs["normalised"], None, None)
    machine = Machine(Dimensions.from_labels(HOSTILE), Dimensions(("Motor 左",), ("N m",)), 50.0, "x|`y`")
    stated = policy_metadata(source, machine, None, "```\nodd `command`")
    assert stated["observation_names"] == ["Gelenk «ä» 🤖", HOSTILE[1], "\\ud800 half"]
    assert stated["observation_units"] == ["°", "", ""]
    arrays = dict(np.load(bundles["normalised"] / "policy.npz"))
    graph = policy_graph(arrays, as_texts(stated), "")
    carried = {
        entry.key: entry.value for entry in onnx.load_from_string(graph.SerializeToString()).metadata_props
    }
    assert json.loads(carried["observation_names"]) == stated["observation_names"]
    assert json.loads(json.dumps(stated)) == stated
    latency = json.loads((bundles["normalised"] / "latency.json").read_text())
    card = model_card(stated, latency, {}).encode().decode()
    assert r"| 1 | `` a \| b`c\n# d <script> `` |" in card
    assert "````\n```\nodd `command`\n````" in card


@pytest.mark.parametrize(
    ("environment", "sizes", "given", "rate"),
    [
        ("StandingStillReal-v0", (4, 1), None, 200.0),
        ("HalfCheetah-v5", (17, 6), None, 20.0),
        ("Pendulum-v1", (3, 1), 20, 20.0),
        ("my_machine:make", (3, 1), 125.0, 125.0),
        ("my_machine:make", (3, 1), None, None),
        ("no-such-environment-v9", (3, 1), None, None),
    ],
)
def test_the_rate_is_the_environments_or_as_given(environment, sizes, given, rate):
    machine = describe_machine(environment, sizes, given)
    assert machine.rate == rate
    assert [len(x.names) for x in (machine.observation, machine.action)] == list(sizes)


def test_no_run_directory_decides_which_code_is_imported(tmp_path, monkeypatch):
    (tmp_path / "trap_of_a_run.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert describe_machine("trap_of_a_run:make", (3, 1), None).rate is None


def test_a_built_in_machine_has_names_and_units():
    machine = describe_machine("StandingStillReal-v0", (4, 1), None)
    assert machine.action == Dimensions(("torque of both motors",), ("N m",))
    assert machine.observation.names[:2] == ("tilt", "tilt velocity")
    assert machine.observation.units[0] == "rad"


def test_a_rate_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="acts at 20 Hz"):
        describe_machine("Pendulum-v1", (3, 1), 50.0)
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="must be positive"):
            describe_machine("my_machine:make", (3, 1), rate)


def test_without_onnxruntime_only_numpy_is_timed(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    bundle = export_policy(runs["no log"], tmp_path / "robot")
    assert bundle.latency["onnxruntime"] is None
    assert set(bundle.deviations) == {"policy.onnx in ONNX's reference", "policy_runner.py"}
    assert "onnxruntime was not installed" in (bundle.folder / "README.md").read_text()


def test_latency_is_of_both(bundles):
    stored = json.loads((bundles["normalised"] / "latency.json").read_text())
    assert (stored["unit"], stored["batch"], stored["threads"]) == ("microseconds", 1, 1)
    for runtime in ("onnxruntime", "numpy"):
        assert 0 < stored[runtime]["p50"] <= stored[runtime]["p99"]
    files = ((bundles["normalised"] / name).read_bytes() for name in ("policy.onnx", "policy.npz"))
    assert set(measure_latency(*files, SHIFTED)) == set(stored)


def test_the_command_tells_what_it_wrote(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["simtrust", "export", "run", "--out", "robot"])
    export_command(str(runs["no log"]), str(tmp_path / "[b]robot"))
    told = capsys.readouterr().out
    assert "seed 5 (of 5, 6), at step 100" in told
    assert "20 Hz, that of Pendulum-v1" in told
    assert "[b]robot/README.md" in told
    assert metadata_of(tmp_path / "[b]robot")["export_command"] == "simtrust export run --out robot"
