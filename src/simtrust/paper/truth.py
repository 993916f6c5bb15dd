"""The true dynamics gap, which only a second simulator that stands for reality can tell, and how well an
estimate ranks by it."""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from simtrust.data import Dataset
from simtrust.gap.replay_probe import replay
from simtrust.gap.rollouts import chain_ends
from simtrust.types import Transitions

NO_GAP = 1e-4
"""Below this median the truth is rounding, and nothing can be ranked by it."""


def true_gap(rows: Transitions[np.ndarray], task: str, scale: np.ndarray) -> np.ndarray:
    """[N]: size of simulated less real next state; NaN where an observation does not determine a state.

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
    kept = np.isfinite(scale)
    return np.sqrt(np.square(error[:, kept] / scale[kept]).mean(1))


def agreement(truth: np.ndarray, estimate: np.ndarray) -> dict[str, float | None]:
    """Spearman's correlation, and the area under the curve for the worst tenth."""
    known = np.isfinite(truth) & np.isfinite(estimate)
    truth, estimate = truth[known], estimate[known]
    if not len(truth) or np.median(truth) < NO_GAP:
        return {"spearman": None, "auc": None}
    return {
        "spearman": rank_correlation(truth, estimate),
        "auc": float(roc_auc_score(truth >= np.quantile(truth, 0.9), estimate)),
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
