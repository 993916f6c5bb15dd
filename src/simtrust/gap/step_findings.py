"""Findings from a few logged steps beside the simulator's own; see `simtrust.gap.logged_steps`."""

import numpy as np

from simtrust.data.log_findings import NO_REWARDS, Finding, Log, Outcome, Place
from simtrust.gap.logged_steps import LoggedSteps
from simtrust.gap.readings import DEGREES, Change

OPPOSITE, UNRELATED = -0.5, 0.2
FAR = 1.0
"""An error from which on the columns mean something else, and so may all that follows from them."""
CLOSE, UNIT_CORRELATION = 1.25, 0.9
"""How near a factor must be to that of degrees, and how well the changes must follow."""


def columns_otherwise(log: Log, steps: LoggedSteps) -> Outcome:
    """Undone mistakes in signs, units or order halve the error of a replayed step."""
    if not steps.changes:
        return None
    places = [
        Place(detail, column=column) for change in steps.changes for detail, column in _told(log, change)
    ]
    return Finding(
        "warning",
        f"The log fits the simulator {_times(steps)} better if {_joined(steps.changes)}",
        f"From {steps.rows} logged states the simulator was stepped once: the median error falls from"
        f" {steps.error:.2g} to {steps.mended:.2g} standard deviations of the logged change. Wrong dynamics"
        f" alone do not do that.{_mirrored(steps.changes)}",
        "Check sign, unit and order of these columns where the log is recorded, and what the simulator means"
        " by them; mend the one that is wrong.",
        tuple(places),
    )


def _mirrored(changes: tuple[Change, ...]) -> str:
    if all(change.mistake != "opposite" for change in changes):
        return ""
    return " Where left and right are alike, the signs of all other columns together would look the same."


def _times(steps: LoggedSteps) -> str:
    ratio = steps.error / steps.mended if steps.mended > 0 else np.inf
    return f"{ratio:.2g} times" if ratio < 100 else "far"


def _joined(changes: tuple[Change, ...]) -> str:
    words = {
        "opposite": "a sign is turned",
        "swapped": "two columns are swapped",
        "degrees": "degrees are read as such",
        "radians": "radians are read as such",
    }
    return " and ".join(dict.fromkeys(words[change.mistake] for change in changes))


def _told(log: Log, change: Change) -> list[tuple[str, int]]:
    first = 0 if change.kind == "observation" else log.dataset.observation_size
    columns = [first + entry for entry in change.entries]
    if change.mistake == "opposite":
        told = "fits better with the opposite sign: check the sign of the column"
    elif change.mistake == "swapped":
        told = f"fits better in the place of {log.columns[columns[1]].name}: check the order of columns"
        return [(told, columns[0])]
    elif change.mistake == "degrees":
        told = f"fits better divided by {DEGREES:.1f}: degrees for radians?"
    else:
        told = f"fits better times {DEGREES:.1f}: radians for degrees?"
    return [(told, column) for column in columns]


def changes_otherwise(_: Log, steps: LoggedSteps) -> Outcome:
    """Changes that go against the simulator's, or follow them by the factor of degrees; unexplained ones."""
    if steps.changes:
        return None
    places = []
    for i, (correlation, slope) in enumerate(zip(steps.correlation, steps.slope, strict=True)):
        if correlation < OPPOSITE:
            told = f"has the opposite sign (correlation {correlation:.2f}): check the sign of the column"
            places.append((correlation, Place(told, column=i)))
        elif correlation > UNIT_CORRELATION and (found := _unit(slope)):
            places.append((0.0, Place(f"changes {slope:.3g} times as fast: {found}?", column=i)))
    if not places:
        return None
    return Finding(
        "warning",
        f"In {len(places)} dimensions one step's change is the simulator's in another sign or unit",
        f"From {steps.rows} logged states the simulator was stepped once, and its changes compared.",
        "Check sign and unit of these columns in the log and in the simulator.",
        tuple(place for _, place in sorted(places, key=lambda pair: pair[0])),
    )


def _unit(slope: float) -> str:
    for factor, told in ((DEGREES, "degrees for radians"), (1 / DEGREES, "radians for degrees")):
        if factor / CLOSE < slope < factor * CLOSE:
            return told
    return ""


def reward_otherwise(log: Log, steps: LoggedSteps) -> Outcome:
    """The logged reward goes against the simulator's, or has nothing to do with it."""
    if not log.dataset.has_rewards:
        return NO_REWARDS
    correlation = steps.reward_correlation
    if np.isnan(correlation):
        return None
    if correlation < OPPOSITE:
        found = "The reward has the opposite sign of the simulator's"
        remedy = "Check the sign of the reward where the log is recorded, and in the simulator."
    elif abs(correlation) < UNRELATED and steps.mended < FAR:
        found = "The logged reward is another reward than the simulator's"
        remedy = "Compute the log's reward by the simulator's formula, or the simulator's by the log's."
    else:
        return None
    return Finding(
        "warning",
        f"{found} (correlation {correlation:.2f} over {steps.rows} rows)",
        "The critics learn from both. What raises one and lowers the other teaches nothing.",
        remedy,
    )
