"""Whether log and simulator are in the same place: which of each other's states they reach, per dimension."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box

from simtrust.data.dataset import Dataset
from simtrust.data.log_findings import Finding, Log, Outcome, Place
from simtrust.types import Transitions

POLICIES = ("random actions", "a clone of the log", "the clone perturbed")
"""Of the thirds of `simtrust.gap.rollouts.probe_rollouts`."""
BARELY, MARGIN = 0.05, 1e-5
OUTSIDE = 0.001


class Support(NamedTuple):
    """Shares of rows by dimension of the observation."""

    simulated_inside: np.ndarray  # [3, O] of the simulator's rows, by policy, within the log's range
    log_inside: np.ndarray  # [O] of the log's rows within the range of all rollouts
    log_within_bounds: np.ndarray  # [O] of the log's rows within the simulator's observation space
    low: np.ndarray  # [O] least value of the rollouts
    high: np.ndarray  # [O] largest value of the rollouts
    rows: int

    @property
    def overall(self) -> np.ndarray:
        """[O]: of all rollouts, within the log's range."""
        return self.simulated_inside.mean(0)


def measure_support(dataset: Dataset, simulated: Transitions[np.ndarray], space: Box) -> Support:
    """Compare ranges: [least, largest] of the log with the simulator's own rollouts, and the converse.

    Args:
        dataset: T rows.
        simulated: N rows as `simtrust.gap.rollouts.probe_rollouts` returns them, N at least 3.
        space: the simulator's space of observations, one-dimensional.
    """
    logged, rolled = np.asarray(dataset.transitions.observation), np.asarray(simulated.observation)
    low, high = logged.min(0), logged.max(0)
    ends = np.round(np.linspace(0, len(rolled), len(POLICIES) + 1)).astype(int)
    thirds = [_inside(rolled[first:last], low, high) for first, last in pairwise(ends.tolist())]
    return Support(
        simulated_inside=np.array(thirds),
        log_inside=_inside(logged, rolled.min(0), rolled.max(0)),
        log_within_bounds=_inside(logged, space.low, space.high),
        low=rolled.min(0),
        high=rolled.max(0),
        rows=len(rolled),
    )


def _inside(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """[O]: the share of ``values [N, O]`` within the range, float32 rounding forgiven."""
    # Of what is constant the range is a point, whose rounding goes with its size.
    size = np.where(np.isfinite(high - low), np.maximum(high - low, np.abs(high)), 0.0)
    return ((values >= low - MARGIN * size) & (values <= high + MARGIN * size)).mean(0)


def ranges_apart(log: Log, support: Support) -> Outcome:
    """Under every policy, less than 5% of the simulator's rows lie within the log's range."""
    apart = np.flatnonzero((support.simulated_inside < BARELY).all(0)).tolist()
    if not apart:
        return None
    places = tuple(
        Place(
            f"[{log.columns[i].low:.4g}, {log.columns[i].high:.4g}] in the log,"
            f" [{support.low[i]:.4g}, {support.high[i]:.4g}] in the simulator",
            column=i,
        )
        for i in apart
    )
    return Finding(
        "warning",
        f"In {len(apart)} dimensions log and simulator are in different places",
        "Different units, signs, offsets or an order of their own are the usual reasons. Then nothing learned"
        " from one holds for the other.",
        "Compare units and order of the observation's entries in both.",
        places,
    )


def outside_observation_space(log: Log, support: Support) -> Outcome:
    """More than 0.1% of the log's rows lie outside the simulator's observation space."""
    outside = np.flatnonzero(1 - support.log_within_bounds > OUTSIDE).tolist()
    if not outside:
        return None
    places = tuple(
        Place(f"{1 - support.log_within_bounds[i]:.1%} of rows are outside", column=i) for i in outside
    )
    return Finding(
        "warning",
        f"In {len(outside)} dimensions the log leaves the simulator's observation space",
        "The simulator says that such observations cannot be: units or its bounds are wrong.",
        "Compare units, or widen the simulator's observation space.",
        places,
    )
