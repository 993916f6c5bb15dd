"""Rollouts: simulated transitions of every run, with that run's current policy."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from simtrust.training.scaling import Scaling
from simtrust.types import Transitions

Explore = Callable[[np.ndarray, Any, Any], np.ndarray]
"""``explore(observation [R, N, O], keys, step) -> actions [R, N, A]``, both as the policies know them."""


class Rollout(NamedTuple):
    """What R runs collected in n steps."""

    transitions: Transitions[np.ndarray]  # [R, n, ...], in the machine's units
    episode_returns: list[list[float]]  # of each run, the episodes that ended

    def of(self, runs: slice) -> "Rollout":
        """What some of the runs collected."""
        return Rollout(Transitions(*(each[runs] for each in self.transitions)), self.episode_returns[runs])


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

    def restart(self, seeds: Sequence[int | None]) -> None:
        """Begin new episodes, each run's from its own seed [R]. An open episode is cut, not terminated.

        A run whose seed is None goes on with the episodes that it has.
        """
        self.runs = len(seeds)
        each = self.simulator.num_envs // self.runs
        instances = instance_seeds(seeds, each)
        restarted = np.repeat([seed is not None for seed in seeds], each)
        options = None if restarted.all() else {"reset_mask": restarted}
        self.observation, _ = self.simulator.reset(seed=instances, options=options)  # pyright: ignore[reportArgumentType]
        self.returns[restarted] = 0.0

    def collect(self, explore: Explore, keys: Any, *, step: int | np.ndarray, count: int) -> Rollout:
        """``count`` rows of every run, a multiple of N, those of one moment side by side.

        ``step``, one for all or one a run [R], numbers them for the exploration's random keys. Both are
        handed on to ``explore``.
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


def instance_seeds(run_seeds: Sequence[int | None], each: int) -> list[int | None]:
    """Simulator seeds [R·N]: the run's own for one instance a run, else N that follow from it.

    Those of a run without one are None.
    """
    if each == 1:
        return list(run_seeds)
    return [s for seed in run_seeds for s in _following(seed, each)]


def _following(seed: int | None, count: int) -> list[int] | list[None]:
    return [None] * count if seed is None else np.random.SeedSequence(seed).generate_state(count).tolist()


def _by_run(values: np.ndarray, runs: int) -> np.ndarray:
    """[n, R·N, ...] to [R, n·N, ...], in the order of time."""
    steps, instances, *rest = values.shape
    apart = values.reshape(steps, runs, instances // runs, *rest)
    moved = np.moveaxis(apart, 1, 0).reshape(runs, steps * (instances // runs), *rest)
    return np.ascontiguousarray(moved)
