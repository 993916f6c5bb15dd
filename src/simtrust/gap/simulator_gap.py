"""The dynamics gap of a simulator that cannot be put into logged states: the *model estimator*.

The simulator is left to its own rollouts, and one ensemble is fitted to these and to the log together. One
more input, the domain, tells it which of the two a row is from, so that it can say for any state and action
what reality would do and what the simulator would. Whatever the ensemble gets wrong in the same way of both
cancels in the difference, which therefore is known far better than either; an ensemble of the log alone
could not tell its own errors from the simulator's.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from simtrust.data.dataset import Dataset, select_rows, unknown_next_state
from simtrust.data.held_out import hold_out
from simtrust.errors import DataError
from simtrust.gap.dynamics_fitting import DynamicsModelOptions, Progress, explained, fit_dynamics_model
from simtrust.gap.dynamics_model import CHUNK, DynamicsModel
from simtrust.gap.rollouts import chain_ends
from simtrust.gap.scales import rounding
from simtrust.types import Transitions

REALITY, SIMULATOR = -1.0, 1.0
"""The domain, as the ensemble reads it."""
KNOWN_QUANTILE = 0.95
SIMULATOR_GAP_OPTIONS = DynamicsModelOptions(
    members=3,
    elites=3,
    learning_rate=1e-2,
    final_learning_rate=0.01,
    variance_weighting=0.5,
    epochs=50,
    epoch_updates=400,
    patience=50,
)
"""What a report affords: chosen with ``benchmarks/gap_truth.py``."""


Rows = Transitions[np.ndarray]
TINY = float(np.finfo(np.float32).eps)


class RowGaps(NamedTuple):
    """What is estimated of N rows that the simulator produced."""

    error: np.ndarray  # [N, O] float32: simulated less real next observation, in the log's units
    gap: np.ndarray  # [N] float32: its root mean square, in standard deviations of the logged change
    disagreement: np.ndarray  # [N] float32: of the members on what reality does, in the same unit


class SimulatorGap(eqx.Module):
    """How far a simulated row is from what reality would have done."""

    model: DynamicsModel
    """Of both; its last action is the domain."""
    scale: Float[Array, " O"]
    """Standard deviation of the logged change; infinite where the log does not vary."""

    def assess(self, rows: Rows) -> RowGaps:
        """The gaps of N simulated rows, in the machine's units.

        The systematic error is the difference δ of the two predictions. Of the rest, ``s' − ŝ'`` with ŝ' what
        the simulator does on average, a share counts: ``x / (x + v)``, where x is by how much the variance
        that the model expects of the simulator exceeds that which it expects of reality, v. So a simulator's
        own noise counts, and what the model cannot predict of either does not.
        """
        error, disagreement = _in_chunks(_gap, self.model, rows)
        return RowGaps(error, self.size(error), self.size(disagreement))

    def divergence(self, rows: Rows) -> np.ndarray:
        """``u = ½ Σ_d (ê_d/σ_d)²`` [N] float32 of N simulated rows.

        The KL divergence between what the simulator did and what reality does, were both Gaussian with the
        variance σ² of the logged change.
        """
        kept = np.isfinite(np.asarray(self.scale)).sum()
        return (0.5 * kept * np.square(self.assess(rows).gap)).astype(np.float32)

    def surprise(self, rows: Rows, domain: float) -> np.ndarray:
        """Size [N] of the error of predicting N rows as if they were of this ``domain``."""
        mean, _, _ = _in_chunks(partial(_prediction, domain=domain), self.model, rows)
        return self.size(rows.next_observation - rows.observation - mean)

    def log_density(self, rows: Rows, domain: float) -> np.ndarray:
        """Log-density [N] of the changes as if of this ``domain``, a dimension, in nats, less a constant.

        The mean over the dimensions that vary, of a Gaussian with the members' mean and mean variance.
        """
        mean, _, variance = _in_chunks(partial(_prediction, domain=domain), self.model, rows)
        error = rows.next_observation - rows.observation - mean
        density = -0.5 * (np.square(error, dtype=np.float64) / variance + np.log(variance))
        return density[:, np.isfinite(np.asarray(self.scale))].mean(1)

    def doubt(self, rows: Rows, domain: float) -> np.ndarray:
        """Size [N] of the members' disagreement on what this ``domain`` does in N rows."""
        return self.size(_in_chunks(partial(_prediction, domain=domain), self.model, rows)[1])

    def size(self, error: Float[np.ndarray, "N O"]) -> np.ndarray:
        """Root mean square [N] over the dimensions that vary, in standard deviations of the logged change."""
        scale = np.asarray(self.scale)
        return np.sqrt(np.square(error / scale).sum(-1) / max(int(np.isfinite(scale).sum()), 1))


def _in_chunks(
    function: Callable[[DynamicsModel, Array, Array, Array], tuple[Array, ...]],
    model: DynamicsModel,
    rows: Rows,
) -> list[np.ndarray]:
    """Arrays ``[N, O]`` float32, of rows padded to one length so that nothing is compiled twice."""
    change = rows.next_observation - rows.observation
    parts = []
    for start in range(0, max(len(change), 1), CHUNK):
        fields = [x[start : start + CHUNK] for x in (rows.observation, rows.action, change)]
        count = len(fields[0])
        padded = (np.pad(x, ((0, CHUNK - count), (0, 0))) for x in fields)
        found = function(model, *(jnp.asarray(x, jnp.float32) for x in padded))
        parts.append([np.asarray(field)[:count] for field in found])
    return [np.concatenate(field) for field in zip(*parts, strict=True)]


@eqx.filter_jit
def _gap(model: DynamicsModel, observation: Array, action: Array, change: Array) -> tuple[Array, Array]:
    real, real_variance = model.change(observation, _labelled(action, REALITY))
    simulated, simulated_variance = model.change(observation, _labelled(action, SIMULATOR))
    expected = real_variance.mean(0)
    excess = jnp.maximum(simulated_variance.mean(0) - expected, 0.0)
    share = excess / (excess + expected)
    average = simulated.mean(0)
    return average - real.mean(0) + share * (change - average), real.std(0)


@eqx.filter_jit
def _prediction(
    model: DynamicsModel, observation: Array, action: Array, _: Array, *, domain: float
) -> tuple[Array, Array, Array]:
    mean, variance = model.change(observation, _labelled(action, domain))
    return mean.mean(0), mean.std(0), variance.mean(0)


def _labelled(action: Float[Array, "*batch A"], domain: float) -> Float[Array, "*batch A+1"]:
    return jnp.concatenate([action, jnp.full((*action.shape[:-1], 1), domain)], axis=-1)


class FittedSimulatorGap(NamedTuple):
    """The estimator, and how far to believe it."""

    gap: SimulatorGap
    r_squared: np.ndarray  # [O] on held-out rows of the log; NaN where it does not vary
    r_squared_overall: float
    floor: float
    """Median size of the model's own error on held-out rows of the log."""
    distinction: float
    """By how many nats a dimension held-out rows are likelier as of their own domain than as of the other.

    The mean of the medians over the log's rows and over simulated ones. It estimates half of Jeffreys'
    divergence between the two machines, so noise counts as well as a systematic error.
    """
    disagreement_limit: float
    """What the members' disagreement on held-out rows of the log stays below in 95 % of them."""


def fit_simulator_gap(
    dataset: Dataset,
    simulated: Rows,
    *,
    key: PRNGKeyArray,
    options: DynamicsModelOptions = SIMULATOR_GAP_OPTIONS,
    progress: Progress | None = None,
) -> FittedSimulatorGap:
    """Fit the ensemble to a log and to a simulator's own rows; the same key gives the same bits.

    Args:
        dataset: T rows of reality.
        simulated: rows of the simulator, in chains, as `simtrust.gap.rollouts.probe_rollouts` returns them.
        key: of the initial weights and the order of the rows.
        options: of the ensemble.
        progress: told after every epoch.

    Raises:
        DataError: too few rows with a known next state, nothing that varies, or a loss that is not finite.
    """
    log, unknown = dataset.transitions, unknown_next_state(dataset.transitions)
    judges = (
        hold_out(dataset.episode_end, unknown, options.held_out_share),
        hold_out(chain_ends(simulated), np.zeros(len(simulated.reward), bool), options.held_out_share),
    )
    known = select_rows(log, ~unknown)
    scale = _change_scale(known, dataset.source)
    # What is constant in the log tells where a row is from, but nothing about what reality would do.
    still = known.observation.std(0, dtype=np.float64) <= rounding(known.observation)
    placed = _placed(simulated, still, known.observation[0])
    labelled = (_of_domain(log, REALITY), _of_domain(placed, SIMULATOR))
    both = Transitions(*(np.concatenate(field) for field in zip(*labelled, strict=True)))
    ends = np.concatenate([dataset.episode_end, chain_ends(simulated)])
    fitted = fit_dynamics_model(
        both, ends, key=key, options=options, held_out=np.concatenate(judges), progress=progress
    )
    unread = np.append(still, np.zeros(dataset.action_size + 1, bool))
    model = eqx.tree_at(
        lambda m: m.input_scale, fitted.model, replace_fn=lambda x: jnp.where(unread, jnp.inf, x)
    )
    gap = SimulatorGap(model, jnp.asarray(scale, jnp.float32))
    real, probe = select_rows(log, judges[0]), select_rows(simulated, judges[1])
    r_squared = explained(model, _of_domain(real, REALITY))
    limit = float(np.quantile(gap.doubt(real, REALITY), KNOWN_QUANTILE))
    distinctions = [_distinction(gap, real, REALITY, limit), _distinction(gap, probe, SIMULATOR, limit)]
    return FittedSimulatorGap(
        gap,
        r_squared,
        float(np.nanmean(r_squared)) if np.isfinite(r_squared).any() else np.nan,
        float(max(np.median(gap.surprise(real, REALITY)), TINY)),
        float(np.mean(distinctions)),
        limit,
    )


def _distinction(gap: SimulatorGap, rows: Rows, domain: float, limit: float) -> float:
    """By how many nats a dimension rows are likelier as of this domain, in the median; 0 if nothing is known.

    Only where the members agree on what the other does, since they would else be wrong for another reason.
    """
    shared = select_rows(rows, gap.doubt(rows, -domain) <= limit)
    if not len(shared.reward):
        return 0.0
    return float(np.median(gap.log_density(shared, domain) - gap.log_density(shared, -domain)))


def _of_domain(rows: Rows, domain: float) -> Rows:
    column = np.full((len(rows.action), 1), domain, np.float32)
    return rows._replace(action=np.concatenate([rows.action, column], axis=1))


def _placed(rows: Rows, still: np.ndarray, constant: np.ndarray) -> Rows:
    """The rows, moved in the dimensions that are ``still`` to the log's constants; no change is changed."""
    following = constant + rows.next_observation - rows.observation
    return rows._replace(
        observation=np.where(still, constant, rows.observation),
        next_observation=np.where(still, following, rows.next_observation),
    )


def _change_scale(rows: Rows, source: str) -> np.ndarray:
    """[O]; infinite where the log varies by no more than rounding."""
    change = rows.next_observation - rows.observation
    std = change.std(0, dtype=np.float64)
    varies = std > rounding(rows.observation)
    if not varies.any():
        raise DataError(
            f"{source}: no dimension of the change varies, so there is nothing to compare an error with. "
            "Remedy: record the machine while it moves."
        )
    return np.where(varies, std, np.inf)
