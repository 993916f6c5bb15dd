"""A gap report as one page: the verdict, what to do next, and charts to look into."""

import math
from html import escape
from importlib.metadata import version
from pathlib import Path

import numpy as np

from simtrust.gap.findings import ClassifierEstimate, GapReport, ModelEstimate, ReplayEstimate
from simtrust.reports import gap_figures
from simtrust.reports.charts import percent, rounded, span
from simtrust.reports.gap_advice import cards, headline, next_steps, trust_interval, where
from simtrust.reports.gap_map import THIN, draw_maps
from simtrust.reports.page import (
    Figure,
    Section,
    card_list,
    command_line,
    compose,
    details,
    heading,
    missing_list,
    paragraph,
    step_list,
    table,
)
from simtrust.training.storage import write_atomically

PACKAGES = ("simtrust", "jax", "mujoco", "gymnasium", "numpy", "plotly")


def write_html(report: GapReport, path: Path, command: str) -> None:
    """Write the report as a page that opens from disk, light or dark, at a desk or on a phone.

    Args:
        report: what was found; whatever it lacks, the page says why.
        path: the file, replaced if it is there.
        command: what made the report, shown to be copied.

    Raises:
        StorageError: the file cannot be written; nothing of it is left.
    """
    sections = [
        _estimators(report),
        _dimensions(report),
        _map(report),
        _drift(report),
        _episodes(report),
        _looks(report),
        _policy(report),
        _made(report, command),
    ]
    page = compose(
        "gap_report.html",
        f"{headline(report)} {report.simulator}",
        _verdict(report),
        [section for section in sections if section is not None],
    )
    # A path that is no Unicode has surrogates, which no page can hold.
    write_atomically(Path(path), page.encode("utf-8", "replace"))


def _verdict(report: GapReport) -> str:
    verdict = report.verdict
    unknown = math.isnan(verdict.trusted_fraction) and not verdict.gap_found
    kind, sign = ("gap", "!") if verdict.gap_found else ("unknown", "?") if unknown else ("fine", "✓")
    shifts = f" ({', '.join(map(str, report.shifts))})" if report.shifts else ""
    steps = [
        (step.title, paragraph(step.text) + (command_line(step.command) if step.command else ""))
        for step in next_steps(report)
    ]
    return (
        f'<p class="subject"><strong>{escape(report.simulator + shifts)}</strong> against '
        f"<strong>{escape(report.dataset.source)}</strong></p>"
        + heading(kind, sign, headline(report))
        + card_list(cards(report))
        + step_list("next", "What to do next", steps)
    )


def _estimators(report: GapReport) -> Section:
    facts = {
        "Replay": _replay_facts(report.replay) if report.replay else None,
        "Model of both": _model_facts(report.model) if report.model else None,
        "Domain classifiers": _classifier_facts(report.classifier) if report.classifier else None,
    }
    columns = "".join(
        f"<article><h3>{name}</h3><dl>"
        + "".join(
            f"<div><dt>{escape(fact)}</dt><dd>{escape(value)}</dd></div>" for fact, value in found.items()
        )
        + "</dl></article>"
        for name, found in facts.items()
        if found
    )
    blocks: list[str | Figure] = [
        paragraph(
            "Replay puts the simulator into every logged state and steps it. The model is an ensemble fitted "
            "to the log and to the simulator's own rollouts together, which tells where the two differ. The "
            "classifiers, as in H2O, learn to tell simulated rows from logged ones; if (s, a) alone "
            "tells, the next state adds little. They err for different reasons: trust what they agree on."
        ),
        f'<div class="columns">{columns}</div>',
    ]
    if report.missing:
        blocks.append(missing_list(report.missing))
    blocks.append('<div class="pair">')
    if report.classifier is not None:
        caption = "Of the rows said to be simulated with probability p, a share p should be (dotted)."
        chart = gap_figures.calibration_chart(report.classifier.calibration)
        blocks.append(Figure("calibration", chart, caption))
    if report.model is not None:
        chart = gap_figures.held_out_chart(report.observation_names, report.model.r_squared)
        blocks.append(
            Figure("held-out", chart, "How well the model predicts held-out rows of the log; 1 is perfectly.")
        )
    blocks.append("</div>")
    return Section("estimators", "Estimators side by side", blocks)


def _replay_facts(replay: ReplayEstimate) -> dict[str, str]:
    return {
        "Mean one-step error": f"{rounded(replay.summary.gap.mean)} ({trust_interval(replay)})",
        "Rows compared": f"{replay.summary.rows:,}",
        "Episodes": f"{replay.summary.episodes:,}",
    }


def _model_facts(model: ModelEstimate) -> dict[str, str]:
    return {
        "Median one-step error of simulated rows": rounded(model.median),
        "Held-out rows tell log and simulator apart by": f"{rounded(model.distinction)} nats a dimension",
        "Held-out R²": rounded(model.r_squared_overall),
        "Its median error on held-out rows of the log": rounded(model.floor),
        "Simulated rows that it knows": f"{percent(float(model.known.mean()))} of {len(model.known):,}",
    }


def _classifier_facts(classifier: ClassifierEstimate) -> dict[str, str]:
    return {
        "AUC by state and action (0.5: cannot tell)": rounded(classifier.area_state_action),
        "AUC with the next state (0.5: cannot tell)": rounded(classifier.area_transition),
        "Expected calibration error": rounded(classifier.calibration.error),
        "Median gap u": rounded(np.median(classifier.gap)) if len(classifier.gap) else "unknown",
        "ω of the tenth with the largest u (10%: u is flat)": percent(classifier.share_of_worst_tenth)
        if len(classifier.gap)
        else "unknown",
        "Held-out simulated rows": f"{len(classifier.gap):,}",
        "Networks and inputs": "as published" if classifier.published else "not those of the paper",
    }


def _dimensions(report: GapReport) -> Section:
    if report.replay is None:
        return _absent("dimensions", "Error per dimension", report, "replay")
    summary = report.replay.summary
    order = np.argsort(-np.nan_to_num(summary.normalised.mean, nan=-1.0))
    rows = [
        [
            report.observation_names[i],
            *(span(part, i) for part in (summary.normalised, summary.absolute, summary.bias)),
        ]
        for i in order
    ]
    header = [
        "Dimension",
        "In standard deviations of the change",
        "In the log's units",
        "Bias (simulated − logged)",
    ]
    caption = "Mean absolute one-step error, with 95% intervals where there are several episodes"
    figure = Figure(
        "dimensions",
        gap_figures.dimension_chart(report.observation_names, report.replay),
        "Mean absolute one-step error with 95% intervals, from resampled episodes. A simulator that always "
        "predicts the mean change has about 1.",
    )
    return Section(
        "dimensions",
        "Error per dimension",
        [figure, details("The numbers as a table", table(caption, header, rows))],
    )


def _absent(key: str, title: str, report: GapReport, part: str) -> Section:
    """A section of a part that could not be had, or that needs replay."""
    reason = report.missing.get(part) or report.missing.get("replay") or "It was not measured."
    return Section(key, title, [paragraph(f"No {part}: {reason}")])


def _map(report: GapReport) -> Section:
    key, title = "map", "Where the gap is"
    maps = draw_maps(report)
    if not maps:
        same = "Nowhere is the gap so different that it would be worth a map."
        return Section(
            key,
            title,
            [paragraph(same if report.verdict.gap_found else "No gap was found, so there is no map.")],
        )
    legend = (
        '<ul class="key"><li><span class="swatch solid"></span>enough rows</li>'
        f'<li><span class="swatch thin"></span>thin: fewer than {THIN} rows</li>'
        '<li><span class="swatch empty"></span>empty: no rows</li></ul>'
    )
    source = "the log's rows" if report.replay else "the simulated rows that the log tells of"
    caption = f"Median one-step gap over {source}, in standard deviations of the logged change."
    header = ["Where", "Median gap", "Times the median", "Share of the rows"]
    rows = [
        [where(region), rounded(region.gap), f"{rounded(region.ratio)}×", f"{percent(region.share)}"]
        for region in report.regions
    ]
    regions = table("Regions between which the gap differs, the worst first", header, rows)
    return Section(key, title, [Figure(key, gap_figures.map_chart(maps), caption), legend, regions])


def _drift(report: GapReport) -> Section:
    key, title = "drift", "Drift over the horizon"
    if report.replay is None or report.replay.drift is None:
        return _absent(key, title, report, "drift")
    drift = report.replay.drift
    caption = f"Left to itself under the logged actions, from {len(drift.starts):,} logged states; 95% band. "
    if drift.diverged.any():
        caption += (
            f"It failed on its way from {percent(float(drift.diverged.mean()))} of them, which are left out. "
        )
    caption += (
        "√2 ≈ 1.41 is the distance of two states that have nothing in common."
        if drift.normalisation == "state"
        else ""
    )
    return Section(key, title, [Figure(key, gap_figures.drift_chart(drift), caption)])


def _episodes(report: GapReport) -> Section:
    key, title = "episodes", "Worst episodes"
    if not report.worst_episodes:
        if (
            report.replay is not None
            and not report.verdict.gap_found
            and "worst episodes" not in report.missing
        ):
            return Section(key, title, [paragraph("Nothing deviates.")])
        return _absent(key, title, report, "worst episodes")
    caption = (
        "The same start state and actions, logged and simulated. The simulator failed where its line ends."
    )
    return Section(key, title, [Figure(key, gap_figures.episode_chart(report), caption)])


def _looks(report: GapReport) -> Section:
    key, title, replay = "looks", "What it looks like", report.replay
    if not report.verdict.gap_found:
        return Section(key, title, [paragraph("No gap was found, so there is nothing to explain.")])
    if replay is None or not (replay.corrections or replay.actuators):
        return _absent(key, title, report, "corrections")
    caption = "Share of the mean one-step error that each correction takes away alone; shares do not add up."
    blocks: list[str | Figure] = [Figure(key, gap_figures.correction_chart(replay), caption)]
    if replay.actuators is not None:
        actuators = replay.actuators
        blocks.append(
            paragraph(
                f"If every row may have an action error of its own, {percent(actuators.explained)} of the "
                f"error goes away. Of these action errors, {percent(actuators.systematic)} is a linear "
                "function of state and action; the rest is like noise."
            )
        )
        rows = [
            [name, rounded(spread)]
            for name, spread in zip(report.action_names, actuators.spread, strict=True)
        ]
        blocks.append(
            table(
                "Action errors that would explain the most",
                ["Action", "Standard deviation, in its units"],
                rows,
            )
        )
    return Section(key, title, blocks)


def _policy(report: GapReport) -> Section | None:
    key, title, policy = "policy", "The policy", report.policy
    if policy is None:
        return _absent(key, title, report, "policy") if "policy" in report.missing else None
    told = (
        f"{policy.source} was run for {policy.rows:,} control steps in the simulator. The expected error is "
        f"above {rounded(report.verdict.trusted_error)} in {percent(policy.low_trust)} of them; about "
        f"{percent(policy.unknown)} the log says nothing."
    )
    chart = gap_figures.policy_chart(policy, report.verdict.trusted_error)
    return Section(
        key,
        title,
        [
            paragraph(told),
            Figure(key, chart, "Expected one-step error of the policy's steps; dashed: the limit of trust."),
        ],
    )


def _made(report: GapReport, command: str) -> Section:
    rows = [
        ["Log", report.dataset.source],
        ["SHA-256 of the log", report.dataset.sha256],
        ["Rows", f"{len(report.dataset):,}"],
        ["Episodes", f"{report.dataset.episode_count:,}"],
        ["Simulator", report.simulator],
        ["Shifts", ", ".join(map(str, report.shifts)) or "none"],
        *([f"Version of {name}", version(name)] for name in PACKAGES),
    ]
    return Section(
        "made",
        "How it was made",
        [command_line(command), table("What it was made from", ["What", "Value"], rows)],
    )
