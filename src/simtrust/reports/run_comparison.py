"""What the simulator, and the log, contributed to a run: against runs that had only one of the two."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap

from simtrust.algorithms.options import AlgorithmOptions
from simtrust.errors import ConfigError, RunError
from simtrust.evaluation.statistics import Interval
from simtrust.reports.charts import rounded
from simtrust.reports.run_evidence import JUDGED_IN_SIMULATOR
from simtrust.reports.run_record import RunRecord, read_run
from simtrust.training.config import TrainConfig

BASELINES = {"cql": "the log alone", "sac": "the simulator alone"}
"""The recipe that learns from one source, and which source that is."""
RESAMPLES = 10_000
ENOUGH = 5
"""Seeds from which on a bootstrap interval deserves its name."""


class Comparison(NamedTuple):
    """A run against another."""

    run: RunRecord
    other: RunRecord
    theirs: np.ndarray
    """The other's returns ``[R]`` that are compared."""
    difference: Interval
    """Of the returns, this run's minus the other's."""
    notes: tuple[str, ...]
    """In what the two differ besides, which may be why."""


class Unknown(NamedTuple):
    """A comparison that cannot be made: why, and the command that would make it possible."""

    baseline: str
    reason: str
    command: str | None


def difference_interval(ours: np.ndarray, theirs: np.ndarray, *, seed: int = 0) -> Interval:
    """Difference of the means of two samples ``[R]`` and ``[R']``, one number a training run.

    With its 95 % percentile-bootstrap interval, both samples drawn again independently. With fewer than two
    runs on a side the interval is unknown (NaN). Runs that are NaN are left out.
    """
    ours, theirs = (np.asarray(runs, float)[~np.isnan(runs)] for runs in (ours, theirs))
    if not len(ours) or not len(theirs):
        return Interval(math.nan, math.nan, math.nan)
    mean = float(ours.mean() - theirs.mean())
    if min(len(ours), len(theirs)) < 2:
        return Interval(mean, math.nan, math.nan)
    interval = bootstrap(
        (ours, theirs),
        lambda ours, theirs, axis: ours.mean(axis) - theirs.mean(axis),
        method="percentile",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high))


def compare(run: RunRecord, given: Sequence[RunRecord]) -> list[Comparison]:
    """The run against each of those given, the baselines first.

    Raises:
        ConfigError: one of those given was judged elsewhere, or was never evaluated.
    """
    for other in given:
        if other.evaluation_environment != run.evaluation_environment:
            raise ConfigError(
                f"--compare {other.directory} was evaluated in {other.evaluation_environment}, "
                f"{run.directory} in {run.evaluation_environment}: their returns cannot be compared"
            )
        if other.final is None:
            raise ConfigError(
                f"--compare {other.directory} was never evaluated; wait for its first evaluation"
            )
    if run.final is None:
        return []
    found = [_compare(run, other) for other in given]
    order = list(BASELINES)
    rank = {name: order.index(name) for name in order}
    return sorted(found, key=lambda comparison: rank.get(comparison.other.config.recipe, len(order)))


def siblings(run: RunRecord) -> list[RunRecord]:
    """Baselines beside the run's directory: same log, simulator and place of evaluation; the best of each."""
    beside = run.directory.resolve()
    best: dict[str, RunRecord] = {}
    try:
        paths = sorted(beside.parent.iterdir())
    except OSError:
        return []
    for path in paths:
        try:
            # This raises too, where a folder may not be entered.
            if path == beside or not (path / "config.json").is_file():
                continue
            other = read_run(path)
        except (RunError, ConfigError, OSError):
            continue
        recipe = other.config.recipe
        if not _is_baseline_of(other, run):
            continue
        if recipe not in best or _closeness(other, run) > _closeness(best[recipe], run):
            best[recipe] = other
    return list(best.values())


def _is_baseline_of(other: RunRecord, run: RunRecord) -> bool:
    recipe = other.config.recipe
    if recipe not in BASELINES or recipe == run.config.recipe or other.final is None:
        return False
    if other.evaluation_environment != run.evaluation_environment:
        return False
    return same_log(other, run) if recipe == "cql" else same_simulator(other, run)


def _closeness(other: RunRecord, run: RunRecord) -> tuple[int, int]:
    """Larger is better: as many steps as the run, then as many seeds as possible."""
    assert other.final is not None
    return -abs(other.final.step - run.config.steps), len(other.final.seeds)


def same_log(one: RunRecord, two: RunRecord) -> bool:
    """Whether two runs learned from the same log, by its SHA-256."""
    first, second = (run.extra.get("dataset_sha256") for run in (one, two))
    return first is not None and first == second


def same_simulator(one: RunRecord, two: RunRecord) -> bool:
    """Whether two runs had the same simulator, with the same shifts."""
    first, second = ((run.config.sim, sorted(run.config.shifts)) for run in (one, two))
    return first == second


def _compare(run: RunRecord, other: RunRecord) -> Comparison:
    """At the last step at which both were evaluated, if there is one; else where each stands."""
    ours, theirs = _evaluations(run), _evaluations(other)
    common = sorted(ours.keys() & theirs.keys())
    steps = (common[-1], common[-1]) if common else (max(ours), max(theirs))
    notes = []
    if not common:
        notes.append(f"after {steps[1]:,} updates, this run after {steps[0]:,}")
    elif common[-1] != max(*ours, *theirs):
        notes.append(f"both after {common[-1]:,} updates, since they did not go equally far")
    if other.config.recipe != "sac" and not same_log(run, other):
        notes.append("trained on another log")
    if other.config.recipe != "cql" and not same_simulator(run, other):
        notes.append("trained with another simulator")
    first, second = ours[steps[0]], theirs[steps[1]]
    if min(len(first), len(second)) in range(2, ENOUGH):
        notes.append(f"an interval from fewer than {ENOUGH} seeds is too narrow")
    return Comparison(run, other, second, difference_interval(first, second), tuple(notes))


def _evaluations(run: RunRecord) -> dict[int, np.ndarray]:
    """The returns ``[R]`` of every step at which a run was evaluated."""
    steps, returns = run.curves.known("return_mean")
    found = dict(zip(steps.tolist(), returns, strict=True))
    return found | ({run.final.step: run.final.mean} if run.final else {})


def is_fair(comparison: Comparison) -> bool:
    """Whether the two runs had the same log and simulator, as far as each has one."""
    return not any(note.startswith("trained") for note in comparison.notes)


def certain(comparison: Comparison) -> bool:
    """Whether the interval of the difference leaves out 0."""
    return comparison.difference.low > 0 or comparison.difference.high < 0


def sentence(comparison: Comparison) -> str:
    """What the comparison says, plainly."""
    difference, other = comparison.difference, comparison.other.config.recipe
    mean, low, high = difference
    if math.isnan(mean):
        return f"Nothing can be said against {other}: a return is missing."
    source = BASELINES.get(other)
    against = f"from {source}, by {other}" if source else f"by {other} in {comparison.other.directory}"
    size = f"the return is {rounded(abs(mean))} {'higher' if mean >= 0 else 'lower'} than {against}"
    if math.isnan(low):
        return f"{_capital(size)}, but with one seed nobody knows whether by chance: train with --seeds 5."
    interval = f"95% interval of the difference {rounded(low)} to {rounded(high)}"
    run = comparison.run
    tells = source is not None and is_fair(comparison) and run.config.recipe not in BASELINES
    tells = tells and not run.judged_in_simulator
    helper = "simulator" if other == "cql" else "log"
    if not certain(comparison):
        opening = f"Whether the {helper} helped is not clear: " if tells else "No clear difference: "
        return f"{opening}{size}, which may be chance ({interval})."
    if not tells:
        return f"{_capital(size)} ({interval})."
    return f"The {helper} {'helped' if mean > 0 else 'did harm'}: {size} ({interval})."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def unknowns(run: RunRecord, comparisons: Sequence[Comparison]) -> list[Unknown]:
    """The baselines that are not there, each with the command that trains it."""
    present = {comparison.other.config.recipe for comparison in comparisons} | {run.config.recipe}
    return [_unknown(run, recipe) for recipe in BASELINES if recipe not in present]


def _unknown(run: RunRecord, recipe: str) -> Unknown:
    source, config = BASELINES[recipe], run.config
    if run.final is None:
        return Unknown(recipe, "this run was never evaluated", None)
    if run.judged_in_simulator:
        return Unknown(recipe, f"the run was {JUDGED_IN_SIMULATOR}", None)
    if recipe == "cql" and config.real is None:
        return Unknown(recipe, "this run had no log", None)
    if recipe == "sac" and config.sim is None:
        return Unknown(recipe, "this run had no simulator", None)
    reason = f"no run on {source} was given, and none with the same log and simulator lies beside this one"
    return Unknown(recipe, reason, train_command(config, recipe, _unused(run.directory, recipe)))


def _unused(directory: Path, recipe: str) -> Path:
    """A directory beside the run's that does not exist."""
    wanted = directory.with_name(f"{directory.resolve().name}-{recipe}")
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in range(2, 1000))
    return next((path for path in (wanted, *numbered) if not path.exists()), wanted)


def train_command(config: TrainConfig, recipe: str, out: Path) -> str:
    """The command that trains another recipe as ``config`` says, with every option that is not a default."""
    words = ["simtrust", "train", recipe]
    for part, defaults in ((config, TrainConfig()), (config.algorithm, AlgorithmOptions())):
        for option in fields(part):
            value, default = getattr(part, option.name), getattr(defaults, option.name)
            if option.name not in ("recipe", "out", "algorithm") and value != default:
                words += _option(option.name, value, flag=isinstance(default, bool))
    return shlex.join([*words, "--out", str(out)])


def _option(name: str, value: Any, *, flag: bool) -> list[str]:
    """An option as the command line takes it; one that may be left to the recipe is no flag."""
    dashed = f"--{name.replace('_', '-')}"
    if name == "shifts":
        return [word for shift in value for word in ("--shift", str(shift))]
    if name == "columns":
        return ["--map", *map(str, value)]
    if flag:
        return [dashed if value else f"--no-{dashed[2:]}"]
    if isinstance(value, tuple):
        return [dashed, *map(str, value)]
    return [dashed, str(value)]
