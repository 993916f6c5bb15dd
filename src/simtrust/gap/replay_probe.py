"""The gap by replay: put the simulator into every logged state, step it, compare with what was logged.

Needs no training, and sees each row's own error. What a simulator cannot be told from an observation
(slip, the battery's charge, sensor noise in the log itself) counts as error too.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from simtrust.data import Dataset, check_against_simulator
from simtrust.data.dataset import unknown_next_state
from simtrust.errors import ConfigError, DataError, SimulatorError
from simtrust.simulators import Shift, make_simulator
from simtrust.simulators.built_in import find_built_in
from simtrust.simulators.closing import close_all
from simtrust.simulators.guard import GuardedSimulator
from simtrust.simulators.shifts import check_distinct

INSTANCES = 1024
"""Rows stepped side by side; more are not faster."""

Progress = Callable[[int, int], Any]
"""Called with the rows done and the rows in all."""


@dataclass(frozen=True, eq=False)
class Replay:
    """What the simulator made of N rows of a log."""

    rows: np.ndarray  # [N] int: rows of the dataset
    predicted: np.ndarray  # [N, O] float64: the simulator's next observations; NaN where it failed
    unrecorded: np.ndarray  # [N] bool: a terminal row whose next observation nobody recorded
    undetermined: np.ndarray  # [N] bool: the observation leaves the state open
    diverged: np.ndarray  # [N] bool: the simulator failed here
    failure: str | None  # the first such failure, in words

    @property
    def usable(self) -> np.ndarray:
        """[N] bool: rows that can be compared with the log."""
        return ~(self.unrecorded | self.undetermined | self.diverged)


def replay(
    dataset: Dataset,
    simulator_name: str,
    *,
    shifts: Sequence[Shift] = (),
    rows: np.ndarray | None = None,
    instances: int = INSTANCES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Replay:
    """Step a simulator once from each logged state under the logged action.

    With a delay, also the robot's own, the simulator gets the action of so many rows before, of the same
    episode; before its first row, none. That is exact but together with a velocity offset, which then acts
    late. Other hidden state starts afresh in every row; noise is drawn once a row, from ``seed``.

    Args:
        dataset: T rows.
        simulator_name: built-in, or with a method ``set_observation``, see `make_simulator`.
        shifts: of a built-in simulator.
        rows: ``[N]`` int, which rows to replay; all by default.
        instances: rows stepped side by side, in built-in simulators.
        seed: of the simulator's own randomness.
        progress: told after every batch of rows.

    Raises:
        StateNotSettable: the simulator cannot be put into a logged state.
        DataError: the log does not fit the simulator, or none of the rows can be compared.
        SimulatorError: the simulator cannot be made, or failed at every row.
        ConfigError: an option has a value that cannot work.
    """
    rows = _checked_rows(dataset, rows)
    instances = min(require_positive("instances", instances), len(rows))
    with closing(Probe.of(dataset, simulator_name, shifts, instances, seed)) as probe:
        rolled = probe.roll(rows, 1, progress)
    unrecorded = unknown_next_state(dataset.transitions)[rows]
    made = Replay(
        rows, rolled.predicted[:, 0], unrecorded, ~rolled.determined, rolled.diverged, rolled.failure
    )
    _refuse_unusable(dataset, simulator_name, made)
    return made


def _refuse_unusable(dataset: Dataset, simulator_name: str, made: Replay) -> None:
    if made.diverged.all():
        raise SimulatorError(
            f"{simulator_name} failed at each of the {len(made.rows):,} rows replayed, first: {made.failure}"
        )
    if not made.usable.any():
        raise DataError(
            f"{dataset.source}: none of the {len(made.rows):,} rows can be replayed in {simulator_name}: "
            f"{made.unrecorded.sum():,} have no recorded next observation, {made.undetermined.sum():,} do "
            f"not determine the simulator's state, at {made.diverged.sum():,} it failed. Remedy: record "
            "'next_observations', or estimate the gap by other means than replay."
        )


def _checked_rows(dataset: Dataset, rows: np.ndarray | None) -> np.ndarray:
    refuse_empty(dataset)
    if rows is None:
        return np.arange(len(dataset))
    rows = np.asarray(rows)
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "iu":
        raise ConfigError(f"rows must be at least one row number, got {rows.dtype} of shape {rows.shape}")
    if rows.min() < 0 or rows.max() >= len(dataset):
        raise ConfigError(f"rows must be in 0 to {len(dataset) - 1}, got {rows.min()} to {rows.max()}")
    return rows


def refuse_empty(dataset: Dataset) -> None:
    """Raise DataError if the log has no rows."""
    if len(dataset) == 0:
        raise DataError(f"{dataset.source}: has no rows. Remedy: record at least one transition.")


def require_positive(option: str, value: int) -> int:
    """The value as an int; raises ConfigError, naming the option, if it is not a positive integer."""
    if not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"{option} must be a positive integer, got {value!r}")
    return int(value)


class Rolled(NamedTuple):
    """What the simulator made of N starts in H steps of its own."""

    predicted: np.ndarray  # [N, H, O] float64; NaN from a failure on, and after the simulator's own end
    reward: np.ndarray  # [N, H] float64; NaN likewise
    determined: np.ndarray  # [N] bool
    diverged: np.ndarray  # [N] bool
    failure: str | None


@dataclass(frozen=True, eq=False)
class Probe:
    """A simulator that can be put into logged states, and what to step it with."""

    simulator: GuardedSimulator
    observations: np.ndarray  # [T, O]
    actions: np.ndarray  # [T, A] float64, as they reach the simulator without its delay

    @classmethod
    def of(cls, dataset: Dataset, name: str, shifts: Sequence[Shift], instances: int, seed: int) -> "Probe":
        """The probe of a simulator by name; raises as `replay` does, except that it refuses no rows."""
        built_in = find_built_in(name)
        if built_in is None:
            # Instances would step one after the other anyway, and a failing one take the others with it.
            delay, simulator = 0, make_simulator(name, num_envs=1, shifts=shifts)
        else:
            # A delay is played by handing over earlier actions: no state could hold those under way.
            check_distinct(shifts)
            shifts = built_in.all_shifts(shifts)
            delay = sum(int(shift.amount) for shift in shifts if shift.kind == "delay")
            others = [shift for shift in shifts if shift.kind != "delay"]
            simulator = make_simulator(built_in.ideal, num_envs=instances, shifts=others)
        with ExitStack() as opened:
            opened.callback(close_all, simulator)
            simulator.check_settable()
            check_against_simulator(
                dataset, simulator.single_observation_space, simulator.single_action_space, name
            )
            simulator.reset(seed=seed)
            opened.pop_all()
        observations = np.asarray(dataset.transitions.observation)
        return cls(simulator, observations, _received_actions(dataset, delay))

    def close(self) -> None:
        """Close the simulator; an error of its own is a warning."""
        close_all(self.simulator)

    def roll(self, rows: np.ndarray, horizon: int, progress: Progress | None = None) -> Rolled:
        """Step from each of ``rows [N]`` under the following ``horizon`` logged actions.

        Each row and the ``horizon - 1`` after it must be rows of one episode, which is not checked.
        """
        size = self.simulator.num_envs
        predicted, reward = self._nothing_yet(len(rows), horizon)
        determined, diverged = np.ones(len(rows), bool), np.zeros(len(rows), bool)
        failure = None
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            # The last chunk is filled up with its own first rows.
            rolled = self._roll_chunk(np.resize(chunk, size), horizon)
            here = slice(start, start + len(chunk))
            predicted[here] = rolled.predicted[: len(chunk)]
            reward[here] = rolled.reward[: len(chunk)]
            determined[here] = rolled.determined[: len(chunk)]
            diverged[here] = rolled.diverged[: len(chunk)]
            failure = failure or rolled.failure
            if progress is not None:
                progress(start + len(chunk), len(rows))
        return Rolled(predicted, reward, determined, diverged, failure)

    def _nothing_yet(self, rows: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Next observations ``[S, H, O]`` and rewards ``[S, H]``, of which none is known."""
        return np.full((rows, horizon, self.observations.shape[1]), np.nan), np.full((rows, horizon), np.nan)

    def _roll_chunk(self, rows: np.ndarray, horizon: int) -> Rolled:
        """Roll ``[S]`` rows; where one diverges, all are rolled again with another in its place."""
        diverged = np.zeros(len(rows), bool)
        determined = np.ones(len(rows), bool)
        until_failure = self._nothing_yet(len(rows), horizon)
        failure = None
        while not diverged.all():
            stand_in = int(np.flatnonzero(~diverged)[0])
            source = np.where(diverged, stand_in, np.arange(len(rows)))
            answers = self._nothing_yet(len(rows), horizon)
            try:
                told = self._roll_once(rows[source], *answers)
            except SimulatorError as error:
                failure = failure or str(error)
                failed = _failed(error, len(rows))
                diverged[source[failed]] = True
                for kept, answer in zip(until_failure, answers, strict=True):
                    kept[source[failed]] = answer[failed]
                continue
            for kept, answer in zip(until_failure, answers, strict=True):
                answer[diverged] = kept[diverged]
            return Rolled(*answers, np.where(diverged, determined, told), diverged, failure)
        return Rolled(*until_failure, determined, diverged, failure)

    def _roll_once(self, rows: np.ndarray, predicted: np.ndarray, reward: np.ndarray) -> np.ndarray:
        """Write into ``predicted [S, H, O]`` and ``reward [S, H]``, where it stays if a later step fails.

        Returns:
            ``[S]`` bool: whether the rows' observations determine the state.
        """
        determined = self.simulator.set_observations(self.observations[rows])
        for step in range(predicted.shape[1]):
            predicted[:, step], reward[:, step] = self.simulator.step(self.actions[rows + step])[:2]
            if not self.simulator.go_on():
                break
        return determined


def _failed(error: SimulatorError, instances: int) -> np.ndarray:
    """The instances that an error is about; all, if it does not tell."""
    return np.ravel(getattr(error.__cause__, "ids", np.arange(instances)))


def _received_actions(dataset: Dataset, delay: int) -> np.ndarray:
    """[T, A] float64: the action ``delay`` rows before, 0 where that lies before the episode's first row."""
    actions = np.asarray(dataset.transitions.action, np.float64)
    if delay == 0:
        return actions
    lengths = dataset.episode_lengths
    row_in_episode = np.arange(len(actions)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    earlier = np.maximum(np.arange(len(actions)) - delay, 0)
    return np.where((row_in_episode >= delay)[:, None], actions[earlier], 0.0)
