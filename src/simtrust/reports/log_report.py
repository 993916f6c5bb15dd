"""A verdict on a log before anything is trained: what is read, checked and written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box

from simtrust.data import Dataset, check_against_simulator, load_dataset
from simtrust.data.action_findings import ACTION_CHECKS
from simtrust.data.column_findings import COLUMN_CHECKS
from simtrust.data.episode_findings import EPISODE_CHECKS
from simtrust.data.formats import DonesMean
from simtrust.data.log_findings import (
    SEVERITIES,
    Bounds,
    Check,
    Finding,
    Log,
    NotChecked,
    Outcome,
    Severity,
    summarised,
)
from simtrust.data.timing_findings import TIMING_CHECKS
from simtrust.errors import ConfigError
from simtrust.gap.dimensions import dimension_names
from simtrust.gap.logged_steps import LoggedSteps, compare_logged_steps
from simtrust.gap.rollouts import PROBE_INSTANCES, probe_rollouts
from simtrust.gap.step_findings import changes_otherwise, columns_otherwise, reward_otherwise
from simtrust.gap.support import (
    Support,
    measure_support,
    outside_observation_space,
    ranges_apart,
    ranges_wider,
)
from simtrust.reports.page_file import unwritable_page, writable_page
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.simulators.closing import closed_at_end
from simtrust.simulators.factories import SimulatorLike, simulator_name
from simtrust.simulators.shifts import Shift
from simtrust.training.checkpoint import write_atomically

PROBE_ROWS = 2000
NO_SIMULATOR = NotChecked("no simulator was named (--sim)")
LOG_CHECKS = (*COLUMN_CHECKS, *ACTION_CHECKS, *TIMING_CHECKS, *EPISODE_CHECKS)
SUPPORT_CHECKS = (
    ("Log and simulator in different places", "< 5% of its rollouts within the log's range", ranges_apart),
    ("Log far wider than the simulator", "> 20 times its range, > 5 times its changes", ranges_wider),
    ("Log outside the observation space", "> 0.1% of rows", outside_observation_space),
)
STEP_CHECKS = (
    (
        "Signs, units and order of columns",
        "another one halves the error of a replayed step",
        columns_otherwise,
    ),
    ("Changes beside the simulator's", "correlation < −0.5, or the factor of degrees", changes_otherwise),
    ("Reward beside the simulator's", "correlation < 0.2", reward_otherwise),
)


@dataclass(frozen=True, eq=False)
class LogReport:
    """What was found in a log."""

    log: Log
    outcomes: tuple[tuple[Check, Outcome], ...]
    """Of every check."""
    simulator: str | None
    shifts: tuple[Shift, ...]
    support: Support | None
    """None without a simulator."""
    steps: LoggedSteps | NotChecked | None
    """Logged steps beside the simulator's own; None without a simulator."""
    command: str

    @property
    def dataset(self) -> Dataset:
        return self.log.dataset

    @property
    def findings(self) -> list[tuple[str, Finding]]:
        """Title and finding, errors first."""
        found = [(check.title, outcome) for check, outcome in self.outcomes if isinstance(outcome, Finding)]
        return sorted(found, key=lambda pair: SEVERITIES.index(pair[1].severity))

    def count(self, severity: Severity) -> int:
        """How many findings are of this severity."""
        return sum(finding.severity == severity for _, finding in self.findings)

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return self.count("error") == 0


def check_data(
    real: str | Path | Dataset,
    simulator: SimulatorLike | None = None,
    *,
    shifts: Sequence[str] = (),
    dones_mean: DonesMean | None = None,
    columns: Sequence[str] = (),
    out: str | Path | None = None,
    seed: int = 0,
    command: str | None = None,
) -> LogReport:
    """Look a log over before anything is trained.

    ``check_data("log.hdf5", "HalfCheetah-v5").findings``. With a simulator, 2,000 rows of its own rollouts
    tell whether both are in the same place; if it can be put into logged states, some 300 steps tell whether
    both mean the same by signs, units and order of their columns and by the reward.

    Args:
        real: the log, a file or loaded.
        simulator: as ``--sim`` of the command line, or the function that it names; None: the log alone.
        shifts: of a built-in simulator.
        dones_mean: what a log's bare ``dones`` mean.
        columns: which columns of a table hold what, as ``--map`` of the command line.
        out: an HTML page to write, replaced if it is there; None writes nothing.
        seed: of the rollouts.
        command: what is recorded on the page as having made it.

    Raises:
        DataError: the log cannot be read, or does not fit the simulator's spaces.
        SimulatorError: the simulator cannot be made, or fails.
        ConfigError: the page cannot be written there, or an option cannot be.
    """
    if seed < 0:
        raise ConfigError(f"--seed is {seed}; it must be 0 or more")
    if shifts and simulator is None:
        raise ConfigError("--shift changes a simulator; name it with --sim")
    simulator = None if simulator is None else simulator_name(simulator)
    path = None if out is None else writable_page(Path(out))
    dataset = (
        real
        if isinstance(real, Dataset)
        else load_dataset(real, dones_mean=dones_mean, columns=columns, rewards_required=False)
    )
    kinds = tuple(parse_shifts(shifts))
    bounds, support, steps = None, None, None
    if simulator is not None:
        bounds, support, steps = _compare(dataset, simulator, kinds, seed)
    log = summarised(dataset, dimension_names(dataset, simulator or ""), bounds)
    checks = [*LOG_CHECKS, *_checks_with(SUPPORT_CHECKS, support), *_checks_with(STEP_CHECKS, steps)]
    report = LogReport(
        log=log,
        outcomes=tuple((check, check.find(log)) for check in checks),
        simulator=simulator,
        shifts=kinds,
        support=support,
        steps=steps,
        command=command or _call(dataset, simulator, shifts, seed),
    )
    if path is not None:
        write_page(report, path)
    return report


def write_page(report: LogReport, path: str | Path) -> None:
    """Write the report as one HTML page, which needs no network; ConfigError if it cannot be written."""
    # Drawing imports plotly, which the verdict alone does not need.
    from simtrust.reports.log_html import to_html

    path = writable_page(Path(path))
    try:
        write_atomically(path, to_html(report).encode("utf-8", "replace"))
    except OSError as error:
        raise unwritable_page(path, str(error)) from error


def _compare(
    dataset: Dataset, simulator: str, shifts: Sequence[Shift], seed: int
) -> tuple[Bounds, Support, LoggedSteps | NotChecked]:
    """The simulator's bounds, support and steps; DataError where the log's widths are not the simulator's."""
    with closed_at_end(make_simulator(simulator, num_envs=PROBE_INSTANCES, shifts=shifts)) as instances:
        observation, action = instances.single_observation_space, instances.single_action_space
        assert isinstance(observation, Box) and isinstance(action, Box)
        rows = dataset.transitions
        if dataset.action_size == action.shape[0]:
            # Actions outside the bounds are a finding, with all their rows; what is refused is the spaces.
            rows = rows._replace(action=np.clip(rows.action, action.low, action.high))
        bounded = replace(dataset, transitions=rows)
        check_against_simulator(bounded, observation, action, simulator)
        simulated = probe_rollouts(instances, dataset, rows=PROBE_ROWS, seed=seed)
        support = measure_support(dataset, simulated, observation)
    steps = compare_logged_steps(bounded, simulator, support, shifts=shifts, seed=seed)
    return Bounds(action.low, action.high), support, steps


def _checks_with(
    checks: Sequence[tuple[str, str, Callable[..., Outcome]]],
    found: Support | LoggedSteps | NotChecked | None,
) -> list[Check]:
    """Checks that look at what was found of a simulator too, if it was."""
    if found is None or isinstance(found, NotChecked):
        reason = found or NO_SIMULATOR
        return [Check(title, threshold, lambda _: reason) for title, threshold, _ in checks]
    return [Check(title, threshold, lambda log, f=find: f(log, found)) for title, threshold, find in checks]


def _call(dataset: Dataset, simulator: str | None, shifts: Sequence[str], seed: int) -> str:
    named = "" if simulator is None else f", {simulator!r}, shifts={list(shifts)!r}, seed={seed}"
    return f"simtrust.check_data({dataset.source!r}{named})"
