"""The log on the device: which rows the classifiers train on, and which are held out from them."""

import jax.numpy as jnp
import numpy as np

from simtrust.data.dataset import Dataset, episode_numbers, unknown_next_state
from simtrust.data.held_out import spread_groups
from simtrust.data.replay import pack
from simtrust.training.updating import Log
from simtrust.types import Transitions

HELD_OUT_SHARE = 0.02
HELD_OUT_MAX = 2_000


def log_on_device(dataset: Dataset, inside: Transitions[np.ndarray]) -> Log:
    """The log on the device, in `log_order`."""
    order, training, held_out = log_order(dataset, inside)
    return Log(jnp.asarray(pack(inside)[order]), training, held_out)


def log_order(dataset: Dataset, inside: Transitions[np.ndarray]) -> tuple[np.ndarray, int, int]:
    """Rows [T] for the classifiers, their held-out rows, all others; and how many of the first two there are.

    Whole episodes are held out, spread evenly over the recording, so that no neighbour of a held-out
    row was trained on. A terminal row whose next state the file did not hold repeats its own state
    there; only the critic may read it, which ignores the next state of terminals.
    """
    rows = len(dataset)
    goal = min(round(HELD_OUT_SHARE * rows), HELD_OUT_MAX)
    episode = episode_numbers(dataset.episode_end)
    held_out = np.zeros(rows, bool)
    if dataset.episode_count >= 10:
        wanted = max(round(dataset.episode_count * goal / rows), 1)
        held_out = spread_groups(episode, wanted)
    else:
        held_out[rows - goal :] = True
    unknown = unknown_next_state(inside)
    order = np.argsort(np.where(unknown, 2, np.where(held_out, 1, 0)), kind="stable")
    return order, int((~held_out & ~unknown).sum()), int((held_out & ~unknown).sum())
