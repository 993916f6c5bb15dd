"""The dynamics gap of a simulator that cannot be set to a logged state: the *model estimator*.

The simulator is left to its own rollouts. Wherever these go, an ensemble fitted to the log predicts what the
real machine would have done; the difference is the gap, as long as the members agree.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv

from simtrust.data.dataset import Dataset
from simtrust.errors import ConfigError
from simtrust.gap.dynamics_model import DynamicsModel, predict
from simtrust.types import Transitions

Unit = Literal["state", "change"]
"""Standard deviation, in the log, of the state or of its change in one step."""

KNOWN_QUANTILE = 0.95
CLONE_FEATURES, CLONE_ROWS, CLONE_RIDGE = 256, 20_000, 1e-3


class ModelGap(NamedTuple):
    """How far N simulated rows are from what the log says of reality; no unit but that asked for."""

    gap: np.ndarray  # [N] float32: the error, discounted where the model expects to err
    error: np.ndarray  # [N] float32: root mean square of ŝ' − mean over dimensions
    disagreement: np.ndarray  # [N] float32: of the elites' means, likewise
    known: np.ndarray  # [N] bool: the elites agree as they do within the log


def model_gap(
    model: DynamicsModel,
    simulated: Transitions[np.ndarray],
    held_out: Transitions[np.ndarray],
    *,
    unit: Unit = "change",
    quantile: float = KNOWN_QUANTILE,
) -> ModelGap:
    """Distance of simulated next states from those that the model expects of the real machine.

    In each dimension the error ``e`` is discounted to ``e·e²/(e² + v)``, where ``v`` is the variance that the
    model itself predicts, the machine's noise and the elites' disagreement together: errors that it
    expects say little about the simulator, and errors far beyond count in full.

    Args:
        model: fitted to the real log.
        simulated: N rows that the simulator produced; their next states are its own.
        held_out: rows of the log that the model never trained on.
        unit: what a distance of 1 means, in every dimension.
        quantile: a row is known if the elites disagree no more than in this share of ``held_out``.

    Raises:
        ConfigError: no held-out rows, or a quantile outside [0, 1].
    """
    if not 0 <= quantile <= 1:
        raise ConfigError(f"quantile must be in [0, 1], got {quantile}")
    if len(held_out.observation) == 0:
        raise ConfigError("held_out needs rows: they tell how far the members agree within the log")
    scale = np.asarray(model.state_scale if unit == "state" else model.change_scale)
    there = predict(model, simulated.observation, simulated.action)
    here = predict(model, held_out.observation, held_out.action)
    error = (simulated.next_observation - there.mean) / scale
    expected = (there.variance + np.square(there.disagreement)) / np.square(scale)
    disagreement = _root_mean_square(there.disagreement / scale)
    limit = np.quantile(_root_mean_square(here.disagreement / scale), quantile)
    return ModelGap(
        _root_mean_square(error * np.square(error) / (np.square(error) + expected)),
        _root_mean_square(error),
        disagreement,
        disagreement <= limit,
    )


def _root_mean_square(errors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(errors).mean(-1))


Policy = Callable[[np.ndarray], np.ndarray]
"""Actions [S, A] from observations [S, O], in the machine's units."""


def probe_rollouts(
    simulator: VectorEnv, dataset: Dataset, *, rows: int, seed: int
) -> Transitions[np.ndarray]:
    """What the simulator does by itself: half the rows under random actions, half under a clone of the log's.

    Every instance starts anew for either half and is restarted whenever its episode ends, so no row
    crosses an end. To see late parts of episodes, take few instances: each makes ``rows / 2S`` steps.

    Args:
        simulator: S instances, as `simtrust.simulators.make_simulator` makes them.
        dataset: the log whose behaviour is cloned; its spaces are the simulator's.
        rows: how many to return.
        seed: of everything random; the same seed, the same rows.

    Returns:
        ``rows`` rows, float32, in the simulator's units: first the random half, then the clone's; in each
        half, the steps of the first instance in their order, then the second's.

    Raises:
        SimulatorError: the simulator raised, or returned something unusable.
        ConfigError: ``rows`` is less than 2.
    """
    if rows < 2:
        raise ConfigError(f"rows must be at least 2, got {rows}")
    space = simulator.single_action_space
    assert isinstance(space, Box)
    generator = np.random.default_rng(seed)
    start = generator.integers(2**31, size=2)
    halves = [
        _roll_out(simulator, policy, count, int(start))
        for policy, count, start in (
            (random_policy(space, generator), rows // 2, start[0]),
            (behaviour_clone(dataset.transitions, space, generator), rows - rows // 2, start[1]),
        )
    ]
    return Transitions(*(np.concatenate(field) for field in zip(*halves, strict=True)))


def random_policy(space: Box, generator: np.random.Generator) -> Policy:
    """Actions uniform within the space's bounds."""
    return lambda observation: generator.uniform(
        space.low, space.high, (len(observation), *space.shape)
    ).astype(np.float32)


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


def _roll_out(simulator: VectorEnv, policy: Policy, rows: int, seed: int) -> Transitions[np.ndarray]:
    """``rows`` rows of the simulator under a policy, instance after instance."""
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
