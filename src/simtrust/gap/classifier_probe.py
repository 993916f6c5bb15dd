"""The *classifier estimator* of the dynamics gap: H2O's ψ and φ, trained and judged without any policy.

They learn to tell rows of the log from the simulator's own rollouts, as they do while H2O trains (Alg. 1,
lines 4 and 5). Rows of both sources that they never saw tell how far to believe them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnasium.spaces import Box
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from simtrust.data.dataset import select_rows, unknown_next_state
from simtrust.data.held_out import hold_out
from simtrust.errors import ConfigError, DataError
from simtrust.gap import classifier as domain
from simtrust.gap.classifier import LOGIT_BOUND, REAL, SIM, DomainClassifier
from simtrust.gap.findings import Calibration, ClassifierEstimate
from simtrust.gap.ratio import dynamics_gap, next_state_noise_factor
from simtrust.gap.rollouts import chain_ends
from simtrust.gap.scales import moments
from simtrust.types import Transitions

LEAST_ROWS = 10
UPDATES_AT_ONCE, JUDGED_AT_ONCE = 250, 2048
Rows = Transitions[np.ndarray]
Reader = Callable[[Rows], Rows]
"""From rows in the machine's units to what the classifiers read of them."""
Progress = Callable[[int, float], None]
"""Called after every 250 updates with how many were made, and the mean loss over these 250."""
_Fit = tuple[DomainClassifier, optax.OptState]


def read_states(log: Rows, action_space: Box) -> Reader:
    """``s`` and ``s'`` as they are, and ``a`` in [-1, 1]: what H2O's classifiers read."""
    low, high = action_space.low, action_space.high
    return lambda rows: rows._replace(action=(2 * (rows.action - low) / (high - low) - 1).astype(np.float32))


def read_changes(log: Rows, action_space: Box) -> Reader:
    """``s``, ``a`` and ``s' − s``, standardised by the log.

    What a simulator gets wrong is the change, a small difference between two states that vary much more.
    """
    here, action = (moments(values, values) for values in (log.observation, log.action))
    # A change is no finer than the states that it is the difference of.
    change = moments(log.next_observation - log.observation, log.observation)

    def standardised(values: np.ndarray, moments: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return ((values - moments[0]) / moments[1]).astype(np.float32)

    return lambda rows: rows._replace(
        observation=standardised(rows.observation, here),
        action=standardised(rows.action, action),
        next_observation=standardised(rows.next_observation - rows.observation, change),
    )


@dataclass(frozen=True)
class ClassifierProbeOptions:
    """Inputs, networks and training of the two classifiers; the defaults are the paper's (App. B.1)."""

    reading: Callable[[Rows, Box], Reader] = read_states
    """From the log's training rows and the action space to what the classifiers read."""
    hidden_sizes: tuple[int, ...] = (256,)
    logit_bound: float = LOGIT_BOUND
    """Every logit is softly clipped to ± this."""
    input_noise: float = 0.1
    """Standard deviation of the noise on all inputs in training, in the units that are read."""
    next_state_samples: int = 10
    """N: next states drawn around s' to estimate u(s, a)."""
    next_state_noise_scale: float = 1.0
    """Their standard deviation, in that of the log's states; 0 for the simulator's own s'."""
    learning_rate: float = 3e-4
    """Adam's step size."""
    batch_size: int = 256
    """Rows of either source an update."""
    updates: int = 2_000
    held_out_share: float = 0.2
    """Share of either source's rows, at most 10,000, that no classifier trains on."""

    def __post_init__(self) -> None:
        checks = (
            ("hidden_sizes", min(self.hidden_sizes, default=0) >= 1, "one or more positive widths"),
            ("logit_bound", 0 < self.logit_bound < np.inf, "positive"),
            ("input_noise", 0 <= self.input_noise < np.inf, "0 or more"),
            ("next_state_samples", self.next_state_samples >= 1, "at least 1"),
            ("next_state_noise_scale", 0 <= self.next_state_noise_scale < np.inf, "0 or more"),
            ("learning_rate", 0 < self.learning_rate <= 1, "in (0, 1]"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("updates", self.updates >= 1, "at least 1"),
            ("held_out_share", 0 < self.held_out_share < 1, "between 0 and 1"),
        )
        for name, holds, wanted in checks:
            if not holds:
                raise ConfigError(f"{name} must be {wanted}, got {getattr(self, name)}")

    @property
    def published(self) -> bool:
        """Whether the classifiers are the paper's, however long they train."""
        return self == ClassifierProbeOptions(updates=self.updates, held_out_share=self.held_out_share)


PUBLISHED = ClassifierProbeOptions()
IMPROVED = ClassifierProbeOptions(
    reading=read_changes,
    hidden_sizes=(128, 128),
    logit_bound=10.0,
    next_state_samples=1,
    next_state_noise_scale=0.0,
    learning_rate=1e-3,
)
"""Finds more of the gap: small errors of the change are large inputs, and the log-ratio may be large too."""


def classify_domains(
    log: Rows,
    episode_end: Bool[np.ndarray, " T"],
    simulated: Rows,
    action_space: Box,
    *,
    key: PRNGKeyArray,
    options: ClassifierProbeOptions = PUBLISHED,
    progress: Progress | None = None,
) -> ClassifierEstimate:
    """Train ψ and φ on T logged and on simulated rows, judge them on others; the same key, the same bits.

    Held out are whole episodes of the log and whole chains of simulated rows, each of which goes on from the
    last row's next observation; blocks of neighbouring rows where these are too few. In the calibration
    both sources weigh the same, as they do in the mini-batches.

    Args:
        log: in the machine's units. Rows of unknown next state are left aside.
        episode_end: the log's rows at which an episode ends.
        simulated: as `simtrust.gap.rollouts.probe_rollouts` returns them.
        action_space: the simulator's.
        key: of the initial weights, the mini-batches and all noise.
        options: `PUBLISHED`, `IMPROVED`, or one's own.
        progress: told after every 250 updates; whatever it raises ends the training.

    Raises:
        DataError: either source has fewer than 10 usable rows, the two disagree in their sizes, or the loss
            is no longer finite.
    """
    unknown = unknown_next_state(log)
    _check(log, unknown, simulated)
    held_out = hold_out(episode_end, unknown, options.held_out_share)
    judged = hold_out(chain_ends(simulated), np.zeros(len(simulated.reward), bool), options.held_out_share)
    train_key, judge_key = jax.random.split(key)
    training = select_rows(log, ~held_out & ~unknown)
    read = options.reading(training, action_space)
    sources = (read(training), read(select_rows(simulated, ~judged)))
    classifier = _train(sources, train_key, options, progress)
    # u's noise is as wide as the log's states, as in training.
    width = next_state_noise_factor(read(training).observation, scale=options.next_state_noise_scale)
    of_log, of_simulated = (
        _judge(classifier, read(rows), jnp.asarray(width), judge_key, options.next_state_samples)
        for rows in (select_rows(log, held_out), select_rows(simulated, judged))
    )
    is_simulated = np.repeat([False, True], [len(of_log.gap), len(of_simulated.gap)])
    state_action = np.concatenate([of_log.state_action, of_simulated.state_action])
    transition = state_action + np.concatenate([of_log.log_ratio, of_simulated.log_ratio])
    _check_finite(transition, "the classifiers' log-odds on held-out rows")
    return ClassifierEstimate(
        simulated=select_rows(simulated, judged),
        log_ratio=of_simulated.log_ratio,
        gap=of_simulated.gap,
        share=of_simulated.gap / of_simulated.gap.sum(dtype=np.float64),
        area_state_action=float(roc_auc_score(is_simulated, state_action)),
        area_transition=float(roc_auc_score(is_simulated, transition)),
        calibration=calibrate(expit(transition.astype(np.float64)), is_simulated),
        published=options.published,
    )


def calibrate(
    probability: Float[np.ndarray, " N"], simulated: Bool[np.ndarray, " N"], bins: int = 10
) -> Calibration:
    """Calibration of N probabilities of "simulated" in bins of equal width, both sources weighing the same.

    The probabilities of a classifier trained on halves are right where half of the rows are simulated, so
    every row counts in inverse proportion to its source's rows. Both sources must have some.
    """
    weight = np.where(simulated, 0.5 / simulated.sum(), 0.5 / (~simulated).sum())
    number = np.minimum((probability * bins).astype(int), bins - 1)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(number, values, bins)

    share, rows = total(weight), np.bincount(number, minlength=bins)
    filled = np.where(rows > 0, share, np.nan)
    predicted, observed = total(weight * probability) / filled, total(weight * simulated) / filled
    return Calibration(predicted, observed, rows, float(np.nansum(share * np.abs(predicted - observed))))


def _check(log: Rows, unknown: np.ndarray, simulated: Rows) -> None:
    usable = {"log": int((~unknown).sum()), "simulator": len(simulated.observation)}
    for source, rows in usable.items():
        if rows < LEAST_ROWS:
            raise DataError(
                f"the classifiers need {LEAST_ROWS} rows of the {source} with a known next state, got "
                f"{rows}. Remedy: record more, and next observations if they are missing."
            )
    sizes = [(rows.observation.shape[1], rows.action.shape[1]) for rows in (log, simulated)]
    if sizes[0] != sizes[1]:
        problem = f"observation and action have {sizes[0]} numbers in the log, {sizes[1]} in the simulator"
        raise DataError(f"{problem}. Remedy: name the simulator that the log belongs to.")


def _check_finite(values: np.ndarray, what: str) -> None:
    if not np.isfinite(values).all():
        raise DataError(
            f"{what} is not finite. Remedy: look for huge values in the log and in the simulator's "
            "observations, or lower learning_rate."
        )


def _train(
    sources: tuple[Rows, Rows], key: PRNGKeyArray, options: ClassifierProbeOptions, progress: Progress | None
) -> DomainClassifier:
    create_key, draw_key = jax.random.split(key)
    sizes = (sources[0].observation.shape[1], sources[0].action.shape[1])
    widths, bound = options.hidden_sizes, options.logit_bound
    classifier = DomainClassifier(*sizes, widths, logit_bound=bound, key=create_key)
    fit = (classifier, optax.adam(options.learning_rate).init(classifier))  # pyright: ignore[reportArgumentType]
    on_device = jax.tree.map(jnp.asarray, sources)
    # Compiled calls of some updates each: training can report, and be interrupted, in between.
    for start in range(0, options.updates, UPDATES_AT_ONCE):
        done = min(start + UPDATES_AT_ONCE, options.updates)
        chunk_key = jax.random.fold_in(draw_key, start)
        fit, loss = _update_often(fit, on_device, chunk_key, done - start, options)
        _check_finite(np.asarray(loss), f"the classifiers' loss after {done} updates")
        if progress is not None:
            progress(done, float(loss))
    return fit[0]


@eqx.filter_jit
def _update_often(
    fit: _Fit,
    sources: tuple[Transitions, Transitions],
    key: PRNGKeyArray,
    updates: int,
    options: ClassifierProbeOptions,
) -> tuple[_Fit, Float[Array, ""]]:
    """So many Adam steps on mini-batches drawn with replacement; also the mean loss."""
    optimiser = optax.adam(options.learning_rate)
    labels = jnp.repeat(jnp.array([REAL, SIM]), options.batch_size)
    loss_and_gradient = jax.value_and_grad(domain.classifier_loss, has_aux=True)
    inputs = 2 * sources[0].observation.shape[1] + sources[0].action.shape[1]

    def update(fit: _Fit, key: PRNGKeyArray) -> tuple[_Fit, Array]:
        classifier, state = fit
        row_key, noise_key = jax.random.split(key)
        counts = jnp.array([[len(rows.reward)] for rows in sources])
        real, simulated = jax.random.randint(row_key, (2, options.batch_size), 0, counts)
        batch = jax.tree.map(lambda r, s: jnp.concatenate([r[real], s[simulated]]), *sources)
        noise = jax.random.normal(noise_key, (len(labels), inputs))
        batch = domain.add_input_noise(batch, noise, options.input_noise)
        (loss, _), gradient = loss_and_gradient(classifier, batch, labels)
        step, state = optimiser.update(gradient, state)
        return (jax.tree.map(jnp.add, classifier, step), state), loss

    fit, losses = jax.lax.scan(update, fit, jax.random.split(key, updates))
    return fit, losses.mean()


class _Judgement(NamedTuple):
    state_action: np.ndarray  # [N] log-odds of "simulated" by ψ
    log_ratio: np.ndarray  # [N] log P̂/P at the row's own s'
    gap: np.ndarray  # [N] u(s, a)


def _judge(
    classifier: DomainClassifier, rows: Rows, noise_factor: Array, key: PRNGKeyArray, samples: int
) -> _Judgement:
    count, parts = len(rows.reward), []
    for start in range(0, count, JUDGED_AT_ONCE):
        # The last chunk is filled up with the last row, so that it does not compile anew.
        chunk = select_rows(rows, np.minimum(np.arange(start, start + JUDGED_AT_ONCE), count - 1))
        parts.append(_judge_chunk(classifier, chunk, noise_factor, jax.random.fold_in(key, start), samples))
    return _Judgement(*(np.concatenate(field)[:count] for field in zip(*parts, strict=True)))


@eqx.filter_jit
def _judge_chunk(
    classifier: DomainClassifier, rows: Transitions, noise_factor: Array, key: PRNGKeyArray, samples: int
) -> tuple[Array, Array, Array]:
    logits = classifier.state_action_logits(rows.observation, rows.action)
    log_ratio = classifier.log_ratio(rows.observation, rows.action, rows.next_observation)
    noise = jax.random.normal(key, (samples, *rows.next_observation.shape))
    return logits[:, SIM] - logits[:, REAL], log_ratio, dynamics_gap(classifier, rows, noise_factor, noise)
