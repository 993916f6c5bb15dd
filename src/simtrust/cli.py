"""The command line: what ``simtrust`` alone says, and how errors end."""

import sys
import warnings
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.text import Text

from simtrust.commands.check_data import check_data
from simtrust.commands.check_sim import check_sim
from simtrust.commands.convert import convert
from simtrust.commands.doctor import doctor
from simtrust.commands.export import export
from simtrust.commands.gap import gap
from simtrust.commands.generate import generate
from simtrust.commands.hints import hints
from simtrust.commands.paper import paper
from simtrust.commands.report import report
from simtrust.commands.sweep import sweep
from simtrust.commands.training import evaluate, resume, train
from simtrust.errors import DataWarning, RunWarning, SimtrustError

DESCRIPTION = """Find out where a simulator can be trusted, and train with it all the same.

A log to begin with, of a wheel-legged robot, or by D4RL's protocol:

    simtrust generate wheel-legged standing-still
    simtrust generate HalfCheetah medium-replay --steps 200000

Are log and simulator fit for it:

    simtrust check-data log.hdf5 --sim HalfCheetah-v5
    simtrust check-sim my_module:make_env --real log.hdf5

A log in another format:

    simtrust convert log.hdf5 log.csv

Where can the simulator be trusted:

    simtrust gap --real log.hdf5 --sim HalfCheetah-v5 --shift gravity=2

A first run:

    simtrust train --real log.hdf5 --sim HalfCheetah-v5 --shift gravity=2 --out runs/first

If it was cut short:

    simtrust resume runs/first

Many runs from one file, here or on a Ray cluster:

    simtrust sweep sweep.toml --out runs/study

How good is it:

    simtrust evaluate runs/first --env HalfCheetah-v5 --episodes 20

What to make of it:

    simtrust report runs/first

Take it to the robot:

    simtrust export runs/first --out robot

The paper's tables and figures:

    simtrust paper table2 --data datasets
"""

COMMANDS = {
    "generate": generate,
    "check-data": check_data,
    "check-sim": check_sim,
    "convert": convert,
    "gap": gap,
    "train": train,
    "resume": resume,
    "sweep": sweep,
    "evaluate": evaluate,
    "report": report,
    "export": export,
    "paper": paper,
    "doctor": doctor,
}


def main() -> None:
    """Entry point. A user's mistake ends with one clear message and exit status 2."""
    # So that module:factory finds a module beside the user; last, so that no file there passes for a library.
    sys.path.append(str(Path.cwd()))
    warnings.showwarning = _show_warning
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="simtrust",
            description=DESCRIPTION,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except SystemExit as end:
        # Nothing of ours ends so, but the parser, which has said already what it does not understand.
        if end.code == 2:
            for hint in hints(sys.argv[1:]):
                _tell("hint: ", hint)
        raise
    except SimtrustError as error:
        _tell("error: ", str(error), *getattr(error, "__notes__", ()))
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        _tell("stopped. ", *getattr(interrupt, "__notes__", ()))
        sys.exit(130)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """A warning about a log or a run is for the user, and needs no line of our code."""
    if issubclass(category, DataWarning | RunWarning):
        _tell("note: ", str(message))
    else:
        _usual_warning(message, category, *place, **more)


_usual_warning = warnings.showwarning


def _tell(label: str, *lines: str) -> None:
    """Print lines to the error stream as they are: a user's path may look like markup."""
    text = Text.assemble((label, "bold red"), "\n".join(lines))
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
