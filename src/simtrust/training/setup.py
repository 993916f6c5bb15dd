"""From a configuration to everything a run needs, with every check made before any work starts."""

import importlib.metadata
import platform
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np

from simtrust import data
from simtrust.algorithms.agent import Algorithm
from simtrust.algorithms.critic import Reads
from simtrust.algorithms.recipes import Recipe, get_recipe
from simtrust.data.dataset import Dataset, unknown_next_state
from simtrust.data.held_out import hold_out
from simtrust.errors import ConfigError, DataError
from simtrust.gap.dynamics_fitting import REVERSE_GAP_OPTIONS
from simtrust.gap.ratio import next_state_noise_factor
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.simulators.built_in import find_built_in, real_machine
from simtrust.simulators.closing import close_all
from simtrust.training.config import TrainConfig
from simtrust.training.log_order import log_on_device
from simtrust.training.memory import check_memory
from simtrust.training.scaling import Scaling, make_scaling
from simtrust.training.updating import Log
from simtrust.types import Transitions

DEFAULT_CAPACITY = 1_000_000
CAPACITY_PER_LOG = 10
PACKAGES = ("simtrust", "jax", "jaxlib", "equinox", "optax", "numpy", "mujoco", "gymnasium")


@dataclass(frozen=True)
class Problem:
    """A checked configuration, its data and its environments."""

    config: TrainConfig
    recipe: Recipe
    algorithm: Algorithm
    scaling: Scaling
    dataset: Dataset | None
    log: Log | None
    simulator: gymnasium.vector.VectorEnv | None
    evaluation: gymnasium.vector.VectorEnv
    evaluation_name: str
    capacity: int

    def close(self) -> None:
        """Close the environments; an error of theirs is a warning."""
        close_all(*(each for each in (self.simulator, self.evaluation) if each is not None))


def load_log(config: TrainConfig) -> Dataset | None:
    """The log that a configuration names; None if it names none. Raises DataError as `load_dataset`."""
    if not config.real:
        return None
    return data.load_dataset(config.real, dones_mean=config.dones_mean, columns=config.columns)


def prepare(config: TrainConfig) -> Problem:
    """Load, check and connect everything that ``config`` names; close the problem once it is done with.

    Raises a `SimtrustError` that says what to change, before any training.
    """
    with ExitStack() as opened:
        problem = _prepare(config, opened)
        opened.pop_all()
    return problem


def _prepare(config: TrainConfig, opened: ExitStack) -> Problem:
    recipe = get_recipe(config.recipe)
    if recipe.needs_log and config.real is None:
        raise ConfigError(f"recipe {config.recipe} learns from a log: give --real FILE")
    needs_simulator = Reads.SIM in recipe.reads
    if needs_simulator and config.sim is None:
        raise ConfigError(f"recipe {config.recipe} learns from a simulator: give --sim ID")
    evaluation_name = evaluation_environment(config)
    dataset = load_log(config)
    episodes = config.seeds * config.evaluation_episodes
    evaluation_workers = 0 if find_built_in(evaluation_name) else config.sim_workers
    _check_time_limit(config, [evaluation_name, str(config.sim)] if needs_simulator else [evaluation_name])
    evaluation = make_simulator(
        evaluation_name,
        num_envs=episodes,
        workers=evaluation_workers,
        step_timeout=step_timeout(config, evaluation_name),
    )
    opened.callback(close_all, evaluation)
    simulator = None
    if needs_simulator:
        simulator = make_simulator(
            str(config.sim),
            num_envs=config.seeds * config.sim_instances,
            shifts=parse_shifts(config.shifts),
            workers=config.sim_workers,
            step_timeout=step_timeout(config, str(config.sim)),
        )
        opened.callback(close_all, simulator)
        _check_same_spaces(simulator, evaluation, str(config.sim), evaluation_name)
    observation, action = _spaces(evaluation)
    if dataset is not None:
        data.check_against_simulator(dataset, observation, action, evaluation_name)
        if recipe.predicts_reality:
            _check_fit(dataset)
    scaling = _scaling(config, recipe, dataset, observation, action)
    inside = None if dataset is None else scaling.transitions(dataset.transitions)
    algorithm = Algorithm(
        recipe,
        config.algorithm,
        observation_size=observation.shape[0],
        action_size=action.shape[0],
        next_state_noise=_noise(config, inside, observation.shape[0]),
    )
    capacity = _capacity(config, dataset)
    check_memory(config, algorithm, 0 if dataset is None else len(dataset), capacity)
    log = None
    if recipe.needs_log and dataset is not None and inside is not None:
        log = log_on_device(dataset, inside)
    return Problem(
        config, recipe, algorithm, scaling, dataset, log, simulator, evaluation, evaluation_name, capacity
    )


def _check_fit(dataset: Dataset) -> None:
    """Raise `DataError` if no dynamics model can be fitted to a log, which has too few known next states."""
    unknown = unknown_next_state(dataset.transitions)
    try:
        hold_out(dataset.episode_end, unknown, REVERSE_GAP_OPTIONS.held_out_share)
    except DataError as error:
        raise DataError(f"{dataset.source}: {error}") from error


def step_timeout(config: TrainConfig, name: str) -> float | None:
    """The time limit of an environment's steps; none for a built-in one, which waits for nothing."""
    return None if find_built_in(name) else config.step_timeout


def _check_time_limit(config: TrainConfig, names: Sequence[str]) -> None:
    if config.step_timeout is not None and all(find_built_in(name) for name in names):
        raise ConfigError(
            f"--step-timeout {config.step_timeout:g} limits environments of yours, but {' and '.join(names)} "
            "are built in and wait for nothing; leave it out"
        )


def observed_range(dataset: Dataset | None) -> dict[str, Any]:
    """The least and the largest value of each observation in the log, [O], for the run's record.

    And what the log calls its dimensions, with units, where it names them.
    """
    if dataset is None:
        return {"observation_min": None, "observation_max": None, "dimensions": None}
    observation = dataset.transitions.observation
    return {
        "observation_min": observation.min(0).tolist(),
        "observation_max": observation.max(0).tolist(),
        "dimensions": dataset.names._asdict(),
    }


def evaluation_environment(config: TrainConfig) -> str:
    """Where the policy is judged: --real-env, else the simulator's real machine, else itself unshifted."""
    name = config.real_env or (real_machine(config.sim) if config.sim else None)
    if name is None:
        raise ConfigError(
            f"recipe {config.recipe} needs an environment that tells the action's bounds and evaluates "
            "the policy: give --real-env ID or --sim ID"
        )
    return name


def versions() -> dict[str, str]:
    """Versions of everything that decides the numbers; MuJoCo repeats itself only within one version."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def _spaces(environment: gymnasium.vector.VectorEnv) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    observation, action = environment.single_observation_space, environment.single_action_space
    assert isinstance(observation, gymnasium.spaces.Box)
    assert isinstance(action, gymnasium.spaces.Box)
    return observation, action


def _check_same_spaces(
    simulator: gymnasium.vector.VectorEnv, real: gymnasium.vector.VectorEnv, sim_name: str, real_name: str
) -> None:
    for which, ours, theirs in zip(("observation", "action"), _spaces(simulator), _spaces(real), strict=True):
        if ours.shape != theirs.shape:
            raise ConfigError(
                f"the {which} of simulator {sim_name} has shape {ours.shape}, "
                f"that of the real environment {real_name} {theirs.shape}; they must agree"
            )
        if which == "action" and not (
            np.allclose(ours.low, theirs.low) and np.allclose(ours.high, theirs.high)
        ):
            raise ConfigError(
                f"the action bounds of simulator {sim_name} are {ours.low} to {ours.high}, "
                f"those of the real environment {real_name} {theirs.low} to {theirs.high}; they must agree"
            )


def _scaling(
    config: TrainConfig,
    recipe: Recipe,
    dataset: Dataset | None,
    observation: gymnasium.spaces.Box,
    action: gymnasium.spaces.Box,
) -> Scaling:
    defaults = {"normalise_observations": False, "reward_scale": 1.0, **recipe.defaults}
    chosen = {
        name: defaults[name] if getattr(config, name) is None else getattr(config, name)
        for name in ("normalise_observations", "reward_scale")
    }
    return make_scaling(
        None if dataset is None else dataset.transitions,
        action.low,
        action.high,
        observation.shape[0],
        discount=config.algorithm.discount,
        **chosen,
    )


def _noise(config: TrainConfig, inside: Transitions[np.ndarray] | None, size: int) -> jnp.ndarray:
    if inside is None:
        return jnp.zeros((size, size))
    options = config.algorithm
    kind, scale = options.next_state_covariance, options.next_state_noise_scale
    return jnp.asarray(next_state_noise_factor(inside.observation, covariance=kind, scale=scale))


def _capacity(config: TrainConfig, dataset: Dataset | None) -> int:
    wanted = config.buffer_capacity
    if wanted is None:
        wanted = DEFAULT_CAPACITY if dataset is None else CAPACITY_PER_LOG * len(dataset)
    # No more rows than steps are ever collected.
    rounds = -(-config.steps // config.rollout_steps)
    return max(min(wanted, rounds * config.rollout_steps), config.rollout_steps)
