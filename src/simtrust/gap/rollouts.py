"""What a simulator does by itself, where it cannot be put into logged states: rollouts near the log.

Random actions, a clone of the log's behaviour, and the clone perturbed: what the machine may do, what it
did, and what lies around that.
"""

from collections.abc import Callable

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv

from simtrust.data.dataset import Dataset
from simtrust.errors import ConfigError
from simtrust.types import Transitions

CLONE_FEATURES, CLONE_ROWS, CLONE_RIDGE = 256, 20_000, 1e-3
PROBE_INSTANCES = 16
"""Enough chains for some to be held out, few enough to see late parts of episodes."""
PERTURBATION = 0.5
"""Standard deviation of what is added to a perturbed clone's actions, in that of the log's actions."""

Policy = Callable[[np.ndarray], np.ndarray]
"""Actions [S, A] from observations [S, O], in the machine's units."""


def probe_rollouts(
    simulator: VectorEnv, dataset: Dataset, *, rows: int, seed: int
) -> Transitions[np.ndarray]:
    """A third of the rows under random actions, a third under a clone of the log, a third perturbed.

    Every instance starts anew for each third and is restarted whenever its episode ends, so no row
    crosses an end. To see late parts of episodes, take few instances: each makes ``rows / 3S`` steps.

    Args:
        simulator: S instances, as `simtrust.simulators.make_simulator` makes them.
        dataset: the log whose behaviour is cloned; its spaces are the simulator's.
        rows: how many to return.
        seed: of everything random; the same seed, the same rows.

    Returns:
        ``rows`` rows, float32, in the simulator's units: first the random third, then the clone's, then the
        perturbed one; in each, the steps of the first instance in their order, then the second's.

    Raises:
        SimulatorError: the simulator raised, or returned something unusable.
        ConfigError: ``rows`` is less than 3.
    """
    if rows < 3:
        raise ConfigError(f"rows must be at least 3, got {rows}")
    space = simulator.single_action_space
    assert isinstance(space, Box)
    generator = np.random.default_rng(seed)
    starts = generator.integers(2**31, size=3)
    clone = behaviour_clone(dataset.transitions, space, generator)
    size = PERTURBATION * np.std(dataset.transitions.action, axis=0)
    policies = (random_policy(space, generator), clone, perturbed(clone, space, size, generator))
    counts = np.diff(np.round(np.linspace(0, rows, len(policies) + 1)).astype(int))
    thirds = [
        roll_out(simulator, policy, int(count), int(start))
        for policy, count, start in zip(policies, counts, starts, strict=True)
    ]
    return Transitions(*(np.concatenate(field) for field in zip(*thirds, strict=True)))


def chain_ends(rows: Transitions[np.ndarray]) -> np.ndarray:
    """[N] bool: where the next row does not go on from this one's next observation."""
    return np.append((rows.next_observation[:-1] != rows.observation[1:]).any(1), True)


def random_policy(space: Box, generator: np.random.Generator) -> Policy:
    """Actions uniform within the space's bounds."""
    return lambda observation: generator.uniform(
        space.low, space.high, (len(observation), *space.shape)
    ).astype(np.float32)


def perturbed(policy: Policy, space: Box, size: np.ndarray, generator: np.random.Generator) -> Policy:
    """The policy with Gaussian noise on its actions, of standard deviation ``size [A]``, within the space."""

    def noisy(observation: np.ndarray) -> np.ndarray:
        action = policy(observation)
        return (action + size * generator.normal(size=action.shape)).clip(space.low, space.high)

    return lambda observation: noisy(observation).astype(np.float32)


def behaviour_clone(
    transitions: Transitions[np.ndarray], space: Box, generator: np.random.Generator
) -> Policy:
    """The log's behaviour: ridge regression on random ReLU features, plus residuals drawn from the log.

    At most 20,000 of the rows are used. Residuals are drawn as whole vectors, which keeps their
    correlations; actions are clipped to the space.
    """
    chosen = generator.permutation(len(transitions.observation))[:CLONE_ROWS]
    observation, action = (np.asarray(x, np.float64)[chosen] for x in transitions[:2])
    mean, scale = observation.mean(0), observation.std(0)
    # What is constant in the log says nothing about its actions, whatever it is in the simulator.
    scale = np.where(scale > 1e-6 * np.maximum(np.abs(mean), 1e-6), scale, np.inf)
    weight = generator.normal(size=(observation.shape[1], CLONE_FEATURES)) / np.sqrt(observation.shape[1])
    offset = generator.normal(size=CLONE_FEATURES)

    def features(observation: np.ndarray) -> np.ndarray:
        # Far outside the log, where a linear policy would be far off, the features stay bounded.
        inputs = ((observation - mean) / scale).clip(-5, 5)
        hidden = np.maximum(inputs @ weight + offset, 0.0)
        return np.concatenate([inputs, hidden, np.ones((len(inputs), 1))], axis=1)

    design = features(observation)
    ridge = CLONE_RIDGE * len(design) * np.eye(design.shape[1])
    coefficients = np.linalg.solve(design.T @ design + ridge, design.T @ action)
    residual = action - design @ coefficients

    def policy(observation: np.ndarray) -> np.ndarray:
        drawn = residual[generator.integers(len(residual), size=len(observation))]
        return (features(observation) @ coefficients + drawn).clip(space.low, space.high).astype(np.float32)

    return policy


def roll_out(simulator: VectorEnv, policy: Policy, rows: int, seed: int) -> Transitions[np.ndarray]:
    """``rows`` rows of a simulator under a policy, instance after instance, from new episodes on.

    Raises:
        SimulatorError: the simulator raised, or returned something unusable.
    """
    observation, _ = simulator.reset(seed=seed)
    steps: list[Transitions[np.ndarray]] = []
    for _ in range(-(-rows // simulator.num_envs)):
        action = policy(observation)
        following, reward, terminated, truncated, _ = simulator.step(action)
        row = (observation, action, reward, following, terminated)
        steps.append(Transitions(*(np.array(field, np.float32) for field in row)))
        observation, ended = following, terminated | truncated
        if ended.any():
            observation, _ = simulator.reset(options={"reset_mask": ended})
    stacked = (np.stack(field, axis=1) for field in zip(*steps, strict=True))
    return Transitions(*(field.reshape(-1, *field.shape[2:])[:rows] for field in stacked))
