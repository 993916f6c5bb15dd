"""Every format that is read again: an old file of each still says what it said, and a newer one is refused.

| file | version | read by |
|---|---|---|
| ``config.json`` of a run | ``format`` | `training.config.config_from_json` |
| ``checkpoints/checkpoint-*.json``, with state and replay chunks | ``format`` | `training.checkpoint` |
| ``gap_model.json``, with ``gap_model.safetensors`` | ``format`` | `training.gap_model.load_gap_model` |
| ``dynamics_model.json``, with ``dynamics_model.safetensors`` | ``format`` | `training.fitted_model` |
| ``metrics.jsonl`` | that of ``config.json`` | `reports.run_record.read_curves` |
| ``result.json`` | ``format`` | `training.result.read_result` |
| ``policy.npz``, ``parity.npz`` | ``format`` | `export.policy_runner` |
| ``trust.npz`` | ``format`` | `export.numpy_runner` |
| names and time in a converted log | ``simtrust_format`` | `data.extras.read_extras` |
| ``point-*.npz`` of Fig. 3, ``measures.json`` of Fig. 2 | ``format`` | `paper.cheetah`, `paper.robot` |

``gap.json``, ``metadata.json`` and the metadata of ``policy.onnx`` and ``trust.onnx`` carry a ``format`` for
those who read them; simtrust does not. CSV, Parquet, LeRobot's and Minari's layout are others' formats.
``make_golden.py`` made the files, and ``known.json``, which tells what was in them.
"""

import importlib.util
import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import simtrust
from simtrust import cli
from simtrust.errors import RunError, SimtrustError
from simtrust.export import policy_runner
from simtrust.export.numpy_runner import TrustRunner
from simtrust.export.policy_runner import PolicyRunner
from simtrust.gap.dynamics_fitting import REVERSE_GAP_OPTIONS
from simtrust.gap.simulator_gap import SIMULATOR_GAP_OPTIONS
from simtrust.paper.cheetah import load_point
from simtrust.paper.robot import load_cell
from simtrust.reports.run_record import read_run
from simtrust.training.dynamics_model import DYNAMICS_MODEL_FORMAT
from simtrust.training.gap_model import GAP_MODEL_FORMAT, load_gap_model

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
BYTES_MAX = 200_000
pytestmark = [
    pytest.mark.filterwarnings("ignore::simtrust.errors.RunWarning"),
]
"""The versions of today are not those that the files were made with."""


def load_maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_golden", HERE / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


maker = load_maker()


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """The golden files, to be worked on."""
    folder = shutil.copytree(GOLDEN, tmp_path / "golden")
    monkeypatch.chdir(folder)
    return folder


def same(found: Any, known: Any, place: str = "") -> None:
    """Equal but for the last digits of numbers, which another processor may round otherwise."""
    if isinstance(known, dict):
        # What was added since is nobody's loss.
        assert set(known) <= set(found), place
        for key in known:
            same(found[key], known[key], f"{place}/{key}")
    elif isinstance(known, list) and known and isinstance(known[0], list | dict | str | None):
        assert len(found) == len(known), place
        for number, (one, other) in enumerate(zip(found, known, strict=True)):
            same(one, other, f"{place}/{number}")
    elif isinstance(known, str | None):
        assert found == known, place
    else:
        np.testing.assert_allclose(found, known, rtol=1e-5, atol=1e-6, err_msg=place)


KNOWN = json.loads((GOLDEN / "known.json").read_text())


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What today's readers make of the files."""
    return maker.answers(GOLDEN)


@pytest.mark.parametrize("name", KNOWN)
def test_an_old_file_says_what_it_said(found, name):
    same(found[name], KNOWN[name], name)


@pytest.mark.parametrize(("file", "outputs"), [("exported/policy", 2), ("trust", 4)])
def test_the_old_graphs_still_compute_that(file, outputs):
    model = onnx.load(GOLDEN / f"{file}.onnx")
    rows = simtrust.load_dataset(GOLDEN / "log.npz").transitions
    inputs = {"observation": rows.observation[:5], "action": rows.action[:5]}
    asked, given = ([value.name for value in side] for side in (model.graph.output, model.graph.input))
    answers = ReferenceEvaluator(model).run(asked, {name: inputs[name] for name in given})
    known = KNOWN[f"{Path(file).name}.npz"]
    assert len(asked) == outputs
    for name, answer in zip(asked, answers, strict=True):
        same(np.asarray(answer).tolist(), known[name], name)
    assert {entry.key: entry.value for entry in model.metadata_props}["format"] == "1"


def test_old_curves_and_returns_are_read():
    run = read_run(GOLDEN / "finished")
    assert (run.finished, run.damaged, run.curves.seeds) == (True, (), (0, 1))
    assert run.curves.steps.tolist() == [50, 100, 150, 200]
    lines = [json.loads(line) for line in (GOLDEN / "finished/metrics.jsonl").read_text().splitlines()]
    assert run.curves.values["q_real"].ravel().tolist() == [line["q_real"] for line in lines]
    assert run.final is not None
    result = json.loads((GOLDEN / "finished/result.json").read_text())
    assert run.final.mean.tolist() == [one["return_mean"] for one in result["runs"]]


def test_the_gap_models_sizes_belong_to_its_format():
    """No fitted model says how large it is: other sizes could not read those of this format."""
    options = SIMULATOR_GAP_OPTIONS
    assert (GAP_MODEL_FORMAT, options.elites, options.hidden_sizes) == (2, 3, (200, 200, 200, 200))
    options = REVERSE_GAP_OPTIONS
    assert (DYNAMICS_MODEL_FORMAT, options.elites, options.hidden_sizes) == (1, 5, (200, 200, 200, 200))


def test_golden_files_are_small():
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < BYTES_MAX


# What users do with their old runs ----------------------------------------------------------------------


@pytest.fixture
def command(copy, monkeypatch, capsys) -> Callable[..., str]:
    """``command("report", "finished")``: what it prints."""

    def command(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["simtrust", *words])
        monkeypatch.setattr(sys, "path", sys.path[:])
        cli.main()
        return capsys.readouterr().out

    return command


def test_an_old_run_that_was_cut_short_goes_on_and_ends(copy, command):
    begun = (copy / "unfinished/metrics.jsonl").read_bytes()
    with maker.small_models():
        assert "trust after 200 steps" in command("resume", "unfinished")
    result = json.loads((copy / "unfinished/result.json").read_text())
    assert np.isfinite(result["runs"][0]["return_mean"])
    metrics = (copy / "unfinished/metrics.jsonl").read_bytes()
    assert metrics.startswith(begun)
    assert [json.loads(line)["step"] for line in metrics.splitlines()] == [50, 100, 150, 200]


def test_an_old_result_is_shown(command):
    told = command("resume", "finished")
    result = json.loads((GOLDEN / "finished/result.json").read_text())
    for run in result["runs"]:
        assert f"{run['return_mean']:,.1f}" in told


def test_an_old_run_has_a_report(copy, command):
    command("report", "finished", "--no-video")
    assert "h2o" in (copy / "finished/report.html").read_text()


def test_an_old_run_is_evaluated(command):
    told = command("evaluate", "finished", "--episodes", "1")
    assert len(re.findall(r"│ 200 +│", told)) == 2


def test_an_old_run_is_exported(copy, command):
    command("export", "finished", "--out", "new")
    rows = simtrust.load_dataset("log.npz").transitions.observation[:5]
    action, valid = PolicyRunner(copy / "new/policy.npz")(rows)
    same({"action": action.tolist(), "valid": valid.tolist()}, KNOWN["policy.npz"])


# Newer formats ------------------------------------------------------------------------------------------


def edit_json(file: str, **changes: Any) -> None:
    stored = json.loads(Path(file).read_text())
    assert stored.get("format", changes["format"] - 1) == changes["format"] - 1
    Path(file).write_text(json.dumps({**stored, **changes}))


def edit_npz(file: str, **changes: Any) -> None:
    with np.load(file) as archive:
        stored = dict(archive)
    assert all(stored.get(name, 1) == 1 for name in changes if name.endswith("format"))
    np.savez(file, **{**stored, **{name: np.array(value) for name, value in changes.items()}})


def edit_trust(file: str) -> None:
    edit_npz(file, format=2, simtrust_version="9.9", metadata="told in another way")


WRITER = {"versions": {"simtrust": "9.9"}}
CHECKPOINT = "finished/checkpoints/checkpoint-000000000200.json"
GAP_MODEL, POINT = "unfinished/gap_model.json", "point-000000100.npz"
DYNAMICS_MODEL = "modelled/dynamics_model.json"


@pytest.mark.parametrize(
    ("edit", "read", "kind"),
    [
        pytest.param(
            lambda: edit_json("finished/config.json", format=2, **WRITER),
            lambda: simtrust.Policy("finished"),
            RunError,
            id="config.json",
        ),
        pytest.param(
            lambda: edit_json(CHECKPOINT, format=2, **WRITER),
            lambda: simtrust.Policy("finished"),
            RunError,
            id="checkpoint",
        ),
        pytest.param(
            lambda: edit_json(GAP_MODEL, format=GAP_MODEL_FORMAT + 1, **WRITER),
            lambda: load_gap_model(Path("unfinished"), observation_size=3, action_size=1),
            RunError,
            id="gap_model.json",
        ),
        pytest.param(
            lambda: edit_json(DYNAMICS_MODEL, format=2, **WRITER),
            lambda: maker.load_dynamics(Path("modelled")),
            RunError,
            id="dynamics_model.json",
        ),
        pytest.param(
            lambda: edit_json("finished/result.json", format=2, **WRITER),
            lambda: read_run("finished"),
            RunError,
            id="result.json",
        ),
        pytest.param(
            lambda: edit_npz("exported/policy.npz", format=2, simtrust_version="9.9"),
            lambda: PolicyRunner("exported/policy.npz"),
            ValueError,
            id="policy.npz",
        ),
        pytest.param(
            lambda: edit_trust("trust.npz"), lambda: TrustRunner("trust.npz"), ValueError, id="trust.npz"
        ),
        pytest.param(
            lambda: edit_npz(
                "log.npz", **{"metadata/simtrust_format": 2, "metadata/simtrust_version": b"9.9"}
            ),
            lambda: simtrust.load_dataset("log.npz"),
            SimtrustError,
            id="names and time of a log",
        ),
        pytest.param(
            lambda: edit_npz(POINT, format=2, simtrust_version="9.9"),
            lambda: load_point(Path(POINT)),
            SimtrustError,
            id="point of Fig. 3",
        ),
        pytest.param(
            lambda: edit_json("measures.json", format=2, simtrust_version="9.9"),
            lambda: load_cell(Path("measures.json")),
            SimtrustError,
            id="measures of Fig. 2",
        ),
    ],
)
def test_a_newer_format_is_refused_naming_its_writer(copy, edit, read, kind):
    edit()
    with pytest.raises(kind, match=r"(?s)format.*9\.9"):
        read()


@pytest.mark.parametrize("file", [CHECKPOINT, GAP_MODEL])
def test_a_newer_part_of_a_run_is_refused(copy, file):
    edit_json(file, format=json.loads(Path(file).read_text())["format"] + 1)
    with pytest.raises(RunError, match=f"{Path(file).name} has format"):
        if file == CHECKPOINT:
            simtrust.Policy("finished")
        else:
            load_gap_model(Path("unfinished"), observation_size=3, action_size=1)


def test_newer_rows_to_compare_with_are_refused(copy, monkeypatch):
    """`policy_runner.py` compares itself with ``parity.npz`` when it is run as a script."""
    edit_npz("exported/parity.npz", format=2, simtrust_version="9.9")
    monkeypatch.setattr(sys, "argv", ["policy_runner.py", "exported/policy.npz"])
    with pytest.raises(ValueError, match=r"parity\.npz is no parity of format 1.*9\.9"):
        runpy.run_path(policy_runner.__file__, run_name="__main__")
