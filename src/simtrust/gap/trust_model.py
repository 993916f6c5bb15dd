"""How far a simulator's next step is expected to be off at ``(s, a)``, and if the log says anything there.

The ensemble of `dynamics_model`, fitted to the simulator's one-step error in place of the machine's change.
It needs neither simulator nor log any more, so it can run beside a controller (`simtrust.export`).
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from scipy.stats import spearmanr

from simtrust.data.dataset import episode_numbers
from simtrust.errors import DataError
from simtrust.gap.dynamics_fitting import DynamicsModelOptions, fit_dynamics_model
from simtrust.gap.dynamics_model import CHUNK, DynamicsModel
from simtrust.gap.simulator_gap import KNOWN_QUANTILE
from simtrust.types import Transitions

TRUST_MODEL_OPTIONS = DynamicsModelOptions(
    members=3,
    elites=3,
    hidden_sizes=(128, 128),
    learning_rate=1e-2,
    final_learning_rate=0.01,
    variance_weighting=0.5,
    epochs=15,
    epoch_updates=300,
)
"""Seconds of fitting on two cores, and small enough for every control step of a robot."""
ROWS_MIN = 10
LEAST_VARIATION = 1e-3
"""In standard deviations of the logged change: what an error varies by below this is of no interest."""
LEAST_DISAGREEMENT = 1e-4
"""Share of the error's spread: float32 tells the members' outputs apart no finer than that."""


class TrustAssessment(NamedTuple):
    """What is known about the simulator at N states and actions; NaN where one of these is not finite."""

    gap: np.ndarray  # [N] float32: expected one-step error, in standard deviations of the logged change
    divergence: np.ndarray  # [N] float32: u, as of `SimulatorGap.divergence`, in nats
    doubt: np.ndarray  # [N] float32: above 1, the log says nothing here
    error: np.ndarray  # [N, O] float32: mean of simulated − real, the log's units; NaN where left out


class TrustModel(eqx.Module):
    """A model of the simulator's one-step error."""

    model: DynamicsModel
    """Its "change" is simulated − real next observation, in the log's units."""
    scale: Float[Array, " O"]
    """Standard deviation of the logged change. NaN where the log does not vary: these are left out."""
    doubt_limit: float
    """Root mean square over dimensions of the members' disagreement / scale, above which a row is unknown."""
    trusted_error: float
    """The gap up to which the simulator counts as right."""

    @property
    def kept(self) -> Bool[np.ndarray, " O"]:
        """The dimensions that count."""
        return ~np.isnan(np.asarray(self.scale))

    def assess(
        self, observation: Float[np.ndarray, "N O"], action: Float[np.ndarray, "N A"]
    ) -> TrustAssessment:
        """What to expect of the simulator in N rows, in the machine's units; computed in chunks."""
        parts = []
        for start in range(0, len(observation), CHUNK):
            with np.errstate(over="ignore"):  # An infinity is answered by NaN.
                rows = [np.asarray(x[start : start + CHUNK], np.float32) for x in (observation, action)]
            count = len(rows[0])
            # Padded, so that the last chunk does not compile anew.
            padded = (jnp.asarray(np.pad(x, ((0, CHUNK - count), (0, 0)), mode="edge")) for x in rows)
            found = _assess_chunk(self.model, self.scale, *padded)
            parts.append([np.asarray(field)[:count] for field in found])
        if not parts:
            nothing = np.zeros(0, np.float32)
            return TrustAssessment(nothing, nothing, nothing, np.zeros((0, len(self.scale)), np.float32))
        gap, disagreement, error = (np.concatenate(field) for field in zip(*parts, strict=True))
        # The gap is the root of an expected square, so this is the expectation.
        divergence = np.float32(0.5 * self.kept.sum()) * np.square(gap)
        return TrustAssessment(gap, divergence, disagreement / np.float32(self.doubt_limit), error)


@eqx.filter_jit
def _assess_chunk(
    model: DynamicsModel, scale: Array, observation: Array, action: Array
) -> tuple[Array, Array, Array]:
    """Gap, disagreement in the same unit, and error."""
    kept = ~jnp.isnan(scale)
    # In the unit of the outputs, and before the mean error is added: the disagreement keeps its digits.
    spread = jnp.where(kept, model.change_scale / scale, 0.0)
    shift = jnp.where(kept, model.change_mean / scale, 0.0)
    inputs = jnp.concatenate([observation, action], axis=-1)
    standardised = (inputs - model.input_mean) / model.input_scale
    # A GPU would round the factors to ten bits.
    with jax.default_matmul_precision("highest"):
        mean, log_variance = jax.vmap(lambda member: member(standardised))(model.elites)
    average, variance = mean.mean(0), jnp.exp(log_variance).mean(0)

    def root_mean(squares: Array) -> Array:
        return jnp.sqrt(squares.sum(-1) / kept.sum())

    gap = root_mean(jnp.square(shift + average * spread) + variance * jnp.square(spread))
    disagreement = root_mean(jnp.square(mean - average).mean(0) * jnp.square(spread))
    error = jnp.where(kept, model.change_mean + average * model.change_scale, jnp.nan)
    finite = jnp.isfinite(inputs).all(-1, keepdims=True)
    return (
        jnp.where(finite[:, 0], gap, jnp.nan),
        jnp.where(finite[:, 0], disagreement, jnp.nan),
        jnp.where(finite, error, jnp.nan),
    )


class FittedTrust(NamedTuple):
    """The model, and how well it ranks rows that it never trained on."""

    model: TrustModel
    rank_correlation: float
    """Spearman's, between the expected and the actual error of held-out rows; NaN if either is constant."""
    held_out: np.ndarray  # [N] bool: the rows that judged it; their error is known


def fit_trust_model(
    observation: Float[np.ndarray, "N O"],
    action: Float[np.ndarray, "N A"],
    error: Float[np.ndarray, "N O"],
    group_end: Bool[np.ndarray, " N"],
    scale: Float[np.ndarray, " O"],
    *,
    key: PRNGKeyArray,
    trusted_error: float,
    options: DynamicsModelOptions = TRUST_MODEL_OPTIONS,
    progress: Callable[[int, float], None] | None = None,
) -> FittedTrust:
    """Fit the model to the simulator's errors in N rows of the log; the same key gives the same bits.

    A row is unknown if the members disagree more than in 95 % of the held-out rows.

    Args:
        observation: logged states, in the log's units.
        action: logged actions, in the log's units.
        error: simulated − real next observation; rows in which it is not finite are left out.
        group_end: the last row of each episode, or of each group of rows that are held out together.
        scale: standard deviation of the logged change; NaN leaves a dimension and its error out.
        key: of everything random.
        trusted_error: is passed on to the model.
        options: of the ensemble.
        progress: as for `fit_dynamics_model`.

    Raises:
        DataError: fewer than 10 rows have a finite error, no dimension has a scale, or the loss is no
            longer finite.
    """
    kept = ~np.isnan(scale)
    known = np.isfinite(error[:, kept]).all(1)
    _check_enough(int(known.sum()), bool(kept.any()))
    states, actions, errors = (np.asarray(x, np.float64)[known] for x in (observation, action, error))
    errors = np.where(kept, errors, 0.0)
    inside, target = _state_units(states), _error_units(errors, scale)
    fitted = fit_dynamics_model(
        _as_transitions(inside.standardise(states), actions, target.standardise(errors)),
        _ends(episode_numbers(np.asarray(group_end))[known]),
        key=key,
        options=options,
        progress=progress,
    )
    trust = TrustModel(
        _in_log_units(fitted.model, inside, target), jnp.asarray(scale, jnp.float32), 1.0, trusted_error
    )
    assessed = trust.assess(*(x[fitted.held_out] for x in (states, actions)))
    spread = _root_mean_square((np.asarray(trust.model.change_scale) / scale)[kept])
    limit = max(np.quantile(assessed.doubt, KNOWN_QUANTILE), LEAST_DISAGREEMENT * spread)
    actual = _root_mean_square((errors[fitted.held_out] / scale)[:, kept])
    held_out = np.zeros(len(error), bool)
    held_out[known] = fitted.held_out
    return FittedTrust(
        TrustModel(trust.model, trust.scale, float(limit), trusted_error),
        _rank_correlation(assessed.gap, actual),
        held_out,
    )


def _check_enough(rows: int, any_dimension: bool) -> None:
    if rows < ROWS_MIN:
        raise DataError(
            f"the simulator's error is known in {rows} rows, too few to model it. Remedy: replay more rows."
        )
    if not any_dimension:
        raise DataError("no dimension of the log varies, so its errors have no unit. Remedy: record motion.")


class _Units(NamedTuple):
    mean: np.ndarray  # [O] float64
    scale: np.ndarray  # [O] float64; infinite where what is measured counts as constant

    def standardise(self, values: np.ndarray) -> np.ndarray:
        return (values - self.mean) / self.scale


def _state_units(observation: np.ndarray) -> _Units:
    mean, std = observation.mean(0), observation.std(0)
    rounding = 4 * np.finfo(np.float32).eps * np.abs(observation).max(0)
    return _Units(mean, np.where(std > rounding, std, np.inf))


def _error_units(error: np.ndarray, scale: np.ndarray) -> _Units:
    least = np.where(np.isnan(scale), np.inf, LEAST_VARIATION * scale)
    return _Units(error.mean(0), np.maximum(error.std(0), least))


def _as_transitions(state: np.ndarray, action: np.ndarray, error: np.ndarray) -> Transitions[np.ndarray]:
    """Rows whose change is the error. Both standardised, the sum keeps the digits of a small error."""
    nothing = np.zeros(len(state))
    fields = (state, action, nothing, state + error, nothing)
    return Transitions(*(field.astype(np.float32) for field in fields))


def _in_log_units(model: DynamicsModel, state: _Units, error: _Units) -> DynamicsModel:
    """The same model, whose inputs and outputs are no longer standardised."""
    size = len(state.mean)
    input_mean, input_scale = (np.array(x, np.float64) for x in (model.input_mean, model.input_scale))
    scale = np.where(np.isinf(state.scale), 1.0, state.scale)
    input_mean[:size] = state.mean + input_mean[:size] * scale
    input_scale[:size] *= scale
    unit = np.where(np.isinf(error.scale), 0.0, error.scale)
    change_mean = error.mean + np.asarray(model.change_mean) * unit
    fields = (input_mean, input_scale, change_mean, np.asarray(model.change_scale) * unit)
    return DynamicsModel(model.elites, *(jnp.asarray(field, jnp.float32) for field in fields))


def _ends(group: np.ndarray) -> np.ndarray:
    """[n] bool: the last of the rows that are left of each group."""
    return np.append(np.diff(group) != 0, True)


def _root_mean_square(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(values).mean(-1))


def _rank_correlation(expected: np.ndarray, actual: np.ndarray) -> float:
    if np.ptp(expected) == 0 or np.ptp(actual) == 0:
        return float("nan")
    return float(np.asarray(spearmanr(expected, actual))[0])
