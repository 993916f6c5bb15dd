"""What tells one of Gymnasium's locomotion tasks from another: a handful of functions on arrays.

Formulas and constants are those of Gymnasium's v5 tasks (gymnasium.farama.org/environments/mujoco).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

VELOCITY_CLIP = 10.0
"""Walker2d and Hopper observe no velocity beyond this, in m/s and rad/s."""


class States(NamedTuple):
    """Physical states that observations tell; what the dynamics do not depend on is 0."""

    position: np.ndarray  # [N, nq] float64
    velocity: np.ndarray  # [N, nv] float64
    determined: np.ndarray  # [N] bool; False where other states would have been observed alike


class Physics(NamedTuple):
    """Live arrays over all instances; positions and velocities change with every step."""

    position: np.ndarray  # [S, nq]
    velocity: np.ndarray  # [S, nv]
    body_position: np.ndarray  # [S, nbody, 3], one substep behind, as after mj_step
    contact_force: np.ndarray  # [S, nbody, 6], clipped to ±1; zeros where the task reads none


def uniform_noise(generator: np.random.Generator, scale: float, size: int) -> np.ndarray:
    """Start noise [size], uniform in ±scale."""
    return generator.uniform(low=-scale, high=scale, size=size)


def _normal(generator: np.random.Generator, scale: float, size: int) -> np.ndarray:
    return scale * generator.standard_normal(size)


def _root_x(physics: Physics) -> np.ndarray:
    return physics.position[:, 0]


def _torso_x(physics: Physics) -> np.ndarray:
    return physics.body_position[:, 1, 0]


def _posture_and_velocity(physics: Physics) -> np.ndarray:
    return np.concatenate((physics.position[:, 1:], physics.velocity), axis=1)


def _posture_and_clipped_velocity(physics: Physics) -> np.ndarray:
    velocity = physics.velocity.clip(-VELOCITY_CLIP, VELOCITY_CLIP)
    return np.concatenate((physics.position[:, 1:], velocity), axis=1)


def _posture_velocity_and_contacts(physics: Physics) -> np.ndarray:
    contacts = physics.contact_force[:, 1:].reshape(len(physics.position), -1)
    return np.concatenate((physics.position[:, 2:], physics.velocity, contacts), axis=1)


def _states(observations: np.ndarray, unobserved: int, posture: int, degrees: int) -> States:
    """States of observations that hold a posture, then velocities; the first positions go unobserved."""
    observations = np.asarray(observations, np.float64)
    positions = np.zeros((len(observations), unobserved + posture))
    positions[:, unobserved:] = observations[:, :posture]
    velocities = observations[:, posture : posture + degrees].copy()
    return States(positions, velocities, np.ones(len(observations), bool))


def _planar_states(observations: np.ndarray) -> States:
    degrees = (observations.shape[1] + 1) // 2
    return _states(observations, 1, degrees - 1, degrees)


def _planar_states_within_clip(observations: np.ndarray) -> States:
    states = _planar_states(observations)
    return states._replace(determined=(np.abs(states.velocity) < VELOCITY_CLIP).all(axis=1))


def _ant_states(observations: np.ndarray) -> States:
    """Contact forces follow from a step; a quaternion far from unit length is no orientation."""
    states = _states(observations, 2, 13, 14)
    length = np.linalg.norm(states.position[:, 3:7], axis=1)
    # MuJoCo normalises; Gymnasium's own start states are up to a tenth off.
    return states._replace(determined=np.abs(length - 1.0) < 0.5)


def _between(low: float, values: np.ndarray, high: float) -> np.ndarray:
    return (low < values) & (values < high)


def _walker_healthy(physics: Physics) -> np.ndarray:
    height, angle = physics.position[:, 1], physics.position[:, 2]
    return _between(0.8, height, 2.0) & _between(-1.0, angle, 1.0)


def _hopper_healthy(physics: Physics) -> np.ndarray:
    height, angle = physics.position[:, 1], physics.position[:, 2]
    upright = _between(0.7, height, np.inf) & _between(-0.2, angle, 0.2)
    bounded = _between(-100.0, physics.position[:, 2:], 100.0).all(axis=1)
    return upright & bounded & _between(-100.0, physics.velocity, 100.0).all(axis=1)


def _ant_healthy(physics: Physics) -> np.ndarray:
    height = physics.position[:, 2]
    finite = np.isfinite(physics.position).all(axis=1) & np.isfinite(physics.velocity).all(axis=1)
    return finite & (height >= 0.2) & (height <= 1.0)


def _planar_names(joints: tuple[str, ...]) -> tuple[str, ...]:
    return (
        "torso height (m)",
        "torso angle (rad)",
        *(f"{joint} angle (rad)" for joint in joints),
        "x-velocity (m/s)",
        "z-velocity (m/s)",
        "torso angular velocity (rad/s)",
        *(f"{joint} angular velocity (rad/s)" for joint in joints),
    )


def _torque_names(joints: tuple[str, ...]) -> tuple[str, ...]:
    # Gymnasium's tables say N m, but these numbers in ±1 are still to be multiplied by the motor's gear.
    return tuple(f"{joint} torque (of maximum)" for joint in joints)


def _ant_names() -> tuple[str, ...]:
    sides = ("front left", "front right", "back left", "back right")
    joints = [f"{side} {joint}" for side in sides for joint in ("hip", "ankle")]
    bodies = ["torso", *(f"{side} {link}" for side in sides for link in ("leg", "hip link", "ankle link"))]
    # MuJoCo's order; Gymnasium's text has it the other way round.
    contacts = [
        f"contact {kind} {axis} ({unit}, clipped)"
        for kind, unit in (("torque", "N m"), ("force", "N"))
        for axis in "xyz"
    ]
    return (
        "torso height (m)",
        *(f"torso orientation {part} (quaternion)" for part in "wxyz"),
        *(f"{joint} angle (rad)" for joint in joints),
        *(f"{axis}-velocity (m/s)" for axis in "xyz"),
        *(f"torso angular velocity {axis} (rad/s)" for axis in "xyz"),
        *(f"{joint} angular velocity (rad/s)" for joint in joints),
        *(f"{body} {contact}" for body in bodies for contact in contacts),
    )


@dataclass(frozen=True)
class TaskSpec:
    """All that tells one task from another.

    ``reward = x-velocity + healthy − control_weight·|a|² − contact_weight·|contact forces|²``, where
    the middle term is absent without ``healthy``; an episode terminates when not healthy.
    """

    name: str
    model_file: str
    frame_skip: int
    control_weight: float
    reset_scale: float
    velocity_noise: Callable[[np.random.Generator, float, int], np.ndarray]
    observe: Callable[[Physics], np.ndarray]
    state_of: Callable[[np.ndarray], States]
    """The states behind observations ``[N, O]``."""
    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]
    x_position: Callable[[Physics], np.ndarray] = _root_x
    healthy: Callable[[Physics], np.ndarray] | None = None
    contact_weight: float | None = None


_CHEETAH_JOINTS = tuple(
    f"{side} {joint}" for side in ("back", "front") for joint in ("thigh", "shin", "foot")
)
_HOPPER_JOINTS = ("thigh", "leg", "foot")
_WALKER_JOINTS = (*_HOPPER_JOINTS, *(f"left {joint}" for joint in _HOPPER_JOINTS))
_ANT_MOTORS = tuple(
    f"{side} {joint}"
    for side in ("back right", "front left", "front right", "back left")
    for joint in ("hip", "ankle")
)

_SPECS = (
    TaskSpec(
        name="HalfCheetah-v5",
        model_file="half_cheetah.xml",
        frame_skip=5,
        control_weight=0.1,
        reset_scale=0.1,
        velocity_noise=_normal,
        observe=_posture_and_velocity,
        state_of=_planar_states,
        observation_names=_planar_names(_CHEETAH_JOINTS),
        action_names=_torque_names(_CHEETAH_JOINTS),
    ),
    TaskSpec(
        name="Walker2d-v5",
        model_file="walker2d_v5.xml",
        frame_skip=4,
        control_weight=1e-3,
        reset_scale=5e-3,
        velocity_noise=uniform_noise,
        observe=_posture_and_clipped_velocity,
        state_of=_planar_states_within_clip,
        observation_names=_planar_names(_WALKER_JOINTS),
        action_names=_torque_names(_WALKER_JOINTS),
        healthy=_walker_healthy,
    ),
    TaskSpec(
        name="Hopper-v5",
        model_file="hopper.xml",
        frame_skip=4,
        control_weight=1e-3,
        reset_scale=5e-3,
        velocity_noise=uniform_noise,
        observe=_posture_and_clipped_velocity,
        state_of=_planar_states_within_clip,
        observation_names=_planar_names(_HOPPER_JOINTS),
        action_names=_torque_names(_HOPPER_JOINTS),
        healthy=_hopper_healthy,
    ),
    TaskSpec(
        name="Ant-v5",
        model_file="ant.xml",
        frame_skip=5,
        control_weight=0.5,
        reset_scale=0.1,
        velocity_noise=_normal,
        observe=_posture_velocity_and_contacts,
        state_of=_ant_states,
        observation_names=_ant_names(),
        action_names=_torque_names(_ANT_MOTORS),
        x_position=_torso_x,
        healthy=_ant_healthy,
        contact_weight=5e-4,
    ),
)
TASKS = {spec.name: spec for spec in _SPECS}
