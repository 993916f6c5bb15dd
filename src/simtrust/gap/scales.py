"""Means and standard deviations of logged quantities, where some may be constant but for rounding."""

import numpy as np


def moments(values: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation; 1 for a deviation below the rounding of what was ``measured``."""
    std = values.std(0, dtype=np.float64)
    return values.mean(0, dtype=np.float64), np.where(std > rounding(measured), std, 1.0)


def rounding(measured: np.ndarray) -> np.ndarray:
    """What float32 can tell of values as large as those ``measured`` ``[N, D]``, in each dimension."""
    return 4 * np.finfo(np.float32).eps * np.abs(measured).max(0)
