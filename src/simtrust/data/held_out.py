"""Which rows of a log judge what was fitted to the others."""

import numpy as np

from simtrust.data.dataset import episode_numbers
from simtrust.errors import DataError

ROWS_MAX = 10_000
BLOCKS = 50
"""Where whole episodes cannot be held out, the log is cut into so many blocks of neighbouring rows."""


def hold_out(episode_end: np.ndarray, unknown: np.ndarray, share: float) -> np.ndarray:
    """[T] bool: about ``share`` of the rows, or 10,000, of known next state, spread over the log.

    Whole episodes, since neighbouring rows are alike; blocks of neighbouring rows where that would take more
    than half of the log.

    Raises:
        DataError: fewer than 10 rows with a known next state.
    """
    rows = len(episode_end)
    if (~unknown).sum() < 10:
        raise DataError(
            f"{(~unknown).sum()} rows have a known next state, too few to fit the dynamics. "
            "Remedy: record more, and next observations if they are missing."
        )
    share = min(share, ROWS_MAX / rows)
    held_out = _share_of_groups(episode_numbers(episode_end), share) & ~unknown
    if not 0 < held_out.sum() <= (~unknown).sum() / 2:
        known = np.cumsum(~unknown) - 1
        block = known * min(BLOCKS, int(known[-1]) + 1) // (known[-1] + 1)
        held_out = _share_of_groups(block, share) & ~unknown
    return held_out


def _share_of_groups(group: np.ndarray, share: float) -> np.ndarray:
    return spread_groups(group, max(round(share * (int(group[-1]) + 1)), 1))


def spread_groups(group: np.ndarray, wanted: int) -> np.ndarray:
    """[T] bool: the rows of ``wanted`` of the groups ``[T]``, which count from 0, evenly spaced."""
    count = int(group[-1]) + 1
    return np.isin(group, np.linspace(0, count - 1, wanted + 2)[1:-1].astype(int))
