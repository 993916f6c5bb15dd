"""What checks of a run read, and what they may find."""

from typing import NamedTuple

from simtrust.reports.run_record import Curves, FinalReturns


class Evidence(NamedTuple):
    """What the checks read."""

    curves: Curves
    final: FinalReturns | None
    value_bound: float | None
    """``max |r| / (1 − γ)`` over the log's rewards, as the critics see them; None if unknown."""
    target_entropy: float
    """What the temperature is tuned to."""
    bound_unknown: str = ""
    """Why ``value_bound`` is not known, if it is not."""
    recipe: str = ""
    """What was trained, so that no remedy is to train just that."""
    reality_unknown: str = ""
    """Why the final returns say nothing about the real machine, if so."""


class Concern(NamedTuple):
    """What a check found: the numbers, what they mean, and what to try."""

    found: str
    meaning: str
    remedy: str


class NotChecked(NamedTuple):
    """Why a check could not be made."""

    reason: str


NOT_RECORDED = NotChecked("this run has no such metric")
NOT_EVALUATED = NotChecked("the run was never evaluated")
JUDGED_IN_SIMULATOR = "judged in the simulator itself: nothing is known about the machine"
"""Of a run without an environment besides its simulator."""
