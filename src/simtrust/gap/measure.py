"""Where a simulator deviates from the log, by how much, and what it looks like: all in one call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from gymnasium.spaces import Box

from simtrust.data.dataset import Dataset
from simtrust.errors import DataError, SimulatorError
from simtrust.gap.actuator_error import actuator_error
from simtrust.gap.classifier_probe import PUBLISHED as CLASSIFIER_OPTIONS
from simtrust.gap.classifier_probe import classify_domains
from simtrust.gap.corrections import fit_corrections
from simtrust.gap.dimensions import dimension_names
from simtrust.gap.drift import drift
from simtrust.gap.findings import (
    ClassifierEstimate,
    GapReport,
    ModelEstimate,
    PolicyTrust,
    ReplayEstimate,
    WorstEpisode,
)
from simtrust.gap.regions import Region, find_regions
from simtrust.gap.replay_probe import replay
from simtrust.gap.rollouts import PROBE_INSTANCES, Policy, chain_ends, probe_rollouts, roll_out
from simtrust.gap.simulator_gap import SIMULATOR_GAP_OPTIONS, fit_simulator_gap
from simtrust.gap.step_errors import step_errors, summarise
from simtrust.gap.trust_model import TRUST_MODEL_OPTIONS, FittedTrust, fit_trust_model
from simtrust.gap.verdict import NOTICED, PERHAPS, TRUSTED, judge
from simtrust.gap.worst_episodes import worst_episodes
from simtrust.simulators import Shift, make_simulator
from simtrust.simulators.built_in import find_built_in
from simtrust.simulators.closing import closed_at_end
from simtrust.stages import Stage, unheard
from simtrust.types import Transitions

REGION_ROWS, EXPLAINED_ROWS, TRUST_ROWS = 50_000, 2_000, 50_000
PROBE_ROWS = 64_000
POLICY_ROWS = 4_000
DRIFT_HORIZON = 50
WORST_EPISODES, WORST_HORIZON = 3, 200


@dataclass(frozen=True)
class NamedPolicy:
    """A policy whose time in low trust is to be measured."""

    source: str
    act: Policy


def measure_gap(
    dataset: Dataset,
    simulator: str,
    *,
    shifts: Sequence[Shift] = (),
    policy: NamedPolicy | None = None,
    seed: int = 0,
    stage: Stage = unheard,
) -> GapReport:
    """Measure the dynamics gap between a log and a simulator, without training any policy.

    Replay (where the simulator can be put into a logged state), a model of log and simulator, and H2O's
    classifiers, side by side; then the regions in which the gap differs, what it looks like, and the gap as a
    function of state and action.

    Args:
        dataset: the log of the real machine.
        simulator: by name, as `make_simulator` takes it.
        shifts: of a built-in simulator.
        policy: whose time in low trust is measured, in the simulator.
        seed: of the models, the rollouts and the drift's starts.
        stage: told what is being done.

    Raises:
        DataError, SimulatorError, ShiftError, ConfigError: as `replay` and `make_simulator`.
    """
    names = dimension_names(dataset, simulator)
    missing: dict[str, str] = {}
    # What could not be measured costs only itself, as long as anything could.
    failures: list[Exception] = []

    def attempt(part: str, function: Callable[..., Any], *arguments: Any) -> Any:
        stage(part)
        try:
            return function(*arguments)
        except (DataError, SimulatorError) as error:
            missing[part] = str(error)
            failures.append(error)
            return None

    replayed = attempt("replay", _replay, dataset, simulator, shifts, seed, stage, missing)
    simulated = attempt("probe rollouts", _probe, dataset, simulator, shifts, seed)
    model = simulated and attempt("model", _model, dataset, simulated[0], seed, stage)
    if replayed is None and model is None:
        raise failures[-1]
    classifier = simulated and attempt("classifier", _classifier, dataset, *simulated, seed, stage)
    verdict = judge(replayed, model, names[0])
    regions, worst = (), ()
    if verdict.gap_found:
        stage("regions")
        regions = _regions(dataset, replayed, model, names)
        if replayed is not None:
            worst = attempt("worst episodes", _worst, dataset, simulator, replayed, shifts, seed) or ()
    trust = attempt("trust model", _trust, dataset, replayed, model, seed)
    followed = None
    if policy is not None and trust is not None:
        followed = attempt("policy", _follow, policy, trust, simulator, shifts, seed)
    return GapReport(
        dataset=dataset,
        simulator=simulator,
        shifts=tuple(shifts),
        observation_names=names[0],
        action_names=names[1],
        replay=replayed,
        model=model,
        classifier=classifier,
        trust=trust,
        worst_episodes=worst,
        policy=followed,
        missing=missing,
        regions=regions,
        verdict=verdict,
    )


def _replay(
    dataset: Dataset,
    simulator: str,
    shifts: Sequence[Shift],
    seed: int,
    stage: Stage,
    missing: dict[str, str],
) -> ReplayEstimate:
    """Replay, and what is built on it; a part of that which fails is missing, and nothing else is lost."""

    def told(done: int, rows: int) -> None:
        stage("replay", f"{done / rows:.0%}")

    errors = step_errors(dataset, replay(dataset, simulator, shifts=shifts, seed=seed, progress=told))
    summary = summarise(errors, seed=seed)

    def attempt(part: str, function: Callable[..., Any], **options: Any) -> Any:
        stage(part)
        try:
            return function(dataset, simulator, shifts=shifts, **options)
        except (DataError, SimulatorError) as error:
            missing[part] = str(error)
            return None

    horizon = min(DRIFT_HORIZON, int(dataset.episode_lengths.max()))
    drifted = attempt("drift", drift, horizon=horizon, seed=seed)
    corrections, actuators = None, None
    if float(summary.gap.mean) > PERHAPS and find_built_in(simulator) is not None:
        tell = lambda kind: stage("corrections", kind)  # noqa: E731
        corrections = attempt("corrections", fit_corrections, rows=EXPLAINED_ROWS, progress=tell)
    if float(summary.gap.mean) > NOTICED:
        actuators = attempt("actuators", actuator_error, rows=EXPLAINED_ROWS)
    return ReplayEstimate(errors, summary, drifted, corrections or (), actuators)


Probed = tuple[Transitions[np.ndarray], Box]


def _probe(dataset: Dataset, simulator: str, shifts: Sequence[Shift], seed: int) -> Probed:
    """Rows of the simulator's own rollouts, and the space of its actions."""
    with closed_at_end(make_simulator(simulator, num_envs=PROBE_INSTANCES, shifts=shifts)) as instances:
        space = instances.single_action_space
        assert isinstance(space, Box)
        return probe_rollouts(instances, dataset, rows=PROBE_ROWS, seed=seed), space


def _model(dataset: Dataset, simulated: Transitions[np.ndarray], seed: int, stage: Stage) -> ModelEstimate:
    epochs = SIMULATOR_GAP_OPTIONS.epochs
    fitted = fit_simulator_gap(
        dataset,
        simulated,
        key=jax.random.key(seed),
        options=SIMULATOR_GAP_OPTIONS,
        progress=lambda epoch, _: stage("model", f"epoch {epoch} of {epochs}"),
    )
    found = fitted.gap.assess(simulated)
    return ModelEstimate(
        r_squared=fitted.r_squared,
        r_squared_overall=fitted.r_squared_overall,
        simulated=simulated,
        error=found.error,
        gap=found.gap,
        known=found.disagreement <= fitted.disagreement_limit,
        scale=np.asarray(fitted.gap.scale),
        floor=fitted.floor,
        distinction=fitted.distinction,
    )


def _classifier(
    dataset: Dataset, simulated: Transitions[np.ndarray], space: Box, seed: int, stage: Stage
) -> ClassifierEstimate:
    return classify_domains(
        dataset.transitions,
        dataset.episode_end,
        simulated,
        space,
        key=jax.random.key(seed),
        options=CLASSIFIER_OPTIONS,
        progress=lambda done, _: stage("classifier", f"update {done:,} of {CLASSIFIER_OPTIONS.updates:,}"),
    )


def _worst(
    dataset: Dataset, simulator: str, replayed: ReplayEstimate, shifts: Sequence[Shift], seed: int
) -> tuple[WorstEpisode, ...]:
    return worst_episodes(
        dataset,
        simulator,
        replayed.errors,
        shifts=shifts,
        most=WORST_EPISODES,
        horizon=WORST_HORIZON,
        seed=seed,
    )


def _trust(
    dataset: Dataset, replayed: ReplayEstimate | None, model: ModelEstimate | None, seed: int
) -> FittedTrust:
    """Of the log's rows by replay, or else of the simulator's own by the model where it knows them."""
    if replayed is not None:
        source, rows = dataset.transitions, replayed.errors.rows
        error, scale, group = replayed.errors.error, replayed.errors.scale, replayed.errors.episode
    else:
        assert model is not None
        source, rows = model.simulated, np.flatnonzero(model.known)
        error, scale = model.error[rows], np.where(np.isfinite(model.scale), model.scale, np.nan)
        group = np.cumsum(chain_ends(model.simulated))[rows]
    chosen = slice(None, None, max(1, len(rows) // TRUST_ROWS))
    rows, error, group = rows[chosen], error[chosen], group[chosen]
    return fit_trust_model(
        np.asarray(source.observation)[rows],
        np.asarray(source.action)[rows],
        error,
        np.append(np.diff(group) != 0, True),
        scale,
        key=jax.random.key(seed),
        trusted_error=TRUSTED,
        options=TRUST_MODEL_OPTIONS,
    )


def _follow(
    policy: NamedPolicy, trust: FittedTrust, simulator: str, shifts: Sequence[Shift], seed: int
) -> PolicyTrust:
    with closed_at_end(make_simulator(simulator, num_envs=PROBE_INSTANCES, shifts=shifts)) as instances:
        rows = roll_out(instances, policy.act, POLICY_ROWS, seed)
    found = trust.model.assess(rows.observation, rows.action)
    return PolicyTrust(
        source=policy.source,
        rows=len(found.gap),
        low_trust=float((found.gap > TRUSTED).mean()),
        unknown=float((found.doubt > 1).mean()),
        gap=found.gap,
    )


def _regions(
    dataset: Dataset,
    replayed: ReplayEstimate | None,
    model: ModelEstimate | None,
    names: tuple[tuple[str, ...], tuple[str, ...]],
) -> tuple[Region, ...]:
    if replayed is not None:
        usable = np.flatnonzero(~np.isnan(replayed.errors.gap))
        usable = usable[:: max(1, len(usable) // REGION_ROWS)]
        rows, gap = replayed.errors.rows[usable], replayed.errors.gap[usable]
        source = dataset.transitions
    else:
        assert model is not None
        rows, gap, source = np.flatnonzero(model.known), model.gap[model.known], model.simulated
    features = np.concatenate([np.asarray(source.observation)[rows], np.asarray(source.action)[rows]], axis=1)
    return find_regions(features, gap, [*names[0], *names[1]])
