"""What tells one of Gymnasium's locomotion tasks from another: a handful of functions on arrays.

Formulas and constants are those of Gymnasium's v5 tasks (gymnasium.farama.org/environments/mujoco).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


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
    return np.concatenate((physics.position[:, 1:], physics.velocity.clip(-10, 10)), axis=1)


def _posture_velocity_and_contacts(physics: Physics) -> np.ndarray:
    contacts = physics.contact_force[:, 1:].reshape(len(physics.position), -1)
    return np.concatenate((physics.position[:, 2:], physics.velocity, contacts), axis=1)


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
    x_position: Callable[[Physics], np.ndarray] = _root_x
    healthy: Callable[[Physics], np.ndarray] | None = None
    contact_weight: float | None = None


_SPECS = (
    TaskSpec(
        name="HalfCheetah-v5",
        model_file="half_cheetah.xml",
        frame_skip=5,
        control_weight=0.1,
        reset_scale=0.1,
        velocity_noise=_normal,
        observe=_posture_and_velocity,
    ),
    TaskSpec(
        name="Walker2d-v5",
        model_file="walker2d_v5.xml",
        frame_skip=4,
        control_weight=1e-3,
        reset_scale=5e-3,
        velocity_noise=uniform_noise,
        observe=_posture_and_clipped_velocity,
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
        x_position=_torso_x,
        healthy=_ant_healthy,
        contact_weight=5e-4,
    ),
)
TASKS = {spec.name: spec for spec in _SPECS}
