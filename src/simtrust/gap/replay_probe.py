"""The gap by replay: put the simulator into every logged state, step it, compare with what was logged.

Needs no training, and sees each row's own error. What a simulator cannot be told from an observation
(slip, the battery's charge, sensor noise in the log itself) counts as error too.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from simtrust.data import Dataset, check_against_simulator
from simtrust.data.dataset import episode_numbers, unknown_next_state
from simtrust.errors import ConfigError, DataError, SimulatorError
from simtrust.simulators import Shift, make_simulator
from simtrust.simulators.built_in import find_built_in
from simtrust.simulators.guard import GuardedSimulator
from simtrust.simulators.shifts import check_distinct

INSTANCES = 1024
"""Rows stepped side by side; more are not faster."""
RESAMPLING_BLOCK = 4_000_000
"""Draws held at once, which bounds the memory whatever the number of episodes."""

Normalisation = Literal["change", "state"]
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
    probe = _Probe.of(
        dataset, simulator_name, shifts, min(_positive("instances", instances), len(rows)), seed
    )
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
    if len(dataset) == 0:
        raise DataError(f"{dataset.source}: has no rows. Remedy: record at least one transition.")
    if rows is None:
        return np.arange(len(dataset))
    rows = np.asarray(rows)
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "iu":
        raise ConfigError(f"rows must be at least one row number, got {rows.dtype} of shape {rows.shape}")
    if rows.min() < 0 or rows.max() >= len(dataset):
        raise ConfigError(f"rows must be in 0 to {len(dataset) - 1}, got {rows.min()} to {rows.max()}")
    return rows


def _positive(option: str, value: int) -> int:
    if not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"{option} must be a positive integer, got {value!r}")
    return int(value)


class _Rolled(NamedTuple):
    predicted: np.ndarray  # [N, H, O] float64; NaN where diverged, and after the simulator's own end
    determined: np.ndarray  # [N] bool
    diverged: np.ndarray  # [N] bool
    failure: str | None


@dataclass(frozen=True, eq=False)
class _Probe:
    """A simulator that can be put into logged states, and what to step it with."""

    simulator: GuardedSimulator
    observations: np.ndarray  # [T, O]
    actions: np.ndarray  # [T, A] float64, as they reach the simulator without its delay

    @classmethod
    def of(cls, dataset: Dataset, name: str, shifts: Sequence[Shift], instances: int, seed: int) -> "_Probe":
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
        simulator.check_settable()
        check_against_simulator(
            dataset, simulator.single_observation_space, simulator.single_action_space, name
        )
        simulator.reset(seed=seed)
        observations = np.asarray(dataset.transitions.observation)
        return cls(simulator, observations, _received_actions(dataset, delay))

    def roll(self, rows: np.ndarray, horizon: int, progress: Progress | None = None) -> _Rolled:
        """Step from each of ``rows [N]`` under the following ``horizon`` logged actions."""
        size = self.simulator.num_envs
        predicted = np.full((len(rows), horizon, self.observations.shape[1]), np.nan)
        determined, diverged = np.ones(len(rows), bool), np.zeros(len(rows), bool)
        failure = None
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            # The last chunk is filled up with its own first rows.
            rolled = self._roll_chunk(np.resize(chunk, size), horizon)
            here = slice(start, start + len(chunk))
            predicted[here] = rolled.predicted[: len(chunk)]
            determined[here] = rolled.determined[: len(chunk)]
            diverged[here] = rolled.diverged[: len(chunk)]
            failure = failure or rolled.failure
            if progress is not None:
                progress(start + len(chunk), len(rows))
        return _Rolled(predicted, determined, diverged, failure)

    def _roll_chunk(self, rows: np.ndarray, horizon: int) -> _Rolled:
        """Roll ``[S]`` rows; where one diverges, all are rolled again with another in its place."""
        diverged = np.zeros(len(rows), bool)
        determined = np.ones(len(rows), bool)
        failure = None
        while not diverged.all():
            stand_in = int(np.flatnonzero(~diverged)[0])
            source = np.where(diverged, stand_in, np.arange(len(rows)))
            try:
                predicted, told = self._roll_once(rows[source], horizon)
            except SimulatorError as error:
                failure = failure or str(error)
                diverged[source[_failed(error, len(rows))]] = True
                continue
            predicted[diverged] = np.nan
            return _Rolled(predicted, np.where(diverged, determined, told), diverged, failure)
        nothing = np.full((len(rows), horizon, self.observations.shape[1]), np.nan)
        return _Rolled(nothing, determined, diverged, failure)

    def _roll_once(self, rows: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Next observations ``[S, H, O]``, and whether the first ones determine the state ``[S]``."""
        predicted = np.full((len(rows), horizon, self.observations.shape[1]), np.nan)
        determined = self.simulator.set_observations(self.observations[rows])
        for step in range(horizon):
            predicted[:, step] = self.simulator.step(self.actions[rows + step])[0]
            if not self.simulator.go_on():
                break
        return predicted, determined


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


@dataclass(frozen=True, eq=False)
class GapErrors:
    """One-step errors of N rows, simulated less logged; NaN in rows that are not usable."""

    rows: np.ndarray  # [N] int: rows of the dataset
    episode: np.ndarray  # [N] int: their episodes
    error: np.ndarray  # [N, O] float64, in the log's units
    scale: np.ndarray  # [O] float64, in the log's units; NaN where the log does not vary
    gap: np.ndarray  # [N] float64: root mean square of the normalised error over dimensions that vary
    normalisation: Normalisation

    @property
    def normalised(self) -> np.ndarray:
        """[N, O] float64: ``error / scale``; NaN where the log does not vary."""
        return self.error / self.scale


def step_errors(dataset: Dataset, replayed: Replay, *, normalisation: Normalisation = "change") -> GapErrors:
    """Compare a replay with the log, dimension by dimension.

    ``"change"``, the default, divides by the standard deviation of the logged change s' − s, over the
    whole log. Then 1 is the error of a simulator that predicts the mean change whatever is done, in every
    dimension alike, and 1 − mean(normalised²) is about the share of the change that it explains.
    ``"state"`` divides by the standard deviation of s, as model-based estimates on standardised states do.
    That hides errors of one step: it measures them against how far the machine ever travels, so
    positions hardly count, and the same simulator looks twice as good at half the time step.

    Dimensions that vary by no more than the log's own float32 rounding have no scale and do not enter the
    gap; their error in the log's units is there.

    Raises:
        DataError: no dimension varies, or the replay is not of this log.
        ConfigError: the normalisation is unknown.
    """
    _check_replay_fits(dataset, replayed)
    scale = _scale(dataset, normalisation)
    following = np.asarray(dataset.transitions.next_observation)[replayed.rows]
    error = replayed.predicted - following
    error[~replayed.usable] = np.nan
    episode = episode_numbers(dataset.episode_end)[replayed.rows]
    return GapErrors(replayed.rows, episode, error, scale, _root_mean_square(error, scale), normalisation)


def _check_replay_fits(dataset: Dataset, replayed: Replay) -> None:
    width = replayed.predicted.shape[1]
    if width != dataset.observation_size or replayed.rows.max() >= len(dataset):
        raise DataError(
            f"{dataset.source}: the replay is of another log, of observations {width} wide and at least "
            f"{replayed.rows.max() + 1:,} rows. Remedy: replay this one."
        )


def _scale(dataset: Dataset, normalisation: Normalisation) -> np.ndarray:
    """[O]: what errors are divided by; NaN where the log does not vary."""
    if normalisation not in get_args(Normalisation):
        known = " or ".join(map(repr, get_args(Normalisation)))
        raise ConfigError(f"normalisation is {normalisation!r}; it must be {known}")
    state = np.asarray(dataset.transitions.observation, np.float64)
    values = state
    if normalisation == "change":
        recorded = ~unknown_next_state(dataset.transitions)
        values = np.asarray(dataset.transitions.next_observation, np.float64)[recorded] - state[recorded]
    spread = values.std(axis=0) if len(values) else np.zeros(state.shape[1])
    rounding = np.finfo(np.float32).eps * np.abs(state).max(axis=0)
    scale = np.where(spread > rounding, spread, np.nan)
    if np.isnan(scale).all():
        raise DataError(
            f"{dataset.source}: no dimension of the {normalisation} varies, so there is nothing to compare "
            "an error with. Remedy: record the machine while it moves."
        )
    return scale


def _root_mean_square(error: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """``[...]`` of errors ``[..., O]``: over the dimensions that have a scale."""
    varies = ~np.isnan(scale)
    return np.sqrt(np.square(error[..., varies] / scale[varies]).mean(axis=-1))


class Intervals(NamedTuple):
    """Means, and where they lie with 95 % confidence; NaN where that is unknown."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Summary(NamedTuple):
    """Means over the usable rows, with intervals from resampled episodes."""

    bias: Intervals  # [O]: signed error, in the log's units
    absolute: Intervals  # [O]: absolute error, in the log's units
    normalised: Intervals  # [O]: absolute normalised error
    gap: Intervals  # []
    rows: int  # usable
    episodes: int  # that hold them


def summarise(errors: GapErrors, *, resamples: int = 2000, seed: int = 0) -> Summary:
    """Mean errors with 95 % percentile-bootstrap intervals by episode.

    Episodes are drawn again, not rows: neighbouring rows err alike, and rows drawn one by one would make
    intervals far too narrow. The intervals are NaN with one episode, and rough with fewer than ten.

    Raises:
        ConfigError: ``resamples`` is not positive.
    """
    size = errors.error.shape[1]
    columns = (*errors.error.T, *map(np.abs, errors.error.T), errors.gap)
    means = _episode_bootstrap(columns, errors.episode, resamples, seed)
    bias, absolute, gap = (
        Intervals(*(bound[part] for bound in means))
        for part in (slice(size), slice(size, 2 * size), 2 * size)
    )
    normalised = Intervals(*(bound / errors.scale for bound in absolute))
    usable = ~np.isnan(errors.gap)
    episodes = len(np.unique(errors.episode[usable]))
    return Summary(bias, absolute, normalised, gap, int(usable.sum()), episodes)


def _episode_bootstrap(
    columns: Iterable[np.ndarray], episode: np.ndarray, resamples: int, seed: int
) -> Intervals:
    """Means ``[K]`` of K columns ``[N]``, rows of ``episode [N]``, with NaN left out, and their intervals."""
    resamples = _positive("resamples", resamples)
    sums, counts = _episode_sums(columns, episode)
    mean = _ratio(sums.sum(axis=0), counts.sum(axis=0))
    several = (counts > 0).sum(axis=0) > 1
    low, high = np.full((2, len(mean)), np.nan)
    if several.any():
        drawn = _resampled_means(sums[:, several], counts[:, several], resamples, seed)
        low[several], high[several] = np.nanquantile(drawn, (0.025, 0.975), axis=0)
    return Intervals(mean, low, high)


def _episode_sums(columns: Iterable[np.ndarray], episode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts ``[E, K]`` of what is not NaN, by episode, of the episodes that hold any."""
    episodes, index = np.unique(episode, return_inverse=True)
    sums, counts = [], []
    for column in columns:
        known = ~np.isnan(column)
        sums.append(np.bincount(index[known], column[known], len(episodes)))
        counts.append(np.bincount(index[known], minlength=len(episodes)))
    kept = np.any(counts, axis=0)
    return np.stack(sums, axis=1)[kept], np.stack(counts, axis=1)[kept].astype(float)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """[resamples, K]: means over as many episodes as there are, drawn with replacement."""
    generator = np.random.default_rng(seed)
    episodes = len(sums)
    block = max(1, RESAMPLING_BLOCK // episodes)
    means = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        draws = generator.integers(episodes, size=(size, episodes)) + episodes * np.arange(size)[:, None]
        times = np.bincount(draws.ravel(), minlength=size * episodes).reshape(size, episodes).astype(float)
        means.append(_ratio(times @ sums, times @ counts))
    return np.concatenate(means)


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)


class Drift(NamedTuple):
    """How far the simulator has gone astray after h = 0 to H steps on its own."""

    error: Intervals  # [H + 1]: over the starts, the gap of what it observes after h steps
    each: np.ndarray  # [N, H + 1]: of every start; NaN where diverged or not recorded
    starts: np.ndarray  # [N] int: rows of the dataset
    diverged: np.ndarray  # [N] bool: the simulator failed on its way
    normalisation: Normalisation


def drift(
    dataset: Dataset,
    simulator_name: str,
    *,
    shifts: Sequence[Shift] = (),
    horizon: int = 50,
    starts: int = 256,
    normalisation: Normalisation = "state",
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Drift:
    """Run the simulator open loop under the logged actions, from some logged states.

    Starts are drawn evenly, without replacement, from the rows that ``horizon - 1`` more rows of their
    episode follow and that determine the simulator's state. Ends of episodes in a built-in simulator are
    passed over: the machine did not end there. Starts at which it failed are left out.

    Args:
        dataset, simulator_name, shifts, progress: as for `replay`.
        horizon: H steps.
        starts: at most so many.
        normalisation: as for `step_errors`, with the other default: over many steps errors grow to the size
            of the state, where √2 is the distance of two states of the log that have nothing in common.
        resamples: of the episodes, for the intervals.
        seed: of the starts, the simulator's randomness, and the resampling.

    Raises:
        StateNotSettable, SimulatorError, ConfigError: as for `replay`.
        DataError: as for `replay`; or no episode has so many rows.
    """
    horizon, starts = _positive("horizon", horizon), _positive("starts", starts)
    _checked_rows(dataset, None)
    scale = _scale(dataset, normalisation)
    rows = _drawn_starts(dataset, horizon, starts, seed)
    rolled = _Probe.of(dataset, simulator_name, shifts, min(len(rows), INSTANCES), seed).roll(
        rows, horizon, progress
    )
    each = _root_mean_square(_drift_errors(dataset, rows, rolled.predicted), scale)
    each[rolled.diverged] = np.nan
    if not rolled.determined.any():
        raise DataError(
            f"{dataset.source}: none of the {len(rows):,} starts determines the state of {simulator_name}. "
            "Remedy: draw more starts, or estimate the gap by other means than replay."
        )
    if rolled.diverged[rolled.determined].all():
        raise SimulatorError(f"{simulator_name} failed on its way from every start, first: {rolled.failure}")
    kept = rolled.determined
    episode = episode_numbers(dataset.episode_end)[rows[kept]]
    error = _episode_bootstrap(each[kept].T, episode, resamples, seed)
    return Drift(error, each[kept], rows[kept], rolled.diverged[kept], normalisation)


def _drawn_starts(dataset: Dataset, horizon: int, starts: int, seed: int) -> np.ndarray:
    """[N] int, sorted: rows from which ``horizon`` rows lie within the episode."""
    lengths = dataset.episode_lengths
    rows_left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(dataset))
    eligible = np.flatnonzero(rows_left >= horizon)
    if not len(eligible):
        raise DataError(
            f"{dataset.source}: no episode has {horizon} rows; the longest has {lengths.max()}. Remedy: "
            f"choose a horizon of at most {lengths.max()}."
        )
    chosen = np.random.default_rng(seed).choice(eligible, min(starts, len(eligible)), replace=False)
    return np.sort(chosen)


def _drift_errors(dataset: Dataset, rows: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """[N, H + 1, O]: simulated less logged after h steps; 0 at the start, NaN where nobody recorded it."""
    steps = rows[:, None] + np.arange(predicted.shape[1])
    following = np.asarray(dataset.transitions.next_observation)[steps]
    unknown = unknown_next_state(dataset.transitions)[steps][..., None]
    error = np.where(unknown, np.nan, predicted - following)
    return np.concatenate((np.zeros_like(error[:, :1]), error), axis=1)
