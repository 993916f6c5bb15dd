"""Trainings in step, of which nothing is real: what is done for whom, in which order."""

import threading
from typing import NamedTuple

import pytest

from simtrust.errors import RunError
from simtrust.training.in_step import AskedUpdates, in_step


class AskedWords(NamedTuple):
    """In place of a rollout: every one is told how many asked."""

    log: list[str]
    name: str

    @property
    def together_with(self):
        return "words"

    @staticmethod
    def answers(fleet, asked):
        asked[0].log.append(f"collect {' '.join(each.name for each in asked)}")
        return [len(asked)] * len(asked)


def training(log, name, rounds=2, updates=10, told=None):
    """A training that collects and is updated; what it is sent is kept in ``told``."""
    for _ in range(rounds):
        answer = yield AskedWords(log, name)
        if told is not None:
            told.append(answer)
        answer = yield AskedUpdates(name, updates)
        if told is not None:
            told.append(answer)
    log.append(f"{name} ends")
    return name


class Device:
    """Updates whatever it is given, and logs when that begins and when somebody waits for it."""

    def __init__(self, log, *, fails=()):
        self.log, self.fails = log, fails

    def begin_updates(self, shares, updates):
        names = " ".join(shares)
        self.log.append(f"begin {names}")
        if "begin" in self.fails:
            raise RunError(f"no {names}")

        def wait():
            self.log.append(f"wait {names}")
            if "wait" in self.fails:
                raise RunError(f"no {names}")
            return [f"{name}+{updates}" for name in shares]

        return wait


def test_in_one_lane_all_wait_for_one_another():
    log = []
    ends = in_step([training(log, name) for name in "AB"], Device(log))
    assert ends == ["A", "B"]
    one = ["collect A B", "begin A B", "wait A B"]
    assert log == [*one, *one, "A ends", "B ends"]


def test_of_two_lanes_one_collects_while_the_other_is_updated():
    """And the next updates begin before the last are told: the device is never idle in between."""
    log = []
    in_step([training(log, name) for name in "ABC"], Device(log), lanes=[0, 0, 1])
    # A thread waits.
    assert [line for line in log if "wait" in line] == ["wait A B", "wait C"] * 2
    assert [line for line in log if "wait" not in line] == [
        *("collect A B", "begin A B", "collect C"),
        *("begin C", "collect A B"),
        *("begin A B", "collect C"),
        *("begin C", "A ends", "B ends", "C ends"),
    ]


def test_those_who_want_other_numbers_of_updates_are_updated_one_after_the_other():
    log, told = [], []
    in_step([training(log, "A", 1), training(log, "B", 1, 20, told)], Device(log))
    assert log[:4] == ["collect A B", "begin A", "wait A", "A ends"]
    assert log[4:] == ["begin B", "wait B", "B ends"]
    assert told[0] == 2 and told[1][0] == "B+20"


@pytest.mark.parametrize("lanes", [[0, 0], [0, 1]])
def test_seconds_are_of_the_updates_and_none_is_counted_twice(monkeypatch, lanes):
    """Each takes three seconds of the device, and nothing else takes any."""
    now, free = [100.0], [100.0]
    monkeypatch.setattr("simtrust.training.in_step.time.monotonic", lambda: now[0])

    class Slow(Device):
        def begin_updates(self, shares, updates):
            free[0] = ready = max(free[0], now[0]) + 3.0
            wait = super().begin_updates(shares, updates)

            def until_ready():
                now[0] = max(now[0], ready)
                return wait()

            return until_ready

    log, told = [], [[], []]
    in_step([training(log, name, told=each) for name, each in zip("AB", told, strict=True)], Slow(log), lanes)
    assert [answer[1] for each in told for answer in each[1::2]] == [3.0] * 4


def test_seconds_end_with_the_updates_and_not_when_somebody_asks(monkeypatch):
    """The device takes three seconds, and the other lane's rollouts five, as long as nobody waits."""
    now, updated = [100.0], threading.Event()
    monkeypatch.setattr("simtrust.training.in_step.time.monotonic", lambda: now[0])

    class Slow(Device):
        def begin_updates(self, shares, updates):
            updated.clear()
            wait = super().begin_updates(shares, updates)

            def until_ready():
                now[0] += 3.0
                updated.set()
                return wait()

            return until_ready

    class AskedLong(AskedWords):
        @staticmethod
        def answers(fleet, asked):
            # That the time was read is not seen from here; it is, of all there is to do, the next.
            assert updated.wait(60)
            time_read.wait(0.2)
            now[0] += 5.0
            return [1]

    time_read = threading.Event()
    told = []

    def collecting():
        yield AskedLong([], "B")
        return "B"

    def updated_once():
        told.append((yield AskedUpdates("A", 10)))
        return "A"

    in_step([updated_once(), collecting()], Slow([]), lanes=[0, 1])
    assert told == [("A+10", 3.0)]


@pytest.mark.parametrize("fails", ["begin", "wait"])
@pytest.mark.parametrize("lanes", [[0, 0], [0, 1]])
def test_where_updates_fail_each_has_an_error_of_its_own(lanes, fails):
    log = []
    ends = in_step([training(log, name) for name in "AB"], Device(log, fails=[fails]), lanes)
    assert [type(end) for end in ends] == [RunError, RunError]
    assert ends[0] is not ends[1]
    assert [str(end) for end in ends] == (["no A B"] * 2 if lanes == [0, 0] else ["no A", "no B"])


def test_an_interrupt_while_others_are_updated_is_told_to_all():
    told = []

    def interrupted():
        yield AskedWords([], "A")
        raise KeyboardInterrupt

    def waiting():
        try:
            yield AskedUpdates("B", 10)
        except KeyboardInterrupt as error:
            told.append(error)
            raise

    with pytest.raises(KeyboardInterrupt) as raised:
        in_step([interrupted(), waiting()], Device([]), lanes=[0, 1])
    assert told == [raised.value]
