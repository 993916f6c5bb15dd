"""Trainings in step: each goes its own way between what is done for all at once, rollouts and updates.

A training asks for either and waits (`training.running`). So trainings of other logs, shifts, seeds and
coefficients keep directories, checkpoints and evaluations of their own, and one that fails stops alone.

On a GPU they are parted into lanes. Trainings of one lane wait for one another, those of different lanes do
not: while the device updates one, the processor steps the simulators of the other, evaluates and saves.
"""

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from simtrust.errors import SimtrustError
from simtrust.training.fleet import Fleet
from simtrust.training.result import RunResult
from simtrust.training.rollouts import AskedRollout
from simtrust.training.updating import Share


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


class Begun(NamedTuple):
    """What a training waits for first: that all others have come as far, so that each is told of a stop."""

    @property
    def together_with(self) -> object:
        return Begun

    @staticmethod
    def answers(fleet: Fleet, asked: Sequence["Begun"]) -> Sequence[None]:
        return [None] * len(asked)


class Running(NamedTuple):
    """Updates under way, of which trainings, since when."""

    group: Sequence[int]
    wait: Callable[[], tuple[Sequence[Any], float]]
    """What they made of each, or the error that they came to; and when that was."""
    since: float


Asked = Begun | AskedUpdates | AskedRollout
Rounds = Generator[Asked, Any, RunResult]
Outcome = RunResult | SimtrustError


def in_step(trainings: Sequence[Rounds], fleet: Fleet, lanes: Sequence[int] | None = None) -> list[Outcome]:
    """Carry trainings to their ends, side by side; ``lanes`` says which of them wait for one another.

    Returns every one's result, or the error that stopped it; the others go on.

    Raises:
        BaseException: whatever else stops one of them, or an interrupt. It stops all, and each is told.
    """
    lanes = lanes or [0] * len(trainings)
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

    def first_of(chosen: Sequence[int]) -> list[int]:
        """The first, and those that are carried out together with it."""
        common = [(lanes[index], asked[index].together_with) for index in chosen]
        return [index for index, own in zip(chosen, common, strict=True) if own == common[0]]

    def others() -> list[int]:
        return [index for index, each in asked.items() if not isinstance(each, AskedUpdates)]

    def begin() -> Running | None:
        """Updates of a lane all of whose trainings wait for some; None if there is no such lane."""
        behind = {lanes[index] for index in others()}
        group = first_of(
            [i for i, each in asked.items() if isinstance(each, AskedUpdates) if lanes[i] not in behind]
        )
        return _begun(fleet, group, [asked.pop(index) for index in group], pool) if group else None

    running, free_since = None, 0.0
    # Of a lane that is updated beside others, a thread sees when that is done.
    pool = ThreadPoolExecutor(1) if len(set(lanes)) > 1 else None
    try:
        for index in range(len(trainings)):
            # A generator is begun by being sent nothing.
            go_on(index, None)
        while asked or running:
            running = running or begin()
            if group := first_of(others()):
                answers = _answers(fleet, [asked.pop(index) for index in group])
                for index, answer in zip(group, answers, strict=True):
                    go_on(index, answer)
            elif running:
                done, running = running, None
                if pool is not None:
                    # Before these are told, so that the device has something to do meanwhile.
                    running = begin()
                answers, ended = done.wait()
                seconds, free_since = ended - max(done.since, free_since), ended
                for index, answer in zip(done.group, answers, strict=True):
                    go_on(index, answer if isinstance(answer, Exception) else (answer, seconds))
    except BaseException as error:
        _stop(trainings, error)
        raise
    finally:
        if pool is not None:
            pool.shutdown(wait=False)
    return [outcomes[index] for index in range(len(trainings))]


def _begun(
    fleet: Fleet, group: Sequence[int], asked: Sequence[Any], pool: ThreadPoolExecutor | None
) -> Running:
    since = time.monotonic()
    try:
        updates = fleet.begin_updates([each.share for each in asked], asked[0].updates)
    except Exception as error:
        failed = [error] * len(group), time.monotonic()
        return Running(group, lambda: failed, since)

    def wait() -> tuple[Sequence[Any], float]:
        try:
            made: Sequence[Any] = updates()
        except Exception as error:
            made = [error] * len(group)
        return made, time.monotonic()

    return Running(group, wait if pool is None else pool.submit(wait).result, since)


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
