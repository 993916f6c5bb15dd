"""Every snippet of README and docs works: Python runs, command lines are understood, messages are the code's.

A block that cannot be run has a comment right before it, ``<!-- not run: reason -->``, and is counted here.
"""

import ast
import functools
import inspect
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import simtrust
from simtrust import cli
from simtrust.data.column_map import parse_columns
from simtrust.reports.run_warnings import CHECKS
from simtrust.simulators import parse_shifts
from simtrust.simulators.built_in import find_built_in

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


class Block(NamedTuple):
    page: str
    line: int
    """Of its first line of code, from 1."""
    language: str
    code: str
    not_run: str | None
    """Why, as the page says in a comment right before it."""

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
                reason = NOT_RUN.fullmatch(lines[start - 1])
                code = "\n".join(lines[start + 1 : number]) + "\n"
                page = str(path.relative_to(ROOT))
                found.append(Block(page, start + 2, language, code, reason[1] if reason else None))
            start = None
    assert start is None, f"{path}: the block of line {start} is not closed"
    return found


BLOCKS = tuple(block for page in PAGES for block in blocks_of(page))


def of_language(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and block.not_run is None]


QUICK_START = "docs/quick_start.md"
NOT_RUN_BLOCKS = {"docs/deployment.md": ["C++"]}
DRAWINGS = "docs/design.md"
LANGUAGES = {"python", "sh", "text", "cpp"}
MESSAGES = "docs/troubleshooting.md"
PLACEHOLDERS = ("my_module:make_env",)
"""Simulators that stand for the reader's own."""


def test_no_block_is_left_out():
    assert {block.language for block in BLOCKS if block.page != DRAWINGS} <= LANGUAGES
    assert {block.language for block in BLOCKS if block.page == DRAWINGS} <= {""}
    left_out: dict[str, list[str]] = {}
    for block in BLOCKS:
        if block.not_run is not None:
            left_out.setdefault(block.page, []).append(block.not_run)
    assert left_out == NOT_RUN_BLOCKS
    assert not of_language("cpp")
    told = sum(len(NOT_RUN.findall(page.read_text())) for page in PAGES)
    assert told == sum(map(len, NOT_RUN_BLOCKS.values())), "a comment does not stand right before its block"


# Command lines ------------------------------------------------------------------------------------------


@pytest.fixture
def understood(monkeypatch, capsys) -> Callable[[list[str]], dict[str, Any]]:
    """``understood(words)``: what the command line makes of them, without doing it."""
    seen: list[dict[str, Any]] = []

    def recorder(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def record(*given: Any, **named: Any) -> None:
            bound = inspect.signature(command).bind(*given, **named)
            bound.apply_defaults()
            seen.append(dict(bound.arguments))

        return record

    monkeypatch.setattr(cli, "COMMANDS", {name: recorder(command) for name, command in cli.COMMANDS.items()})
    monkeypatch.setattr(sys, "path", sys.path[:])

    def understood(words: list[str]) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", words)
        try:
            cli.main()
        except SystemExit as end:
            told = capsys.readouterr()
            raise AssertionError(f"{shlex.join(words)}: {told.out}{told.err}") from end
        return seen.pop()

    return understood


@pytest.mark.parametrize("block", of_language("sh"), ids=str)
def test_command_lines_are_understood(block, understood):
    folder = ROOT
    for words in block.commands:
        if words[0] == "cd":
            folder = folder / words[1]
            assert folder.is_dir(), words
        elif words[0] == "simtrust":
            check_values(understood(words), folder)
        else:
            check_other(words)


def check_values(arguments: dict[str, Any], folder: Path) -> None:
    """What the parser leaves to the command: shifts, column maps, simulators, files of the examples."""
    if "config" in arguments:
        arguments = vars(arguments["config"]) | {"shift": arguments["config"].shifts}
    parse_shifts(arguments.get("shift") or ())
    columns = arguments.get("map") or arguments.get("columns")
    if columns:
        parse_columns(columns)
    for option in ("sim", "real_env", "env"):
        name = arguments.get(option)
        if name is not None and name not in PLACEHOLDERS:
            check_simulator(name, folder)
    log = arguments.get("real") or arguments.get("file")
    assert folder == ROOT or log is None or (folder / log).exists(), log


def check_simulator(name: str, folder: Path) -> None:
    module, colon, factory = name.partition(":")
    if not colon:
        assert find_built_in(name) is not None, name
    else:
        assert re.search(rf"^def {factory}\(", (folder / f"{module}.py").read_text(), re.MULTILINE), name


def check_other(words: list[str]) -> None:
    """Targets of make, extras of pip, scripts and their options are there; nothing else is allowed."""
    program, *rest = words
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif program == "python":
        source = (ROOT / rest[0]).read_text()
        assert not [word for word in rest if word.startswith("--") and f'"{word}"' not in source], words
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = [name for word in rest for name in re.findall(r"simtrust\[(.+)\]", word)]
        assert asked and set(",".join(asked).split(",")) <= set(extras), words
    else:
        assert words == ["source", ".venv/bin/activate"], words


@pytest.mark.parametrize(
    "line",
    [
        "train trust --reel log.hdf5 --sim HalfCheetah-v5",
        "train best --real log.hdf5",
        "train trust --real log.hdf5 --sim HalfCheetah-v6",
        "gap --real log.hdf5 --sim HalfCheetah-v5 --shift gravty=2",
        "check-data log.csv --map obs=theta",
        "judge runs/first",
    ],
)
def test_a_wrong_command_line_is_found(line, understood):
    with pytest.raises((AssertionError, ValueError)):
        check_values(understood(["simtrust", *shlex.split(line)]), ROOT)


@pytest.mark.parametrize(
    "line", ["make tests", "python benchmarks/learning.py --reel x", "pip install simtrust[x]"]
)
def test_a_wrong_other_command_is_found(line):
    with pytest.raises(AssertionError):
        check_other(shlex.split(line))


# Running ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick_start(tiny, train_options, tmp_path_factory) -> Path:
    """The folder in which every `simtrust` line of the quick start was run."""
    folder = tmp_path_factory.mktemp("quick_start")
    run_lines(QUICK_START, folder, train_options)
    return folder


def run_lines(page: str, folder: Path, train_options: list[str]) -> None:
    """Run every `simtrust` line of a page in a folder, in their order."""
    more = {"train": train_options, "evaluate": ["--episodes", "1"], "generate": ["--rows", "1200"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", sys.path[:])
        for block in of_language("sh"):
            for words in block.commands if block.page == page else ():
                if words[0] == "simtrust":
                    patch.setattr(sys, "argv", [*words, *more.get(words[1], [])])
                    cli.main()


def test_readme_leaves_what_it_says(tiny, train_options, cheetah, tmp_path):
    shutil.copy(cheetah, tmp_path)
    run_lines("README.md", tmp_path, train_options)
    for name in ("runs/gap/report.html", "runs/first/report.html", "robot/policy.onnx"):
        assert (tmp_path / name).exists(), name


def test_quick_start_leaves_what_it_says(quick_start):
    for name in ("log-rewards.png", "runs/gap/report.html", "runs/first/report.html", "robot/README.md"):
        assert (quick_start / name).exists(), name


def with_cheetah(folder: Path, request: pytest.FixtureRequest) -> None:
    shutil.copy(request.getfixturevalue("cheetah"), folder)


def with_exports(folder: Path, request: pytest.FixtureRequest) -> None:
    """As on the robot: the exported policy and the trust model, side by side."""
    done = request.getfixturevalue("quick_start")
    for file in (*(done / "robot").iterdir(), *(done / "runs/gap").glob("trust*")):
        shutil.copy(file, folder)


PREPARED = {
    "README.md": with_cheetah,
    "docs/gap_report.md": with_cheetah,
    "docs/deployment.md": with_exports,
}
PYTHON_PAGES = sorted({block.page for block in of_language("python")})


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_runs(page, tiny, request, tmp_path, monkeypatch):
    """The blocks of a page run in their order, in one namespace, in a folder of their own."""
    if page in PREPARED:
        PREPARED[page](tmp_path, request)
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
