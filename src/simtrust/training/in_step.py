"""Trainings in step: each goes its own way between what is done for all at once, rollouts and updates.

A training asks for either and waits (`training.running`). So trainings of other logs, shifts, seeds and
coefficients keep directories, checkpoints and evaluations of their own, and one that fails stops alone.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from simtrust.errors import SimtrustError
from simtrust.training.fleet import Fleet, Share, Updated
from simtrust.training.result import RunResult
from simtrust.training.rollouts import AskedRollout


class AskedUpdates(NamedTuple):
    """What a training waits for: so many updates of its share.

    It is sent what they made of it, and the seconds that they took, for all trainings together.
    """

    share: Share
    updates: int

    @property
    def together_with(self) -> object:
        """Those that have this in common are carried out together."""
        return self.updates

    @staticmethod
    def answers(fleet: Fleet, asked: Sequence["AskedUpdates"]) -> Sequence[tuple[Updated, float]]:
        began = time.monotonic()
        updated = fleet.train_shares([each.share for each in asked], asked[0].updates)
        seconds = time.monotonic() - began
        return [(each, seconds) for each in updated]


class Begun(NamedTuple):
    """What a training waits for first: that all others have come as far, so that each is told of a stop."""

    @property
    def together_with(self) -> object:
        return Begun

    @staticmethod
    def answers(fleet: Fleet, asked: Sequence["Begun"]) -> Sequence[None]:
        return [None] * len(asked)


Asked = Begun | AskedUpdates | AskedRollout
Rounds = Generator[Asked, Any, RunResult]
Outcome = RunResult | SimtrustError


def in_step(trainings: Sequence[Rounds], fleet: Fleet) -> list[Outcome]:
    """Carry trainings to their ends, side by side.

    Returns every one's result, or the error that stopped it; the others go on.

    Raises:
        BaseException: whatever else stops one of them, or an interrupt. It stops all, and each is told.
    """
    outcomes: dict[int, Outcome] = {}
    asked: dict[int, Asked] = {}

    def go_on(index: int, answer: object) -> None:
        training = trainings[index]
        try:
            if isinstance(answer, Exception):
                asked[index] = training.throw(_of_its_own(answer))
            else:
                asked[index] = training.send(answer)
        except StopIteration as stop:
            outcomes[index] = stop.value
        except SimtrustError as error:
            outcomes[index] = error

    try:
        for index in range(len(trainings)):
            # A generator is begun by being sent nothing.
            go_on(index, None)
        while asked:
            common = next(iter(asked.values())).together_with
            group = [index for index, each in asked.items() if each.together_with == common]
            answers = _answers(fleet, [asked.pop(index) for index in group])
            for index, answer in zip(group, answers, strict=True):
                go_on(index, answer)
    except BaseException as error:
        _stop(trainings, error)
        raise
    return [outcomes[index] for index in range(len(trainings))]


def _answers(fleet: Fleet, asked: Sequence[Any]) -> Sequence[object]:
    """To each what was carried out for all of them, or the error that it, or all, came to."""
    try:
        return type(asked[0]).answers(fleet, asked)
    except Exception as error:
        return [error] * len(asked)


def _of_its_own(error: Exception) -> Exception:
    """The same error for one training, which adds notes to it that say how that one goes on."""
    own = type(error).__new__(type(error), *error.args)
    own.args, own.__cause__ = error.args, error.__cause__
    own.__dict__.update(error.__dict__)
    own.__notes__ = list(getattr(error, "__notes__", ()))
    return own.with_traceback(error.__traceback__)


def _stop(trainings: Sequence[Rounds], error: BaseException) -> None:
    """Tell those that still wait why they stop; they may add to its notes."""
    for training in trainings:
        with suppress(BaseException):
            training.throw(error)
