"""Every snippet of README and docs works: Python and command lines run, messages are the code's."""

import ast
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import simtrust
from simtrust import cli
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.gap.classifier_probe import IMPROVED, PUBLISHED
from simtrust.gap.simulator_gap import SIMULATOR_GAP_OPTIONS, fit_simulator_gap
from simtrust.reports.run_warnings import CHECKS

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


class Block(NamedTuple):
    page: str
    line: int
    """Of its first line of code, from 1."""
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command line of a shell block."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks_of(path: Path) -> list[Block]:
    """In their order; directives, whose language is in braces, are Sphinx's."""
    found: list[Block] = []
    lines = path.read_text().splitlines()
    start, language = None, ""
    for number, line in enumerate(lines):
        if start is None and line.startswith("```"):
            start, language = number, line[3:].strip()
        elif start is not None and line == "```":
            if not language.startswith("{"):
                code = "\n".join(lines[start + 1 : number]) + "\n"
                page = str(path.relative_to(ROOT))
                found.append(Block(page, start + 2, language, code))
            start = None
    assert start is None, f"{path}: the block of line {start} is not closed"
    return found


BLOCKS = tuple(block for page in PAGES for block in blocks_of(page))


def of_language(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


QUICK_START = "docs/quick_start.md"
DRAWINGS = "docs/design.md"
LANGUAGES = {"python", "sh", "text"}
MESSAGES = "docs/troubleshooting.md"


def test_no_block_is_left_out():
    """Python and shell blocks are run, quotations compared; only drawings are neither."""
    assert {block.language for block in BLOCKS if block.page != DRAWINGS} <= LANGUAGES
    assert {block.language for block in BLOCKS if block.page == DRAWINGS} <= {""}


# Running ------------------------------------------------------------------------------------------------

LESS = {
    "train": [],
    "doctor": ["--no-speed"],
    "evaluate": ["--episodes", "1"],
    "standing-still": ["--rows", "1200"],
    "moving-straight": ["--rows", "1200"],
    "random": ["--rows", "1200"],
    "medium-replay": ["--steps", "1000"],
    "expert": ["--steps", "1000", "--rows", "1200"],
    "table2": ["--cells", "none"],
    "theory": ["--problems", "20"],
    "figure2": [
        "--recipe",
        "sac",
        "--task",
        "standing-still",
        "--steps",
        "50",
        "--seeds",
        "1",
        "--episodes",
        "1",
    ],
    "benchmarks/learning.py": ["--rows", "sac", "--steps", "50", "--seeds", "1"],
    "benchmarks/robot_throughput.py": ["--runs", "1", "--recipes", "sac", "--rounds", "1"],
    "benchmarks/update_rate.py": ["--runs", "1", "--rounds", "1", "--steps", "0"],
    "benchmarks/gap_truth.py": ["--rows", "400", "--sizes"],
    "benchmarks/kill_and_resume.py": ["--kills", "1"],
    "benchmarks/memory_growth.py": ["--steps", "2000"],
    "benchmarks/gpu_fleet.py": [
        "--runs",
        "1",
        "--rounds",
        "1",
        "--updates",
        "20",
        "--simulated-rows",
        "1000",
        "--product-size",
        "64",
    ],
}
"""What a command or script is given besides, so that it takes seconds; the last of two values counts."""
NAMED = {"paper": 2, "generate": 3}
"""Which word says what a command does, if it is not the first."""

SMALL = {"members": 2, "elites": 2, "hidden_sizes": (8, 8), "epochs": 2, "epoch_updates": 20}
SMALLER: dict[str, dict[str, Any]] = {
    "benchmarks/robot_throughput.py": {
        "ROWS": 1_000,
        "UPDATES": 20,
        "PRODUCTS": 20,
        "steps": lambda *_: (1, 1, 1),
    },
    "benchmarks/update_rate.py": {"ROWS": 1_000, "SIMULATED_ROWS": 1_000, "UPDATES": 20, "PRODUCTS": 20},
    "benchmarks/kill_and_resume.py": {
        "OPTIONS": {
            "sim": "Pendulum-v1",
            "hidden-sizes": 8,
            "classifier-hidden-sizes": 8,
            "rollout-steps": 50,
            "checkpoint-every": 50,
            "evaluate-every": 100,
            "evaluation-episodes": 1,
            "steps": 200,
        }
    },
    "benchmarks/gpu_fleet.py": {"OPTIONS": AlgorithmOptions(hidden_sizes=(8,), classifier_hidden_sizes=(8,))},
    "benchmarks/gap_truth.py": {
        "SHIFTS": ("gravity=2",),
        "PROBE_ROWS": 600,
        "JUDGED": 200,
        "PUBLISHED": replace(PUBLISHED, updates=250, batch_size=64),
        "IMPROVED": replace(IMPROVED, hidden_sizes=(8,), updates=250, batch_size=64),
        "fit_simulator_gap": partial(fit_simulator_gap, options=replace(SIMULATOR_GAP_OPTIONS, **SMALL)),
    },
    "examples/wheel_legged.py": {
        "EPISODES": 1,
        "ProcessPoolExecutor": lambda *_, **__: ThreadPoolExecutor(1),
    },
}
"""What of a script is smaller in a test."""

INSTALLING = ("make install", "make test", "source .venv/bin/activate")
"""What has been done where these tests run."""


@pytest.fixture(scope="module")
def execute(tiny, train_options) -> Callable[[list[str]], None]:
    """``execute(words)``: run a command line in the working directory, and let nothing of it last."""

    def execute(words: list[str]) -> None:
        modules = set(sys.modules)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "path", sys.path[:])
            if words[0] == "simtrust":
                command = words[NAMED.get(words[1], 1)]
                more = train_options if command == "train" else LESS.get(command, [])
                patch.setattr(sys, "argv", [*words, *more])
                cli.main()
            elif words[0] == "python":
                run_script(patch, *words[1:])
            elif shlex.join(words) == "make demo":
                run_script(patch, "examples/wheel_legged.py")
            else:
                assert shlex.join(words) in INSTALLING
        # The examples' modules, found in the working directory, are another page's no more.
        for name in set(sys.modules) - modules:
            if (
                not hasattr(sys.modules[name], "__path__")
                and Path.cwd() in Path(getattr(sys.modules[name], "__file__", None) or "/").parents
            ):
                del sys.modules[name]

    return execute


def run_script(patch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    patch.setattr(sys, "argv", [name, *arguments, *LESS.get(name, [])])
    patch.syspath_prepend(str((ROOT / name).parent))
    script = runpy.run_path(str(ROOT / name))
    for constant, smaller in SMALLER.get(name, {}).items():
        assert constant in script["main"].__globals__, f"{name} has no {constant}"
        script["main"].__globals__[constant] = smaller
    try:
        script["main"]()
    except SystemExit as end:
        assert not end.code


def run_lines(page: str, folder: Path, execute: Callable[[list[str]], None]) -> None:
    """Run every line of a page's shell blocks, each block in the folder, in their order."""
    for block in of_language("sh"):
        if block.page == page:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                for words in block.commands:
                    if words[0] == "cd":
                        patch.chdir(words[1])
                    else:
                        execute(words)


@pytest.fixture(scope="module")
def quick_start(execute, tmp_path_factory) -> Path:
    """The folder in which every line of the quick start was run."""
    folder = tmp_path_factory.mktemp("quick_start")
    run_lines(QUICK_START, folder, execute)
    return folder


@pytest.fixture(scope="module")
def first_run(tiny, cheetah, tmp_path_factory) -> Path:
    """A finished run on the log of HalfCheetah."""
    directory = tmp_path_factory.mktemp("first") / "first"
    simtrust.train("h2o", real=str(cheetah), sim="HalfCheetah-v5", out=directory, quiet=True)
    return directory


def with_cheetah(folder: Path, request: pytest.FixtureRequest) -> None:
    shutil.copy(request.getfixturevalue("cheetah"), folder)


def with_first_run(folder: Path, request: pytest.FixtureRequest) -> None:
    with_cheetah(folder, request)
    shutil.copytree(request.getfixturevalue("first_run"), folder / "runs" / "first")


def with_own_run(folder: Path, request: pytest.FixtureRequest) -> None:
    """Besides, a run on a simulator of one's own, which tells no rate."""
    with_first_run(folder, request)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples/my_robot"))
        simtrust.train("sac", sim="pendulum:make", out=folder / "runs" / "mine", quiet=True)
    sys.modules.pop("pendulum")


def with_example(folder: Path, request: pytest.FixtureRequest) -> None:
    copied = shutil.ignore_patterns("__pycache__", "runs", "run", "gap", "policy", "robot", "log.html")
    shutil.copytree(ROOT / "examples/my_robot", folder / "examples/my_robot", ignore=copied)


def with_robot_log(folder: Path, request: pytest.FixtureRequest) -> None:
    with_cheetah(folder, request)
    shutil.copy(request.getfixturevalue("quick_start") / "log.hdf5", folder / "robot.hdf5")


def with_evidence(folder: Path, request: pytest.FixtureRequest) -> None:
    """The logs that the results are of, much shorter."""
    shutil.copy(request.getfixturevalue("cheetah"), folder / "halfcheetah_medium_replay-v5.hdf5")
    shutil.copy(request.getfixturevalue("walker"), folder / "walker2d_medium-v5.hdf5")
    robot = request.getfixturevalue("quick_start") / "log.hdf5"
    (folder / "runs/figure2").mkdir(parents=True)
    for name in ("standing-still.hdf5", "runs/figure2/standing-still.hdf5"):
        shutil.copy(robot, folder / name)


def with_sweep(folder: Path, request: pytest.FixtureRequest) -> None:
    """The example's sweep, each of whose runs takes a second."""
    shutil.copy(request.getfixturevalue("cheetah"), folder / "log.hdf5")
    (folder / "examples").mkdir()
    kept = re.sub(r"(?m)^(steps|seeds) = .*\n", "", (ROOT / "examples/sweep.toml").read_text())
    small = kept.replace("[common]", f"[common]\n{request.getfixturevalue('tiny_sweep')}")
    (folder / "examples/sweep.toml").write_text(small)


def with_minari(folder: Path, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("monkeypatch").setenv("MINARI_DATASETS_PATH", str(folder / "minari"))


def with_nothing(folder: Path, request: pytest.FixtureRequest) -> None:
    pass


def with_exports(folder: Path, request: pytest.FixtureRequest) -> None:
    """As on the robot: the exported policy and the trust model, side by side."""
    done = request.getfixturevalue("quick_start")
    for file in (*(done / "robot").iterdir(), *(done / "runs/gap").glob("trust*")):
        shutil.copy(file, folder)


BEFORE_LINES = {
    "README.md": (
        with_cheetah,
        ["runs/gap/report.html", "runs/first/report.html", "robot/policy.onnx", "runs/demo"],
    ),
    "docs/choosing.md": (with_robot_log, ["runs/trust/report.html", "runs/cql/result.json"]),
    "docs/datasets.md": (
        with_minari,
        ["hopper_medium_replay-v5.hdf5", "hopper_expert-v5.hdf5", "hopper_sac_1000_seed_0-v5/result.json"],
    ),
    "docs/deployment.md": (with_own_run, ["robot/policy.onnx", "mine/policy.onnx"]),
    "docs/fleets.md": (with_nothing, ["rates.json"]),
    "docs/gap_report.md": (with_first_run, ["runs/gap/report.html"]),
    "docs/own_robot.md": (
        with_example,
        ["examples/my_robot/log.html", "examples/my_robot/robot/policy.onnx"],
    ),
    "docs/reliability.md": (with_cheetah, []),
    "docs/reproduction.md": (with_nothing, ["runs/short/table2.md", "runs/paper/table1.md"]),
    "docs/results.md": (
        with_evidence,
        ["runs/learning/sac/result.json", "runs/figure2", "runs/figure3/figure3.md"],
    ),
    "docs/sweeps.md": (with_sweep, ["runs/study/sweep.csv", "runs/study/h2o_strong-gravity=2/result.json"]),
    "docs/theory.md": (with_nothing, ["runs/theory/theory.md", "runs/theory/theory.png"]),
    "docs/troubleshooting.md": (with_first_run, ["runs/first/report.html"]),
    "docs/wheel_legged.md": (with_robot_log, ["runs/dead-zone/result.json"]),
}
"""What lies in the folder before a page's lines are run, and some of what does afterwards."""
SHELL_PAGES = sorted({block.page for block in of_language("sh")} - {QUICK_START})


@pytest.mark.parametrize("page", SHELL_PAGES)
def test_command_lines_run(page, execute, request, tmp_path, monkeypatch):
    prepare, left = BEFORE_LINES[page]
    prepare(tmp_path, request)
    run_lines(page, tmp_path, execute)
    assert not [name for name in left if not (tmp_path / name).exists()]


def test_quick_start_leaves_what_it_says(quick_start):
    for name in ("log-rewards.png", "runs/gap/report.html", "runs/first/report.html", "robot/README.md"):
        assert (quick_start / name).exists(), name


@pytest.mark.parametrize(
    "line", ["simtrust train best --real log.hdf5", "python benchmarks/none.py", "make tests"]
)
def test_a_wrong_line_is_found(line, execute, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, OSError, SystemExit)):
        execute(shlex.split(line))


BEFORE_PYTHON = {
    "README.md": with_cheetah,
    "docs/gap_report.md": with_cheetah,
    "docs/deployment.md": with_exports,
}
PYTHON_PAGES = sorted({block.page for block in of_language("python")})


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_runs(page, tiny, request, tmp_path, monkeypatch):
    """The blocks of a page run in their order, in one namespace, in a folder of their own."""
    if page in BEFORE_PYTHON:
        BEFORE_PYTHON[page](tmp_path, request)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    namespace: dict[str, Any] = {"__name__": "__page__"}
    for block in of_language("python"):
        if block.page == page:
            exec(compile("\n" * (block.line - 1) + block.code, str(ROOT / page), "exec"), namespace)


# What is quoted -----------------------------------------------------------------------------------------


def templates() -> set[str]:
    """Every text of the source, with … for what is filled in."""
    found = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(str(x.value) if isinstance(x, ast.Constant) else "…" for x in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_public_name_is_in_the_reference():
    words = set(re.findall(r"\w+", (ROOT / "docs/api.md").read_text()))
    assert set(simtrust.__all__) <= words


def test_messages_are_the_codes_own():
    known = templates()
    for block in of_language("text"):
        text = block.code.strip()
        if block.page == MESSAGES:
            message = text.rstrip("…").rstrip()
            assert any(message in template for template in known), f"{block}: {message}"
        else:
            assert text == (ROOT / "examples/my_robot/log.csv").read_text().splitlines()[0], block


@pytest.mark.parametrize("page", ["docs/troubleshooting.md", "docs/choosing.md"])
def test_warnings_are_called_as_in_the_report(page):
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", (ROOT / page).read_text()))
    assert named and named <= {check.title for check in CHECKS}
