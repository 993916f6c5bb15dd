"""The command line: ``simtrust generate | gap | train | resume | evaluate | paper``."""

import sys
from pathlib import Path

import tyro
from rich.console import Console
from rich.text import Text

from simtrust.commands.gap import gap
from simtrust.commands.generate import generate
from simtrust.commands.paper import paper
from simtrust.commands.training import evaluate, resume, train
from simtrust.errors import SimtrustError

DESCRIPTION = """Find out where a simulator can be trusted, and train with it all the same.

A log to begin with, of a wheel-legged robot:

    simtrust generate wheel-legged standing-still

Where can the simulator be trusted:

    simtrust gap --real log.hdf5 --sim HalfCheetah-v5 --shift gravity=2

A first run:

    simtrust train --real log.hdf5 --sim HalfCheetah-v5 --shift gravity=2 --out runs/first

If it was cut short:

    simtrust resume runs/first

How good is it:

    simtrust evaluate runs/first --env HalfCheetah-v5 --episodes 20
"""

COMMANDS = {
    "generate": generate,
    "gap": gap,
    "train": train,
    "resume": resume,
    "evaluate": evaluate,
    "paper": paper,
}


def main() -> None:
    """Entry point. A user's mistake ends with one clear message and exit status 2."""
    # So that module:factory finds a module beside the user, as `python -m` would.
    sys.path.insert(0, str(Path.cwd()))
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="simtrust",
            description=DESCRIPTION,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except SimtrustError as error:
        _tell("error: ", str(error), *getattr(error, "__notes__", ()))
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        _tell("stopped. ", *getattr(interrupt, "__notes__", ()))
        sys.exit(130)


def _tell(label: str, *lines: str) -> None:
    """Print lines to the error stream as they are: a user's path may look like markup."""
    text = Text.assemble((label, "bold red"), "\n".join(lines))
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
