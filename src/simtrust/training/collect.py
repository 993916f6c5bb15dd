"""Rollouts: simulated transitions of every run, with that run's current policy."""

from collections.abc import Callable
from typing import NamedTuple

import gymnasium
import numpy as np
from jaxtyping import PRNGKeyArray

from simtrust.training.scaling import Scaling
from simtrust.types import Transitions

Explore = Callable[[np.ndarray, PRNGKeyArray, int], np.ndarray]


class Rollout(NamedTuple):
    """What R runs collected in n steps."""

    transitions: Transitions[np.ndarray]  # [R, n, ...], in the machine's units
    episode_returns: list[list[float]]  # of each run, the episodes that ended


class Collector:
    """Steps one simulator instance for each run, and carries episodes over from call to call."""

    def __init__(self, simulator: gymnasium.vector.VectorEnv, scaling: Scaling):
        self.simulator = simulator
        self.scaling = scaling
        self.observation = np.zeros(0)
        self.returns = np.zeros(simulator.num_envs)

    def restart(self, seeds: list[int]) -> None:
        """Begin new episodes, each instance from its own seed. An open episode is cut, not terminated."""
        self.observation, _ = self.simulator.reset(seed=seeds)  # pyright: ignore[reportArgumentType]
        self.returns[:] = 0.0

    def collect(self, explore: Explore, keys: PRNGKeyArray, *, step: int, count: int) -> Rollout:
        """``count`` steps of every run; ``step`` numbers them for the exploration's random keys."""
        rows: list[Transitions] = []
        finished: list[list[float]] = [[] for _ in self.returns]
        for index in range(count):
            inside = explore(self.scaling.observe(self.observation)[:, None], keys, step + index)
            action = self.scaling.to_machine_action(inside[:, 0])
            next_observation, reward, terminated, truncated, _ = self.simulator.step(action)
            rows.append(
                Transitions(
                    self.observation.copy(), action, reward.copy(), next_observation.copy(), terminated.copy()
                )
            )
            self.returns += reward
            self.observation = next_observation
            ended = terminated | truncated
            if ended.any():
                for run in np.flatnonzero(ended):
                    finished[run].append(float(self.returns[run]))
                self.returns[ended] = 0.0
                self.observation, _ = self.simulator.reset(options={"reset_mask": ended})
        return Rollout(
            Transitions(*(np.stack(column, axis=1) for column in zip(*rows, strict=True))), finished
        )
