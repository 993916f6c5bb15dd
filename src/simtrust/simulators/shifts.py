"""Shifts: how an imperfect simulator is made out of a task, in memory, by name and amount.

What each does: `simtrust.simulators.model_edits` edits the MuJoCo model once,
`simtrust.simulators.legacy_inertia` gives its bodies the inertias of older versions of MuJoCo,
`simtrust.simulators.actuation` stands between the action and the joints at every step, and the
wheel-legged robot's sensors and floor are its own (`simtrust.simulators.wheel_legged`).
"""

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from simtrust.errors import ShiftError


@dataclass(frozen=True)
class Kind:
    """One kind of shift: its meaning, the amount that changes nothing, and who can have it."""

    meaning: str
    neutral: float
    robot_only: bool = False


LEGACY_INERTIA = "legacy-inertia"
KINDS = {
    "gravity": Kind("multiply gravity", 1.0),
    "friction": Kind("multiply all friction coefficients of all geoms", 1.0),
    "floor-friction": Kind("multiply all friction coefficients of the floor only", 1.0),
    "mass": Kind("multiply the masses and inertias of all bodies", 1.0),
    "centre-of-mass": Kind("metres by which the trunk's centre of mass lies further forward", 0.0),
    LEGACY_INERTIA: Kind(
        "with 1, capsules have the masses and inertias of cylinders, as in MuJoCo before 2.1.1", 0.0
    ),
    "static-friction": Kind("dry friction added to every driven joint, N m", 0.0),
    "viscous-friction": Kind("damping added to every driven joint, N m s/rad", 0.0),
    "joint-noise": Kind("standard deviation of the normal noise added to every action dimension", 0.0),
    "velocity-offset": Kind(
        "offset added to every action dimension, per unit of x-velocity before the step", 0.0
    ),
    "delay": Kind("control steps that an action takes to reach the motors", 0.0),
    "battery": Kind("share of every action that an empty battery loses; charge drawn every episode", 0.0),
    "dead-zone": Kind("action below which a motor does nothing, and by which all is lessened", 0.0),
    "uneven-floor": Kind("share by which sliding friction varies along the way", 0.0, robot_only=True),
    "sensor-noise": Kind("multiple of the noise of the robot's inertial sensors", 0.0, robot_only=True),
    "encoder-step": Kind("radians between two counts of the wheel encoder", 0.0, robot_only=True),
}
_SHARES = ("battery", "uneven-floor")


@dataclass(frozen=True)
class Shift:
    """One shift, such as ``Shift("gravity", 2.0)``; ``str()`` gives back ``gravity=2.0``.

    Raises:
        ShiftError: the kind is unknown, or the amount is not finite, negative, or changes nothing.
    """

    kind: str
    amount: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ShiftError(f"unknown shift {self.kind!r}{_did_you_mean(self.kind)}; {_list_of_kinds()}")
        if not math.isfinite(self.amount) or self.amount < 0:
            raise ShiftError(f"shift {self}: the amount must be a finite number of at least 0")
        neutral = KINDS[self.kind].neutral
        if self.amount == neutral:
            reason = "it multiplies by 1" if neutral == 1 else "it adds 0"
            raise ShiftError(f"shift {self} changes nothing, because {reason}; leave it out")
        if self.kind == "delay" and self.amount != int(self.amount):
            raise ShiftError(f"shift {self}: a delay is a whole number of control steps")
        if self.kind in _SHARES and self.amount > 1:
            raise ShiftError(f"shift {self}: the amount is a share, at most 1")
        if self.kind == LEGACY_INERTIA and self.amount != 1:
            raise ShiftError(f"shift {self}: there is nothing between; give 1, or leave it out")

    def __str__(self) -> str:
        return f"{self.kind}={self.amount}"


def parse_shifts(texts: Iterable[str]) -> tuple[Shift, ...]:
    """Shifts from texts such as ``["gravity=2.0", "joint-noise=1.0"]``, in the order given.

    Raises:
        ShiftError: a text is not ``kind=number``, or a kind is given twice, or see `Shift`.
    """
    shifts = tuple(_parse_shift(text) for text in texts)
    check_distinct(shifts)
    return shifts


def _parse_shift(text: str) -> Shift:
    kind, separator, amount = text.partition("=")
    if not separator:
        raise ShiftError(f"shift {text!r} is not of the form kind=number; {_list_of_kinds()}")
    kind = kind.strip()
    try:
        number = float(amount)
    except ValueError:
        raise ShiftError(f"shift {text!r}: {amount!r} is not a number") from None
    return Shift(kind, number)


def check_distinct(shifts: Sequence[Shift]) -> None:
    """Raise `ShiftError` if a kind occurs twice: whether to add or to multiply would be a guess."""
    kinds = [shift.kind for shift in shifts]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ShiftError(f"shift {kind!r} is given {kinds.count(kind)} times; give one amount")


def refuse_robot_only(shifts: Sequence[Shift], task_name: str) -> None:
    """Raise `ShiftError` if a shift is of the wheel-legged robot's sensors or floor."""
    for shift in shifts:
        if KINDS[shift.kind].robot_only:
            raise ShiftError(f"shift {shift} is for the wheel-legged robot only, not for {task_name}")


def _did_you_mean(kind: str) -> str:
    close = difflib.get_close_matches(kind.lower(), KINDS, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _list_of_kinds() -> str:
    return "the kinds are " + "; ".join(f"{name}=NUMBER: {kind.meaning}" for name, kind in KINDS.items())
