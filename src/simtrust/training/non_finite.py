"""Where a number first became NaN or infinite: in which update or step, of which seed, by which rows.

Training looks only at the means of a round, and at the state after it. If one is not finite, the round is
repeated from the state before it: first in the same blocks of updates, which gives the same numbers, to find
the first block that goes wrong; then within this block update by update, with every intermediate result.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from simtrust.algorithms.agent import Agent, Batch
from simtrust.data.dataset import episode_numbers
from simtrust.data.replay import ReplayBuffer
from simtrust.errors import NonFiniteAnswer, SimulatorError
from simtrust.training.fleet import UPDATE, Fleet, seed_keys
from simtrust.training.log_order import log_order
from simtrust.training.rounds import Draw, drawn_together
from simtrust.training.setup import Problem
from simtrust.training.update_trace import ROWS, Named, make_trace, state_of
from simtrust.training.updating import Share
from simtrust.types import Transitions


class Finding(NamedTuple):
    """The first number of a run that is not finite, and what led there."""

    seed: int
    where: str
    """Such as "update 120"."""
    step: int
    first: Named
    before: Sequence[Named] = ()
    """What was computed before it, in order."""
    rows: Sequence[Mapping[str, Any]] = ()
    """The rows of which it was computed, or, where it belongs to no row, those that weigh most."""
    arrays: Mapping[str, np.ndarray] | None = None
    """The batch, or the rollout, by name."""
    other_seeds: Sequence[int] = ()
    problem: str = ""
    """What the simulator says, or why the numbers could not be repeated."""
    rows_are_bad: bool = False
    """Whether ``rows`` are those that are not finite, and not those that weigh most."""
    learnt: bool = True
    """Whether it came of an update, which a lower learning rate may prevent."""


class RowNumbers:
    """What the numbers of a mini-batch's rows mean: rows of the log's file, steps of the simulator."""

    def __init__(self, problem: Problem, collected: int):
        self.problem, self.collected = problem, collected
        dataset = problem.dataset
        if dataset is not None and problem.log is not None:
            order, *_ = log_order(dataset, problem.scaling.transitions(dataset.transitions))
            self._episode = episode_numbers(dataset.episode_end)[order]
            self._in_file = order if dataset.file_row is None else np.asarray(dataset.file_row)[order]

    def columns(self, part: str, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """For row numbers [B] on the device: ``log_row`` and ``episode``, or ``buffer_row`` and ``step``."""
        if part.endswith("real"):
            return {"log_row": self._in_file[numbers], "episode": self._episode[numbers]}
        capacity = self.problem.capacity
        # The ring holds the latest rows: the one in slot s is the last that is congruent to s.
        step = self.collected - 1 - (self.collected - 1 - numbers) % capacity
        return {"buffer_row": numbers, "step": step}


def is_finite(value: Any) -> bool:
    return bool(np.isfinite(value).all())


def find_in_state(seeds: Sequence[int], agents: Agent, step: int) -> Finding:
    """The first number of agents [R] that is not finite."""
    named = list(state_of(agents, "in the state"))
    bad = [each for each in named if not is_finite(each.value)]
    runs = [run for run in range(len(seeds)) if not all(is_finite(each.value[run]) for each in bad)]
    run = runs[0]
    first = next(each for each in bad if not is_finite(each.value[run]))
    return Finding(
        seeds[run],
        f"the state of step {step}",
        step,
        first._replace(value=np.asarray(first.value[run])),
        other_seeds=[seeds[other] for other in runs[1:]],
    )


def find_in_updates(
    problem: Problem, fleet: Fleet, agents: Agent, buffer: ReplayBuffer | None, *, step: int, updates: int
) -> Finding:
    """Repeat ``updates`` updates from ``step`` on, until a number is not finite.

    ``agents`` [R] are those before, and are given up.
    """
    seeds, keys = problem.config.run_seeds, seed_keys(problem.config.run_seeds, UPDATE)
    together = drawn_together(updates)
    for first in range(step, step + updates, together):
        before = fleet.copy(agents)
        share = Share(agents, problem.log, buffer, keys, problem.algorithm.coefficients, first)
        ((agents, metrics, finite),) = fleet.begin_updates([share], together)()
        finite = np.array(finite)
        bad = {name: value for name, value in metrics.items() if not is_finite(value)}
        for value in bad.values():
            finite &= np.isfinite(value)
        if not finite.all():
            runs = [int(run) for run in np.flatnonzero(~finite)]
            draws = [fleet.draw(problem.log, buffer, keys, step=first + update) for update in range(together)]
            found = _find_in_block(problem, before, draws, runs, first, step + updates)
            return found or _not_repeated(seeds, runs, bad, agents, first, together)
    return Finding(
        seeds[0],
        f"updates {step} to {step + updates - 1}",
        step,
        Named("mean over these updates", np.full((), np.nan)),
        problem="Every update is finite when it is repeated; only the first attempt was not.",
    )


def _find_in_block(
    problem: Problem, agents: Agent, draws: Sequence[Draw], runs: Sequence[int], first: int, collected: int
) -> Finding | None:
    """The earliest of the updates of ``draws`` in which one of the runs goes wrong; None if none does."""
    trace, seeds = make_trace(problem.algorithm), problem.config.run_seeds
    found: list[tuple[int, int, list[Named]]] = []
    for run in runs:
        agent = _of_run(agents, run)
        for update, draw in enumerate(draws):
            named, agent = trace(agent, *_of_run((draw.batch, draw.noise), run))
            if not all(is_finite(each.value) for each in named):
                found.append((update, run, named))
                break
    if not found:
        return None
    update, run, named = min(found, key=lambda each: each[0])
    index = next(index for index, each in enumerate(named) if not is_finite(each.value))
    batch, numbers = (_of_run(each, run) for each in (draws[update].batch, draws[update].numbers))
    rows = RowNumbers(problem, collected)
    step = first + update
    return Finding(
        seeds[run],
        f"update {step}",
        step,
        named[index],
        named[:index],
        _rows_behind(named[: index + 1], numbers, rows),
        _batch_arrays(batch, numbers, rows, named[: index + 1]),
        [seeds[other] for other in runs if other != run],
        rows_are_bad=named[index].part is not None,
    )


def _not_repeated(
    seeds: Sequence[int],
    runs: Sequence[int],
    bad: Mapping[str, np.ndarray],
    agents: Agent,
    first: int,
    updates: int,
) -> Finding:
    problem = "Update by update, with its own rounding, each of them is finite; in one go they are not."
    if not bad:
        finding = find_in_state(seeds, agents, first + updates)
        return finding._replace(problem=problem, where=f"updates {first} to {first + updates - 1}")
    name, value = next(iter(bad.items()))
    run = int(np.flatnonzero(~np.isfinite(value))[0])
    others = [seeds[other] for other in runs if other != run]
    where = f"updates {first} to {first + updates - 1}"
    mean = Named(f"mean of {name}", np.asarray(value[run]))
    return Finding(seeds[run], where, first, mean, other_seeds=others, problem=problem)


def _of_run(tree: Any, run: int) -> Any:
    return jax.tree.map(lambda x: x[run], tree)


def _worst(each: Named) -> np.ndarray:
    """The rows' largest magnitudes [B]; infinite where one is not finite."""
    by_row = np.moveaxis(np.abs(np.asarray(each.value, np.float64)), each.axis, 0)
    largest = by_row.reshape(len(by_row), -1).max(1)
    return np.where(np.isfinite(largest), largest, np.inf)


def _rows_behind(named: Sequence[Named], numbers: Batch, rows: RowNumbers) -> list[dict[str, Any]]:
    *before, last = named
    if last.part is not None:
        worst = _worst(last)
        return [_row(last, int(index), numbers, rows) for index in np.flatnonzero(np.isinf(worst))]
    losses = {each.part: each for each in before if each.name.endswith("row by row")}
    heaviest = []
    for each in losses.values():
        worst = _worst(each)
        heaviest += [_row(each, int(index), numbers, rows) for index in np.argsort(-worst, kind="stable")[:3]]
    return heaviest


def _row(each: Named, index: int, numbers: Batch, rows: RowNumbers) -> dict[str, Any]:
    assert each.part is not None
    number = np.asarray(getattr(numbers, each.part).reward)[[index]]
    columns = {name: int(value[0]) for name, value in rows.columns(each.part, number).items()}
    value = np.take(each.value, index, each.axis)
    return {"part": each.part, "row_of_batch": index, **columns, each.name: value}


def _batch_arrays(
    batch: Batch, numbers: Batch, rows: RowNumbers, named: Iterable[Named]
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for part in ROWS:
        if (transitions := getattr(batch, part)) is None:
            continue
        number = np.asarray(getattr(numbers, part).reward)
        columns = {**transitions._asdict(), **rows.columns(part, number)}
        arrays |= {f"{part}/{name}": np.asarray(value) for name, value in columns.items()}
    known = set(arrays)
    for each in named:
        if each.part is not None and f"{each.part}/{each.name.partition(',')[0]}" not in known:
            arrays[f"computed/{each.name}"] = np.asarray(each.value)
    return arrays


def find_in_rollout(
    seeds: Sequence[int],
    machine: Transitions[np.ndarray],
    inside: Transitions[np.ndarray],
    gap: np.ndarray | None,
    step: int,
) -> Finding | None:
    """The first simulated row [R, n] that is not finite, in the units of training; None if all are."""
    columns = {f"{name} of a simulated row": value for name, value in inside._asdict().items()}
    if gap is not None:
        columns["measured gap u of a simulated row"] = gap
    bad = np.stack([~np.isfinite(v).reshape(*v.shape[:2], -1).all(-1) for v in columns.values()])
    if not bad.any():
        return None
    runs = [int(run) for run in np.flatnonzero(bad.any((0, 2)))]
    run = min(runs, key=lambda run: int(np.argmax(bad[:, run].any(0))))
    row = int(np.argmax(bad[:, run].any(0)))
    index = int(np.argmax(bad[:, run, row]))
    named = [Named(name, value[run, row]) for name, value in columns.items()]
    arrays = {f"rollout/{name}": value[run] for name, value in machine._asdict().items()}
    arrays["rollout/step"] = step + np.arange(len(machine.reward[run]))
    return Finding(
        seeds[run],
        f"simulator step {step + row}",
        step + row,
        named[index],
        named[:index],
        [
            {"part": "rollout", "row_of_rollout": int(each), "step": step + int(each)}
            for each in np.flatnonzero(bad[:, run].any(0))
        ],
        arrays,
        [seeds[other] for other in runs if other != run],
        rows_are_bad=True,
        learnt=False,
    )


class Witness:
    """An actor that remembers what it was asked last, and what it answered."""

    def __init__(self, act: Callable[..., np.ndarray]):
        self.act = act
        self.observation = self.action = np.zeros((0, 0, 0))

    def __call__(self, observation: np.ndarray, *rest: Any) -> np.ndarray:
        self.observation = observation
        self.action = self.act(observation, *rest)
        return self.action

    def find(self, seeds: Sequence[int], step: int, error: SimulatorError) -> Finding | None:
        """Whether ``error`` comes of an action or an observation [R, S, ...] that is not finite."""
        asked = {
            "observation, as the policy reads it": self.observation,
            "action of the policy": self.action,
        }
        for index, (name, value) in enumerate(asked.items()):
            for run, of_run in enumerate(value):
                if not is_finite(of_run):
                    before = [Named(other, v[run]) for other, v in list(asked.items())[:index]]
                    arrays = {f"policy/{each.name}": each.value for each in [*before, Named(name, of_run)]}
                    where = f"the round after step {step}"
                    return Finding(
                        seeds[run], where, step, Named(name, of_run), before, (), arrays, (), str(error)
                    )
        return None

    def answer(self, seeds: Sequence[int], run: int, step: int, error: NonFiniteAnswer) -> Finding:
        """What the simulator of one run answered, and the policy's last action before it."""
        asked = {"observation, as the policy reads it": self.observation, "action of the policy": self.action}
        before = [Named(name, value[run]) for name, value in asked.items() if value.size]
        first = Named(f"{error.what} of the simulator", error.values)
        arrays = {f"policy/{each.name}": each.value for each in before} | {
            f"simulator/{error.what}": first.value
        }
        return Finding(seeds[run], f"the round after step {step}", step, first, before, (), arrays)
