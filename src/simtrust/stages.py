"""How long work of several stages tells how far it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text


class Stage(Protocol):
    """Told what is being done, as it begins, and then how far it is."""

    def __call__(self, name: str, so_far: str = "") -> Any: ...


def unheard(name: str, so_far: str = "") -> None:
    """A `Stage` that nobody listens to."""


@contextmanager
def show_stages(*, quiet: bool = False) -> Iterator[Stage]:
    """A live line on a terminal, a plain line for each stage elsewhere, nothing at all if ``quiet``."""
    console = Console(stderr=True, quiet=quiet)
    with console.status("") as status:

        def stage(name: str, so_far: str = "") -> None:
            status.update(Text(f"{name} {so_far}"))
            if not console.is_terminal and not so_far:
                console.print(name, highlight=False, markup=False)

        yield stage
