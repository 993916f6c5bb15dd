"""Returns of whole episodes, of several policies at once."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import gymnasium
import numpy as np

from simtrust.errors import SimulatorError

Act = Callable[[np.ndarray], np.ndarray]

MAX_EPISODE_STEPS = 100_000
"""An episode that has not ended by then never will."""


class EpisodeReturns(NamedTuple):
    """Of ``R`` policies, ``n`` episodes each."""

    returns: np.ndarray  # [R, n] float64, undiscounted, in the environment's units
    lengths: np.ndarray  # [R, n] int


def run_episodes(
    environment: gymnasium.vector.VectorEnv, act: Act, *, runs: int, seeds: Sequence[int]
) -> EpisodeReturns:
    """One episode in each instance; instance ``r·n + i`` belongs to policy r and starts from its seed.

    ``act`` maps observations [R, n, O] to actions [R, n, A], both in the environment's units.
    ``environment`` has ``R·n`` instances and does not restart them by itself.
    """
    instances = environment.num_envs
    returns, lengths = np.zeros(instances), np.zeros(instances, int)
    running = np.ones(instances, bool)
    observation, _ = environment.reset(seed=list(seeds))  # pyright: ignore[reportArgumentType]
    for _ in range(MAX_EPISODE_STEPS):
        actions = act(observation.reshape(runs, instances // runs, -1))
        observation, reward, terminated, truncated, _ = environment.step(actions.reshape(instances, -1))
        returns += np.where(running, reward, 0.0)
        lengths += running
        ended = terminated | truncated
        running &= ~ended
        if not running.any():
            return EpisodeReturns(returns.reshape(runs, -1), lengths.reshape(runs, -1))
        if ended.any():
            observation, _ = environment.reset(options={"reset_mask": ended})
    raise SimulatorError(
        f"an evaluation episode of {environment} did not end within {MAX_EPISODE_STEPS:,} steps; "
        "give the environment a time limit"
    )
