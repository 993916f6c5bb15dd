"""The HalfCheetah study (Fig. 3): H2O's run, trained in legs, and what is measured of its simulated rows.

The paper adds an offset to the simulator's actions that grows with the x-velocity. Its text gives neither the
size nor the form. Ours is `SHIFT`: to every action dimension, a tenth of the
x-velocity in m/s, so half of the motors' range at 5 m/s. There is no gap without velocity, nor where motors
are saturated and the offset pushes further.

One run serves every point. It is trained to the first, measured, told that it has more steps to go, and
resumed: bit for bit the run that would have been trained at once, since resuming is exact. So no update is
made twice; a point costs one evaluation, one compilation, and reading the log again. Runs of 10, 50 and 100 %
would be simpler, and cost 1.6 times the updates.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from simtrust import __version__
from simtrust.algorithms.agent import Agent, Algorithm, least
from simtrust.algorithms.recipes import get_recipe
from simtrust.api import train
from simtrust.data import Dataset
from simtrust.data.replay import unpack
from simtrust.errors import RunError
from simtrust.gap.ratio import dynamics_gap, log_gap_share, next_state_noise_factor
from simtrust.gap.step_errors import dimension_scales
from simtrust.paper.truth import true_gap
from simtrust.simulators.task_specs import TASKS
from simtrust.training.checkpoint import CheckpointStore, Manifest, write_atomically
from simtrust.training.config import TrainConfig, config_from_json, config_to_json
from simtrust.training.fleet import Fleet
from simtrust.training.loop import resume
from simtrust.training.rounds import over_runs
from simtrust.training.run_directory import CHECKPOINTS
from simtrust.training.scaling import Scaling
from simtrust.types import Transitions

TASK = "HalfCheetah-v5"
SHIFT = "velocity-offset=0.1"
RECIPE = "h2o"
X_VELOCITY = TASKS[TASK].observation_names.index("x-velocity (m/s)")
ROWS = 4_000
"""At most so many rows of each run's replay buffer are measured, spread over all of it."""
CHECKPOINT_EVERY = 10_000
POINT_FORMAT = 1
COLUMNS = ("x_velocity", "u", "omega", "q", "true_gap")


@dataclass(frozen=True, eq=False)
class Point:
    """What R runs make of n rows each of their own simulated rows, at one point of training."""

    step: int
    """Updates done."""
    seeds: tuple[int, ...]
    row: np.ndarray  # [n] int: the step of the simulator, counted from 0
    x_velocity: np.ndarray  # [R, n] m/s, of the state s
    u: np.ndarray  # [R, n]: u(s, a) by the run's own classifiers, Eq. 33, in [tiny, 10]
    omega: np.ndarray  # [R, n]: u's share of a run's n rows (Eq. 6, with these for a batch)
    q: np.ndarray  # [R, n]: the least of the critics, in the task's reward
    true_gap: np.ndarray  # [R, n]: RMS over dimensions, in standard deviations of the logged change


def training_settings(points: Sequence[int], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `simtrust.train` that do not change from leg to leg; ``options`` are over the study's own.

    Every checkpoint cuts an episode, and a leg ends with one; so they are spaced such that a run trained at
    once has them there too.
    """
    every = math.gcd(CHECKPOINT_EVERY, *points)
    return {"shifts": (SHIFT,), "evaluate_every": 0, "checkpoint_every": every, **options}


def train_to(run: Path, step: int, real: str, settings: Mapping[str, Any], *, quiet: bool = False) -> None:
    """Train the run of a directory up to a step, from wherever it is.

    Raises `RunError` if it is beyond that step: what it was there is gone.
    """
    if (run / "config.json").exists():
        _extend(run, step, real)
        resume(run, quiet=quiet)
    else:
        train(RECIPE, real=real, sim=TASK, out=run, steps=step, quiet=quiet, **settings)


def _extend(run: Path, step: int, real: str) -> None:
    """Let a run end at a step, and read its log where that is now."""
    config, extra = config_from_json(run / "config.json")
    if config.steps > step:
        raise RunError(
            f"{run} is trained beyond {step:,} steps, and what it was there was not kept; "
            "choose another --out"
        )
    if config.steps < step:
        # First of all: a run that has its result counts as finished, whatever its configuration says.
        (run / "result.json").unlink(missing_ok=True)
    config = replace(config, steps=step, real=real)
    write_atomically(run / "config.json", config_to_json(config, **extra).encode())


def measure(run: Path, dataset: Dataset) -> Point:
    """Ask a run's critics and classifiers, and the truth, of rows of its replay buffer, as it is now.

    ``dataset`` is the run's log, which gives Σ̂_D and the units of the true gap.
    """
    config, extra = config_from_json(run / "config.json")
    scaling = Scaling.from_json(extra["scaling"])
    store = CheckpointStore(run / CHECKPOINTS)
    manifest = store.latest()
    if manifest is None:
        raise RunError(f"{run} holds no checkpoint; choose another --out")
    algorithm = _algorithm(config, scaling, dataset)
    agents = store.load_state(manifest, Fleet(algorithm).create(config.run_seeds))
    number, packed = spread_rows(store, manifest)
    rows = unpack(jnp.asarray(packed), algorithm.observation_size, algorithm.action_size)
    u, omega, q = judge(algorithm, agents, rows)
    machine = [_in_machine_units(rows, scaling, index) for index in range(len(config.run_seeds))]
    unit = dimension_scales(dataset, "change")
    return Point(
        step=manifest.step,
        seeds=config.run_seeds,
        row=number,
        x_velocity=np.stack([one.observation[:, X_VELOCITY] for one in machine]),
        u=u,
        omega=omega,
        q=q / scaling.reward_scale,
        true_gap=np.stack([true_gap(one, TASK, unit) for one in machine]),
    )


def _algorithm(config: TrainConfig, scaling: Scaling, dataset: Dataset) -> Algorithm:
    options = config.algorithm
    return Algorithm(
        get_recipe(config.recipe),
        options,
        observation_size=dataset.observation_size,
        action_size=dataset.action_size,
        next_state_noise=jnp.asarray(
            next_state_noise_factor(
                scaling.observe(dataset.transitions.observation),
                covariance=options.next_state_covariance,
                scale=options.next_state_noise_scale,
            )
        ),
    )


def spread_rows(store: CheckpointStore, manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """At most `ROWS` rows of a checkpoint's replay buffer: their numbers [n] and, packed, [R, n, row]."""
    chunks = list(store.load_rows(manifest))
    rows = np.concatenate([rows for _, rows in chunks], axis=1)
    count = rows.shape[1]
    chosen = np.unique(np.linspace(0, count - 1, min(count, ROWS)).astype(int))
    return chunks[0][0] + chosen, rows[:, chosen]


def judge(
    algorithm: Algorithm, agents: Agent, rows: Transitions[Array]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u, ω and the least Q, each [R, n], of R agents on rows [R, n] of their own, in training's units.

    As in an update, but with all n rows for the batch that ω is a share of, and the same draws around s' for
    every run.
    """

    def one(agent: Agent, rows: Transitions[Array]) -> tuple[Array, Array, Array]:
        assert agent.classifier is not None
        draws = (algorithm.options.next_state_samples, *rows.next_observation.shape)
        noise = jax.random.normal(jax.random.key(0), draws)
        u = dynamics_gap(agent.classifier, rows, algorithm.coefficients.next_state_noise, noise)
        return u, jnp.exp(log_gap_share(u)), least(agent.critic(rows.observation, rows.action))

    u, omega, q = jax.jit(over_runs(one, (0, 0)))(agents, rows)
    return np.asarray(u), np.asarray(omega), np.asarray(q)


def _in_machine_units(rows: Transitions[Array], scaling: Scaling, run: int) -> Transitions[np.ndarray]:
    """One run's rows as the machine knows them, float32."""
    observation, action, reward, following, terminated = (np.asarray(field)[run] for field in rows)
    mean, std = np.asarray(scaling.observation_mean), np.asarray(scaling.observation_std)
    here, there = ((mean + std * state).astype(np.float32) for state in (observation, following))
    reward = reward / scaling.reward_scale
    return Transitions(here, scaling.to_machine_action(action), reward, there, terminated)


def save_point(point: Point, path: Path) -> None:
    """Keep a point as npz."""
    content = io.BytesIO()
    np.savez_compressed(content, format=POINT_FORMAT, simtrust_version=__version__, **asdict(point))
    write_atomically(path, content.getvalue())


def load_point(path: Path) -> Point:
    """Read `save_point`'s file; `RunError` if a version with another format wrote it."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    version, writer = int(arrays.pop("format", 1)), arrays.pop("simtrust_version", "unknown")
    if version != POINT_FORMAT:
        raise RunError(
            f"{path} has format {version}, this version of simtrust reads {POINT_FORMAT}; "
            f"use the version that wrote it: {writer}"
        )
    step, seeds = int(arrays.pop("step")), tuple(arrays.pop("seeds").tolist())
    return Point(step, seeds, **arrays)
