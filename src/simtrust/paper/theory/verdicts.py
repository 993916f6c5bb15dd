"""How a random problem answers a claim, and how far its arithmetic may be off."""

from collections.abc import Callable

import numpy as np

from simtrust.paper.theory.problems import Problem

ROUNDING = 1e-10
"""Relative; a linear system of 1 − γ = 0.01 costs four digits of sixteen, the largest Δ a few more."""

Verdict = tuple[np.ndarray, np.ndarray]
"""Booleans of one shape: where the premise is met; where the conclusion is true."""
Check = Callable[[Problem, np.random.Generator], Verdict]

ONE = np.array([True])
"""The premise of what is said of every problem."""


def same(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[1] whether two arrays are the same but for rounding."""
    return np.array([np.allclose(left, right, rtol=1e-7, atol=1e-7 * (1 + abs(right).max()))])


def beyond(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Larger by more than rounding, entry by entry."""
    return left > right + ROUNDING * abs(right)
