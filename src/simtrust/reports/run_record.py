"""What a run directory tells of a training run: its configuration, its curves, its final returns."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, get_args

import numpy as np

from simtrust.errors import RunError
from simtrust.simulators.factories import is_simulator_itself
from simtrust.training.config import RecipeName, TrainConfig, config_from_json
from simtrust.training.result import damaged_result, read_result

METRICS = (
    "return_mean", "return_std", "episode_length", "simulator_return",
    "q_real", "q_sim", "gap", "omega_max", "weight", "log_ratio",
    "classifier_accuracy_sa_real", "classifier_accuracy_sa_sim",
    "classifier_accuracy_sas_real", "classifier_accuracy_sas_sim",
    "classifier_loss_sa", "classifier_loss_sas",
    "critic_loss", "critic_bellman_real", "critic_bellman_sim", "critic_value_gap", "critic_conservative",
    "actor_loss", "entropy", "temperature",
)  # fmt: skip
END = 0.1
"""The share of the steps that "at the end" means."""
LARGEST = 64 * 2**20
"""Bytes of a ``metrics.jsonl`` that is read: some 80,000 lines, where five seeds of the paper make 5,000."""
SPARSE = 4
"""So many times the lines there are may be the lines that steps and seeds allow."""


class Curves(NamedTuple):
    """``metrics.jsonl`` as arrays."""

    steps: np.ndarray  # [T] int, rising
    seeds: tuple[int, ...]  # R
    values: Mapping[str, np.ndarray]
    """Of each metric of `METRICS` that is there at all, ``[T, R]`` float64, NaN where unknown."""

    def known(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The steps ``[t]`` at which some seed has this metric, and its values ``[t, R]``."""
        values = self.values.get(name, np.zeros((len(self.steps), len(self.seeds))) * np.nan)
        there = np.isfinite(values).any(axis=1)
        return self.steps[there], values[there]

    def at_the_end(self, name: str) -> np.ndarray | None:
        """Mean of a metric over the last tenth of the steps ``[R]``; None if it is not there."""
        steps, values = self.known(name)
        return mean_since(steps, values, self.steps[-1] * (1 - END)) if len(steps) else None


def mean_since(steps: np.ndarray, values: np.ndarray, first: float) -> np.ndarray:
    """Means ``[R]`` of values ``[t, R]`` from a step on, of the last row if none is later; NaN if unknown."""
    there = np.isfinite(values) & (steps >= min(first, steps[-1]))[:, None]
    count = there.sum(0)
    return np.where(count > 0, np.where(there, values, 0.0).sum(0) / np.maximum(count, 1), np.nan)


class FinalReturns(NamedTuple):
    """The last returns that a run has of where it is judged."""

    step: int
    seeds: tuple[int, ...]
    mean: np.ndarray  # [R], over the episodes of each seed
    spread: np.ndarray  # [R], the standard deviation over these episodes
    episodes: int


class RunRecord(NamedTuple):
    """All that a report reads of a run directory; texts in it are whatever its files say."""

    directory: Path
    config: TrainConfig
    extra: Mapping[str, Any]
    """What is stored beside the configuration: command, versions, dataset_sha256 and so on."""
    curves: Curves
    final: FinalReturns | None
    finished: bool
    damaged: tuple[str, ...]
    """What could not be read, each with file and line."""

    @property
    def step(self) -> int:
        """The last step that is known of."""
        return max(int(self.curves.steps[-1]) if len(self.curves.steps) else 0, self._final_step)

    @property
    def _final_step(self) -> int:
        return self.final.step if self.final else 0

    @property
    def evaluation_environment(self) -> str:
        return self.extra.get("evaluation_environment") or "an unknown environment"

    @property
    def judged_in_simulator(self) -> bool:
        """Whether the policy was judged in the run's own simulator, so that reality is not known."""
        return is_simulator_itself(self.evaluation_environment, self.config.sim)


def read_run(directory: str | Path) -> RunRecord:
    """Read a run, finished or not.

    Lines of ``metrics.jsonl`` that are damaged, such as the last one of a run that was killed, are left out
    and told in ``damaged``.

    Raises:
        RunError: the directory holds no run, or ``config.json``, ``result.json`` or all of the metrics
            are damaged. The message names the file.
    """
    directory = Path(directory)
    config, extra = config_from_json(directory / "config.json")
    _check(directory / "config.json", config, extra)
    curves, damaged = read_curves(directory / "metrics.jsonl", config)
    result = _final_returns(directory)
    final = result or _last_evaluation(curves, config)
    return RunRecord(directory, config, extra, curves, final, result is not None, damaged)


def _check(path: Path, config: TrainConfig, extra: Mapping[str, Any]) -> None:
    """What `config_from_json` leaves open, and the report relies on."""
    remedy = "start the run again in a new directory"
    if config.recipe not in get_args(RecipeName):
        raise RunError(f"{path} is damaged (recipe is {config.recipe!r}, which does not exist); {remedy}")
    texts = {name: getattr(config, name) for name in ("real", "sim", "real_env", "dones_mean")}
    texts |= {name: extra.get(name) for name in ("command", "dataset_sha256", "evaluation_environment")}
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise RunError(f"{path} is damaged ({name} is {value!r}, not a text); {remedy}")
    if not isinstance(config.shifts, tuple) or not all(isinstance(s, str) for s in config.shifts):
        raise RunError(f"{path} is damaged (shifts is {config.shifts!r}, not a list of texts); {remedy}")
    for name in ("steps", "seeds", "first_seed", "evaluation_episodes", "evaluate_every"):
        if not _is_whole(getattr(config, name)):
            raise RunError(
                f"{path} is damaged ({name} is {getattr(config, name)!r}, no whole number); {remedy}"
            )
    for name in ("versions", "scaling"):
        if not isinstance(extra.get(name, {}), dict):
            raise RunError(f"{path} is damaged ({name} is {extra[name]!r}, not an object); {remedy}")


def read_curves(path: Path, config: TrainConfig) -> tuple[Curves, tuple[str, ...]]:
    """``metrics.jsonl``, and what of it was left out; of a step that is there twice, the later line counts.

    Raises:
        RunError: the file is too large, or not what a run writes.
    """
    rows: dict[tuple[int, int], dict[str, float]] = {}
    damaged: list[str] = []
    lines = _lines(path)
    for number, line in enumerate(lines, 1):
        try:
            key, values = _row(line, config)
        except (ValueError, RecursionError) as error:
            damaged.append(
                f"{path}, line {number}: left out, since {str(error) or 'it is nested too deeply'}"
            )
        else:
            rows[key] = values
    steps, seeds = (np.array(sorted({key[axis] for key in rows}), int) for axis in (0, 1))
    if len(steps) * len(seeds) > SPARSE * len(lines):
        raise RunError(f"{path} is damaged: its steps and seeds do not belong to one run; train again")
    values = {name: np.full((len(steps), len(seeds)), np.nan) for name in METRICS}
    for (step, seed), row in rows.items():
        place = np.searchsorted(steps, step), np.searchsorted(seeds, seed)
        for name, value in row.items():
            values[name][place] = value
    there = {name: array for name, array in values.items() if np.isfinite(array).any()}
    return Curves(steps, tuple(seeds.tolist()), there), tuple(damaged)


def _lines(path: Path) -> list[bytes]:
    try:
        # A pipe or a device could go on forever.
        if path.exists() and (not path.is_file() or path.stat().st_size > LARGEST):
            raise RunError(f"{path} is no file, or larger than {LARGEST:,} bytes: no run writes such metrics")
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _row(line: bytes, config: TrainConfig) -> tuple[tuple[int, int], dict[str, float]]:
    """One line: its step and seed, and the metrics known; `ValueError` says what is wrong with it."""
    try:
        stored = json.loads(line)
    except ValueError as error:
        raise ValueError(f"it is no whole JSON object ({error})") from error
    if not isinstance(stored, dict):
        raise ValueError("it is no JSON object")
    step, seed = stored.get("step"), stored.get("seed")
    if not _is_whole(step) or not 0 <= step <= config.steps:
        raise ValueError(f"its step is {step!r}, not a number from 0 to {config.steps}")
    if not _is_whole(seed) or not 0 <= seed - config.first_seed < config.seeds:
        raise ValueError(f"its seed is {seed!r}, not one of the run's")
    return (step, seed), {name: _number(stored[name]) for name in METRICS if name in stored}


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def _number(value: Any) -> float:
    """A number; NaN for null and whatever else is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    # Neither an integer beyond float64 nor an infinity can be drawn.
    return float(value) if abs(value) < 1e300 else math.nan


def _final_returns(directory: Path) -> FinalReturns | None:
    result = read_result(directory)
    if result is None:
        return None
    steps, runs = result.summary["steps"], result.summary["runs"]
    try:
        mean, spread = (np.array([_number(run[k]) for run in runs]) for k in ("return_mean", "return_std"))
        episodes = min(len(run["episode_returns"]) for run in runs)
        return FinalReturns(steps, tuple(run["seed"] for run in runs), mean, spread, episodes)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged_result(directory, error) from error


def _last_evaluation(curves: Curves, config: TrainConfig) -> FinalReturns | None:
    steps, returns = curves.known("return_mean")
    if not len(steps):
        return None
    spread = curves.values.get("return_std", np.full((len(curves.steps), len(curves.seeds)), np.nan))
    spread = spread[np.flatnonzero(curves.steps == steps[-1])[0]]
    return FinalReturns(int(steps[-1]), curves.seeds, returns[-1], spread, config.evaluation_episodes)
