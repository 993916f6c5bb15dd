"""Rollouts of a behaviour in a built-in task, with the state of the physics beside every observation."""

import numpy as np
from rich.console import Console
from rich.progress import track

from simtrust.generation.behaviour import Behaviour
from simtrust.simulators.guard import GuardedSimulator
from simtrust.simulators.tasks import MAX_EPISODE_STEPS

STREAMS_MAX = 64
EPISODES_PER_STREAM = 10
"""At least so many whole episodes fit into a stream, since its last one is cut."""
INFO_KEYS = ("infos/qpos", "infos/qvel")
LOG_PROBABILITY = "infos/action_log_probs"


def stream_count(rows: int) -> int:
    """How many instances record side by side; each one's rows lie together in the log, in order of time."""
    return min(STREAMS_MAX, max(1, rows // (EPISODES_PER_STREAM * MAX_EPISODE_STEPS)))


def record(
    simulator: GuardedSimulator,
    behaviour: Behaviour,
    rows: int,
    *,
    seeds: list[int],
    title: str,
    quiet: bool = False,
) -> dict[str, np.ndarray]:
    """Arrays by D4RL key of ``rows`` rows, stream after stream.

    ``observations`` and ``next_observations`` [rows, O], ``actions`` [rows, A], ``rewards`` and
    ``infos/action_log_probs`` [rows], if known, are float32; ``infos/qpos`` [rows, nq] and ``infos/qvel``
    [rows, nv], of the state in which the action was chosen, are float64, as the physics has them. A time
    limit is a timeout, and so is the last row of a stream that did not terminate.

    Args:
        simulator: S instances of a built-in task, each a stream.
        behaviour: who acts.
        rows: at least 1; the last streams are shorter, if they do not divide evenly.
        seeds: of each stream [S].
        title: what the progress is called.
        quiet: show no progress.
    """
    streams = simulator.num_envs
    steps = -(-rows // streams)
    observation, _ = simulator.reset(seed=list(seeds))
    log: dict[str, np.ndarray] = {}
    console = Console(stderr=True, quiet=quiet)
    for step in track(range(steps), title, console=console, disable=not console.is_terminal or quiet):
        position, velocity = simulator.state
        action, log_probability = behaviour(observation, step)
        following, reward, terminated, truncated, _ = simulator.step(action)
        row = {
            "observations": observation.astype(np.float32),
            "actions": action,
            "rewards": reward.astype(np.float32),
            "next_observations": following.astype(np.float32),
            "terminals": terminated,
            "timeouts": truncated & ~terminated,
            **dict(zip(INFO_KEYS, (position, velocity), strict=True)),
        }
        if log_probability is not None:
            row[LOG_PROBABILITY] = log_probability
        for key, value in row.items():
            if not step:
                log[key] = np.empty((streams, steps, *value.shape[1:]), value.dtype)
            log[key][:, step] = value
        observation, ended = following, terminated | truncated
        if ended.any():
            observation, _ = simulator.reset(options={"reset_mask": ended})
    log = {key: values.reshape(-1, *values.shape[2:])[:rows] for key, values in log.items()}
    cut = np.append(np.arange(steps - 1, rows - 1, steps), rows - 1)
    log["timeouts"][cut] = ~log["terminals"][cut]
    return log
