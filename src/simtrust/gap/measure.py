"""Where a simulator deviates from the log, by how much, and what it looks like: all in one call."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from simtrust.data import Dataset
from simtrust.errors import DataError, SimulatorError
from simtrust.gap.actuator_error import actuator_error
from simtrust.gap.black_box import model_gap, probe_rollouts
from simtrust.gap.corrections import fit_corrections
from simtrust.gap.drift import drift
from simtrust.gap.dynamics_fitting import GAP_REPORT_OPTIONS, fit_dynamics_model
from simtrust.gap.findings import GapReport, ModelEstimate, ReplayEstimate, Verdict
from simtrust.gap.regions import Region, find_regions
from simtrust.gap.replay_probe import replay
from simtrust.gap.step_errors import step_errors, summarise
from simtrust.simulators import Shift, make_simulator
from simtrust.simulators.built_in import find_built_in
from simtrust.simulators.guard import StateNotSettable
from simtrust.types import Transitions

TRUSTED = 0.1
"""A row is trusted if the simulator's one-step error is below this share of the logged change's deviation."""
NOTICED = 0.01
"""Below this share on average, replay says that there is no gap: float32 logs alone give 1e-5 or so."""
MODEL_ALARM = 2.0
"""The model estimator says that there is a gap from this multiple of its own error on held-out rows on."""
REGION_ROWS, EXPLAINED_ROWS = 50_000, 2_000
PROBE_ROWS, PROBE_INSTANCES = 8_000, 16
DRIFT_HORIZON = 50
LEAST_EPISODES = 10
"""With fewer, an interval over episodes says little."""
GOOD_MODEL = 0.9
"""Held-out R² from which on the model estimator is worth something."""


class Stage(Protocol):
    """Told what is being done, as it begins, and then how far it is."""

    def __call__(self, name: str, so_far: str = "") -> Any: ...


def unheard(name: str, so_far: str = "") -> None:
    """A `Stage` that nobody listens to."""


def measure_gap(
    dataset: Dataset,
    simulator: str,
    *,
    shifts: Sequence[Shift] = (),
    seed: int = 0,
    stage: Stage = unheard,
) -> GapReport:
    """Measure the dynamics gap between a log and a simulator, without training any policy.

    Replay (where the simulator can be put into a logged state) and a model of reality fitted to the log,
    side by side; then the regions in which the gap differs, and what it looks like.

    Args:
        dataset: the log of the real machine.
        simulator: by name, as `make_simulator` takes it.
        shifts: of a built-in simulator.
        seed: of the model, the probe rollouts and the drift's starts.
        stage: told what is being done.

    Raises:
        DataError, SimulatorError, ShiftError, ConfigError: as `replay` and `make_simulator`.
    """
    names = dimension_names(dataset, simulator)
    missing: dict[str, str] = {}
    try:
        replayed = _replay(dataset, simulator, shifts, seed, stage, missing)
    except StateNotSettable as error:
        replayed, missing["replay"] = None, str(error)
    try:
        model = _model(dataset, simulator, shifts, seed, stage)
    except (DataError, SimulatorError) as error:
        if replayed is None:
            raise
        model, missing["model"] = None, str(error)
    stage("looking for regions")
    verdict = _verdict(replayed, model, names[0])
    regions = _regions(dataset, replayed, model, names) if verdict.gap_found else ()
    return GapReport(
        dataset, simulator, tuple(shifts), *names, replayed, model, None, (), None, missing, regions, verdict
    )


def dimension_names(dataset: Dataset, simulator: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the observation's and the action's dimensions; numbers where nobody named them."""
    built_in = find_built_in(simulator)
    if built_in is not None:
        return built_in.observation_names, built_in.action_names
    sizes = (dataset.observation_size, dataset.action_size)
    first, second = (
        tuple(f"{kind} {index}" for index in range(size))
        for kind, size in zip(("observation", "action"), sizes, strict=True)
    )
    return first, second


def _replay(
    dataset: Dataset,
    simulator: str,
    shifts: Sequence[Shift],
    seed: int,
    stage: Stage,
    missing: dict[str, str],
) -> ReplayEstimate:
    """Replay, and what is built on it; a part of that which fails is missing, and nothing else is lost."""
    stage("replaying the log")

    def told(done: int, rows: int) -> None:
        stage("replaying the log", f"{done / rows:.0%}")

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
    if float(summary.gap.mean) > NOTICED:
        if find_built_in(simulator) is not None:
            tell = lambda kind: stage("corrections", kind)  # noqa: E731
            corrections = attempt("corrections", fit_corrections, rows=EXPLAINED_ROWS, progress=tell)
        actuators = attempt("actuators", actuator_error, rows=EXPLAINED_ROWS)
    return ReplayEstimate(errors, summary, drifted, corrections or (), actuators)


def _model(
    dataset: Dataset, simulator: str, shifts: Sequence[Shift], seed: int, stage: Stage
) -> ModelEstimate:
    stage("fitting a model of reality to the log")
    rows = dataset.transitions

    def told(epoch: int, _: float) -> None:
        stage("fitting a model of reality to the log", f"epoch {epoch} of {GAP_REPORT_OPTIONS.epochs}")

    fitted = fit_dynamics_model(
        rows,
        dataset.episode_end,
        key=jax.random.key(seed),
        options=GAP_REPORT_OPTIONS,
        progress=told,
    )
    stage("probing the simulator's own rollouts")
    instances = make_simulator(simulator, num_envs=PROBE_INSTANCES, shifts=shifts)
    simulated = probe_rollouts(instances, dataset, rows=PROBE_ROWS, seed=seed)
    instances.close()
    held_out = Transitions(*(np.asarray(field)[fitted.held_out] for field in rows))
    found = model_gap(fitted.model, simulated, held_out)
    floor = float(np.median(model_gap(fitted.model, held_out, held_out).gap))
    floor = max(floor, float(np.finfo(np.float32).eps))
    return ModelEstimate(fitted.r_squared, fitted.r_squared_overall, simulated, found.gap, found.known, floor)


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


def _verdict(
    replayed: ReplayEstimate | None, model: ModelEstimate | None, observation_names: tuple[str, ...]
) -> Verdict:
    if replayed is None:
        assert model is not None
        return _verdict_by_model(model)
    summary, gap = replayed.summary, replayed.errors.gap
    found = float(summary.gap.mean) > NOTICED
    usable = gap[~np.isnan(gap)]
    normalised = summary.normalised.mean
    enough = summary.episodes >= LEAST_EPISODES
    return Verdict(
        gap_found=found,
        trusted_fraction=float((usable <= TRUSTED).mean()),
        trusted_error=TRUSTED,
        worst_dimension=observation_names[int(np.nanargmax(normalised))] if found else None,
        best_explanation=_explanation(replayed),
        confidence="high" if enough else "medium",
        reason=f"replay of {summary.rows:,} rows of {summary.episodes:,} episodes",
    )


def _explanation(replayed: ReplayEstimate) -> str | None:
    """The best correction, or the motors if they explain more; None if nothing explains a fifth."""
    actuators = replayed.actuators
    if actuators is None:
        return None
    best = max(replayed.corrections, key=lambda c: c.explained, default=None)
    if best is not None and best.explained >= max(0.2, actuators.explained - 0.1):
        return str(best)
    if actuators.explained >= 0.5:
        kind = "noise in the actions" if actuators.systematic < 0.3 else "a systematic error of the actuators"
        return f"{kind} explains {actuators.explained:.0%}"
    return None


def _verdict_by_model(model: ModelEstimate) -> Verdict:
    known = model.gap[model.known]
    # Below its own error the model can tell nothing.
    limit = max(TRUSTED, model.floor)
    good = model.r_squared_overall >= GOOD_MODEL and len(known) > 0
    return Verdict(
        gap_found=bool(model.ratio > MODEL_ALARM),
        trusted_fraction=float((known <= limit).mean()) if len(known) else np.nan,
        trusted_error=limit,
        worst_dimension=None,
        best_explanation=None,
        confidence="medium" if good else "low",
        reason=(
            f"a model of reality with held-out R² {model.r_squared_overall:.3f}, which knows "
            f"{model.known.mean():.0%} of {len(model.known):,} rows of the simulator's own rollouts"
        ),
    )
