"""Measuring a gap from Python, from a file to a folder with a report."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from simtrust.data import Dataset, check_against_simulator, load_dataset
from simtrust.data.formats import DonesMean
from simtrust.errors import ConfigError, RunError
from simtrust.gap import measure
from simtrust.gap.findings import GapReport
from simtrust.reports.gap_html import write_html
from simtrust.reports.gap_plots import draw_report
from simtrust.reports.gap_summary import to_json
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.training.checkpoint import write_atomically


def measure_gap(
    real: str | Path | Dataset,
    simulator: str,
    *,
    shifts: Sequence[str] = (),
    out: str | Path | None = None,
    dones_mean: DonesMean | None = None,
    seed: int = 0,
    quiet: bool = False,
    command: str | None = None,
) -> GapReport:
    """Find out where a simulator deviates from a log of the real machine; no policy is trained.

    ``measure_gap("log.hdf5", "HalfCheetah-v5", shifts=["gravity=2"], out="gap")``. See
    `simtrust.gap.measure` for what is measured.

    Args:
        real: the log, a file or loaded.
        simulator: as ``--sim`` of the command line.
        shifts: of a built-in simulator.
        out: a folder for ``gap.json`` and pictures; None writes nothing.
        dones_mean: what a log's bare ``dones`` mean.
        seed: of everything random.
        quiet: show no progress.
        command: what is recorded in ``gap.json`` as having made it.

    Raises:
        RunError: ``out`` already holds a report, or cannot be made.
        SimtrustError: something in the log or the simulator cannot be used.
    """
    if seed < 0:
        raise ConfigError(f"--seed is {seed}; it must be 0 or more")
    folder = None if out is None else Path(out)
    if folder is not None and (folder / "gap.json").exists():
        raise RunError(f"{folder} already holds a gap report; choose another --out, or move it away")
    dataset = real if isinstance(real, Dataset) else load_dataset(real, dones_mean=dones_mean)
    kinds = parse_shifts(shifts)
    instance = make_simulator(simulator, num_envs=1, shifts=kinds)
    check_against_simulator(
        dataset, instance.single_observation_space, instance.single_action_space, simulator
    )
    instance.close()
    if folder is not None:
        _make(folder)
    console = Console(stderr=True, quiet=quiet)
    with console.status("measuring the gap") as status:

        def stage(name: str, so_far: str = "") -> None:
            status.update(Text(f"{name} {so_far}"))
            # Elsewhere than on a terminal only a new stage is worth a line, not how far it is.
            if not console.is_terminal and not so_far:
                console.print(name, highlight=False, markup=False)

        report = measure.measure_gap(dataset, simulator, shifts=kinds, seed=seed, stage=stage)
    if folder is not None:
        made = command or (
            f"simtrust.measure_gap({dataset.source!r}, {simulator!r}, shifts={list(shifts)!r}, seed={seed})"
        )
        write_atomically(folder / "gap.json", (json.dumps(to_json(report, made), indent=2) + "\n").encode())
        try:
            write_html(report, folder / "report.html", made)
            draw_report(report, folder)
        except Exception as error:
            # Hours of measuring must not be lost for a picture.
            Console(stderr=True).print(Text(f"not all pictures could be drawn: {error}"), soft_wrap=True)
    return report


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}; choose another --out") from error
