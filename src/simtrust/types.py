"""The shapes everything else agrees on.

Shape letters used in all docstrings: ``R`` runs (seeds trained side by side), ``E`` critics of an
ensemble, ``B`` batch, ``T`` rows of a log, ``O`` observation size, ``A`` action size, ``N`` sampled
next states, ``S`` parallel simulator instances.
"""

from typing import Generic, Literal, NamedTuple, TypeVar

ArrayT = TypeVar("ArrayT")

ActorKind = Literal["stochastic", "deterministic"]
CovarianceKind = Literal["diagonal", "full"]


class Transitions(NamedTuple, Generic[ArrayT]):
    """Rows ``(s, a, r, s', terminated)``; every field may carry the same leading axes.

    A time limit, or the end of the recording, is *not* a terminal: ``terminated`` is 1 only where
    the task itself ended, so that ``s'`` has no value. The arrays are numpy's in a log and JAX's in
    training.
    """

    observation: ArrayT  # [..., O] float32
    action: ArrayT  # [..., A] float32
    reward: ArrayT  # [...] float32
    next_observation: ArrayT  # [..., O] float32
    terminated: ArrayT  # [...] float32, 0 or 1
