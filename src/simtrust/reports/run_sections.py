"""The sections of a training report's page that show metrics."""

from simtrust.reports import run_figures
from simtrust.reports.charts import rounded
from simtrust.reports.page import Figure, Section, paragraph, table
from simtrust.reports.run_evidence import JUDGED_IN_SIMULATOR, Evidence
from simtrust.reports.run_figures import Line, has, metric_chart
from simtrust.reports.run_record import Curves, RunRecord


def returns(run: RunRecord) -> Section:
    """Learning curves, and how returns carry over to reality."""
    key, title, curves = "returns", "Learning curve", run.curves
    if not has(curves, "return_mean", "simulator_return"):
        told = "There is no return yet: the run was not evaluated, and no episode has ended in the simulator."
        return Section(key, title, [paragraph(told)])
    itself, episodes = run.judged_in_simulator, run.config.evaluation_episodes
    judged, collected = ("Best action", "While collecting") if itself else ("Real", "Simulator")
    caption = (
        f"{judged}: {episodes} episodes for each seed in {run.evaluation_environment}, with the best action. "
        f"{collected}: the training episodes that ended, with exploration. "
    )
    caption += "Bands are 95% bootstrap intervals of the mean over seeds." if len(curves.seeds) > 1 else ""
    blocks: list[str | Figure] = []
    if not has(curves, "return_mean"):
        blocks.append(paragraph("The policy was not evaluated during training: see --evaluate-every."))
    blocks.append(Figure(key, run_figures.learning_chart(curves, run_figures.judged_in(run)), caption))
    if itself:
        told = (
            f"Real against simulated return: {JUDGED_IN_SIMULATOR}. Give --real-env if you have an "
            "environment that is closer to it."
        )
        blocks.append(paragraph(told))
    elif has(curves, "return_mean") and has(curves, "simulator_return"):
        told = (
            "Every evaluation beside the mean simulated return since the one before. Below the dotted line, "
            "the simulator promises more than reality gives."
        )
        blocks.append("<h3>Real against simulated return</h3>")
        blocks.append(Figure("transfer", run_figures.transfer_chart(curves), told))
    if run.final is not None:
        rows = [
            [f"seed {seed}", rounded(mean), rounded(spread)]
            for seed, mean, spread in zip(run.final.seeds, run.final.mean, run.final.spread, strict=True)
        ]
        header = ["Seed", "Mean return", "Standard deviation of the episodes"]
        heading = f"The evaluation at step {run.final.step:,}, of {run.final.episodes} episodes for each seed"
        blocks.append(table(heading, header, rows))
    return Section(key, title, blocks)


def values(evidence: Evidence) -> Section | None:
    """Q on real and simulated rows."""
    curves, bound = evidence.curves, evidence.value_bound
    if not has(curves, "q_real", "q_sim"):
        return None
    lines = [Line("q_real", "real rows"), Line("q_sim", "simulated rows")]
    caption = f"Mean Q of the mini-batches. {_range(curves)}"
    if bound:
        caption += f" The log's largest reward at every step would be worth {rounded(bound)}."
    return Section("values", "Q", [Figure("values", metric_chart(curves, lines, "Q"), caption)])


def _range(curves: Curves) -> str:
    return "The band is the range of the seeds." if len(curves.seeds) > 1 else ""


def trust(run: RunRecord) -> Section | None:
    """u, ω and w, where the recipe has them."""
    curves = run.curves
    if not has(curves, "weight", "gap", "omega_max"):
        return None
    told = (
        "Of the simulated rows of each mini-batch. u is a row's dynamics gap, 0 where simulator and reality "
        "agree. w multiplies a row's Bellman error: 1 is full trust. ω is a row's share of the batch's gap: "
        "the larger, the more its Q is pushed down."
    )
    share = 1 / max(round(run.config.algorithm.batch_size * (1 - run.config.algorithm.real_fraction)), 1)
    charts = [
        (
            "weight",
            metric_chart(curves, [Line("weight", "w")], "mean w", y_axis={"range": [0, 1.03]}),
            "Trust.",
        ),
        (
            "gap",
            metric_chart(curves, [Line("gap", "u")], "mean u", y_axis={"rangemode": "tozero"}),
            "Mean gap.",
        ),
        (
            "omega",
            metric_chart(curves, [Line("omega_max", "ω")], "largest ω", levels=[share]),
            f"The largest share. Dotted: every row the same, {rounded(share)}.",
        ),
    ]
    figures = [
        Figure(key, chart, f"{caption} {_range(curves)}")
        for (key, chart, caption), metric in zip(charts, ("weight", "gap", "omega_max"), strict=True)
        if has(curves, metric)
    ]
    return Section("trust", "u, ω and w", [paragraph(told), '<div class="pair">', *figures, "</div>"])


def classifiers(run: RunRecord) -> Section | None:
    """Whether the classifiers are healthy."""
    curves = run.curves
    names = {"sas": "with the next state", "sa": "by state and action"}
    if not has(curves, *(f"classifier_accuracy_{kind}_real" for kind in names)):
        return None
    blocks: list[str | Figure] = [
        paragraph(
            "Share of rows that the classifiers recognise, of rows they never trained on: held-out ones of "
            "the log, and simulated ones just collected. At one half (dotted) they cannot tell; near 1 they "
            "are sure, and the ratio says little about how much rows differ."
        ),
        '<div class="pair">',
    ]
    for kind, name in names.items():
        lines = [
            Line(f"classifier_accuracy_{kind}_real", "real rows"),
            Line(f"classifier_accuracy_{kind}_sim", "simulated rows"),
        ]
        axis = {"range": [0, 1.03], "tickformat": ".0%"}
        chart = metric_chart(curves, lines, f"recognised {name}", levels=[0.5], y_axis=axis)
        blocks.append(Figure(f"accuracy-{kind}", chart, f"Accuracy {name}. {_range(curves)}"))
    if has(curves, "log_ratio"):
        told = "Mean log P̂/P of simulated rows; dotted: the bounds that the classifiers' logits allow."
        blocks.append(Figure("ratio", run_figures.ratio_chart(curves), told))
    return Section("classifiers", "Classifiers", [*blocks, "</div>"])


def losses(evidence: Evidence) -> Section | None:
    """Losses, entropy and temperature."""
    curves = evidence.curves
    bellman = [Line("critic_bellman_real", "real rows"), Line("critic_bellman_sim", "simulated rows")]
    regular = [Line("critic_value_gap", "value regularisation"), Line("critic_conservative", "CQL's")]
    classifier = [Line("classifier_loss_sas", "with the next state"), Line("classifier_loss_sa", "without")]
    log = run_figures.positive
    figures = {
        "bellman": (
            bellman,
            "Bellman error",
            "The critics' squared error, summed over them, weighted by w.",
            [],
        ),
        "regular": (regular, "loss", "What else the critics minimise.", []),
        "actor": ([Line("actor_loss", "actor")], "loss", "The actor's loss: about −Q.", []),
        "classifier-loss": (classifier, "cross-entropy", "The classifiers' loss.", []),
        "entropy": (
            [Line("entropy", "entropy")],
            "entropy",
            f"The policy's entropy; dotted: its target, {rounded(evidence.target_entropy)}.",
            [evidence.target_entropy],
        ),
        "temperature": ([Line("temperature", "temperature")], "temperature", "The temperature λ.", []),
    }
    drawn = [
        Figure(
            key,
            metric_chart(curves, lines, title, levels=levels, y_axis=log(curves, lines), height=290),
            f"{caption} {_range(curves)}",
        )
        for key, (lines, title, caption, levels) in figures.items()
        if has(curves, *(line.metric for line in lines))
    ]
    if not drawn:
        return None
    return Section("losses", "Losses, entropy, temperature", ['<div class="pair">', *drawn, "</div>"])
