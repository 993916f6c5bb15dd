"""The paper's theory on random finite MDPs: what holds in all of them, and what does not."""

import json
from pathlib import Path

from rich.console import Console

from simtrust.errors import ConfigError
from simtrust.paper.files import make_writable, save_picture
from simtrust.paper.theory.figure import draw
from simtrust.paper.theory.findings import Theory, find
from simtrust.paper.theory.page import numbers, page, show
from simtrust.training.storage import write_atomically


def theory(out: Path, *, problems: int = 2000, seed: int = 0, quiet: bool = False) -> Theory:
    """Put random pairs of reality and simulator to every claim of `simtrust.paper.theory.claims`.

    Writes ``theory.md``, ``theory.json`` and ``theory.png`` into ``out``. Problem number i depends on the
    seed and on i alone, so that any one can be drawn again (`draw_problem`).

    Args:
        out: folder of the results.
        problems: how many.
        seed: of the problems.
        quiet: show nothing.

    Raises:
        ConfigError: a number cannot work; before any work.
        StorageError: ``out`` cannot be written; before any work.
    """
    if problems < 1:
        raise ConfigError(f"--problems is {problems}; it must be at least 1")
    if seed < 0:
        raise ConfigError(f"--seed is {seed}; it must be at least 0")
    make_writable(out)
    console = Console(quiet=quiet)
    found = find(problems, seed, console)
    write_results(out, found)
    show(found, console)
    console.print(f"\nIn {out}: theory.md, theory.json, theory.png", highlight=False, soft_wrap=True)
    return found


def write_results(out: Path, found: Theory) -> None:
    """Page, numbers and picture."""
    write_atomically(out / "theory.md", (page(found) + "\n").encode())
    content = json.dumps(numbers(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(out / "theory.json", content.encode())
    one = found.theorem_1
    figure = draw(found.counterexample, found.states, one.by_discount, one.by_family)
    save_picture(figure, out / "theory.png")
