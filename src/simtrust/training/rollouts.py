"""Rollouts of trainings side by side: those that share a simulator act and step together.

A training asks for its rollout and waits (`training.running`). It has a simulator to itself, or instances of
one that several share: then all their policies act in one call and all their instances step in one, with the
bits that each would have alone. Every training keeps its own scaling, random keys, steps and restarts.

Where a shared simulator fails, nobody's step is done. The training whose instance it was is told, in its own
terms, and leaves. The others' episodes are cut there as at a checkpoint, and their rollout begins anew: so
nothing is lost of them, but the rest has other bits, those of a run that was stopped and resumed there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv
from jaxtyping import PRNGKeyArray

from simtrust.algorithms.agent import Agent
from simtrust.errors import InstanceError, SimulatorError
from simtrust.simulators.closing import close_all
from simtrust.simulators.guard import GuardedSimulator
from simtrust.training.collect import Collector, Explore, Rollout
from simtrust.training.fleet import Fleet
from simtrust.training.non_finite import Witness
from simtrust.training.scaling import Scaling


class Member:
    """A training as its simulator knows it: R runs, alone until `Collecting` joins it with others."""

    def __init__(self, simulator: VectorEnv, scaling: Scaling, runs: int):
        self.simulator, self.scaling, self.runs = simulator, scaling, runs
        self.collecting = Collecting([self], lambda _: simulator)
        self.witness = Witness(_nobody)
        """Where its rollout failed: what its policies were asked last."""


class AskedRollout(NamedTuple):
    """What a training waits for: so many rows of each of its runs [R]."""

    member: Member
    agents: Agent
    keys: PRNGKeyArray
    step: int
    rows: int
    seeds: Sequence[int]
    """Where new episodes begin, if any have to."""
    must_restart: bool

    @property
    def together_with(self) -> object:
        """Those that have this in common are carried out together."""
        return self.member.collecting, self.rows

    @staticmethod
    def answers(fleet: Fleet, asked: Sequence["AskedRollout"]) -> Sequence[Rollout | Exception]:
        return asked[0].member.collecting.collect(fleet, asked)


Waiting = Mapping[Member, AskedRollout]


class Collecting:
    """The simulator of one training, or of several, and whose instances are which.

    ``make`` makes it, of the members that it is for, one's instances after another's.
    """

    def __init__(self, members: Sequence[Member], make: Callable[[Sequence[Member]], VectorEnv]):
        self.members, self._make = tuple(members), make
        self._collector: Collector | None = None
        self._runs: dict[Member, slice] = {}
        """Of those that the simulator was made for."""
        self._witness = Witness(_nobody)
        for member in members:
            member.collecting = self

    def close(self) -> None:
        """Close the simulator, if it was made."""
        if self._collector is not None:
            close_all(self._collector.simulator)
        self._collector, self._runs = None, {}

    def collect(self, fleet: Fleet, asked: Sequence[AskedRollout]) -> list[Rollout | SimulatorError]:
        """The rollouts that members asked for, all of as many rows; or the error that one of them came to.

        Members that do not ask have ended, or failed.
        """
        waiting = {each.member: each for each in asked}
        answers: dict[Member, Rollout | SimulatorError] = {}
        while waiting:
            try:
                answers |= self._collect(fleet, waiting)
                break
            except SimulatorError as error:
                failed = self._failed(error, waiting)
                answers |= failed
                waiting = {
                    member: each._replace(must_restart=True)
                    for member, each in waiting.items()
                    if member not in failed
                }
        return [answers[each.member] for each in asked]

    def _collect(self, fleet: Fleet, waiting: Waiting) -> dict[Member, Rollout]:
        self._witness = Witness(_nobody)
        collector = self._collector_of(waiting)
        asked = [waiting[member] for member in self._runs if member in waiting]
        act, keys = fleet.actors([each.agents for each in asked], [each.keys for each in asked])
        runs = sum(member.runs for member in self._runs)
        active, step, seeds = np.zeros(runs, bool), np.zeros(runs, np.uint32), np.full(runs, None)
        for each in asked:
            own = self._runs[each.member]
            active[own], step[own] = True, each.step
            if each.must_restart:
                seeds[own] = each.seeds
        self._witness = Witness(act if active.all() else _at_rest_but(active, act))
        if any(each.must_restart for each in asked):
            collector.restart(seeds.tolist())
        rollout = collector.collect(self._witness, keys, step=step, count=asked[0].rows)
        return {each.member: rollout.of(self._runs[each.member]) for each in asked}

    def _collector_of(self, waiting: Waiting) -> Collector:
        """Those that no longer ask are left out once that cuts nobody's episode; until then they rest."""
        may_cut = all(each.must_restart for each in waiting.values())
        if self._collector is None or (may_cut and self._runs.keys() != waiting.keys()):
            self.close()
            members = [member for member in self.members if member in waiting]
            ends = np.cumsum([member.runs for member in members]).tolist()
            runs = [slice(end - member.runs, end) for member, end in zip(members, ends, strict=True)]
            self._collector = Collector(self._make(members), one_scaling(members))
            self._runs = dict(zip(members, runs, strict=True))
        return self._collector

    def _failed(self, error: SimulatorError, waiting: Waiting) -> dict[Member, SimulatorError]:
        """Whose error it is, in its own terms: nobody's who waits if it is of one that rests.

        All fail where nobody can tell.
        """
        failed = dict.fromkeys(waiting, error)
        if len(self.members) > 1 and isinstance(error, InstanceError) and self._collector is not None:
            member, instance = self._owner(error.instance)
            failed = {member: _in_terms_of(member.simulator, error, instance)} if member in waiting else {}
        for member in failed:
            runs = self._runs.get(member, slice(0, 0))
            member.witness = Witness(_nobody)
            member.witness.observation = self._witness.observation[runs]
            member.witness.action = self._witness.action[runs]
        return failed

    def _owner(self, instance: int) -> tuple[Member, int]:
        """Whose an instance of the shared simulator is, and which of theirs."""
        for member in self._runs:
            if instance < member.simulator.num_envs:
                return member, instance
            instance -= member.simulator.num_envs
        raise AssertionError("an instance of nobody")


def one_scaling(members: Sequence[Member]) -> Scaling:
    """The scaling of all members' instances at once: its vectors are [S, ...], a row for each instance."""
    if len(members) == 1:
        return members[0].scaling
    instances = [member.simulator.num_envs for member in members]
    vectors = ("observation_mean", "observation_std", "action_low", "action_high")
    rows = [[getattr(member.scaling, name) for member in members] for name in vectors]
    return Scaling(*(np.repeat(each, instances, axis=0) for each in rows))  # pyright: ignore[reportArgumentType]


def _at_rest_but(active: np.ndarray, act: Explore) -> Explore:
    """For the runs of ``active`` [R] what ``act`` says, for the others the middle of the action's range."""

    def explore(observation: np.ndarray, keys: PRNGKeyArray, step: np.ndarray) -> np.ndarray:
        chosen = act(observation[active], keys, step[active])
        inside = np.zeros((len(active), *chosen.shape[1:]), chosen.dtype)
        inside[active] = chosen
        return inside

    return explore


def _nobody(*_: object) -> np.ndarray:
    raise AssertionError("nobody acts")


def _in_terms_of(simulator: VectorEnv, error: InstanceError, instance: int) -> SimulatorError:
    """The error of a shared simulator as if it were that of ``instance`` of a training's own."""
    assert isinstance(simulator, GuardedSimulator)
    own = error.of(simulator.name, instance, simulator.num_envs)
    own.__cause__ = error.__cause__
    return own.with_traceback(error.__traceback__)
