"""The true dynamics gap, which only a second simulator that stands for reality can tell, and how well an
estimate ranks by it."""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from simtrust.data import Dataset
from simtrust.gap.replay_probe import replay
from simtrust.gap.rollouts import chain_ends
from simtrust.types import Transitions

NO_GAP = 1e-4
"""Below this the truth is rounding, by which nothing can be ranked."""


class TrueGapReward(VectorWrapper):
    """A simulator whose reward is its true gap: how far each of its steps is from reality's.

    Before every step, reality is put into the simulator's whole state, not only into what an observation
    tells of it, and given the same actions.

    Args:
        simulator: S instances of a built-in simulator.
        reality: as many of the same task.
        scale: as `true_gap` takes it.
    """

    def __init__(self, simulator: VectorEnv, reality: VectorEnv, scale: np.ndarray) -> None:
        super().__init__(simulator)
        self._reality = reality
        # The guards would want a reset before each step.
        self._inner: Any = simulator.unwrapped
        self._witness: Any = reality.unwrapped
        self._scale = scale

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self._witness.set_state(*self._inner.state)
        real = self._witness.step(np.ascontiguousarray(actions))[0]
        following, _, terminated, truncated, info = self.env.step(actions)
        return following, _size(following - real, self._scale), terminated, truncated, info

    def close(self, **options: Any) -> None:
        self._reality.close(**options)
        self.env.close(**options)


def _size(error: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Root mean square ``[N]`` of errors ``[N, O]`` over the dimensions whose scale is finite."""
    kept = np.isfinite(scale)
    return np.sqrt(np.square(error[:, kept] / scale[kept]).mean(1))


def true_gap(rows: Transitions[np.ndarray], task: str, scale: np.ndarray) -> np.ndarray:
    """[N]: size of simulated less real next state; NaN where an observation does not determine a state.

    What an observation does not tell of the state counts as gap; of a simulator at hand, `TrueGapReward`
    knows better.

    Args:
        rows: N rows of a simulator, in the machine's units.
        task: the built-in simulator that stands for reality: it is put into every ``s`` and stepped once.
        scale: ``[O]``, the unit of each dimension, such as the standard deviation of the logged change
            (`simtrust.gap.step_errors.dimension_scales`). Dimensions where it is not finite do not enter
            the root mean square.
    """
    simulated = Dataset(rows, chain_ends(rows), "the simulator's rollouts", "")
    real = replay(simulated, task)
    error = rows.next_observation - real.predicted
    error[~real.usable] = np.nan
    return _size(error, scale)


def agreement(truth: np.ndarray, estimate: np.ndarray) -> dict[str, float | None]:
    """Spearman's correlation, and the area under the curve for the worst tenth.

    None if most rows have no gap, so that there is no rank among them; the area, if nine of ten have none;
    both, if all have the same.
    """
    known = np.isfinite(truth) & np.isfinite(estimate)
    truth, estimate = truth[known], estimate[known]
    if len(truth) == 0 or np.ptp(truth) == 0:
        return {"spearman": None, "auc": None}
    median, worst = np.quantile(truth, [0.5, 0.9])
    return {
        "spearman": rank_correlation(truth, estimate) if median >= NO_GAP else None,
        "auc": float(roc_auc_score(truth >= worst, estimate)) if worst >= NO_GAP else None,
    }


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's correlation of two columns [N], over the rows where both are finite.

    NaN where a column is constant: then nothing is ranked.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if not len(x) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def partial_rank_correlation(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float:
    """Spearman's correlation of two columns [N] with what a third tells of both taken away.

    It is ``(r_xy − r_xz·r_yz) / √((1 − r_xz²)(1 − r_yz²))`` of the three rank correlations, over the rows
    where all are finite. NaN where a column is constant, or the third ranks one of the two like itself.
    """
    known = np.isfinite(x) & np.isfinite(y) & np.isfinite(given)
    x, y, given = x[known], y[known], given[known]
    xy, xz, yz = rank_correlation(x, y), rank_correlation(x, given), rank_correlation(y, given)
    left = (1 - xz**2) * (1 - yz**2)
    # Rounding leaves something of what is nothing.
    return float((xy - xz * yz) / np.sqrt(left)) if left > 1e-12 else float("nan")
