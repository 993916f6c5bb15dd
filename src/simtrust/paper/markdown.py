"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """One line a row, of as many cells as there are heads."""
    written = [" | ".join(line) for line in (heads, ["---"] * len(heads), *lines)]
    return "\n".join(f"| {line} |" for line in written)
