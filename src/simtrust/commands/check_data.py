"""``simtrust check-data``: a verdict on a log before anything is trained."""

from typing import Literal

import tyro
from rich.console import Console
from rich.text import Text

from simtrust.commands.invocation import as_typed


def check_data(
    file: tyro.conf.Positional[str],
    sim: str | None = None,
    shift: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    map: tuple[str, ...] = (),
    dones_mean: Literal["terminated", "timeout"] | None = None,
    out: str | None = None,
    seed: int = 0,
) -> None:
    """Look a log over before training: columns, actions, timing, episodes, rewards, and the simulator's fit.

    Says what each finding means, where it is and what to do about it. Ends with status 1 if a finding is an
    error, that is if training cannot work.

    Args:
        file: The log: D4RL HDF5, npz, CSV, Parquet, LeRobot v3's folder, or minari:ID.
        sim: The simulator to be trained in: a built-in name, any Gymnasium id, or module:factory.
        shift: Spoils a built-in simulator on purpose, for experiments: gravity=2 doubles it. For your own
            simulator leave it out. Repeat for several.
        map: Which columns of a table hold what, as FIELD=NAME[,NAME...]: observation=theta,theta_dot
            action=tau reward=r episode=ep terminated=fell.
        dones_mean: What a log's bare dones mean, if it has neither terminals nor timeouts.
        out: An HTML page with the same and charts.
        seed: Of the simulator's rollouts.
    """
    from simtrust.reports.log_report import check_data
    from simtrust.reports.log_text import to_renderable

    report = check_data(
        file,
        sim,
        shifts=shift,
        dones_mean=dones_mean,
        columns=map,
        out=out,
        seed=seed,
        command=as_typed(),
    )
    Console().print(to_renderable(report), soft_wrap=True)
    if out is not None:
        Console().print(Text(f"Report: {out}"), soft_wrap=True)
    if not report.ok:
        raise SystemExit(1)
