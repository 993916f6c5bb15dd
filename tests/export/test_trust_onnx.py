"""What runs on the robot computes what the model computes, alone, and says when it does not know."""

import json
import re
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from simtrust.errors import ExportError
from simtrust.export import numpy_runner, trust_onnx
from simtrust.export.numpy_runner import TrustRunner
from simtrust.export.trust_onnx import export_trust
from simtrust.gap.dynamics_model import DynamicsModel, GaussianNetwork
from simtrust.gap.trust_model import TrustModel

FILES = ["trust.npz", "trust.onnx", "trust_runner.py"]
OUTPUTS = ["gap", "divergence", "doubt", "error", "valid"]
HOSTILE = ["Gelenk «ä» 🤖", '"; DROP TABLE logs; --\n\\', "../../etc/passwd", "\ud800 half a pair", ""]
OBSERVATION_NAMES, ACTION_NAMES = HOSTILE, ["Motor 左", "m" * 500]
METADATA = {"log_sha256": "ab" * 32, "command": "simtrust gap log.hdf5 --sim 'Ünïcode'", "mujoco": "3.17"}
LEFT_OUT = 2


def make_trust(limit: float = 0.4, shift: float = 0.3) -> TrustModel:
    """Untrained members, whose inputs and outputs have units of very different sizes."""
    keys = jax.random.split(jax.random.key(0), 3)
    elites = eqx.filter_vmap(lambda key: GaussianNetwork(7, (32, 32), 5, key=key))(keys)
    generator = np.random.default_rng(0)
    scale = 10.0 ** np.arange(-2, 3)
    fields = (
        generator.normal(size=7) * 10,
        10.0 ** np.arange(-3, 4),
        shift * generator.normal(size=5) * scale,
        scale * generator.uniform(0.2, 3, size=5),
    )
    model = DynamicsModel(elites, *(jnp.asarray(x, jnp.float32) for x in fields))
    scale[LEFT_OUT] = np.nan
    return TrustModel(model, jnp.asarray(scale, jnp.float32), limit, 0.25)


def make_rows(trust: TrustModel, rows: int, spread: float = 1.0) -> dict[str, np.ndarray]:
    mean, scale = (np.asarray(x) for x in (trust.model.input_mean, trust.model.input_scale))
    inputs = mean + spread * scale * np.random.default_rng(1).normal(size=(rows, len(mean)))
    observation, action = np.split(inputs.astype(np.float32), [5], axis=1)
    return {"observation": observation, "action": action}


def export(trust, folder, **rest):
    names = {"observation_names": OBSERVATION_NAMES, "action_names": ACTION_NAMES}
    return export_trust(trust, folder, **(names | {"metadata": METADATA} | rest))


def in_onnxruntime(model):
    """From rows to answers, for the file or the bytes of a graph."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda rows: dict(zip(OUTPUTS, session.run(OUTPUTS, rows), strict=True))


def assert_as_assessed(trust, rows, found, tolerance=1e-5):
    expected = trust.assess(**rows)
    scale = np.nan_to_num(np.asarray(trust.scale), nan=1.0)
    for name, unit in (("gap", 1.0), ("divergence", 4.0), ("doubt", 1.0), ("error", scale)):
        value = getattr(expected, name)
        assert found[name].dtype == np.float32
        assert found[name].shape == value.shape
        allowed = tolerance * np.maximum(np.abs(np.nan_to_num(value)), unit)
        assert np.array_equal(np.isnan(found[name]), np.isnan(value))
        assert (np.abs(np.nan_to_num(found[name] - value)) <= allowed).all(), name
    assert found["valid"].dtype == bool
    np.testing.assert_array_equal(found["valid"], expected.doubt <= 1)


@pytest.fixture(scope="module")
def trust() -> TrustModel:
    return make_trust()


@pytest.fixture(scope="module")
def folder(trust, tmp_path_factory):
    """What was exported, and nothing else."""
    folder = tmp_path_factory.mktemp("robot") / "new" / "folder"
    paths = export(trust, folder)
    assert paths == [folder / name for name in ("trust.onnx", "trust.npz", "trust_runner.py")]
    assert sorted(path.name for path in folder.iterdir()) == FILES
    return folder


@pytest.fixture(scope="module", params=["onnxruntime", "numpy"])
def on_robot(request, folder):
    """From rows to answers, as the robot computes them."""
    if request.param == "numpy":
        runner = TrustRunner(folder / "trust.npz")
        return lambda rows: runner(**rows)
    return in_onnxruntime(folder / "trust.onnx")


@pytest.mark.parametrize("rows", [0, 1, 7, 500])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_the_robot_computes_what_the_model_computes(trust, on_robot, rows, spread):
    rows = make_rows(trust, rows, spread)
    assert_as_assessed(trust, rows, on_robot(rows))


def test_some_rows_are_valid_and_some_are_not(trust, on_robot):
    """Without which the comparison would say little."""
    found = on_robot(make_rows(trust, 500))
    assert 0.1 < found["valid"].mean() < 0.9
    assert not on_robot(make_rows(trust, 500, spread=100.0))["valid"].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_row_that_is_not_finite_or_overflows_is_not_valid(tmp_path, bad):
    """Of a model that is sure of everything else."""
    sure = make_trust(limit=1e6)
    rows = make_rows(sure, 4)
    rows["observation"][0, 0], rows["action"][2, 1] = bad, bad
    if bad == 3e38:  # The action's unit is so large that this is a moderate one.
        rows["action"][2, 1] = np.inf
    graph, archive, _ = export(sure, tmp_path)
    for found in (in_onnxruntime(graph)(rows), TrustRunner(archive)(**rows)):
        assert found["valid"].tolist() == [False, True, False, True]
    assert not np.isfinite(found["doubt"][[0, 2]]).any()


def test_what_float32_cannot_hold_is_not_valid(folder, trust):
    rows = make_rows(trust, 1)
    found = TrustRunner(folder / "trust.npz")(np.full((1, 5), 1e300), rows["action"])
    assert not found["valid"].any()


def test_the_error_of_a_dimension_that_does_not_vary_is_unknown(trust, on_robot):
    error = on_robot(make_rows(trust, 5))["error"]
    assert np.isnan(error[:, LEFT_OUT]).all()
    assert np.isfinite(np.delete(error, LEFT_OUT, axis=1)).all()


def test_the_graph_is_what_it_says(folder):
    model = onnx.load(folder / "trust.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 9
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    one = ["rows"]
    assert shapes == {
        "observation": ["rows", 5],
        "action": ["rows", 2],
        "gap": one,
        "divergence": one,
        "doubt": one,
        "error": ["rows", 5],
        "valid": one,
    }
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert "valid" in model.doc_string


def test_names_units_limits_and_origin_travel_along(folder):
    """Even hostile ones; only what UTF-8 cannot hold is spelt out."""
    stored = {entry.key: entry.value for entry in onnx.load(folder / "trust.onnx").metadata_props}
    names = [*HOSTILE[:3], "\\ud800 half a pair", ""]
    runner = TrustRunner(folder / "trust.npz")
    assert json.loads(stored["observation_names"]) == runner.observation_names == names
    assert json.loads(stored["action_names"]) == runner.action_names == ACTION_NAMES
    assert METADATA.items() <= stored.items()
    assert runner.metadata == {k: v for k, v in stored.items() if not k.endswith("_names")}
    assert float(stored["doubt_limit"]) == 0.4
    assert float(stored["trusted_error"]) == 0.25
    assert json.loads(stored["scale"])[LEFT_OUT] is None
    assert {"simtrust_version", "unit_of_gap", "unit_of_error"} <= stored.keys()


def test_no_name_ends_early(trust, tmp_path):
    paths = export(trust, tmp_path, action_names=["a\0", "b"], metadata={"note\0": "\0"})
    runner = TrustRunner(paths[1])
    assert runner.action_names == ["a\\x00", "b"]
    assert runner.metadata["note\\x00"] == "\\x00"


ALONE = """
import sys
for name in ("simtrust", "jax", "equinox", "onnx", "onnxruntime", "scipy"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
import numpy as np
from trust_runner import TrustRunner
trust = TrustRunner(sys.argv[1] + "/trust.npz")
with np.load(sys.argv[2]) as rows:
    np.savez(sys.argv[3], **trust(rows["observation"], rows["action"]))
"""


def run_isolated(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-I", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_the_script_needs_nothing_but_numpy(trust, folder, tmp_path):
    rows = make_rows(trust, 20)
    np.savez(tmp_path / "rows.npz", **rows)
    done = run_isolated("-c", ALONE, folder, tmp_path / "rows.npz", tmp_path / "found.npz", cwd=folder)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "found.npz") as found:
        assert_as_assessed(trust, rows, dict(found))


def test_the_script_checks_and_times_itself(folder):
    done = run_isolated("trust_runner.py", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+ us a call \(p50\), \d+ us \(p99\), deviation \S+\n", done.stdout)
    assert len((folder / "trust_runner.py").read_text().splitlines()) < 100


@pytest.mark.parametrize("name", ["weight_0", "shift", "log_variance_max", "doubt_limit"])
def test_the_script_notices_that_its_weights_are_others(folder, tmp_path, name):
    arrays = dict(np.load(folder / "trust.npz"))
    arrays[name] = arrays[name] * np.float32(1.01)
    np.savez(tmp_path / "other.npz", **arrays)
    done = run_isolated(folder / "trust_runner.py", tmp_path / "other.npz", cwd=tmp_path)
    assert done.returncode == 1
    assert "not the exporter's answers" in done.stderr


def test_one_row_gives_one_answer(trust, folder):
    runner, rows = TrustRunner(folder / "trust.npz"), make_rows(trust, 3)
    batch = runner(**rows)
    alone = runner(rows["observation"][1].tolist(), rows["action"][1].astype(np.float64))
    assert {name: value.shape for name, value in alone.items()} == {
        "gap": (),
        "divergence": (),
        "doubt": (),
        "error": (5,),
        "valid": (),
    }
    for name, value in alone.items():
        np.testing.assert_allclose(value, batch[name][1], rtol=1e-5)


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        ((5,), (3,)),
        ((4,), (2,)),
        ((3, 5), (2,)),
        ((3, 5), (4, 2)),
        ((2, 3, 5), (2, 3, 2)),
        ((), (2,)),
        ((5,), ()),
    ],
)
def test_shapes_that_do_not_fit_are_refused(folder, observation, action):
    with pytest.raises(ValueError, match=re.escape(f"not {list(observation)} and {list(action)}")):
        TrustRunner(folder / "trust.npz")(np.zeros(observation), np.zeros(action))


def test_the_script_reads_neither_pickles_nor_other_files(tmp_path):
    np.savez(tmp_path / "pickle.npz", format=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        TrustRunner(tmp_path / "pickle.npz")
    np.savez(tmp_path / "other.npz", format=np.array(2))
    with pytest.raises(ValueError, match="format 1"):
        TrustRunner(tmp_path / "other.npz")


def test_a_variance_far_out_of_bounds_does_not_overflow(tmp_path):
    """float32 has no exp(95)."""
    trust = eqx.tree_at(
        lambda t: t.model.elites.network.layers[-1].bias,
        make_trust(),
        replace_fn=lambda bias: bias.at[:, bias.shape[1] // 2 :].set(jnp.array([95.0, -95.0, 95, -95, 95])),
    )
    graph, archive, _ = export(trust, tmp_path)
    rows = make_rows(trust, 50)
    assert_as_assessed(trust, rows, TrustRunner(archive)(**rows))
    assert_as_assessed(trust, rows, in_onnxruntime(graph)(rows))


true_assess, true_graph = TrustRunner._assess, trust_onnx.trust_graph


def tampered_script(self, inputs):
    return {k: v if k == "valid" else v * 1.001 for k, v in true_assess(self, inputs).items()}


def tampered_graph(arrays, *rest):
    return true_graph(dict(arrays) | {"bias_mean": arrays["bias_mean"] + np.float32(1e-3)}, *rest)


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        ((numpy_runner.TrustRunner, "_assess", tampered_script), "trust_runner.py"),
        ((trust_onnx, "trust_graph", tampered_graph), "trust.onnx"),
    ],
    ids=["script", "graph"],
)
def test_files_that_would_compute_something_else_are_not_written(trust, tmp_path, monkeypatch, tamper, named):
    monkeypatch.setattr(*tamper)
    with pytest.raises(ExportError, match=f"{named} does not compute the same"):
        export(trust, tmp_path / "robot")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_older_files(trust, tmp_path, monkeypatch):
    export(trust, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = trust_onnx.write_atomically

    def full_disk(path, content):
        if path.name == "trust_runner.py":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(trust_onnx, "write_atomically", full_disk)
    with pytest.raises(ExportError, match="No space left"):
        export(make_trust(limit=0.7), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_same_model_gives_the_same_bytes(trust, folder, tmp_path):
    for path in export(trust, tmp_path):
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_what_cannot_be_exported_is_refused(trust, tmp_path):
    with pytest.raises(ExportError, match=r"1 names of observations and 2 of actions.*has 5 and 2"):
        export(trust, tmp_path, observation_names=["one"])
    broken = eqx.tree_at(lambda t: t.model.input_scale, trust, jnp.full(7, jnp.nan))
    with pytest.raises(ExportError, match="input_scale"):
        export(broken, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export(trust, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("limit", "shift"), [(1e-4, 0.0), (1.0, 1e4)])
def test_rounding_is_no_reason_to_refuse(tmp_path, limit, shift):
    """Members that nearly agree, or a mean error far larger than its spread."""
    assert len(export(make_trust(limit, shift), tmp_path)) == 3
