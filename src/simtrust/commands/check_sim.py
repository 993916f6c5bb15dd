"""``simtrust check-sim``: whether a simulator keeps its promises, before anything is trained in it."""

import sys
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {"passed": "green", "note": "cyan", "warning": "yellow", "failed": "bold red"}


def check_sim(
    sim: tyro.conf.Positional[str],
    shift: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    real: str | None = None,
    map: tuple[str, ...] = (),
    dones_mean: Literal["terminated", "timeout"] | None = None,
    step_timeout: float | None = None,
) -> None:
    """Check a simulator: seeds, determinism, what leaks over a reset, observations, bounds, speed.

    Runs Gymnasium's own checker on environments of yours, and more that matters for training. Ends with
    status 1 if anything failed.

    Args:
        sim: The simulator: a built-in name, any Gymnasium id, or module:factory.
        shift: Spoils a built-in simulator on purpose, for experiments: gravity=2 doubles it. For your own
            simulator leave it out. Repeat for several.
        real: A log of the real machine, to be compared with the simulator's spaces.
        map: Which columns of a table hold what, as FIELD=NAME[,NAME...]: observation=theta,theta_dot
            action=tau reward=r episode=ep terminated=fell.
        dones_mean: What a log's bare dones mean, if it has neither terminals nor timeouts.
        step_timeout: Seconds that a step or reset of a simulator of yours may take, which then runs in a
            worker process and is killed if it takes longer. Default: no limit.
    """
    from simtrust.data import load_dataset
    from simtrust.simulators import parse_shifts
    from simtrust.simulators.checks import check_simulator
    from simtrust.stages import show_stages

    kinds, dataset = parse_shifts(shift), None
    if real is not None:
        dataset = load_dataset(real, dones_mean=dones_mean, columns=map, rewards_required=False)
    with show_stages() as stage:
        stage(f"checking {sim}", "")
        found = list(check_simulator(sim, shifts=kinds, dataset=dataset, step_timeout=step_timeout))
    table = Table("check", "", "what was seen", "remedy", title=Text(sim), show_lines=True)
    for check in found:
        verdict = Text(check.verdict, style=STYLES[check.verdict])
        table.add_row(Text(check.name), verdict, Text(check.seen), Text(check.remedy))
    console = Console()
    console.print(table)
    counts = {verdict: sum(check.verdict == verdict for check in found) for verdict in STYLES}
    console.print(Text(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)))
    if counts["failed"]:
        sys.exit(1)
