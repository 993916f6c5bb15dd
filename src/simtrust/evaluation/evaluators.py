"""Evaluators: what else to measure of a policy while it trains, beside its returns.

``simtrust.train(..., evaluators={"difference": action_difference(dataset)})`` calls the function with the
policy of each seed at every evaluation. These two compare a policy with a log. The run's critics and actor
learn from the whole of ``real``; for rows that they have not seen, give another log of the same machine.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from simtrust.data.dataset import Dataset, select_rows, unknown_next_state
from simtrust.data.held_out import hold_out
from simtrust.types import Transitions

SHARE = 0.02
"""Of the log's rows, unless the caller says otherwise."""


class SeedPolicy(Protocol):
    """The policy of one seed, and its critics, in the machine's units."""

    seed: int
    step: int
    discount: float

    def __call__(self, observation: np.ndarray, /) -> np.ndarray:
        """Best actions [..., A] for observations [..., O]."""
        ...

    def value(self, observation: np.ndarray, action: np.ndarray, /) -> np.ndarray:
        """The least of the critics' Q(s, a) [...]."""
        ...


Evaluator = Callable[[SeedPolicy], float | Mapping[str, float]]


def action_difference(dataset: Dataset, *, share: float = SHARE) -> Evaluator:
    """Mean ``|π(s) − a|`` over rows of a log and dimensions of the action, in the machine's units.

    The rows are whole episodes spread evenly over the log, about ``share`` of it.

    Raises:
        DataError: the log has fewer than 10 rows with a known next state.
    """
    rows = _rows(dataset, share)

    def evaluate(policy: SeedPolicy) -> float:
        return float(np.abs(policy(rows.observation) - rows.action).mean(dtype=np.float64))

    return evaluate


def temporal_difference_error(dataset: Dataset, *, share: float = SHARE) -> Evaluator:
    """Mean ``|r + γ(1 − d)·Q(s', π(s')) − Q(s, a)|`` over rows of a log, in the machine's reward units.

    Q is the least of the current critics, and π the best action; the entropy is left out. Rows and errors as
    of `action_difference`.
    """
    rows = _rows(dataset, share)

    def evaluate(policy: SeedPolicy) -> float:
        following = policy.value(rows.next_observation, policy(rows.next_observation))
        target = rows.reward + policy.discount * (1 - rows.terminated) * following
        error = target - policy.value(rows.observation, rows.action)
        return float(np.abs(error).mean(dtype=np.float64))

    return evaluate


def _rows(dataset: Dataset, share: float) -> Transitions[np.ndarray]:
    unknown = unknown_next_state(dataset.transitions)
    return select_rows(dataset.transitions, hold_out(dataset.episode_end, unknown, share))
