"""Whole episodes of several policies at once: what happens at every step, and the returns."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

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


class Step(NamedTuple):
    """One step of all ``S = R·n`` instances; those whose episode has ended before go on unheeded."""

    running: np.ndarray  # [S] bool, whether the episode was still going on when the step began
    observation: np.ndarray  # [S, O], that the action was chosen for
    action: np.ndarray  # [S, A]
    reward: np.ndarray  # [S]
    info: dict[str, Any]


def episode_steps(
    environment: gymnasium.vector.VectorEnv, act: Act, *, runs: int, seeds: Sequence[int]
) -> Iterator[Step]:
    """Step through one episode in each instance, until the last has ended.

    Instance ``r·n + i`` belongs to policy r and starts from its seed. ``act`` maps observations
    [R, n, O] to actions [R, n, A], both in the environment's units. ``environment`` has ``R·n``
    instances and does not restart them by itself.

    Raises:
        SimulatorError: an episode does not end.
    """
    instances = environment.num_envs
    running = np.ones(instances, bool)
    observation, _ = environment.reset(seed=list(seeds))  # pyright: ignore[reportArgumentType]
    for _ in range(MAX_EPISODE_STEPS):
        actions = act(observation.reshape(runs, instances // runs, -1)).reshape(instances, -1)
        following, reward, terminated, truncated, info = environment.step(actions)
        yield Step(running.copy(), observation, actions, reward, info)
        observation, ended = following, terminated | truncated
        running &= ~ended
        if not running.any():
            return
        if ended.any():
            observation, _ = environment.reset(options={"reset_mask": ended})
    raise SimulatorError(
        f"an evaluation episode of {environment} did not end within {MAX_EPISODE_STEPS:,} steps; "
        "give the environment a time limit"
    )


def run_episodes(
    environment: gymnasium.vector.VectorEnv, act: Act, *, runs: int, seeds: Sequence[int]
) -> EpisodeReturns:
    """The returns of one episode in each instance; arguments and errors as of `episode_steps`."""
    returns, lengths = np.zeros(environment.num_envs), np.zeros(environment.num_envs, int)
    for step in episode_steps(environment, act, runs=runs, seeds=seeds):
        returns += np.where(step.running, step.reward, 0.0)
        lengths += step.running
    return EpisodeReturns(returns.reshape(runs, -1), lengths.reshape(runs, -1))
