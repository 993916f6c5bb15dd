"""Measuring a gap from Python, from a file to a folder with a report."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from simtrust.data import Dataset, check_against_simulator, load_dataset
from simtrust.data.formats import DonesMean
from simtrust.errors import RunError
from simtrust.gap import measure
from simtrust.gap.measure import GapReport
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
        SimtrustError: something in the log or the simulator cannot be used; before any long work.
    """
    folder = None if out is None else _new_folder(Path(out))
    dataset = real if isinstance(real, Dataset) else load_dataset(real, dones_mean=dones_mean)
    kinds = parse_shifts(shifts)
    instance = make_simulator(simulator, num_envs=1, shifts=kinds)
    check_against_simulator(
        dataset, instance.single_observation_space, instance.single_action_space, simulator
    )
    instance.close()
    console = Console(stderr=True, quiet=quiet)
    with console.status("measuring the gap") as status:

        def stage(name: str) -> None:
            status.update(name)
            if not console.is_terminal:
                console.print(name, highlight=False)

        report = measure.measure_gap(dataset, simulator, shifts=kinds, seed=seed, stage=stage)
    if folder is not None:
        made = command or f"simtrust.measure_gap({str(real)!r}, {simulator!r}, shifts={list(shifts)!r})"
        write_atomically(folder / "gap.json", (json.dumps(to_json(report, made), indent=2) + "\n").encode())
        draw_report(report, folder)
    return report


def _new_folder(folder: Path) -> Path:
    if (folder / "gap.json").exists():
        raise RunError(f"{folder} already holds a gap report; choose another --out, or move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}; choose another --out") from error
    return folder
