"""Random pairs of reality and simulator, in four families, and what a finite log of one of them holds."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from simtrust.paper.tabular import Pair

STATES, ACTIONS = (2, 6), (1, 3)
"""Smallest and largest numbers."""
DISCOUNTS = (0.5, 0.9, 0.99)
LARGEST_REWARD = 1.0
"""R_max: rewards are uniform below."""


class Problem(NamedTuple):
    """A pair, what is measured in it, and a log of it."""

    family: str
    pair: Pair
    beta: float
    """β, between 0.01 and 10."""
    counts: np.ndarray
    """``|D(s, a)|`` [S, A], at least 1."""
    sampled: np.ndarray
    """``P̄`` [S, A, S]: the log's own frequencies, of so many draws."""


def draw_problem(seed: int, index: int) -> Problem:
    """Number ``index`` of a seed: the same whatever else is drawn."""
    rng = np.random.default_rng((seed, index))
    family = list(FAMILIES)[index % len(FAMILIES)]
    states = int(rng.integers(STATES[0], STATES[1] + 1))
    actions = int(rng.integers(ACTIONS[0], ACTIONS[1] + 1))
    real, sim, start = FAMILIES[family](rng, states, actions)
    pair = Pair(
        real=real,
        sim=sim,
        reward=LARGEST_REWARD * rng.random((states, actions)),
        policy=rng.dirichlet(np.ones(actions), states),
        behaviour=rng.dirichlet(np.ones(actions), states),
        start=start,
        discount=float(rng.choice(DISCOUNTS)),
    )
    rows = 10.0 ** rng.uniform(2, 8)
    counts = np.ceil(rows * pair.log_share).astype(np.int64)
    draws = rng.multinomial(counts, real)
    return Problem(family, pair, 10.0 ** rng.uniform(-2, 1), counts, draws / counts[..., None])


Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""P, P̂ [S, A, S] and ρ [S]."""


def _unrelated(rng: np.random.Generator, states: int, actions: int) -> Drawn:
    return (
        _rows(rng, np.ones((states, actions, states))),
        _rows(rng, np.ones((states, actions, states))),
        rng.dirichlet(np.ones(states)),
    )


def _wrong_in_places(rng: np.random.Generator, states: int, actions: int) -> Drawn:
    real, other, start = _unrelated(rng, states, actions)
    wrong = rng.random((states, actions)) < 0.3
    wrong.flat[rng.integers(wrong.size)] = True
    return real, np.where(wrong[..., None], other, real), start


def _few_next_states(rng: np.random.Generator, states: int, actions: int) -> Drawn:
    """At most two for each state and action, so that some states are never met from others."""
    order = rng.permuted(np.broadcast_to(np.arange(states), (states, actions, states)), axis=-1)
    support = (order < 2).astype(float)
    return _rows(rng, support), _rows(rng, support), rng.dirichlet(np.ones(states))


def _trap(rng: np.random.Generator, states: int, actions: int) -> Drawn:
    """Some states cannot be left, such as those of a robot that fell; the log hardly knows them."""
    inside = np.arange(states) >= rng.integers(1, states)
    entered = 10.0 ** rng.uniform(-4, -1)
    # Outside lead to both, the way into the trap being rare; inside only to the inside.
    allowed = np.where(inside[:, None, None], inside, True) * np.ones((states, actions, states))
    real, other = _rows(rng, allowed), _rows(rng, allowed)
    sim = np.where(inside[:, None, None], other, 0.9 * real + 0.1 * other)
    rare = np.where(inside, entered, 1.0) * np.where(inside[:, None, None], allowed / entered, allowed)
    start = rng.dirichlet(np.ones(states)) * np.where(inside, entered, 1.0)
    return _normalised(real * rare), _normalised(sim * rare), _normalised(start)


FAMILIES: dict[str, Callable[[np.random.Generator, int, int], Drawn]] = {
    "P̂ unrelated to P": _unrelated,
    "P̂ wrong in places": _wrong_in_places,
    "few next states": _few_next_states,
    "a trap": _trap,
}


def _rows(rng: np.random.Generator, allowed: np.ndarray) -> np.ndarray:
    """Uniform distributions over the last axis, where allowed."""
    return _normalised(allowed * rng.exponential(size=allowed.shape))


def _normalised(masses: np.ndarray) -> np.ndarray:
    return masses / masses.sum(-1, keepdims=True)
