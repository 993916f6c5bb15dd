"""Episodes recorded step by step, for pictures and for measures that a return does not tell."""

from collections.abc import Sequence
from typing import NamedTuple

import gymnasium
import numpy as np

from simtrust.evaluation.returns import Act, EpisodeReturns, episode_steps


class Traces(NamedTuple):
    """Of ``R`` policies, ``n`` episodes each; NaN after an episode's end."""

    state: np.ndarray  # [R, n, T, K] float32, after each step: info["state"], the truth of our robot
    action: np.ndarray  # [R, n, T, A] float32


def record_episodes(
    environment: gymnasium.vector.VectorEnv, act: Act, *, runs: int, seeds: Sequence[int]
) -> tuple[EpisodeReturns, Traces]:
    """Run one episode in each instance and keep every step.

    The environment tells the true state in ``info["state"]``. Other arguments, and errors, as of
    `episode_steps`. Memory: ``4·R·n·T·(K + A)`` bytes.
    """
    states, actions, rewards, running = [], [], [], []
    for step in episode_steps(environment, act, runs=runs, seeds=seeds):
        alive = step.running[:, None]
        states.append(np.where(alive, step.info["state"], np.nan).astype(np.float32))
        actions.append(np.where(alive, step.action, np.nan).astype(np.float32))
        rewards.append(np.where(step.running, step.reward, 0.0))
        running.append(step.running)
    returns = EpisodeReturns(np.sum(rewards, 0).reshape(runs, -1), np.sum(running, 0).reshape(runs, -1))
    stacked = (np.stack(column, axis=1) for column in (states, actions))
    return returns, Traces(*(a.reshape(runs, -1, *a.shape[1:]) for a in stacked))
