"""What the estimates come to: is there a gap, where can the simulator be trusted, what explains it."""

import numpy as np

from simtrust.gap.findings import ModelEstimate, ReplayEstimate, Verdict

TRUSTED = 0.1
"""A row is trusted if the simulator's one-step error is below this share of the logged change's deviation."""
NOTICED = 0.02
"""Above this mean, replay says that there is a gap. What observations do not tell of a state, such as how
far a wheel has sunk into the floor, gives 0.009 for the unshifted robot."""
PERHAPS, MOSTLY = 1e-3, 0.8
"""Above the first, it says so too if one correction explains the second: float32 logs alone give 1e-5."""
MODEL_NOTICED, DISTINCT = 0.015, 0.2
"""The model estimator says that there is a gap if its median is above the first, and if rows tell reality and
simulator apart by more than the second, in nats a dimension: see ``benchmarks/gap_truth.py``."""
LEAST_EPISODES = 10
"""With fewer, an interval over episodes says little."""
GOOD_MODEL = 0.9
"""Held-out R² from which on the model estimator is worth something."""


def judge(
    replayed: ReplayEstimate | None, model: ModelEstimate | None, observation_names: tuple[str, ...]
) -> Verdict:
    """The verdict, by replay if there is one and else by the model. One of them must be there."""
    if replayed is None:
        assert model is not None
        return _by_model(model, observation_names)
    summary, gap = replayed.summary, replayed.errors.gap
    explanation = _explanation(replayed)
    found = float(summary.gap.mean) > NOTICED or explanation is not None
    usable = gap[~np.isnan(gap)]
    normalised = summary.normalised.mean
    reason = f"replay of {summary.rows:,} rows of {summary.episodes:,} episodes"
    sure = summary.episodes >= LEAST_EPISODES
    unexplained = found and explanation is None
    if unexplained and model is not None and model.floor > 0.5 * float(summary.gap.mean):
        sure = False
        reason += (
            f"; but a model fitted to the log errs by {model.floor:.2g} on it too, so much of it may be the "
            "log's own noise"
        )
    return Verdict(
        gap_found=found,
        trusted_fraction=float((usable <= TRUSTED).mean()),
        trusted_error=TRUSTED,
        worst_dimension=observation_names[int(np.nanargmax(normalised))] if found else None,
        best_explanation=explanation,
        confidence="high" if sure else "medium",
        reason=reason,
    )


def _explanation(replayed: ReplayEstimate) -> str | None:
    """The best correction, or the motors if they explain more; None if nothing explains a fifth.

    Of a gap too small to be noticed by itself, None unless one correction explains most of it.
    """
    best = max(replayed.corrections, key=lambda c: c.explained, default=None)
    if float(replayed.summary.gap.mean) <= NOTICED:
        return str(best) if best is not None and best.explained >= MOSTLY else None
    actuators = replayed.actuators
    by_actuators = 0.0 if actuators is None else actuators.explained
    if best is not None and best.explained >= max(0.2, by_actuators - 0.1):
        return str(best)
    if actuators is not None and by_actuators >= 0.5:
        kind = "noise in the actions" if actuators.systematic < 0.3 else "a systematic error of the actuators"
        return f"{kind} explains {actuators.explained:.0%}"
    return None


def noticed(median_gap: float, distinction: float) -> bool:
    """Whether the model estimator announces a gap."""
    return median_gap > MODEL_NOTICED and distinction > DISTINCT


def _by_model(model: ModelEstimate, observation_names: tuple[str, ...]) -> Verdict:
    known = model.gap[model.known]
    good = model.r_squared_overall >= GOOD_MODEL and len(known) > 0
    found = noticed(model.median, model.distinction)
    worst = np.abs(model.error[model.known] / model.scale).mean(0) if found else None
    return Verdict(
        gap_found=found,
        trusted_fraction=float((known <= TRUSTED).mean()) if len(known) else np.nan,
        trusted_error=TRUSTED,
        worst_dimension=None if worst is None else observation_names[int(worst.argmax())],
        best_explanation=None,
        confidence="medium" if good else "low",
        reason=(
            f"a model of reality with held-out R² {model.r_squared_overall:.3f}, which knows "
            f"{model.known.mean():.0%} of {len(model.known):,} rows of the simulator's own rollouts"
        ),
    )
