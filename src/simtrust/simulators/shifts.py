"""Shifts: how an imperfect simulator is made out of a task, in memory.

A kind of shift either edits the MuJoCo model once, or disturbs every action *inside* the simulator:
the caller's action stays what it was, and the disturbed one is what the task sees, in its dynamics
and in its control cost alike. Nothing here clips a disturbed action; only the model's own control
range does.
"""

# MuJoCo ships no type stubs.
# pyright: reportAttributeAccessIssue=false

import copy
import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from simtrust.errors import ShiftError

ModelEdit = Callable[[mujoco.MjModel, float], None]
Disturbance = Callable[[float, np.ndarray, Sequence[np.random.Generator], int], np.ndarray]


@dataclass(frozen=True)
class Kind:
    """One kind of shift: its meaning, the amount that changes nothing, and what it does."""

    meaning: str
    neutral: float
    edit_model: ModelEdit | None = None
    disturb: Disturbance | None = None
    scales_friction: bool = False


def _scale_gravity(model: mujoco.MjModel, factor: float) -> None:
    model.opt.gravity *= factor


def _scale_friction(model: mujoco.MjModel, factor: float) -> None:
    model.geom_friction *= factor


def _scale_floor_friction(model: mujoco.MjModel, factor: float) -> None:
    model.geom_friction[floor_geoms(model)] *= factor


def _noise(scale: float, x_velocity: np.ndarray, generators: Sequence, action_size: int) -> np.ndarray:
    """``N(0, scale²)`` for every action dimension, ``[S, A]``, each row from its instance's generator."""
    return scale * np.stack([generator.standard_normal(action_size) for generator in generators])


def _offset(scale: float, x_velocity: np.ndarray, generators: Sequence, action_size: int) -> np.ndarray:
    """``scale · x-velocity``, ``[S, 1]``, the same for every action dimension."""
    return scale * x_velocity[:, None]


KINDS = {
    "gravity": Kind("multiply gravity", 1.0, edit_model=_scale_gravity),
    "friction": Kind(
        "multiply all friction coefficients of all geoms",
        1.0,
        edit_model=_scale_friction,
        scales_friction=True,
    ),
    "floor-friction": Kind(
        "multiply all friction coefficients of the floor only",
        1.0,
        edit_model=_scale_floor_friction,
        scales_friction=True,
    ),
    "joint-noise": Kind(
        "standard deviation of the normal noise added to every action dimension",
        0.0,
        disturb=_noise,
    ),
    "velocity-offset": Kind(
        "offset added to every action dimension, per unit of x-velocity before the step",
        0.0,
        disturb=_offset,
    ),
}


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


def _did_you_mean(kind: str) -> str:
    close = difflib.get_close_matches(kind.lower(), KINDS, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _list_of_kinds() -> str:
    return "the kinds are " + "; ".join(f"{name}=NUMBER: {kind.meaning}" for name, kind in KINDS.items())


def shifted_model(model: mujoco.MjModel, shifts: Sequence[Shift], task_name: str) -> mujoco.MjModel:
    """A copy of the model with every model-editing shift applied; the given model is left alone.

    Raises:
        ShiftError: a shift would change nothing in this model; the message gives the numbers.
    """
    # mj_setConst is not needed: no derived constant depends on gravity or friction.
    model = copy.copy(model)
    for shift in shifts:
        kind = KINDS[shift.kind]
        if kind.edit_model is None:
            continue
        before = copy.copy(model)
        kind.edit_model(model, shift.amount)
        if kind.scales_friction:
            _check_friction_changed(before, model, shift, task_name)
        elif np.array_equal(before.opt.gravity, model.opt.gravity):
            raise ShiftError(f"shift {shift} changes nothing in {task_name}, which has no gravity")
    return model


def noise_generator(seed: int | None) -> np.random.Generator:
    """The generator of an instance's action noise, a stream apart from its reset noise.

    Shifted and unshifted instances of one seed thus start every episode in the same states.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))


def disturbed_actions(
    actions: np.ndarray,
    shifts: Sequence[Shift],
    x_velocity: np.ndarray,
    generators: Sequence[np.random.Generator],
) -> np.ndarray:
    """What the simulator receives in place of the actions ``[S, A]``, as float64 if anything is added.

    Args:
        actions: ``[S, A]``, as passed by the caller; not modified.
        shifts: those that disturb actions are added up in order, the others ignored.
        x_velocity: ``[S]``, m/s, before the step.
        generators: one per instance; noise advances each by A normals per step.
    """
    for shift in shifts:
        disturb = KINDS[shift.kind].disturb
        if disturb is not None:
            actions = actions + disturb(shift.amount, x_velocity, generators, actions.shape[1])
    return actions


def floor_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Indices of the geoms that make up the floor: planes and height fields fixed to the world."""
    fixed = model.body_weldid[model.geom_bodyid] == 0
    types = [int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD)]
    return np.flatnonzero(fixed & np.isin(model.geom_type, types))


def supporting_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Indices of the geoms of the end bodies: feet, wheels, whatever closes a kinematic chain.

    The robot moves by these. Its trunk touches the floor too, but in most tasks only as it falls.
    """
    end_bodies = np.setdiff1d(np.arange(1, model.nbody), model.body_parentid)
    return np.flatnonzero(np.isin(model.geom_bodyid, end_bodies))


def contact_friction(model: mujoco.MjModel, first: int, second: int) -> np.ndarray | None:
    """The friction coefficients that a contact of two geoms uses, or None if they never collide.

    Up to five: sliding (two), torsional, rolling (two); as many as the contact's dimension less one.
    The geom of higher priority decides; at equal priority MuJoCo takes the larger of both in each
    coefficient. An explicit contact pair has coefficients of its own.
    """
    for pair in range(model.npair):
        if {int(model.pair_geom1[pair]), int(model.pair_geom2[pair])} == {first, second}:
            return model.pair_friction[pair, : model.pair_dim[pair] - 1].copy()
    if not _may_collide(model, first, second):
        return None
    priority = model.geom_priority[[first, second]]
    deciding = np.array([first, second])[priority == priority.max()]
    dimension = model.geom_condim[deciding].max()
    return np.repeat(model.geom_friction[deciding].max(axis=0), [2, 1, 2])[: dimension - 1]


def _may_collide(model: mujoco.MjModel, first: int, second: int) -> bool:
    bodies = sorted((int(model.geom_bodyid[first]), int(model.geom_bodyid[second])))
    if (bodies[0] << 16) + bodies[1] in model.exclude_signature:
        return False
    types, affinities = model.geom_contype, model.geom_conaffinity
    return bool(types[first] & affinities[second] or types[second] & affinities[first])


def _check_friction_changed(
    before: mujoco.MjModel, after: mujoco.MjModel, shift: Shift, task_name: str
) -> None:
    """Refuse a friction shift under which every foot meets the floor with the friction it had."""
    unchanged = []
    for floor in floor_geoms(before):
        for geom in supporting_geoms(before):
            old, new = (contact_friction(model, int(geom), int(floor)) for model in (before, after))
            if old is None or new is None:
                continue
            if not np.array_equal(old, new):
                return
            unchanged.append(_explain_unchanged(before, after, int(geom), int(floor)))
    reason = "; ".join(unchanged) or "no end body of the robot can touch a floor"
    raise ShiftError(
        f"shift {shift} changes nothing in {task_name}: in a contact MuJoCo uses the larger friction of the "
        f"two geoms (unless one has priority), as far as the contact's dimension reaches. {reason}"
    )


def _explain_unchanged(before: mujoco.MjModel, after: mujoco.MjModel, geom: int, floor: int) -> str:
    names = [before.geom(index).name or f"geom {index}" for index in (geom, floor)]
    scaled = [
        f"{name} {before.geom_friction[index, 0]:g} -> {after.geom_friction[index, 0]:g}"
        for name, index in zip(names, (geom, floor), strict=True)
    ]
    contact = contact_friction(before, geom, floor)
    sliding = f"{contact[0]:g}" if contact is not None and contact.size else "no friction"
    return f"{', '.join(scaled)}: contact before and after {sliding}"
