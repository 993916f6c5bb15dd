"""The command line as it was typed, for the record."""

import shlex
import sys


def as_typed() -> str:
    """This process's command line, as a shell takes it."""
    return shlex.join(["simtrust", *sys.argv[1:]])
