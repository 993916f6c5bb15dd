"""A trained policy of one seed, and what its run directory tells of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from simtrust.data import Dataset, load_dataset
from simtrust.errors import ConfigError, DataError, ExportError, RunError
from simtrust.export.policy_arrays import Layer, ObservedRange
from simtrust.training.checkpoint import tree_to_arrays
from simtrust.training.config import TrainConfig, config_from_json
from simtrust.training.policy import Policy
from simtrust.training.result import damaged_result, read_result
from simtrust.training.scaling import Scaling
from simtrust.training.setup import observed_range

LAYER = re.compile(r"\.network\.layers\[(\d+)\]\.weight")


@dataclass(frozen=True)
class TrainedPolicy:
    """The policy of one seed, called on observations [N, O] for actions [N, A], in the machine's units."""

    policy: Policy
    seed: int
    layers: tuple[Layer, ...]
    """Weight [in, out] and bias [out], of the best action."""
    observed: ObservedRange | None
    """Of the log; None for a run without one."""
    config: TrainConfig
    record: Mapping[str, Any]
    """What ``config.json`` holds beside the configuration."""
    result: Mapping[str, Any] | None
    """``result.json``; None while the run is not finished."""

    @property
    def scaling(self) -> Scaling:
        return self.policy.scaling

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        runs = len(self.policy.seeds)
        # Accelerators would otherwise multiply with fewer digits than the robot does.
        with jax.default_matmul_precision("highest"):
            actions = self.policy(np.broadcast_to(observation, (runs, *observation.shape)))
        return actions[self.policy.seeds.index(self.seed)]


def load_trained(directory: Path, seed: int | None, real: str | Path | None) -> TrainedPolicy:
    """The policy of a run directory's last checkpoint.

    Args:
        directory: of the run.
        seed: which of its policies; None: the first.
        real: the log of a run that did not record its range, if its path no longer leads to it.

    Raises:
        RunError: the directory holds no run, no checkpoint, or is damaged.
        ConfigError: the run has no such seed, or ``real`` is not its log.
        ExportError: the range of the log is needed and not to be had.
    """
    config, record = config_from_json(directory / "config.json")
    if seed is not None and seed not in config.run_seeds:
        known = ", ".join(map(str, config.run_seeds))
        raise ConfigError(f"--seed is {seed}; {directory} has {known}")
    policy = Policy(directory)
    seed = config.first_seed if seed is None else seed
    return TrainedPolicy(
        policy=policy,
        seed=seed,
        layers=_layers(policy, config.run_seeds.index(seed)),
        observed=_observed(directory, config, record, real, len(policy.scaling.observation_mean)),
        config=config,
        record=record,
        result=_result(directory, seed),
    )


def _layers(policy: Policy, run: int) -> tuple[Layer, ...]:
    arrays = tree_to_arrays(policy.actor)
    found = sorted((int(match[1]), name) for name in arrays if (match := LAYER.fullmatch(name)))
    layers = [(arrays[name][run], arrays[name.replace("weight", "bias")][run]) for _, name in found]
    # A stochastic actor gives means, then logarithms of deviations; a deterministic one what the means are.
    actions = len(policy.scaling.action_low)
    weight, bias = layers[-1]
    return (*layers[:-1], (weight[:, :actions], bias[:actions]))


def _observed(
    directory: Path, config: TrainConfig, record: Mapping[str, Any], real: str | Path | None, size: int
) -> ObservedRange | None:
    expected = record.get("dataset_sha256")
    if expected is None:
        if real is not None:
            raise ConfigError(f"--real is {real}, but {directory} was trained without a log; leave it out")
        return None
    stored = record
    if "observation_min" not in record:
        stored = observed_range(_log(directory, config, expected, real))
    elif real is not None:
        raise ConfigError(f"--real is {real}, but {directory} holds the range of its log; leave it out")
    try:
        found = ObservedRange(*(np.array(stored[f"observation_{end}"], np.float32) for end in ("min", "max")))
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{directory}/config.json is damaged (observation_min, _max: {error})") from error
    if [x.shape for x in found] != [(size,)] * 2 or not (
        np.isfinite(found).all() and (found[0] <= found[1]).all()
    ):
        raise RunError(
            f"{directory}/config.json is damaged: observation_min and observation_max are no range of {size} "
            "numbers; delete both, so that they are taken from the log again"
        )
    return found


def _log(directory: Path, config: TrainConfig, expected: str, real: str | Path | None) -> Dataset:
    """Of a run that did not record the range: its log as given, or where it was."""
    try:
        dataset = load_dataset(real or str(config.real), dones_mean=config.dones_mean, columns=config.columns)
        if dataset.sha256 != expected:
            raise ConfigError(
                f"{dataset.source} is not the log that {directory} was trained on: its SHA-256 is "
                f"{dataset.sha256}, the run's {expected}."
            )
    except (DataError, ConfigError) as error:
        if real is not None:
            raise
        raise ExportError(
            f"{directory} does not hold the range of its log's observations, and its log cannot be used: "
            f"{error} Name the log with --real FILE."
        ) from error
    return dataset


def _result(directory: Path, seed: int) -> dict[str, Any] | None:
    """With the evaluation of this seed alone under ``run``."""
    result = read_result(directory)
    if result is None:
        return None
    for run in result.summary["runs"]:
        if run["seed"] == seed:
            return {**result.summary, "run": run}
    raise damaged_result(directory, ValueError(f"it has no seed {seed}"))
