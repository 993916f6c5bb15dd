"""Masses and inertias of capsules as MuJoCo computed them before version 2.1.1.

Where a body's mass and inertia come from its geoms, those versions took a capsule for a cylinder: its
middle, longer by half the radius at both ends. Since 2.1.1 (December 2021) both are exact (MuJoCo's
changelog, 2.1.1, "Computed capsule inertias are now exact"). Logs of MuJoCo 2.1.0 and before, such as
D4RL's of Gym's v2 tasks, are of such bodies. With the old rule, today's files give the masses that the v2
tasks are known to have had, such as 6.36031332 kg for HalfCheetah's torso, now 6.25020921 kg.

Nothing else of the old tasks is restored: Walker2d-v2's right foot, for one, had friction 0.9, and not
the 1.9 of Walker2d-v5 (Farama-Foundation/Gymnasium, issue 477).
"""

# MuJoCo ships no type stubs.
# pyright: reportAttributeAccessIssue=false

import copy
from pathlib import Path

import mujoco
import numpy as np

from simtrust.errors import ShiftError
from simtrust.simulators.model_files import load_edited_model_file
from simtrust.simulators.shifts import LEGACY_INERTIA

_MASS_PROPERTIES = ("body_mass", "body_inertia", "body_ipos", "body_iquat")


def with_legacy_inertia(model: mujoco.MjModel, file: Path, task_name: str) -> mujoco.MjModel:
    """A copy of the model with the old masses and inertias of its bodies; it still collides as capsules.

    MuJoCo itself computes them, from the model with its capsules replaced by the cylinders, so that a
    prescribed total mass is kept, and bodies with explicit inertias are as they were.

    Args:
        model: as compiled from the file; not modified.
        file: the XML file.
        task_name: what errors call the task.

    Raises:
        ShiftError: this would change nothing.
        SimulatorError: the file cannot be loaded.
    """
    old = load_edited_model_file(file, task_name, capsules_to_cylinders)
    if all(np.array_equal(getattr(model, name), getattr(old, name)) for name in _MASS_PROPERTIES[:2]):
        raise ShiftError(
            f"shift {LEGACY_INERTIA} changes nothing in {task_name}: no body of it has its mass or inertia "
            "from a capsule; leave it out"
        )
    model = copy.copy(model)
    for name in _MASS_PROPERTIES:
        getattr(model, name)[:] = getattr(old, name)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def capsules_to_cylinders(specification: mujoco.MjSpec) -> None:
    """Replace every capsule by the cylinder for which MuJoCo before 2.1.1 took it, in place.

    A capsule of radius r whose middle is 2h long becomes a cylinder of radius r and length 2h + r.
    """
    for geom in specification.geoms:
        if geom.type != mujoco.mjtGeom.mjGEOM_CAPSULE:
            continue
        geom.type = mujoco.mjtGeom.mjGEOM_CYLINDER
        added = geom.size[0] / 2
        if np.isnan(geom.fromto[0]):
            geom.size[1] += added
            continue
        start, end = geom.fromto[:3], geom.fromto[3:]
        beyond = added * (end - start) / np.linalg.norm(end - start)
        geom.fromto = np.concatenate((start - beyond, end + beyond))
