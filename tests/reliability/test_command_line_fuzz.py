"""Whatever is typed: a configuration that can work, or a message and exit status 1 or 2; never a traceback.

Lines are made of the real commands, their options and values that are right, nearly right, or nonsense. The
commands are replaced by what checks their arguments, so nothing is trained. More lines than CI tries:

    SIMTRUST_FUZZ=5000 pytest tests/reliability/test_command_line_fuzz.py
"""

import functools
import inspect
import io
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from simtrust import cli
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.data.column_map import parse_columns
from simtrust.simulators import parse_shifts
from simtrust.training.config import TrainConfig, config_from_json, config_to_json

LINES = int(os.environ.get("SIMTRUST_FUZZ", "250"))
OTHER_NAMES = {"shifts": "shift", "columns": "map"}


def options_of(command: Callable[..., None]) -> list[str]:
    """As they are typed, with the positional ones among them, which then are no options."""
    names = list(inspect.signature(command).parameters)
    if names[:1] == ["config"]:
        names[:1] = [field.name for kind in (TrainConfig, AlgorithmOptions) for field in fields(kind)]
    return [f"--{OTHER_NAMES.get(name, name).replace('_', '-')}" for name in names]


COMMANDS = dict(cli.COMMANDS)
OPTIONS = {name: options_of(command) for name, command in COMMANDS.items()}
RIGHT = (
    "trust", "h2o", "sac", "log.npz", "HalfCheetah-v5", "module:factory", "gravity=2", "runs/first", "1", "2",
    "100", "1000", "0.5", "1e-3", "auto", "True", "False", "None", "stochastic", "terminated", "tensorboard",
    "observation=a,b", "action=tau", "wheel-legged", "standing-still", "figure2", "figure3", "minari:a/b-v0",
)  # fmt: skip
NEARLY = (
    "h20", "trust ", "-1", "0", "1.5", "1,000", "1_000", "nan", "-inf", "1e400", "0x10", "2**63", "true", "",
    " ", "-", "gravity", "gravity=", "=2", "gravity=nan", "gravity=1=2", "obs=a", "observation=", "a=b=c",
    "~", "standing_still", "9" * 19, "9" * 400, "-" + "9" * 30, "16 16", "(16,)", "--", "---", "--=", "-h5",
    "--seeds=", "--seeds=3", "--out=", "--no-video", "--no-overwrite", "--overwrite", "--sedes", "--Seeds",
    "--sim_workers", "٣", "１２", "∞", "[bold]", "[/]", ":smile:", "{0}", "%s", "\udc80", "é", "\u202e",
    "a\nb", "\t", "../..", "/dev/null", "*",
)  # fmt: skip
TEXTS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=()), max_size=12)
NUMBERS = st.one_of(st.integers().map(str), st.floats().map(repr))
VALUES = st.one_of(st.sampled_from(RIGHT), st.sampled_from(NEARLY), TEXTS, NUMBERS)
MOSTLY = {
    "--shift": (
        "gravity=2",
        "friction=0.5",
        "delay=2",
        "gravity",
        "gravty=2",
        "[/]",
        "[/]=2",
        "=",
        "mass=nan",
    ),
    "--map": ("action=tau", "observation=a,b", "obs=a", "[/]=x", "reward", "reward=r,r", "time=", "=t"),
}
"""What an option is given as often as anything at all; of the others, numbers."""
COMMON = ("0", "1", "2", "10", "1000", "-1", "0.5", "0.99", "1.5", "nan", "inf", "-inf", "1e-3", "9" * 19)
BEGINNINGS = {
    "train": ["sac", "--sim", "Pendulum-v1"],
    "gap": ["--real", "log.npz", "--sim", "Ant-v5"],
    "convert": ["log.npz", "log.csv"],
    "generate": ["wheel-legged", "standing-still"],
    "export": ["runs/first", "--out", "robot"],
    "paper": ["figure3"],
    "check-sim": ["Ant-v5"],
    "doctor": [],
}
"""What makes a line complete; of the others, a file or folder."""
NO_HELP = {"-h", "--help", "-v", "--version"}


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Words after ``simtrust``: mostly one command, some of its values and options, in any order."""
    name = draw(st.sampled_from([*COMMANDS, "train", "train", "gap", "trian", "--"]))
    own = st.sampled_from(OPTIONS.get(name, ["--sim"]))
    # What the commands themselves have to take apart.
    texts = st.sampled_from([option for option in MOSTLY if option in OPTIONS.get(name, ())] or ["--sim"])
    other = st.sampled_from(sorted({option for each in OPTIONS.values() for option in each}))
    option = st.one_of(own, own, texts, other)
    given = option.flatmap(
        lambda name: st.tuples(st.just(name), st.one_of(st.sampled_from(MOSTLY.get(name, COMMON)), VALUES))
    )
    part = st.one_of(
        given, given, given.map(lambda pair: ("=".join(pair),)), VALUES.map(lambda value: (value,)),
        st.tuples(option), st.tuples(option, VALUES, VALUES),
    )  # fmt: skip
    begun = draw(st.sampled_from([BEGINNINGS.get(name, ["runs/first"])] * 3 + [[]]))
    words = [name, *begun, *(word for words in draw(st.lists(part, max_size=4)) for word in words)]
    return [word for word in words if word not in NO_HELP]


def check_arguments(arguments: dict[str, Any]) -> None:
    """What costs nothing of what a command checks first; raises a `SimtrustError` as it does."""
    if "config" in arguments:
        check_configuration(arguments["config"])
        arguments = vars(arguments["config"]) | {"shift": arguments["config"].shifts}
    parse_shifts(arguments.get("shift") or ())
    columns = arguments.get("map") or arguments.get("columns")
    if columns:
        parse_columns(columns)


def check_configuration(config: TrainConfig) -> None:
    """It is one that `config.json` can hold, and no number of it is infinite or none."""
    numbers = [*asdict(config).values(), *asdict(config.algorithm).values()]
    assert all(math.isfinite(number) for number in numbers if isinstance(number, float))
    assert min(config.steps, config.seeds, config.rollout_steps, *config.algorithm.hidden_sizes) >= 1
    file = Path(os.environ["SIMTRUST_FUZZ_FOLDER"]) / "config.json"
    file.write_text(config_to_json(config))
    assert config_from_json(file) == (config, {})


def checker(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def check(*given: Any, **named: Any) -> None:
        bound = inspect.signature(command).bind(*given, **named)
        bound.apply_defaults()
        check_arguments(dict(bound.arguments))

    return check


@contextmanager
def streams() -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    """Standard output and error as a terminal's: in UTF-8; only the latter takes what cannot be encoded."""
    raw = io.BytesIO(), io.BytesIO()
    out, errors = (
        io.TextIOWrapper(stream, encoding="utf-8", errors=handling, write_through=True)
        for stream, handling in zip(raw, ("strict", "backslashreplace"), strict=True)
    )
    with redirect_stdout(out), redirect_stderr(errors):
        yield raw


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(cli, "COMMANDS", {name: checker(command) for name, command in COMMANDS.items()})
    monkeypatch.setattr(sys, "path", sys.path[:])
    kept, work = tmp_path / "kept", tmp_path / "work"
    kept.mkdir()
    work.mkdir()
    monkeypatch.setenv("SIMTRUST_FUZZ_FOLDER", str(kept))
    monkeypatch.chdir(work)
    return work


@settings(
    max_examples=LINES,
    derandomize=LINES <= 250,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(words=lines())
@example(words=["gap", "--real", "log.npz", "--sim", "Ant-v5", "--shift", "[/]"])
@example(words=["check-data", "log.csv", "--map", "\udc80"])
@example(words=["train", "sac", "--steps", "9" * 5000])
def test_any_line_ends_with_a_message_or_a_configuration(workplace, monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["simtrust", *words])
    status: Any = 0
    with streams() as (out, errors):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        told = (out.getvalue() + errors.getvalue()).decode()
    event(f"{words[0] if words and words[0] in COMMANDS else 'no command'}: {status}")
    assert status in (0, 1, 2)
    assert status == 0 or told.strip()
    assert "Traceback" not in told
    assert not list(workplace.iterdir())


def test_the_grammar_knows_every_option():
    """Options are read off the commands: a line of all of them, with nothing else, is understood or named."""
    assert set(OPTIONS) == set(cli.COMMANDS)
    assert {"--seeds", "--hidden-sizes", "--shift", "--map"} <= set(OPTIONS["train"])
    assert {"--real", "--sim", "--seed"} <= set(OPTIONS["gap"])
