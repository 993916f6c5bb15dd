"""The example that users copy: every command of its README works, and says what is known of its machine."""

import csv
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from simtrust import cli
from simtrust.gap import measure

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_robot"
LESS = {"--steps": "200", "--evaluate-every": "200", "--rollout-steps": "40", "--episodes": "2"}
"""What the commands of the README ask for, cut to what takes seconds."""
CUT = ["--gap-epochs", "1", "--gap-probe-rows", "400", "--rollout-steps", "40", "--evaluation-episodes", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the folder, as the working directory, in which modules are found."""
    copy = tmp_path_factory.mktemp("example") / "my_robot"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "run", "gap", "policy"))
    patch = pytest.MonkeyPatch()
    patch.chdir(copy)
    patch.setattr(sys, "path", sys.path[:])
    for options in ("SIMULATOR_GAP_OPTIONS", "TRUST_MODEL_OPTIONS"):
        small = replace(getattr(measure, options), members=2, elites=2, hidden_sizes=(16,), epochs=2)
        patch.setattr(measure, options, small)
    classifier = replace(measure.CLASSIFIER_OPTIONS, hidden_sizes=(16,), updates=250, batch_size=64)
    patch.setattr(measure, "CLASSIFIER_OPTIONS", classifier)
    patch.setattr(measure, "PROBE_ROWS", 600)
    yield copy
    patch.undo()
    for name in ("pendulum", "pendulum_mujoco", "machine", "slow"):
        sys.modules.pop(name, None)


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", (EXAMPLE / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for line in "".join(blocks).splitlines()]


def shortened(words: list[str]) -> list[str]:
    short = [LESS.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    return [*short[:2], *CUT, *short[2:]] if words[1] == "train" else short


def execute(words: list[str], monkeypatch) -> int:
    if words[0] == "python":
        return subprocess.run([sys.executable, *words[1:]], check=False).returncode
    monkeypatch.setattr(sys, "argv", shortened(words))
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_every_command_of_the_readme_works(folder, monkeypatch, capsys):
    for words in commands():
        assert execute(words, monkeypatch) == 0, f"{shlex.join(words)}: {capsys.readouterr().err}"
    verdict = json.loads((folder / "gap" / "gap.json").read_text())["verdict"]
    assert verdict["gap_found"]
    assert verdict["worst_dimension"].startswith("theta_dot")
    assert "systematic error of the actuators" in verdict["best_explanation"]
    metadata = json.loads((folder / "policy" / "metadata.json").read_text())
    assert (metadata["observation_names"], metadata["observation_units"]) == (
        ["theta", "theta_dot"],
        ["rad", "rad/s"],
    )
    written = {"log.html", "gap/report.html", "run/report.html", "policy/policy.onnx", "slow-run/result.json"}
    assert not [name for name in written if not (folder / name).exists()]


def test_the_log_is_the_machines(folder):
    """Recorded again it is the same, and from a logged state the machine goes on as logged."""
    runpy.run_path(str(folder / "machine.py"))["record"](folder / "again.csv")
    assert (folder / "again.csv").read_text() == (folder / "log.csv").read_text()
    with (folder / "log.csv").open() as file:
        rows = np.array(list(csv.reader(file))[1:200], float)
    machine = runpy.run_path(str(folder / "machine.py"))["make"]().unwrapped
    for row, following in pairwise(rows):
        machine.set_observation(row[2:4])
        if not row[6]:
            np.testing.assert_allclose(machine.step(row[4:5])[0], following[2:4], atol=1e-5)


def test_both_models_of_the_pendulum_agree(folder):
    """The equation of motion by Euler's method, and MuJoCo with four steps for its one."""
    plain, mujoco = (
        runpy.run_path(str(folder / f"{name}.py"))["make"]().unwrapped
        for name in ("pendulum", "pendulum_mujoco")
    )
    mujoco.reset(seed=0)
    generator = np.random.default_rng(0)
    for _ in range(100):
        state, action = generator.uniform(-0.4, 0.4, 2), generator.uniform(-2, 2, 1).astype(np.float32)
        plain.set_observation(state)
        mujoco.set_observation(state)
        (one, reward, *rest), (other, same, *others) = plain.step(action), mujoco.step(action)
        np.testing.assert_allclose(one, other, atol=5e-3)
        assert reward == pytest.approx(same)
        assert rest[:2] == others[:2]
