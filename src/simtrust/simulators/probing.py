"""What checks of a simulator share: random trajectories, how two compare, and a finding."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from simtrust.simulators.checked_instance import CheckedInstance

STEPS = 100
"""Of the trajectories that are compared."""

Verdict = Literal["passed", "note", "warning", "failed"]


class Check(NamedTuple):
    """What one check found; a note tells what may be meant so, a warning what will be felt in training."""

    name: str
    verdict: Verdict
    seen: str
    remedy: str = ""


class Row(NamedTuple):
    """One step's answer."""

    observation: np.ndarray  # [O]
    reward: float
    terminated: bool
    truncated: bool


def box_of(space: gymnasium.Space) -> Box:
    """The space, which a `CheckedInstance` has found to be a flat box."""
    assert isinstance(space, Box)
    return space


def random_actions(space: Box, count: int, seed: int) -> np.ndarray:
    """[count, A], uniform within the bounds, of the space's dtype."""
    drawn = np.random.default_rng(seed).uniform(space.low, space.high, (count, *space.shape))
    return drawn.astype(space.dtype)


def trajectory(env: CheckedInstance, seed: int, actions: np.ndarray) -> list[Row]:
    """The start, with reward 0, and the rows up to the episode's end or the last action."""
    observation, _ = env.reset(seed=seed)
    rows = [Row(observation.copy(), 0.0, False, False)]
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action.copy())
        rows.append(Row(observation.copy(), reward, terminated, truncated))
        if terminated or truncated:
            break
    return rows


def first_difference(one: Sequence[Row], other: Sequence[Row]) -> int | None:
    """The first step at which two trajectories differ in any bit, 0 for their start; None if none does."""
    for step, (a, b) in enumerate(zip(one, other, strict=False)):
        if a.observation.tobytes() != b.observation.tobytes() or repr(a[1:]) != repr(b[1:]):
            return step
    return None if len(one) == len(other) else min(len(one), len(other))
