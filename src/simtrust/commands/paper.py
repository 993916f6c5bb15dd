"""``simtrust paper``: the paper's figures, made again."""

from pathlib import Path
from typing import Literal

import tyro

from simtrust.commands.generate import LogTask
from simtrust.commands.invocation import as_typed
from simtrust.errors import ConfigError


def paper(
    study: tyro.conf.Positional[Literal["figure2", "figure3"]],
    real: str | None = None,
    out: str | None = None,
    seeds: int | None = None,
    episodes: int | None = None,
    recipe: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    task: tyro.conf.UseAppendAction[tuple[LogTask, ...]] = (),
    steps: int | None = None,
) -> None:
    """Make a figure of the paper again: train what is missing, judge it, write tables and pictures.

    figure2: the wheel-legged robot, on its twin. Records its own logs.

        simtrust paper figure2

    figure3: what H2O's gap u says of simulated rows as training goes on, beside the true gap, for a
    HalfCheetah whose simulator errs the more the faster it runs. Takes a log of HalfCheetah-v5.

        simtrust paper figure3 --real log.hdf5

    Everything finished is kept; the same command goes on where it was stopped.

    Args:
        study: Which one.
        real: figure3: the log of real transitions.
        out: The folder of logs, runs and results. Default: runs/STUDY.
        seeds: Training runs of each recipe, side by side. Default: 5; figure3: 3.
        episodes: figure2: of each policy, on the real robot and in the simulator each. Default: 20.
        recipe: figure2: one of sac, cql, darc, darc_plus, h2o, trust, h2o_layer_norm, h2o_dr, h2o_unscaled,
            h2o_raw, h2o_sensors; repeat for several. Default: all.
        task: figure2: the robot's task; repeat for both. Default: both.
        steps: Updates of each run. Default: the paper's 50,000 and 100,000; figure3: 100,000, a tenth of the
            paper's, in multiples of 10,000.
    """
    options = {
        "real": real,
        "seeds": seeds,
        "episodes": episodes,
        "recipe": recipe,
        "task": task,
        "steps": steps,
    }
    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name in given:
        if name not in PAPER_OPTIONS[study]:
            raise ConfigError(f"{study} has no option --{name}; leave it out")
    folder = Path(out or f"runs/{study}")
    if study == "figure2":
        from simtrust.paper.figure2 import figure2

        names = {"recipe": "recipes", "task": "studies"}
        figure2(folder, **{names.get(name, name): value for name, value in given.items()})
        return
    if real is None:
        raise ConfigError("figure3 learns from a log of HalfCheetah-v5: give --real FILE")
    from simtrust.paper.figure3 import figure3

    figure3(folder, command=as_typed(), **given)


PAPER_OPTIONS = {
    "figure2": ("seeds", "episodes", "recipe", "task", "steps"),
    "figure3": ("real", "seeds", "steps"),
}
