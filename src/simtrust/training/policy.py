"""Trained policies as a user meets them: loaded from a run directory, in the machine's own units."""

from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from simtrust.algorithms.agent import Algorithm
from simtrust.algorithms.recipes import get_recipe
from simtrust.errors import ConfigError, RunError, describe_error
from simtrust.evaluation.returns import EpisodeReturns, run_episodes
from simtrust.simulators import make_simulator, parse_shifts
from simtrust.simulators.closing import close_all, closed_at_end
from simtrust.simulators.factories import SimulatorLike, simulator_name
from simtrust.simulators.guard import GuardedSimulator
from simtrust.training.checkpoint import CheckpointStore
from simtrust.training.config import config_from_json
from simtrust.training.fleet import Fleet
from simtrust.training.run_directory import CHECKPOINTS, confirm_code
from simtrust.training.scaling import Scaling


class Policy:
    """The policies of one run directory, one for each seed, at its last checkpoint.

    Calling it maps observations [R, S, O] to best actions [R, S, A], both in the machine's units.
    """

    def __init__(self, directory: str | Path):
        directory = Path(directory)
        config, extra = config_from_json(directory / "config.json")
        self.seeds = config.run_seeds
        try:
            self.environment = str(extra["evaluation_environment"])
            self.scaling = Scaling.from_json(extra["scaling"])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise RunError(f"{directory}/config.json is damaged ({describe_error(error)})") from error
        size = len(self.scaling.observation_mean)
        algorithm = Algorithm(
            get_recipe(config.recipe),
            config.algorithm,
            observation_size=size,
            action_size=len(self.scaling.action_low),
            next_state_noise=jnp.zeros((size, size)),
        )
        fleet = Fleet(algorithm)
        shapes = jax.eval_shape(lambda: fleet.create(self.seeds))
        found = CheckpointStore(directory / CHECKPOINTS).newest_actor(shapes.actor)
        if found is None:
            raise RunError(f"{directory} holds no checkpoint yet; wait for the first, or train again")
        manifest, self.actor = found
        self.step = manifest.step
        self._best = fleet.actor(eqx.tree_at(lambda agents: agents.actor, shapes, self.actor))

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        return self.scaling.to_machine_action(self._best(self.scaling.observe(observation)))


def evaluate(
    directory: str | Path,
    *,
    env: SimulatorLike | None = None,
    episodes: int = 10,
    seed: int = 0,
    shifts: Sequence[str] = (),
    step_timeout: float | None = None,
) -> tuple[list[int], str, EpisodeReturns]:
    """Returns of a run's policies: their training seeds, the environment's name, and the episodes.

    Every policy meets the same initial states, which ``seed`` chooses. ``env`` defaults to where the run
    was evaluated; if that is code of yours (``module:factory``) it must be given, since no file of a run
    directory may decide which code is imported. It may be the function itself, too. ``step_timeout`` is as
    of `make_simulator`.
    """
    env = None if env is None else simulator_name(env)
    policy = Policy(directory)
    confirm_code(Path(directory), {"env": (policy.environment if env is None else None, None)})
    starts = start_seeds(policy, episodes=episodes, seed=seed)
    made = evaluation_instances(
        policy, env or policy.environment, episodes=episodes, shifts=shifts, step_timeout=step_timeout
    )
    with closed_at_end(made) as environment:
        returns = run_episodes(environment, policy, runs=len(policy.seeds), seeds=starts)
    return list(policy.seeds), made.name, returns


def evaluation_instances(
    policy: Policy,
    name: str,
    *,
    episodes: int,
    shifts: Sequence[str] = (),
    step_timeout: float | None = None,
) -> GuardedSimulator:
    """``R·episodes`` instances of an environment, checked to have the spaces the policies were trained on.

    Raises:
        ConfigError: they differ, or ``episodes`` is below 1.
    """
    _check_episodes(episodes)
    environment = make_simulator(
        name,
        num_envs=len(policy.seeds) * episodes,
        shifts=parse_shifts(shifts),
        step_timeout=step_timeout,
    )
    try:
        _check_spaces(policy, name, environment)
    except BaseException:
        close_all(environment)
        raise
    return environment


def _check_episodes(episodes: int) -> None:
    if isinstance(episodes, bool) or not isinstance(episodes, int) or episodes < 1:
        raise ConfigError(f"--episodes is {episodes!r}; it must be at least 1, and a whole number")


def _check_spaces(policy: Policy, name: str, environment: GuardedSimulator) -> None:
    sizes = (environment.single_observation_space.shape, environment.single_action_space.shape)
    trained = ((len(policy.scaling.observation_mean),), (len(policy.scaling.action_low),))
    if sizes != trained:
        raise ConfigError(
            f"{name} has observations and actions of shapes {sizes}, but the policy was trained on {trained}"
        )
    bounds = environment.single_action_space
    assert isinstance(bounds, gymnasium.spaces.Box)
    if not np.allclose((bounds.low, bounds.high), (policy.scaling.action_low, policy.scaling.action_high)):
        raise ConfigError(
            f"{name} bounds actions by {bounds.low} and {bounds.high}, but the policy was trained with "
            f"{policy.scaling.action_low} and {policy.scaling.action_high}"
        )


def start_seeds(policy: Policy, *, episodes: int, seed: int) -> list[int]:
    """Seeds of the instances of `evaluation_instances`: every policy meets the same initial states."""
    if seed < 0:
        raise ConfigError(f"--seed is {seed}; it must be 0 or more")
    _check_episodes(episodes)
    starts = [int(s) for s in np.random.SeedSequence(seed).generate_state(episodes)]
    return starts * len(policy.seeds)
