"""Rollouts: simulated transitions of every run, with that run's current policy."""

from collections.abc import Callable, Sequence
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
    """Steps the simulator instances of each run, and carries episodes over from call to call.

    With R runs, instance r·N + i is the i-th of the N of run r.
    """

    def __init__(self, simulator: gymnasium.vector.VectorEnv, scaling: Scaling):
        self.simulator = simulator
        self.scaling = scaling
        self.runs = simulator.num_envs
        self.observation = np.zeros(0)
        self.returns = np.zeros(simulator.num_envs)

    def restart(self, seeds: Sequence[int]) -> None:
        """Begin new episodes, each run's from its own seed [R]. An open episode is cut, not terminated."""
        self.runs = len(seeds)
        instances = instance_seeds(seeds, self.simulator.num_envs // self.runs)
        self.observation, _ = self.simulator.reset(seed=instances)  # pyright: ignore[reportArgumentType]
        self.returns[:] = 0.0

    def collect(self, explore: Explore, keys: PRNGKeyArray, *, step: int, count: int) -> Rollout:
        """``count`` rows of every run, a multiple of N, those of one moment side by side.

        ``step`` numbers them for the exploration's random keys.
        """
        runs, each = self.runs, self.simulator.num_envs // self.runs
        rows: list[Transitions] = []
        finished: list[list[float]] = [[] for _ in range(runs)]
        for index in range(0, count, each):
            inside = explore(
                self.scaling.observe(self.observation).reshape(runs, each, -1), keys, step + index
            )
            action = self.scaling.to_machine_action(inside.reshape(runs * each, -1))
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
                for instance in np.flatnonzero(ended):
                    finished[instance // each].append(float(self.returns[instance]))
                self.returns[ended] = 0.0
                self.observation, _ = self.simulator.reset(options={"reset_mask": ended})
        columns = (_by_run(np.stack(column), runs) for column in zip(*rows, strict=True))
        return Rollout(Transitions(*columns), finished)


def instance_seeds(run_seeds: Sequence[int], each: int) -> list[int]:
    """Simulator seeds [R·N]: the run's own for one instance a run, else N that follow from it."""
    if each == 1:
        return list(run_seeds)
    return [int(s) for seed in run_seeds for s in np.random.SeedSequence(seed).generate_state(each)]


def _by_run(values: np.ndarray, runs: int) -> np.ndarray:
    """[n, R·N, ...] to [R, n·N, ...], in the order of time."""
    steps, instances, *rest = values.shape
    apart = values.reshape(steps, runs, instances // runs, *rest)
    moved = np.moveaxis(apart, 1, 0).reshape(runs, steps * (instances // runs), *rest)
    return np.ascontiguousarray(moved)
