"""What D4RL's levels mean: which of a training's policies make a log, and how many rows of each.

Fu et al. 2020, "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (arXiv:2004.07219), section 5,
has the levels. How good *medium* is its text leaves open; its data are of about a third of the expert's
return, which is the rule here.

Free of JAX and numpy, so that the command line can show its help at once.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from simtrust.errors import RunError

Level = Literal["random", "medium", "medium-replay", "medium-expert", "expert"]
Part = Literal["random", "medium", "expert"]

MEDIUM_SHARE = 1 / 3
"""Of the expert's return: the first policy that reaches it is the medium one."""
EXPERT_AMONG = 5
"""The expert is the best of so many last policies. D4RL takes the policy of a finished training; SAC's return
falls for a while now and then, and the last policy alone may be of such a moment."""
DEFAULT_ROWS = 1_000_000

RECORDED: dict[Level, tuple[Part, ...]] = {
    "random": ("random",),
    "medium": ("medium",),
    "medium-replay": (),
    "medium-expert": ("medium", "expert"),
    "expert": ("expert",),
}
"""Whose rollouts make a log, in equal parts; medium-replay is not recorded, but what was trained on."""


class Score(NamedTuple):
    """A policy of a training, and how good it was there with its best action."""

    step: int
    """Updates done."""
    mean: float
    """Return, over the evaluation's episodes."""
    std: float


def choose_expert(scores: Sequence[Score]) -> Score:
    """The best of the last `EXPERT_AMONG` policies, in the order of training; the later one of equals."""
    return max(scores[-EXPERT_AMONG:], key=lambda score: (score.mean, score.step))


def choose_medium(scores: Sequence[Score], expert: Score) -> Score:
    """The first policy, in the order of training, whose return reaches a third of the expert's.

    Raises `RunError` if the expert's return is not positive: any policy would do then, or none.
    """
    if expert.mean <= 0:
        raise RunError(
            f"the expert's return is {expert.mean:,.1f} at step {expert.step:,}, and a third of that is no "
            "goal for a medium policy; train longer: --steps"
        )
    return next(score for score in scores if score.mean >= MEDIUM_SHARE * expert.mean)


def rows_of_parts(level: Level, rows: int) -> dict[Part, int]:
    """How many of a log's rows each part makes; the parts divide them."""
    parts = RECORDED[level]
    return {part: rows // len(parts) for part in parts}
