"""A small real log made on the spot, so that nothing has to be downloaded to begin."""

import os
from importlib.metadata import version
from pathlib import Path

import gymnasium
import numpy as np

from simtrust.data.formats import save_dataset
from simtrust.errors import ConfigError

ENV_ID = "Pendulum-v1"
BEHAVIOUR = "energy swing-up, PD near the top, Gaussian exploration noise (sd 0.5 N m), clipped"
NOISE = 0.5


def generate_pendulum_log(path: str | os.PathLike[str], *, rows: int = 20_000, seed: int = 0) -> Path:
    """Records a simple controller on Gymnasium's Pendulum-v1 as D4RL HDF5, with its provenance.

    The same seed gives the same rows. Pendulum never terminates; its 200-step limit is stored as
    timeouts. Raises ConfigError if ``rows`` is below 1 or ``seed`` below 0.
    """
    if rows < 1:
        raise ConfigError(f"rows: {rows} is below 1")
    if seed < 0:
        raise ConfigError(f"seed: {seed} is below 0")
    metadata = {
        "env_id": ENV_ID,
        "behaviour": BEHAVIOUR,
        "seed": seed,
        **{f"{package}_version": version(package) for package in ("gymnasium", "numpy", "h5py")},
    }
    return save_dataset(path, _record(rows, seed), metadata=metadata)


def _record(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Arrays by D4RL key: observations [rows, 3], actions [rows, 1], and so on."""
    arrays = {
        "observations": np.empty((rows, 3), np.float32),
        "actions": np.empty((rows, 1), np.float32),
        "rewards": np.empty(rows, np.float32),
        "next_observations": np.empty((rows, 3), np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.zeros(rows, bool),
    }
    random = np.random.default_rng(seed)
    env = gymnasium.make(ENV_ID, disable_env_checker=True)
    assert isinstance(env.action_space, gymnasium.spaces.Box)
    low, high = env.action_space.low, env.action_space.high
    observation, _ = env.reset(seed=seed)
    for row in range(rows):
        torque = swing_up_torque(*observation.tolist()) + NOISE * random.standard_normal()
        action = np.clip(np.array([torque], np.float32), low, high)
        next_observation, reward, terminated, truncated, _ = env.step(action)
        values = (observation, action, reward, next_observation, terminated, truncated)
        for array, value in zip(arrays.values(), values, strict=True):
            array[row] = value
        observation = env.reset()[0] if terminated or truncated else next_observation
    env.close()
    return arrays


def swing_up_torque(cosine: float, sine: float, velocity: float) -> float:
    """A torque (N m, unclipped) that swings Pendulum-v1 up and holds it there.

    Angle 0 is upright. Per unit of inertia the energy is E = velocity²/2 + 15 cosine, 15 at rest on
    top, and dE/dt = 3 · torque · velocity: a torque along (15 - E) · velocity drives E to 15.
    """
    if cosine > 0.9:
        return -10.0 * float(np.arctan2(sine, cosine)) - 2.0 * velocity
    energy = velocity**2 / 2 + 15.0 * cosine
    return (15.0 - energy) * velocity
