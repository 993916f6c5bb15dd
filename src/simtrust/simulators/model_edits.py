"""Shifts that edit a MuJoCo model, in memory; and whether a change of friction changes anything."""

# MuJoCo ships no type stubs.
# pyright: reportAttributeAccessIssue=false

import copy
from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from simtrust.errors import ShiftError
from simtrust.simulators.shifts import Shift

ModelEdit = Callable[[mujoco.MjModel, float], None]


def _scale_gravity(model: mujoco.MjModel, factor: float) -> None:
    model.opt.gravity *= factor


def _scale_friction(model: mujoco.MjModel, factor: float) -> None:
    model.geom_friction *= factor


def _scale_floor_friction(model: mujoco.MjModel, factor: float) -> None:
    model.geom_friction[floor_geoms(model)] *= factor


def _scale_mass(model: mujoco.MjModel, factor: float) -> None:
    model.body_mass *= factor
    model.body_inertia *= factor


def _shift_centre_of_mass(model: mujoco.MjModel, forward: float) -> None:
    model.body_ipos[_TRUNK, 0] += forward


def _add_dry_friction(model: mujoco.MjModel, torque: float) -> None:
    model.dof_frictionloss[_driven_dofs(model)] += torque


def _add_viscous_friction(model: mujoco.MjModel, coefficient: float) -> None:
    model.dof_damping[_driven_dofs(model)] += coefficient


def _driven_dofs(model: mujoco.MjModel) -> np.ndarray:
    """Degrees of freedom with a motor: those of the joints that actuators act on."""
    return model.jnt_dofadr[model.actuator_trnid[:, 0]]


_TRUNK = 1
EDITS: dict[str, ModelEdit] = {
    "gravity": _scale_gravity,
    "friction": _scale_friction,
    "floor-friction": _scale_floor_friction,
    "mass": _scale_mass,
    "centre-of-mass": _shift_centre_of_mass,
    "static-friction": _add_dry_friction,
    "viscous-friction": _add_viscous_friction,
}
_OF_CONTACTS = ("friction", "floor-friction")
_OF_MASSES = ("mass", "centre-of-mass")


def shifted_model(model: mujoco.MjModel, shifts: Sequence[Shift], task_name: str) -> mujoco.MjModel:
    """A copy of the model with every model-editing shift applied; the given model is left alone.

    Raises:
        ShiftError: a shift would change nothing in this model; the message gives the numbers.
    """
    model = copy.copy(model)
    for shift in shifts:
        if shift.kind not in EDITS:
            continue
        before = copy.copy(model)
        EDITS[shift.kind](model, shift.amount)
        if shift.kind in _OF_CONTACTS:
            _check_friction_changed(before, model, shift, task_name)
        elif shift.kind == "gravity" and np.array_equal(before.opt.gravity, model.opt.gravity):
            raise ShiftError(f"shift {shift} changes nothing in {task_name}, which has no gravity")
    if any(shift.kind in _OF_MASSES for shift in shifts):
        # The constants that MuJoCo derives from masses when it compiles a model.
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


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
