"""``simtrust paper``: the paper's tables and figures, made again."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from simtrust.commands.generate import LogTask
from simtrust.commands.invocation import as_typed
from simtrust.device import Device, choose_device
from simtrust.errors import ConfigError

StudyName = Literal[
    "table1", "table2", "table4", "table5", "table6", "table7",
    "figure2", "figure3", "figure4", "figure5", "figure6", "figure7",
    "theory",
]  # fmt: skip


def paper(
    study: tyro.conf.Positional[StudyName],
    data: str | None = None,
    real: str | None = None,
    out: str | None = None,
    steps: int | None = None,
    seeds: int | None = None,
    cells: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATTERN...")] = (),
    episodes: int | None = None,
    recipe: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    task: tyro.conf.UseAppendAction[tuple[LogTask, ...]] = (),
    problems: int | None = None,
    seed: int | None = None,
    device: Device = "auto",
) -> None:
    """Make a table or figure of the paper again: train what is missing, judge it, write tables and pictures.

    Everything finished is kept; the same command goes on where it was stopped.

    table1, table2, table4 to table7, figure6, figure7: recipes on HalfCheetah and Walker2d, the paper's
    numbers beside ours, and which of its orderings hold. Trains 1,000,000 updates of 3 or 5 seeds for every
    cell, which is a dataset, a shift and a recipe. The cells in OUT/runs are shared by all of these.

        simtrust paper table2 --data datasets
        simtrust paper table2 --data datasets --steps 200000 --seeds 2 --out runs/short
        simtrust paper table1 --data datasets --cells '*-medium-gravity-*' 'halfcheetah-*-sac'
        simtrust paper table1 --cells none

    The last one trains nothing and writes what there is, also while another command trains.

    table1: SAC, CQL, DARC, DARC+ and H2O on HalfCheetah. table2: H2O without one part or another. table4:
    H2O(v). table5: H2O by the reverse KL divergence. table6: Walker2d. table7: random datasets. figure6: less
    and less of the log. figure7: the learning curves of table1 and table4.

    figure2: the wheel-legged robot, on its twin. Records its own logs. figure4: the rewards in these logs.
    figure5: the reward gathered by the policies of figure2.

        simtrust paper figure2

    figure3: what H2O's gap u says of simulated rows as training goes on, beside the true gap, for a
    HalfCheetah whose simulator errs the more the faster it runs. Takes a log of HalfCheetah-v5.

        simtrust paper figure3 --real log.hdf5

    figure2 to figure5 also say which of the paper's claims about them hold among yours.

    theory: Eq. 9 and 11 and Theorems 1 and 2, checked on random tabular problems.

    Args:
        study: Which one.
        data: Tables, figure6, figure7: the folder of the datasets, such as
            halfcheetah_medium_replay-v5.hdf5. If one is missing, the command that makes it is told.
        real: figure3: the log of real transitions.
        out: The folder of logs, runs and results. Default: runs/paper for tables, figure6 and figure7, the
            folder of figure2 for figure4 and figure5, else runs/STUDY.
        steps: Updates of each run. Default: the paper's 1,000,000; figure2: 50,000 and 100,000; figure3:
            100,000, a tenth of the paper's, in multiples of 10,000.
        seeds: Training runs of each recipe, side by side. Default: the paper's 5 or 3; figure2: 5;
            figure3: 3.
        cells: Tables, figure6, figure7: train only the cells whose name, such as
            halfcheetah-medium-replay-gravity-h2o, matches one of these patterns (*, ?, [...]); none: train
            nothing. What is written is of everything there is.
        episodes: figure2: of each policy, on the real robot and in the simulator each. Default: 20.
        recipe: figure2: one of sac, cql, darc, darc_plus, h2o, trust, h2o_layer_norm, h2o_dr, h2o_unscaled,
            h2o_raw, h2o_sensors; repeat for several. Default: all.
        task: figure2: the robot's task; repeat for both. Default: both.
        problems: theory: how many random problems. Default: 2,000.
        seed: theory: which ones. Default: 0.
        device: What trains: where to compute, on the processor, on an NVIDIA GPU, or wherever JAX does by
            itself.
    """
    options = {
        "data": data,
        "real": real,
        "steps": steps,
        "seeds": seeds,
        "cells": cells,
        "episodes": episodes,
        "recipe": recipe,
        "task": task,
        "problems": problems,
        "seed": seed,
        "device": None if device == "auto" else device,
    }
    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name in given:
        if name not in PAPER_OPTIONS.get(study, TRAINED):
            raise ConfigError(f"{study} has no option --{name}; leave it out")
    choose_device(given.pop("device", "auto"))
    _make(study, Path(out or DEFAULT_OUT.get(study, "runs/paper")), given)


TRAINED = ("data", "steps", "seeds", "cells", "device")
PAPER_OPTIONS = {
    "figure2": ("seeds", "episodes", "recipe", "task", "steps", "device"),
    "figure3": ("real", "seeds", "steps", "device"),
    "figure4": (),
    "figure5": (),
    "theory": ("problems", "seed"),
}
"""Of the others: `TRAINED`."""
DEFAULT_OUT = {
    "figure2": "runs/figure2",
    "figure3": "runs/figure3",
    "figure4": "runs/figure2",
    "figure5": "runs/figure2",
    "theory": "runs/theory",
}


def _make(study: str, folder: Path, given: dict[str, Any]) -> None:
    if study == "figure2":
        from simtrust.paper.figure2 import figure2

        names = {"recipe": "recipes", "task": "studies"}
        figure2(folder, **{names.get(name, name): value for name, value in given.items()})
    elif study == "figure3":
        if "real" not in given:
            raise ConfigError("figure3 learns from a log of HalfCheetah-v5: give --real FILE")
        from simtrust.paper.figure3 import figure3

        figure3(folder, command=as_typed(), **given)
    elif study == "figure4":
        from simtrust.paper.figure4 import figure4

        figure4(folder, command=as_typed())
    elif study == "figure5":
        from simtrust.paper.figure5 import figure5

        figure5(folder, command=as_typed())
    elif study == "theory":
        from simtrust.paper.theory.check import theory

        theory(folder, **given)
    else:
        from simtrust.paper.tables import reproduce

        reproduce(study, folder, command=as_typed(), **given)
