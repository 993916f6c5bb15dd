"""Fitting the ensemble of `dynamics_model` to a log: what is held out, batches, early stopping, elites."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from simtrust.data.dataset import select_rows, unknown_next_state
from simtrust.data.held_out import hold_out
from simtrust.errors import ConfigError, DataError
from simtrust.gap.dynamics_model import DynamicsModel, GaussianNetwork, gaussian_loss, predict
from simtrust.gap.scales import moments, rounding
from simtrust.types import Transitions

EPOCH_UPDATES_MIN = 200
"""A short log is gone over several times an epoch, so that few updates are never judged alone."""

Progress = Callable[[int, float], None]
"""Called after every epoch with its number, from 1, and the members' mean held-out loss."""


@dataclass(frozen=True)
class DynamicsModelOptions:
    """Size and training of the ensemble; the defaults are MOPO's counts and widths, for the reverse KL."""

    members: int = 7
    elites: int = 5
    """How many members are kept: those with the least held-out loss."""
    hidden_sizes: tuple[int, ...] = (200, 200, 200, 200)
    """One width, as often as there are layers."""
    learning_rate: float = 1e-3
    """Adam's step size at first."""
    final_learning_rate: float = 1.0
    """Share of it that is left after all ``epochs``, along half a cosine; 1 keeps it constant."""
    variance_weighting: float = 0.0
    """β of the β-NLL (Seitzer et al., 2022, arXiv:2203.09168): a dimension's loss counts ``variance^β``
    times. 0 is the likelihood itself, which gives up on what is hard to predict; 1 fits the means as least
    squares do."""
    batch_size: int = 256
    epochs: int = 100
    """At most so many passes over the training rows."""
    epoch_updates: int | None = None
    """An epoch ends after so many updates even if rows are left: a bound on cost. None: a whole pass."""
    patience: int = 5
    """Stop after so many epochs in which no member's held-out loss fell by `least_improvement`."""
    least_improvement: float = 0.01
    """Relative."""
    held_out_share: float = 0.1
    """Share of the log, in whole episodes and of at most 10,000 rows, that no member trains on."""

    def __post_init__(self) -> None:
        for name in ("members", "elites", "batch_size", "epochs", "patience"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.elites <= self.members, "elites", self.elites, "at most members")
        sizes = self.hidden_sizes
        _require(len(set(sizes)) == 1 and sizes[0] >= 1, "hidden_sizes", sizes, "positive, and all the same")
        for name in ("learning_rate", "final_learning_rate"):
            _require(0 < getattr(self, name) <= 1, name, getattr(self, name), "in (0, 1]")
        for name in ("variance_weighting", "least_improvement"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "in [0, 1]")
        updates = self.epoch_updates
        _require(updates is None or updates >= 1, "epoch_updates", updates, "at least 1")
        _require(0 < self.held_out_share < 1, "held_out_share", self.held_out_share, "between 0 and 1")


def _require(holds: bool, option: str, value: object, wanted: str) -> None:
    if not holds:
        raise ConfigError(f"{option} of the dynamics model must be {wanted}, got {value}")


REVERSE_GAP_OPTIONS = DynamicsModelOptions()
"""Of the model that the reverse KL draws next states from; MOPO's counts and widths, as in App. C.2."""


class FittedDynamics(NamedTuple):
    """The model, and how well it predicts rows of the log that it never trained on."""

    model: DynamicsModel
    held_out: np.ndarray  # [T] bool: rows of the log that judged the members
    unknown: np.ndarray  # [T] bool: rows whose next observation nobody recorded, left aside
    held_out_loss: np.ndarray  # [epochs, members] float32: mean squared error, standardised
    elites: np.ndarray  # [M] int: members kept, best first
    r_squared: np.ndarray  # [O] float64: share of the change's variance explained; NaN where it is constant
    r_squared_overall: float  # their mean; NaN if every dimension is constant


def fit_dynamics_model(
    transitions: Transitions[np.ndarray],
    episode_end: Bool[np.ndarray, " T"],
    *,
    key: PRNGKeyArray,
    options: DynamicsModelOptions = DynamicsModelOptions(),
    held_out: Bool[np.ndarray, " T"] | None = None,
    progress: Progress | None = None,
) -> FittedDynamics:
    """Fit the ensemble to T logged rows; the same key gives the same bits.

    Rows are ``held_out`` as `hold_out` chooses them, unless told. Each member ends as it was at its own best
    epoch. Means and standard deviations come from the training rows.

    Raises:
        DataError: fewer than 10 rows with a known next state, or a loss that is no longer finite.
    """
    unknown = unknown_next_state(transitions)
    if held_out is None:
        held_out = hold_out(episode_end, unknown, options.held_out_share)
    training = select_rows(transitions, ~held_out & ~unknown)
    scaling = _scaling(training)
    ensemble, losses = _train(
        _standardised(training, scaling),
        _standardised(select_rows(transitions, held_out), scaling),
        key,
        options,
        progress,
    )
    elites = np.argsort(losses.min(0), kind="stable")[: options.elites]
    model = DynamicsModel(jax.tree.map(lambda leaf: leaf[elites], ensemble), *map(jnp.asarray, scaling))
    r_squared = explained(model, select_rows(transitions, held_out))
    changing = r_squared[~np.isnan(r_squared)]
    overall = float(changing.mean()) if len(changing) else float("nan")
    return FittedDynamics(model, held_out, unknown, losses, elites, r_squared, overall)


def model_shapes(observation_size: int, action_size: int, options: DynamicsModelOptions) -> DynamicsModel:
    """A model that is fitted with these options, of shapes and types alone."""
    inputs = observation_size + action_size

    def blank() -> DynamicsModel:
        elites = jax.vmap(
            lambda key: GaussianNetwork(inputs, options.hidden_sizes, observation_size, key=key)
        )(jax.random.split(jax.random.key(0), options.elites))
        of_inputs, of_changes = jnp.zeros(inputs), jnp.zeros(observation_size)
        return DynamicsModel(elites, of_inputs, of_inputs, of_changes, of_changes)

    return jax.eval_shape(blank)


class _Scaling(NamedTuple):
    """In the order of `DynamicsModel`'s fields; float32."""

    input_mean: np.ndarray
    input_scale: np.ndarray
    change_mean: np.ndarray
    change_scale: np.ndarray


def _scaling(transitions: Transitions[np.ndarray]) -> _Scaling:
    inputs = np.concatenate([transitions.observation, transitions.action], axis=1)
    change = transitions.next_observation - transitions.observation
    # A change is no finer than the states that it is the difference of.
    fields = (*moments(inputs, inputs), *moments(change, transitions.observation))
    return _Scaling(*(field.astype(np.float32) for field in fields))


class _Rows(NamedTuple):
    inputs: Array  # [n, O + A] standardised
    change: Array  # [n, O] standardised


def _standardised(transitions: Transitions[np.ndarray], scaling: _Scaling) -> _Rows:
    inputs = np.concatenate([transitions.observation, transitions.action], axis=1)
    change = transitions.next_observation - transitions.observation
    return _Rows(
        jnp.asarray((inputs - scaling.input_mean) / scaling.input_scale),
        jnp.asarray((change - scaling.change_mean) / scaling.change_scale),
    )


class _Ensemble(NamedTuple):
    """Every member as it is, and as it was at its best epoch; leading axis ``members`` everywhere."""

    members: GaussianNetwork
    optimiser: optax.OptState
    best: GaussianNetwork
    best_loss: Array


def _train(
    training: _Rows,
    held_out: _Rows,
    key: PRNGKeyArray,
    options: DynamicsModelOptions,
    progress: Progress | None,
) -> tuple[GaussianNetwork, np.ndarray]:
    """Every member at its best epoch, and the held-out losses [epochs, members]."""
    create_key, order_key = jax.random.split(key)
    ensemble = _create(create_key, training.inputs.shape[1], training.change.shape[1], options)
    losses: list[np.ndarray] = []
    reference, waited = np.full(options.members, np.inf), 0
    # One compiled call an epoch, not one for all: it can report, and be interrupted, in between.
    for epoch in range(options.epochs):
        ensemble, trained, judged = _epoch(
            ensemble, training, held_out, jax.random.fold_in(order_key, epoch), options
        )
        losses.append(np.asarray(judged))
        _check_finite(np.asarray(trained), losses[-1], epoch + 1)
        if progress is not None:
            progress(epoch + 1, float(losses[-1].mean()))
        better = losses[-1] < reference * (1 - options.least_improvement)
        reference = np.where(better, losses[-1], reference)
        waited = 0 if better.any() else waited + 1
        if waited >= options.patience:
            break
    return ensemble.best, np.stack(losses)


def _check_finite(trained: np.ndarray, judged: np.ndarray, epoch: int) -> None:
    if not (np.isfinite(trained).all() and np.isfinite(judged).all()):
        raise DataError(
            f"the dynamics model's loss is no longer finite in epoch {epoch} (training {trained}, held out "
            f"{judged}). Remedy: look for huge values in the log, or lower learning_rate."
        )


def _create(key: PRNGKeyArray, in_size: int, out_size: int, options: DynamicsModelOptions) -> _Ensemble:
    # Not compiled as a whole: drawing all weights in one program takes longer to compile than to run.
    each = [
        GaussianNetwork(in_size, options.hidden_sizes, out_size, key=member_key)
        for member_key in jax.random.split(key, options.members)
    ]
    members = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    state = jax.vmap(optax.adam(optax.constant_schedule(0.0)).init)(members)
    # Of a fixed type: a weak one would compile the epoch twice.
    return _Ensemble(members, state, members, jnp.full(options.members, jnp.inf, jnp.float32))


@eqx.filter_jit
def _epoch(
    ensemble: _Ensemble, training: _Rows, held_out: _Rows, key: PRNGKeyArray, options: DynamicsModelOptions
) -> tuple[_Ensemble, Array, Array]:
    """One epoch of every member; also their mean training and held-out losses [members]."""
    keys = jax.random.split(key, options.members)
    order = jax.vmap(lambda key: _batches(key, len(training.inputs), options))(keys)
    total = options.epochs * order.shape[1]
    optimiser = optax.adam(
        optax.cosine_decay_schedule(options.learning_rate, total, options.final_learning_rate)
    )

    def update(carry, index: Int[Array, " B"]):
        member, state = carry
        loss, gradient = jax.value_and_grad(gaussian_loss)(
            member, training.inputs[index], training.change[index], options.variance_weighting
        )
        updates, state = optimiser.update(gradient, state)
        return (jax.tree.map(jnp.add, member, updates), state), loss

    (members, state), trained = jax.lax.scan(
        jax.vmap(update), (ensemble.members, ensemble.optimiser), jnp.swapaxes(order, 0, 1)
    )
    # One after another: side by side, their hidden layers would take as many times the memory.
    judged = jax.lax.map(lambda member: _squared_error(member, held_out), members)
    better = judged < ensemble.best_loss

    def keep(new: Array, best: Array) -> Array:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, best)

    best = jax.tree.map(keep, members, ensemble.best)
    best_loss = jnp.where(better, judged, ensemble.best_loss)
    return _Ensemble(members, state, best, best_loss), trained.mean(0), judged


def _batches(key: PRNGKeyArray, rows: int, options: DynamicsModelOptions) -> Int[Array, "updates B"]:
    """An epoch's mini-batches as indices, each pass over the rows in an order of its own."""
    size = min(options.batch_size, rows)
    passes = -(-EPOCH_UPDATES_MIN // (rows // size))
    orders = jnp.argsort(jax.random.bits(key, (passes, rows)), axis=1)
    return orders[:, : rows // size * size].reshape(-1, size)[: options.epoch_updates]


def _squared_error(member: GaussianNetwork, rows: _Rows) -> Float[Array, ""]:
    mean, _ = member(rows.inputs)
    return jnp.square(mean - rows.change).mean()


def explained(model: DynamicsModel, rows: Transitions[np.ndarray]) -> np.ndarray:
    """R² [O] of the change; NaN where it only changes by rounding."""
    predicted = predict(model, rows.observation, rows.action).mean
    error = np.square(rows.next_observation - predicted, dtype=np.float64).mean(0)
    variance = (rows.next_observation - rows.observation).var(0, dtype=np.float64)
    constant = np.sqrt(variance) <= rounding(rows.observation)
    return np.where(constant, np.nan, 1 - error / np.where(constant, 1.0, variance))
