"""The border between the machine's units and the algorithms' units.

Inside, actions span [-1, 1], rewards may be scaled, and observations may be standardised by the log.
Everything crosses here: the log and the simulator's transitions on their way in, actions on their way
out. So no network needs to know, and a bundle of this and the actor is the whole policy.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from simtrust.errors import ConfigError
from simtrust.types import Transitions

VALUE_GOAL = 100.0
"""`reward_scale="auto"` aims at action-values of this magnitude."""


@dataclass(frozen=True)
class Scaling:
    """Affine maps between the two unit systems; plain tuples, so that they print and store as JSON."""

    observation_mean: tuple[float, ...]
    observation_std: tuple[float, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    reward_scale: float = 1.0

    def observe(self, observation: np.ndarray) -> np.ndarray:
        """Machine observations [..., O] as the networks read them, float32."""
        mean, std = np.asarray(self.observation_mean), np.asarray(self.observation_std)
        return ((observation - mean) / std).astype(np.float32)

    def to_unit_action(self, action: np.ndarray) -> np.ndarray:
        """Machine actions [..., A] as numbers in [-1, 1], float32."""
        low, high = np.asarray(self.action_low), np.asarray(self.action_high)
        return (2.0 * (action - low) / (high - low) - 1.0).astype(np.float32)

    def to_machine_action(self, action: np.ndarray) -> np.ndarray:
        """Numbers in [-1, 1] [..., A] as actions of the machine, float32, never outside its bounds."""
        low, high = np.asarray(self.action_low), np.asarray(self.action_high)
        scaled = (low + (action.astype(np.float64) + 1.0) * 0.5 * (high - low)).astype(np.float32)
        return np.clip(scaled, _inwards(low, np.less), _inwards(high, np.greater))

    def transitions(self, machine: Transitions[np.ndarray]) -> Transitions[np.ndarray]:
        """Transitions in the machine's units as the algorithms read them."""
        return Transitions(
            self.observe(machine.observation),
            self.to_unit_action(machine.action),
            (machine.reward * self.reward_scale).astype(np.float32),
            self.observe(machine.next_observation),
            machine.terminated.astype(np.float32),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Scaling":
        """What `to_json` gave; ValueError, KeyError or TypeError for anything that cannot be scaled by."""
        vectors = {k: tuple(float(x) for x in v) for k, v in stored.items() if k != "reward_scale"}
        scaling = cls(**vectors, reward_scale=float(stored["reward_scale"]))
        sizes = (len(scaling.observation_mean), len(scaling.action_low))
        if (len(scaling.observation_std), len(scaling.action_high)) != sizes or not min(sizes):
            raise ValueError("scaling has vectors of unequal lengths")
        numbers = np.array([*scaling.observation_mean, *scaling.action_low, *scaling.action_high])
        positive = np.array([*scaling.observation_std, scaling.reward_scale])
        if not (np.isfinite(numbers).all() and np.isfinite(positive).all() and (positive > 0).all()):
            raise ValueError("scaling is not finite, or divides by nothing")
        if not (np.array(scaling.action_low) < scaling.action_high).all():
            raise ValueError("scaling has action_low above action_high")
        return scaling


def _inwards(bound: np.ndarray, outside: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """The float32 nearest to a float64 bound that is not outside of it."""
    nearest = bound.astype(np.float32)
    towards = np.inf if outside is np.less else -np.inf
    return np.where(outside(nearest, bound), np.nextafter(nearest, np.float32(towards)), nearest)


def make_scaling(
    log: Transitions[np.ndarray] | None,
    action_low: np.ndarray,
    action_high: np.ndarray,
    observation_size: int,
    *,
    normalise_observations: bool,
    reward_scale: float | Literal["auto"],
    discount: float,
) -> Scaling:
    """The scaling for a log [T rows] and the bounds [A] of the machine's actions.

    Constant dimensions keep their unit, since dividing by nothing would blow up their noise.
    `reward_scale="auto"` brings ``mean |r| / (1 − γ)`` to `VALUE_GOAL`.
    """
    mean, std = np.zeros(observation_size), np.ones(observation_size)
    if log is None and (normalise_observations or reward_scale == "auto"):
        raise ConfigError("--normalise-observations and --reward-scale auto need a log: give --real")
    if log is not None and normalise_observations:
        mean = log.observation.mean(0, dtype=np.float64)
        std = log.observation.std(0, dtype=np.float64)
        std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1.0), std, 1.0)
    if log is not None and reward_scale == "auto":
        magnitude = float(np.abs(log.reward).mean(dtype=np.float64)) / (1.0 - discount)
        reward_scale = VALUE_GOAL / magnitude if magnitude > 0 else 1.0
    mean, std, low, high = (
        tuple(float(x) for x in vector) for vector in (mean, std, action_low, action_high)
    )
    return Scaling(mean, std, low, high, float(reward_scale))
