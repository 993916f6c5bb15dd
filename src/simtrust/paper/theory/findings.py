"""All random problems are put to all claims, and what was found is kept together."""

from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track

from simtrust.paper.theory.bounds import everywhere_reached, high_gap, shortfall
from simtrust.paper.theory.claims import ANY_STATE, PROVED, THEOREM_1, Tally, tallies
from simtrust.paper.theory.counterexample import Counterexample, smallest_counterexample
from simtrust.paper.theory.figure import HighGapStates
from simtrust.paper.theory.measures import Bias, Slack, bias_by_weight, slack_by_discount
from simtrust.paper.theory.problems import Problem, draw_problem

MEASURED = 400
"""So many problems at most are measured besides, which is slower."""


@dataclass(frozen=True)
class Theory:
    """What was found."""

    problems: int
    seed: int
    proved: list[Tally]
    printed: list[Tally]
    slack: list[Slack]
    bias: list[Bias]
    states: HighGapStates
    counterexample: Counterexample

    @property
    def theorem_1(self) -> Tally:
        """How its printed form fares."""
        return next(tally for tally in self.printed if tally.claim is THEOREM_1)

    @property
    def any_state(self) -> Tally:
        """The same without its condition."""
        return next(tally for tally in self.printed if tally.claim is ANY_STATE)

    @property
    def broken(self) -> list[Tally]:
        """What was proved and yet failed: our own error, if there is one."""
        return [tally for tally in self.proved if tally.total.failures]


def find(problems: int, seed: int, console: Console) -> Theory:
    """Draw so many problems of a seed, and put each to every claim; the console shows how far it is."""
    counted = tallies()
    drawn: list[Problem] = []
    states: list[np.ndarray] = []
    numbers = track(range(problems), "problems", console=console, disable=console.quiet, transient=True)
    for index in numbers:
        problem = draw_problem(seed, index)
        for tally in counted:
            tally.add(index, problem, seed)
        states.append(_high_gap_states(problem))
        if index < MEASURED:
            drawn.append(problem)
    delta, missing, reached = np.concatenate(states, axis=1)
    pairs = [problem.pair for problem in drawn]
    return Theory(
        problems,
        seed,
        counted[: len(PROVED)],
        counted[len(PROVED) :],
        slack_by_discount(pairs),
        bias_by_weight(pairs),
        HighGapStates(delta, missing, reached.astype(bool)),
        smallest_counterexample(),
    )


def _high_gap_states(problem: Problem) -> np.ndarray:
    """The columns of `HighGapStates` [3, N]."""
    pair = problem.pair
    condition = high_gap(pair)
    missing = (1 - pair.discount) * shortfall(pair)
    return np.stack([pair.delta, missing, everywhere_reached(pair, condition)])[:, condition]
