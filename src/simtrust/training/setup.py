"""From a configuration to everything a run needs, with every check made before any work starts."""

import importlib.metadata
import platform
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
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
from simtrust.data.replay import row_size
from simtrust.errors import ConfigError, DataError
from simtrust.gap.dynamics_fitting import REVERSE_GAP_OPTIONS
from simtrust.gap.ratio import next_state_noise_factor
from simtrust.limits import available_memory
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.simulators.built_in import find_built_in, real_machine
from simtrust.simulators.closing import close_all
from simtrust.training.config import TrainConfig
from simtrust.training.fleet import Log
from simtrust.training.log_order import log_on_device
from simtrust.training.rounds import DRAWN_TOGETHER
from simtrust.training.scaling import Scaling, make_scaling
from simtrust.types import Transitions

DEFAULT_CAPACITY = 1_000_000
CAPACITY_PER_LOG = 10
BASE_BYTES = 850 * 2**20
"""What Python, JAX, MuJoCo and the compiled update take, measured."""
GAP_MODEL_BYTES = 150 * 2**20
"""What fitting a gap model and its compiled programs take beside that, measured."""
DYNAMICS_MODEL_BYTES = 250 * 2**20
"""The same of fitting a dynamics model to the log, measured."""
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


def predicted_bytes(config: TrainConfig, algorithm: Algorithm, log_rows: int, capacity: int) -> int:
    """Peak memory of a run, generously; `benchmarks/memory_growth.py` compares it with what a run took.

    The log three times while it is loaded; the replay buffers; the rows that wait for the next checkpoint,
    three times while it is written; the agents; what an update computes; and, where a model is fitted first,
    three copies of what it is fitted to.
    """
    row = 4 * row_size(algorithm.observation_size, algorithm.action_size)
    options, reads = algorithm.options, algorithm.recipe.reads
    widths = (algorithm.observation_size + algorithm.action_size, *options.hidden_sizes, 1)
    network = 4 * sum(i * o + o for i, o in pairwise(widths))
    # Parameters and Adam's two moments, of critics and actor, and the target's parameters; three times,
    # since they are kept while the next ones are made, and a checkpoint or the gradients copy them.
    agents = 3 * network * (4 * options.critic_ensemble + 3)
    waiting = 3 * min(config.checkpoint_every, config.steps)
    simulated = (capacity + waiting) * 4 * algorithm.simulated_row_size if Reads.SIM in reads else 0
    # Every critic's values and their gradients at each layer, at the rows' actions and at sampled ones.
    actions = 1 + (3 * options.cql_actions if Reads.SAMPLED_ACTIONS in reads else 0)
    computed = 8 * options.critic_ensemble * sum(widths) * actions
    update = sum(algorithm.batch_sizes.values()) * (DRAWN_TOGETHER * row + computed)
    fitted = 0
    if algorithm.recipe.measures_gap:
        fitted = GAP_MODEL_BYTES + 3 * (log_rows + config.gap_probe_rows) * row
    if algorithm.recipe.predicts_reality:
        # Every member goes over the log in an order of its own, an index and what it is sorted by.
        fitted += DYNAMICS_MODEL_BYTES + log_rows * (3 * row + 8 * REVERSE_GAP_OPTIONS.members)
        # Every elite's mean and deviation, and three layers at once.
        numbers = 2 * algorithm.observation_size + 3 * max(REVERSE_GAP_OPTIONS.hidden_sizes)
        predicted = 4 * REVERSE_GAP_OPTIONS.elites * numbers
        update += algorithm.batch_sizes[Reads.SIM] * DRAWN_TOGETHER * predicted
    return BASE_BYTES + 3 * log_rows * row + fitted + config.seeds * (simulated + agents + update)


def check_memory(config: TrainConfig, algorithm: Algorithm, log_rows: int, capacity: int) -> None:
    """Raise `ConfigError` if the run would not fit into the memory that is free now."""
    needed = predicted_bytes(config, algorithm, log_rows, capacity)
    available = available_memory()
    if needed > available:
        raise ConfigError(
            f"this run needs about {needed / 2**30:.1f} GiB of memory, {available / 2**30:.1f} GiB are free; "
            f"lower --buffer-capacity (now {capacity:,} rows for each of {config.seeds} runs) or --seeds"
        )


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
