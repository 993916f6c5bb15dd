"""Whether log and simulator are in the same place: which of each other's states they reach, per dimension."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box

from simtrust.data.dataset import Dataset
from simtrust.data.log_findings import Finding, Log, Outcome, Place
from simtrust.gap.readings import DEGREES
from simtrust.types import Transitions

POLICIES = ("random actions", "a clone of the log", "the clone perturbed")
"""Of the thirds of `simtrust.gap.rollouts.probe_rollouts`."""
BARELY, MARGIN = 0.05, 1e-5
OUTSIDE = 0.001
MIDDLE = (0.01, 0.99)
WIDER, CHANGES_WIDER = 20.0, 5.0
DEGREES_LIKE = (DEGREES / 2, 2 * DEGREES)
"""Factors that degrees in place of radians could make, since ranges do not agree exactly."""


class Support(NamedTuple):
    """Shares of rows by dimension of the observation."""

    simulated_inside: np.ndarray  # [3, O] of the simulator's rows, by policy, within the log's range
    log_inside: np.ndarray  # [O] of the log's rows within the range of all rollouts
    log_within_bounds: np.ndarray  # [O] of the log's rows within the simulator's observation space
    low: np.ndarray  # [O] least value of the rollouts
    high: np.ndarray  # [O] largest value of the rollouts
    rows: int
    beyond: np.ndarray  # [O] the log's largest |value| in the bound's on its side; NaN where none is finite
    widths: np.ndarray  # [O] range of the log's middle 98%, in that of all rollouts; NaN where none moves
    changes: np.ndarray  # [O] deviation of the log's change of one step, in the rollouts'; NaN likewise

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
        beyond=_beyond_bounds(low, high, space),
        widths=_multiples(_middle_range(logged), np.ptp(rolled.astype(np.float64), axis=0)),
        changes=_multiples(_change(dataset.transitions), _change(simulated)),
    )


def _middle_range(values: np.ndarray) -> np.ndarray:
    """[O]: of the middle 98% of ``values [N, O]``, entry after entry since the log may be large."""
    return np.array([np.ptp(np.quantile(column.astype(np.float64), MIDDLE)) for column in values.T])


def _change(rows: Transitions[np.ndarray]) -> np.ndarray:
    """[O]: standard deviation of the change of one step."""
    pairs = zip(np.asarray(rows.next_observation).T, np.asarray(rows.observation).T, strict=True)
    return np.array([(following.astype(np.float64) - now).std() for following, now in pairs])


def _beyond_bounds(low: np.ndarray, high: np.ndarray, space: Box) -> np.ndarray:
    """[O]: of [low, high], the larger multiple of a bound that has its sign; NaN where there is none."""
    bounds, ends = (np.array(pair, np.float64) for pair in ((space.low, space.high), (low, high)))
    side = np.array([[-1.0], [1.0]])
    usable = np.isfinite(bounds) & (np.sign(bounds) == side) & (np.sign(ends) == side)
    factor = np.divide(ends, bounds, out=np.full(ends.shape, np.nan), where=usable)
    return np.fmax(factor[0], factor[1])


def _multiples(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """[O]: values in units; NaN where there is no unit."""
    return np.divide(values, units, out=np.full(len(values), np.nan), where=units > 0)


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


def ranges_wider(log: Log, support: Support) -> Outcome:
    """The log's range is above 20 times the simulator's, and its changes above 5 times.

    A position that a good policy carries far has a wide range, and changes like the simulator's; what is in
    other units has both.
    """
    with np.errstate(invalid="ignore"):
        wider = np.flatnonzero((support.widths > WIDER) & (support.changes > CHANGES_WIDER)).tolist()
    if not wider:
        return None
    places = tuple(
        Place(
            f"{support.widths[i]:.3g} times as wide as in the simulator, and changes"
            f" {support.changes[i]:.3g} times as large{_degrees(support.widths[i])}",
            column=i,
        )
        for i in sorted(wider, key=lambda i: -support.widths[i])
    )
    return Finding(
        "warning",
        f"In {len(wider)} dimensions the log is far wider than the simulator ever went",
        "Other units are the usual reason. It may be right where the machine does what neither random"
        " actions nor a clone of the log did in the simulator.",
        "Compare the units of these entries in both.",
        places,
    )


def _degrees(factor: float) -> str:
    low, high = DEGREES_LIKE
    return f": degrees for radians? ({DEGREES:.1f} times)" if low < factor < high else ""


def outside_observation_space(log: Log, support: Support) -> Outcome:
    """More than 0.1% of the log's rows lie outside the simulator's observation space."""
    outside = np.flatnonzero(1 - support.log_within_bounds > OUTSIDE).tolist()
    if not outside:
        return None
    places = tuple(
        Place(f"{1 - support.log_within_bounds[i]:.1%} of rows are outside{_beyond(support, i)}", column=i)
        for i in outside
    )
    return Finding(
        "warning",
        f"In {len(outside)} dimensions the log leaves the simulator's observation space",
        "The simulator says that such observations cannot be: units or its bounds are wrong.",
        "Compare units, or widen the simulator's observation space.",
        places,
    )


def _beyond(support: Support, entry: int) -> str:
    """How far the log leaves finite bounds, as a factor."""
    factor = support.beyond[entry]
    return f", up to {factor:.3g} times the bound{_degrees(factor)}" if factor > 1 else ""
