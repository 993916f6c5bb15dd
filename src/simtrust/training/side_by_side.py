"""Several runs in one process, each with a directory of its own, that share a compiled update.

Those of one built-in simulator share that too.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Protocol

from simtrust.algorithms.agent import Algorithm
from simtrust.errors import ConfigError, SimtrustError
from simtrust.simulators import make_joint_simulator, parse_shifts
from simtrust.simulators.built_in import find_built_in
from simtrust.simulators.guard import GuardedSimulator
from simtrust.training.fleet import Fleet
from simtrust.training.in_step import Outcome, in_step
from simtrust.training.loop import FleetOf
from simtrust.training.progress import rows_of_progress
from simtrust.training.rollouts import Collecting, Member
from simtrust.training.running import Training


class Begin(Protocol):
    """`training.loop.beginning` or `going_on`, with everything but ``fleet_of``."""

    def __call__(self, *, fleet_of: FleetOf) -> AbstractContextManager[Training]: ...


def train_side_by_side(runs: Mapping[str, Begin], *, quiet: bool = False) -> dict[str, Outcome]:
    """Train runs to their ends, side by side.

    They may differ in their logs, simulators, seeds, steps and in β, not in their recipe, the sizes of
    observations and actions, or another option of the algorithm: one program updates them all, on a GPU.

    Args:
        runs: by the titles under which their progress is shown.
        quiet: show no progress.

    Returns:
        Every one's result, or the error that it could not be begun with or that stopped it; the others go on.
    """
    outcomes: dict[str, Outcome] = {}
    begun: dict[str, Training] = {}
    shared: list[Fleet] = []

    def fleet_of(algorithm: Algorithm) -> Fleet:
        if not shared:
            shared.append(Fleet(algorithm))
        if shared[0].algorithm.shape() != algorithm.shape():
            first = next(iter(begun), "the first run")
            raise ConfigError(
                f"its recipe, sizes of observations and actions, or an option other than beta is not that of "
                f"{first}, so they cannot be trained side by side; train them one after the other"
            )
        return shared[0]

    with ExitStack() as stack, rows_of_progress(quiet=quiet) as row:
        for title, begin in runs.items():
            try:
                begun[title] = stack.enter_context(begin(fleet_of=fleet_of))
            except SimtrustError as error:
                outcomes[title] = error
        if begun:
            lanes = [index * shared[0].lanes // len(begun) for index in range(len(begun))]
            for lane in set(lanes):
                own = [training for training, its in zip(begun.values(), lanes, strict=True) if its == lane]
                for collecting in join_simulators(own):
                    stack.callback(collecting.close)
            rounds = [training.rounds(partial(row, title), quiet=quiet) for title, training in begun.items()]
            outcomes |= zip(begun, in_step(rounds, shared[0], lanes), strict=True)
    return {title: outcomes[title] for title in runs}


def join_simulators(trainings: Iterable[Training]) -> list[Collecting]:
    """Let trainings that can collect together do so, and return what they share; the others go on alone.

    They can if their simulators are the same built-in one, in any shifts, with as many instances a run, and
    if they ask for as many rows every time.
    """
    alike: dict[tuple[str, int, int], list[Training]] = {}
    for each in trainings:
        config = each.config
        built_in = None if each.member is None else find_built_in(str(config.sim))
        if built_in is not None and config.steps % config.rollout_steps == 0:
            common = (built_in.name, config.sim_instances, config.rollout_steps)
            alike.setdefault(common, []).append(each)
    return [_sharing(name, each, group) for (name, each, _), group in alike.items() if len(group) > 1]


def _sharing(name: str, instances: int, trainings: list[Training]) -> Collecting:
    shifts = {each.member: parse_shifts(each.config.shifts) for each in trainings if each.member is not None}

    def make(members: Iterable[Member]) -> GuardedSimulator:
        of_runs = [shifts[member] for member in members for _ in range(member.runs)]
        return make_joint_simulator(name, of_runs, num_envs_each=instances)

    # Neighbours with the same shifts are stepped faster.
    return Collecting(sorted(shifts, key=lambda member: list(map(str, shifts[member]))), make)
