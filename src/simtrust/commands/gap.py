"""``simtrust gap``: where a simulator can be trusted."""

import time
from typing import Literal

import tyro
from rich.console import Console
from rich.text import Text

from simtrust.commands.invocation import as_typed


def gap(
    real: str,
    sim: str,
    shift: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    out: str | None = None,
    dones_mean: Literal["terminated", "timeout"] | None = None,
    map: tuple[str, ...] = (),
    policy: str | None = None,
    seed: int = 0,
    step_timeout: float | None = None,
) -> None:
    """Show where a simulator can be trusted: its dynamics gap to a log of the real machine.

    Trains no policy. Writes report.html, gap.json, pictures and the gap as a function of state and action
    (trust.onnx, and trust.npz with a runner that needs only numpy) into the folder, and says the verdict. A
    simulator that can be put into a logged state (the built-in ones, and environments with a method
    set_observation) is replayed. Any is compared with the log by a model of both, and by H2O's classifiers.

    Args:
        real: The log of real transitions, which needs no rewards: D4RL HDF5, npz, CSV, Parquet, LeRobot v3's
            folder, or minari:ID.
        sim: The simulator: a built-in name, any Gymnasium id, or module:factory.
        shift: Spoils a built-in simulator on purpose, for experiments: gravity=2 doubles it. For your own
            simulator leave it out. Repeat for several.
        out: The folder of the report. Default: runs/gap-DATE-TIME.
        dones_mean: What a log's bare dones mean, if it has neither terminals nor timeouts.
        map: Which columns of a table hold what, as FIELD=NAME[,NAME...]: observation=theta,theta_dot
            action=tau reward=r episode=ep terminated=fell.
        policy: A run directory: how much of its time does its policy spend where the simulator errs?
        seed: Of everything random.
        step_timeout: Seconds that a step or reset of a simulator of yours may take, which then runs in a
            worker process and is killed if it takes longer. Default: no limit.
    """
    from simtrust.measuring import measure_gap
    from simtrust.reports.gap_summary import to_text

    folder = out or f"runs/gap-{time.strftime('%Y%m%d-%H%M%S')}"
    report = measure_gap(
        real,
        sim,
        shifts=shift,
        out=folder,
        dones_mean=dones_mean,
        columns=map,
        policy=policy,
        seed=seed,
        step_timeout=step_timeout,
        command=as_typed(),
    )
    Console().print(Text(f"{to_text(report)}\nReport: {folder}/report.html"), soft_wrap=True)
