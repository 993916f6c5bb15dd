"""Measuring a gap from Python, from a file to a folder with a report."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gymnasium import Space
from rich.console import Console
from rich.text import Text

from simtrust.data import Dataset, check_against_simulator, load_dataset
from simtrust.data.formats import DonesMean
from simtrust.errors import ConfigError, RunError
from simtrust.export.trust_onnx import export_trust
from simtrust.gap import measure
from simtrust.gap.findings import GapReport
from simtrust.gap.measure import NamedPolicy
from simtrust.reports.gap_html import write_html
from simtrust.reports.gap_plots import draw_report
from simtrust.reports.gap_summary import to_json
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.simulators.adapters import steps_limited
from simtrust.simulators.closing import closed_at_end
from simtrust.simulators.factories import SimulatorLike, simulator_name
from simtrust.stages import show_stages
from simtrust.training.policy import Policy as TrainedPolicy
from simtrust.training.storage import StorageError, check_writable, write_atomically


def measure_gap(
    real: str | Path | Dataset,
    simulator: SimulatorLike,
    *,
    shifts: Sequence[str] = (),
    out: str | Path | None = None,
    dones_mean: DonesMean | None = None,
    columns: Sequence[str] = (),
    policy: str | Path | None = None,
    seed: int = 0,
    step_timeout: float | None = None,
    quiet: bool = False,
    command: str | None = None,
) -> GapReport:
    """Find out where a simulator deviates from a log of the real machine; no policy is trained.

    ``measure_gap("log.hdf5", "HalfCheetah-v5", shifts=["gravity=2"], out="gap")``. See
    `simtrust.gap.measure` for what is measured.

    Args:
        real: the log, a file or loaded; it may be without rewards, which nothing here reads.
        simulator: as ``--sim`` of the command line, or the function that it names.
        shifts: of a built-in simulator.
        out: a folder for ``report.html``, ``gap.json``, pictures, and the gap as a function of state and
            action (``trust.onnx``, ``trust.npz`` and a runner of the latter); None writes nothing.
        dones_mean: what a log's bare ``dones`` mean.
        columns: which columns of a table hold what, as ``--map`` of the command line.
        policy: a run directory; how much of its time the policy of its first seed spends in low trust.
        seed: of everything random.
        step_timeout: seconds that a step or reset of a simulator of yours may take, as of `make_simulator`;
            None: no limit.
        quiet: show no progress.
        command: what is recorded in ``gap.json`` as having made it.

    Raises:
        RunError: ``out`` already holds a report, or cannot be made or written (then as `StorageError`).
        SimtrustError: something in the log or the simulator cannot be used.
    """
    if seed < 0:
        raise ConfigError(f"--seed is {seed}; it must be 0 or more")
    folder = None if out is None else Path(out)
    if folder is not None and (folder / "gap.json").exists():
        raise RunError(f"{folder} already holds a gap report; choose another --out, or move it away")
    simulator = simulator_name(simulator)
    # A large log takes minutes to read, so whatever can be wrong without it comes before.
    kinds = parse_shifts(shifts)
    with closed_at_end(
        make_simulator(simulator, num_envs=1, shifts=kinds, step_timeout=step_timeout)
    ) as instance:
        spaces = instance.single_observation_space, instance.single_action_space
    followed = None if policy is None else _policy(policy, simulator, *spaces)
    dataset = (
        real
        if isinstance(real, Dataset)
        else load_dataset(real, dones_mean=dones_mean, columns=columns, rewards_required=False)
    )
    check_against_simulator(dataset, *spaces, simulator)
    if folder is not None:
        _make(folder)
    with show_stages(quiet=quiet) as stage, steps_limited(step_timeout):
        report = measure.measure_gap(
            dataset, simulator, shifts=kinds, policy=followed, seed=seed, stage=stage
        )
    if folder is not None:
        besides = {"columns": list(columns), "policy": None if policy is None else str(policy)}
        others = "".join(f", {name}={value!r}" for name, value in besides.items() if value)
        made = command or (
            f"simtrust.measure_gap({dataset.source!r}, {simulator!r}, shifts={list(shifts)!r}, seed={seed}"
            f"{others})"
        )
        write_atomically(folder / "gap.json", (json.dumps(to_json(report, made), indent=2) + "\n").encode())
        unwritten = None
        for what, write in (
            ("report.html", lambda: write_html(report, folder / "report.html", made)),
            ("the pictures", lambda: draw_report(report, folder)),
            ("the trust model", lambda: _export(report, folder, made)),
        ):
            try:
                write()
            except Exception as error:
                # What took long to measure must not be lost for a picture.
                told = Text(f"could not write {what}: {error}")
                Console(stderr=True).print(told, soft_wrap=True)
                unwritten = unwritten or (error if isinstance(error, StorageError) else None)
        if unwritten is not None:
            unwritten.add_note(f"{folder}/gap.json holds what was measured; what shows it is not complete")
            raise unwritten
    return report


def _policy(directory: str | Path, simulator: str, observation: Space, action: Space) -> NamedPolicy:
    trained = TrainedPolicy(directory)
    sizes = tuple(len(x) for x in (trained.scaling.observation_mean, trained.scaling.action_low))
    wanted = tuple(size for space in (observation, action) for size in space.shape or ())
    if sizes != wanted:
        raise ConfigError(
            f"the policy in {directory} reads {sizes[0]} observations and gives {sizes[1]} actions; "
            f"simulator {simulator} has {wanted[0]} and {wanted[1]}. Name a run on this machine."
        )
    runs = len(trained.seeds)

    def act(observation: np.ndarray) -> np.ndarray:
        return trained(np.broadcast_to(observation, (runs, *observation.shape)))[0]

    return NamedPolicy(str(directory), act)


def _export(report: GapReport, folder: Path, command: str) -> None:
    if report.trust is None:
        return
    export_trust(
        report.trust.model,
        folder,
        observation_names=report.observation_names,
        action_names=report.action_names,
        metadata={
            "command": command,
            "log": report.dataset.source,
            "log_sha256": report.dataset.sha256,
            "simulator": " ".join([report.simulator, *map(str, report.shifts)]),
        },
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}; choose another --out") from error
    check_writable(folder)
