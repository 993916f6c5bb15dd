"""What one update is given: the rows of its mini-batch, and its random numbers, all drawn beforehand.

The update is a pure function of the agent and these, which makes it comparable, number by number, with a
transcription of the equations.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from simtrust.gap.dynamics_model import NextStates
from simtrust.types import Transitions


class Coefficients(NamedTuple):
    """The numbers in which runs that train side by side may differ."""

    beta: Float[Array, ""]
    """β: weight of H2O's value regularisation."""
    next_state_noise: Float[Array, "O O"]
    """A factor of the covariance Σ̂_D of the log's states (`gap.ratio.next_state_noise_factor`)."""


class Batch(NamedTuple):
    """The rows of one update; None where the recipe does not read them."""

    real: Transitions | None
    sim: Transitions | None
    classifier_real: Transitions | None
    classifier_sim: Transitions | None
    measured_gap: Float[Array, " B"] | None = None
    """Of the rows of ``sim``."""
    predicted: NextStates | None = None
    """What the log's model says of the rows of ``sim``.

    A mean and a deviation an elite, [M, B, O] each. The model does not change any more, so this is no part of
    the update, and is computed for the rows of twenty updates at once: of each elite, but not for each of the
    N draws of a row. Kept beside the rows in the replay buffer it would be several times their size.
    """


class Noise(NamedTuple):
    """The random numbers of one update: standard normal but where noted."""

    next_action: Float[Array, "B A"]
    action: Float[Array, "B A"]
    pair: Int[Array, "2"]
    """Two different members of the critic ensemble, uniform."""
    classifier: Float[Array, "C inputs"] | None = None
    next_state: Float[Array, "N B O"] | None = None
    sampled_uniform: Float[Array, "K B A"] | None = None
    """Uniform in [-1, 1]."""
    sampled_here: Float[Array, "K B A"] | None = None
    sampled_next: Float[Array, "K B A"] | None = None
    elite: Float[Array, "N B"] | None = None
    """Uniform in [0, 1): which member of the log's model each next state is drawn from."""


def concatenate(*parts: Transitions | None) -> Transitions:
    """Rows of several batches, one after the other; absent ones are passed over."""
    present = [part for part in parts if part is not None]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *present)
