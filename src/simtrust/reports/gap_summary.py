"""A gap report in words and as JSON."""

import math
from importlib.metadata import version
from typing import Any

import numpy as np

from simtrust.gap.findings import GapReport
from simtrust.training.metrics import plain

FORMAT = 1


def to_json(report: GapReport, command: str) -> dict[str, Any]:
    """``gap.json``: the verdict, a block an estimator, the regions, and what it was made from."""
    replayed, model = report.replay, report.model
    content: dict[str, Any] = {
        "format": FORMAT,
        "verdict": vars(report.verdict),
        "log": {
            "source": report.dataset.source,
            "sha256": report.dataset.sha256,
            "rows": len(report.dataset),
            "episodes": report.dataset.episode_count,
        },
        "simulator": {"name": report.simulator, "shifts": [str(shift) for shift in report.shifts]},
        "missing": report.missing,
        "replay": None,
        "model": None,
        "classifier": None,
        "trust_model": None,
        "policy": None,
        "regions": [
            {
                "bounds": {name: list(bound) for name, bound in region.bounds.items()},
                "share": region.share,
                "gap": region.gap,
                "ratio_to_median": region.ratio,
            }
            for region in report.regions
        ],
        "command": command,
        "versions": {name: version(name) for name in ("simtrust", "jax", "mujoco", "gymnasium", "numpy")},
    }
    if model is not None:
        content["model"] = {
            "held_out_r_squared": dict(zip(report.observation_names, model.r_squared, strict=True)),
            "held_out_r_squared_overall": model.r_squared_overall,
            "median_gap": model.median,
            "median_error_on_held_out_rows": model.floor,
            "distinction": model.distinction,
            "known_share": float(model.known.mean()),
            "rows": len(model.known),
        }
    if replayed is not None:
        summary, actuators = replayed.summary, replayed.actuators
        content["replay"] = {
            "gap": _interval(summary.gap, ...),
            "rows": summary.rows,
            "episodes": summary.episodes,
            "dimensions": {
                name: {
                    "absolute_error": _interval(summary.absolute, index),
                    "bias": _interval(summary.bias, index),
                    "normalised_error": _interval(summary.normalised, index),
                }
                for index, name in enumerate(report.observation_names)
            },
            "drift": None if replayed.drift is None else replayed.drift.error._asdict(),
            "corrections": [correction._asdict() for correction in replayed.corrections],
            "actuators": None
            if actuators is None
            else {
                "explained": actuators.explained,
                "systematic": actuators.systematic,
                "spread": dict(zip(report.action_names, actuators.spread, strict=True)),
            },
        }
    if report.classifier is not None:
        classifier = report.classifier
        content["classifier"] = {
            "median_gap": float(np.median(classifier.gap)),
            "median_log_ratio": float(np.median(classifier.log_ratio)),
            "omega_of_worst_tenth": classifier.share_of_worst_tenth,
            "area_state_action": classifier.area_state_action,
            "area_transition": classifier.area_transition,
            "expected_calibration_error": classifier.calibration.error,
            "calibration": {
                "predicted": classifier.calibration.predicted,
                "observed": classifier.calibration.observed,
                "rows": classifier.calibration.rows,
            },
            "published": classifier.published,
            "rows": len(classifier.gap),
        }
    if report.trust is not None:
        content["trust_model"] = {"rank_correlation_on_held_out_rows": report.trust.rank_correlation}
    if report.policy is not None:
        content["policy"] = {
            "source": report.policy.source,
            "low_trust": report.policy.low_trust,
            "unknown": report.policy.unknown,
            "rows": report.policy.rows,
        }
    return _finite(content)


def _interval(intervals, index) -> dict[str, float]:
    return {part: float(np.asarray(getattr(intervals, part))[index]) for part in ("mean", "low", "high")}


def _finite(value: Any) -> Any:
    """The same with numbers as JSON has them; what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_finite(inner) for inner in value]
    return plain(value)


def to_text(report: GapReport) -> str:
    """The report in a few sentences, for a terminal."""
    verdict, replayed, model = report.verdict, report.replay, report.model
    shifts = f" ({', '.join(map(str, report.shifts))})" if report.shifts else ""
    lines = [
        f"{report.simulator}{shifts} against {report.dataset.source}: {_found(report)}",
        f"Confidence: {verdict.confidence}, from {verdict.reason}.",
    ]
    if not math.isnan(verdict.trusted_fraction):
        where = "the log's rows" if replayed is not None else "the simulated rows that the log tells of"
        lines.append(
            f"To be trusted, with an error of at most {verdict.trusted_error:.2g} standard deviations of the "
            f"change: {verdict.trusted_fraction:.0%} of {where}."
        )
    if replayed is not None:
        gap = replayed.summary.gap
        known = f"({float(gap.low):.3g} to {float(gap.high):.3g})"
        interval = "(interval unknown: one episode)" if np.isnan(gap.low) else known
        lines.append(
            f"One-step error, in standard deviations of the logged change: {float(gap.mean):.3g} {interval}."
        )
        worst = np.argsort(-np.nan_to_num(replayed.summary.normalised.mean, nan=-1.0))[:3]
        lines.append(
            "Worst dimensions: " + ", ".join(_dimension(report, int(index)) for index in worst) + "."
        )
        if verdict.gap_found:
            lines.append(f"It looks like: {verdict.best_explanation or 'none of the corrections tried'}.")
    if model is not None and not math.isnan(model.median):
        known = "unknown" if math.isnan(model.r_squared_overall) else f"{model.r_squared_overall:.3f}"
        lines.append(
            f"By a model of both (held-out R² {known}), the simulator's own rollouts are off by "
            f"{model.median:.2g} in the median; rows tell the two apart by {model.distinction:.2g} nats a "
            "dimension."
        )
    elif model is not None:
        lines.append("The simulator's own rollouts never go where the log tells anything.")
    if report.policy is not None:
        policy = report.policy
        lines.append(
            f"The policy {policy.source} spends {policy.low_trust:.0%} of its time in the simulator where "
            f"the error is above {verdict.trusted_error:.2g}, {policy.unknown:.0%} where the log is silent."
        )
    lines += [f"No {part}: {reason}" for part, reason in report.missing.items()]
    if verdict.gap_found and len(report.regions) > 1:
        lines += ["Where:", *(f"  {region}" for region in report.regions)]
    return "\n".join(lines)


def _found(report: GapReport) -> str:
    if report.verdict.gap_found:
        return "there is a dynamics gap."
    if report.replay is not None:
        return "no dynamics gap found."
    if math.isnan(report.verdict.trusted_fraction):
        return "nothing can be said of its dynamics."
    return "no dynamics gap found that the model of reality could tell from its own error."


def _dimension(report: GapReport, index: int) -> str:
    assert report.replay is not None
    error = report.replay.summary.normalised.mean[index]
    return f"{report.observation_names[index]} {error:.2g}"
