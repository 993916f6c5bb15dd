"""What a gap report comes to in plain words: a headline, cards, and what to do next."""

import math
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from simtrust.gap.corrections import Correction
from simtrust.gap.findings import GapReport, ReplayEstimate
from simtrust.gap.regions import Region
from simtrust.gap.verdict import LEAST_EPISODES
from simtrust.reports.charts import percent, rounded, span
from simtrust.simulators.built_in import find_built_in
from simtrust.simulators.shifts import KINDS, LEGACY_INERTIA, Shift
from simtrust.simulators.task_specs import TASKS

WORSE, RARE = 1.5, 0.1
"""A region with a gap of so many medians and a smaller share of the log is worth recording more of."""
MUCH = 0.1
"""A policy that spends more of its time in low trust is not to be relied on."""
USELESS = 0.2
"""With a smaller trusted share, training on the pair gains little before the simulator is corrected."""


class Step(NamedTuple):
    """One thing to do next."""

    title: str
    text: str
    command: str | None = None


def headline(report: GapReport) -> str:
    """The verdict in a sentence."""
    if report.verdict.gap_found:
        return "There is a dynamics gap."
    if math.isnan(report.verdict.trusted_fraction):
        return "Nothing can be said of the dynamics."
    return "No dynamics gap found."


def cards(report: GapReport) -> list[tuple[str, str, str]]:
    """The verdict's findings: name, value, and what it means."""
    verdict, replay = report.verdict, report.replay
    rows = "the log's rows" if replay else "the simulated rows that the log tells of"
    trusted = "unknown" if math.isnan(verdict.trusted_fraction) else percent(verdict.trusted_fraction)
    meaning = f"of {rows} err by at most {rounded(verdict.trusted_error)} standard deviations of the change"
    found = [("To be trusted", trusted, meaning)]
    if replay is not None:
        note = f"{trust_interval(replay)}, in standard deviations of the logged change"
        found.append(("Mean one-step error", rounded(replay.summary.gap.mean), note))
    elif report.model is not None:
        note = "median, estimated by a model, in standard deviations of the logged change"
        found.append(("One-step error", rounded(report.model.median), note))
    if verdict.worst_dimension is not None:
        found.append(("Worst dimension", verdict.worst_dimension, _worst_error(report)))
    if verdict.best_explanation is not None:
        found.append(("Best explanation", verdict.best_explanation, "the best of what was tried"))
    elif verdict.gap_found and _tried(report):
        found.append(("Best explanation", "none found", "nothing tried explains a fifth of the error"))
    found.append(("Confidence", verdict.confidence, f"from {verdict.reason}"))
    return found


def trust_interval(replay: ReplayEstimate) -> str:
    low, high = float(replay.summary.gap.low), float(replay.summary.gap.high)
    if math.isnan(low):
        return "interval unknown with one episode"
    return f"95% interval {rounded(low)} to {rounded(high)}"


def _worst_error(report: GapReport) -> str:
    name = report.verdict.worst_dimension
    if report.replay is None or name not in report.observation_names:
        return ""
    index = report.observation_names.index(name)
    return f"errs by {span(report.replay.summary.absolute, index)} in the log's units"


def where(region: Region) -> str:
    """The region's bounds, as people write them."""
    return str(region).rsplit(": gap ", 1)[0]


def next_steps(report: GapReport) -> list[Step]:
    """What follows from the verdict, the most useful first."""
    steps = _after_a_gap(report) if report.verdict.gap_found else _without_a_gap(report)
    steps += _surer(report)
    if report.policy is not None and report.policy.low_trust > MUCH:
        steps.append(
            Step(
                "Do not rely on this policy's simulated returns",
                f"It spends {percent(report.policy.low_trust)} of its time where the simulator is not to be "
                "trusted. Train it again with the log, or judge it on the machine, slowly.",
            )
        )
    return steps


def _after_a_gap(report: GapReport) -> list[Step]:
    steps = [_correct(report), *_perhaps_older(report)]
    rare = [
        region for region in report.regions if region.ratio >= WORSE and region.share < RARE and region.bounds
    ]
    if rare:
        steps.append(
            Step(
                "Record more where it matters",
                f"The gap is {rare[0].ratio:.1f} times the median where {where(rare[0])}, yet only "
                f"{percent(rare[0].share)} of the rows lie there. Record more there; the map shows the rest.",
            )
        )
    trusted = report.verdict.trusted_fraction
    steps.append(
        Step(
            "Train with the log and this simulator",
            "Each simulated row is then trusted only as far as its dynamics deserve, so that the simulator "
            "is of use before it is right."
            + (" With so little to be trusted, correct it first." if trusted < USELESS else ""),
            _train_command(report),
        )
    )
    return steps


def _correct(report: GapReport) -> Step:
    """What to do about the simulator itself."""
    explanation = report.verdict.best_explanation
    correction = next((c for c in _corrections(report) if str(c) == explanation), None)
    if correction is not None:
        return Step(
            f"Correct the {correction.kind}, then measure again",
            f"The simulator has {correction.kind} {rounded(correction.present)}, but moves most like the log "
            f"with {rounded(correction.fitted)} (as a shift: {KINDS[correction.kind].meaning}): "
            f"{percent(correction.explained)} of the error goes away. Change it, measure again, and see what "
            "is left.",
        )
    if explanation is not None and explanation.startswith("noise"):
        return Step(
            "Look for noise between the command and the motors",
            "The error looks as if the machine had received other actions than the log says, at random. No "
            "constant corrects that: check the drives, or train with such noise in the simulator.",
        )
    if explanation is not None:
        return Step(
            "Identify the actuators, then measure again",
            "The error looks as if the motors did other than they were told, and in a regular way: check the "
            "dead zone, saturation, lag and gain of each, those with the largest action error first.",
        )
    worst = report.verdict.worst_dimension
    place = f"with {worst}" if worst else "with the worst region below"
    place += ", in the worst episodes below," if report.worst_episodes else ""
    return Step(
        "Find the cause where it is largest",
        ("Nothing tried explains the error. " if _tried(report) else "")
        + f"Begin {place} and compare the simulator's model with the machine there.",
    )


def _perhaps_older(report: GapReport) -> list[Step]:
    """A log cannot be asked which MuJoCo it is of, so that this is said wherever it may apply."""
    built_in = find_built_in(report.simulator)
    if built_in is None or built_in.name not in TASKS:
        return []
    if any(shift.kind == LEGACY_INERTIA for shift in report.shifts):
        return []
    legacy = Shift(LEGACY_INERTIA, 1.0)
    return [
        Step(
            "If the log is one of D4RL's older ones, give the simulator their inertias",
            "D4RL's older logs were recorded with MuJoCo 2.1.0 or earlier, which computed capsules' masses "
            f"and inertias as cylinders': if this log is one of them, measure again with --shift {legacy}.",
            _command(["simtrust", "gap"], report, legacy),
        )
    ]


def _tried(report: GapReport) -> bool:
    """Whether any explanation was tried."""
    return report.replay is not None and bool(report.replay.corrections or report.replay.actuators)


def _corrections(report: GapReport) -> tuple[Correction, ...]:
    return report.replay.corrections if report.replay is not None else ()


def _without_a_gap(report: GapReport) -> list[Step]:
    if math.isnan(report.verdict.trusted_fraction):
        return [
            Step(
                "Record a log that meets the simulator",
                "The simulator's own rollouts never go where the log tells anything. Record the machine from "
                "the states in which the simulator starts, under as varied actions.",
            )
        ]
    return [
        Step(
            "Train with it",
            "Where the log was recorded, the simulator moves as the machine does. Elsewhere nobody looked: "
            "let the log cover what the policy will do, and measure again before it does something new.",
            _train_command(report),
        )
    ]


def _surer(report: GapReport) -> list[Step]:
    """What would make the verdict more certain."""
    steps = []
    if report.replay is None:
        steps.append(
            Step(
                "Make the verdict surer",
                "Give the simulator a method set_observation(observation) that puts it into a logged state. "
                "Then every row of the log is replayed, and no model stands between the two.",
            )
        )
    elif report.replay.summary.episodes < LEAST_EPISODES:
        steps.append(
            Step(
                "Record more episodes",
                f"The intervals rest on {report.replay.summary.episodes:,}, and rows of one episode err "
                f"alike. From {LEAST_EPISODES} on they are worth something.",
            )
        )
    return steps


def _train_command(report: GapReport) -> str:
    return _command(["simtrust", "train", "trust"], report)


def _command(words: Sequence[str], report: GapReport, *besides: Shift) -> str:
    """The command of these words for the report's log and simulator, with its shifts and those besides."""
    words = [*words, "--real", report.dataset.source, "--sim", report.simulator]
    for shift in (*report.shifts, *besides):
        words += ["--shift", str(shift)]
    return shlex.join(words)
