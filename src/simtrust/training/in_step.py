"""Trainings in step: each goes its own way between updates, and all are updated at once.

A training asks for its updates and waits (`training.running`). So trainings of other logs, shifts, seeds and
coefficients keep directories, checkpoints and evaluations of their own, and one that fails stops alone.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import NamedTuple

from simtrust.errors import SimtrustError
from simtrust.training.fleet import Fleet, Share, Updated
from simtrust.training.result import RunResult


class Asked(NamedTuple):
    """What a training waits for: so many updates of its share."""

    share: Share
    updates: int


Answer = tuple[Updated, float]
"""What they made of it, and the seconds that they took, for all trainings together."""
Rounds = Generator[Asked, Answer, RunResult]
Outcome = RunResult | SimtrustError


def in_step(trainings: Sequence[Rounds], fleet: Fleet) -> list[Outcome]:
    """Carry trainings to their ends, side by side.

    Returns every one's result, or the error that stopped it; the others go on.

    Raises:
        BaseException: whatever else stops one of them, or an interrupt. It stops all, and each is told.
    """
    outcomes: dict[int, Outcome] = {}
    asked: dict[int, Asked] = {}

    def go_on(index: int, answer: Answer | Exception | None) -> None:
        training = trainings[index]
        try:
            if isinstance(answer, Exception):
                asked[index] = training.throw(answer)
            else:
                # A generator is begun by being sent nothing.
                asked[index] = training.send(answer)  # pyright: ignore[reportArgumentType]
        except StopIteration as stop:
            outcomes[index] = stop.value
        except SimtrustError as error:
            outcomes[index] = error

    try:
        for index in range(len(trainings)):
            go_on(index, None)
        while asked:
            updates = next(iter(asked.values())).updates
            group = [index for index, each in asked.items() if each.updates == updates]
            answers = _answers(fleet, [asked.pop(index).share for index in group], updates)
            for index, answer in zip(group, answers, strict=True):
                go_on(index, answer)
    except BaseException as error:
        _stop(trainings, error)
        raise
    return [outcomes[index] for index in range(len(trainings))]


def _answers(fleet: Fleet, shares: Sequence[Share], updates: int) -> Sequence[Answer | Exception]:
    began = time.monotonic()
    try:
        updated = fleet.train_shares(shares, updates)
    except Exception as error:
        return [error] * len(shares)
    seconds = time.monotonic() - began
    return [(each, seconds) for each in updated]


def _stop(trainings: Sequence[Rounds], error: BaseException) -> None:
    """Tell those that still wait why they stop; they may add to its notes."""
    for training in trainings:
        with suppress(BaseException):
            training.throw(error)
