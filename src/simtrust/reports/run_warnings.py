"""What a practitioner would say about a run's metrics: checks, each with a threshold of its own."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from simtrust.evaluation.statistics import mean_interval
from simtrust.gap.classifier import LOGIT_BOUND
from simtrust.reports.charts import percent, rounded
from simtrust.reports.run_evidence import NOT_EVALUATED, NOT_RECORDED, Concern, Evidence, NotChecked
from simtrust.reports.run_record import END, mean_since

BEYOND, GROWTH = 3.0, 1.5
SURE, RATIO_SHARE = 0.99, 0.95
COLLAPSED, FULL = 0.05, 0.99
LEAST_TEMPERATURE, ENTROPY_SHARE = 1e-3, 0.5
FALL, SMOOTH, LEAST_EVALUATIONS = 0.25, 3, 6
LEAST_EPISODES, COARSE = 5, 0.1
DISAGREEMENT = 0.5
ABOVE, BEHIND = 0.25, 0.25


class Check(NamedTuple):
    """One check: its name, when it warns, and the function that decides."""

    title: str
    threshold: str
    find: Callable[[Evidence], Concern | NotChecked | None]


def _worst(values: np.ndarray) -> float:
    return float(np.nanmax(values))


def _steadier_critics(evidence: Evidence) -> str:
    """Layer-normalised ones, unless the recipe has them already."""
    if evidence.recipe in ("trust", "h2o_layer_norm"):
        return "a larger --critic-ensemble"
    return "layer-normalised critics (--critic-layer-norm, or the recipes trust and h2o_layer_norm)"


def _less_simulator(evidence: Evidence) -> str:
    """What trusts the simulator less where it errs, other than what was trained."""
    if evidence.recipe == "trust":
        return "a larger --gap-sharpness, by which trust falls faster with the gap"
    return "a recipe that weighs simulated rows by the gap, such as trust"


def q_beyond_bound(evidence: Evidence) -> Concern | NotChecked | None:
    """|Q| at the end is above `BEYOND` times what the largest reward at every step would be worth."""
    ends = [np.abs(q) for q in (evidence.curves.at_the_end(n) for n in ("q_real", "q_sim")) if q is not None]
    if not ends:
        return NOT_RECORDED
    if not evidence.value_bound:
        return NotChecked(evidence.bound_unknown or "the log's rewards are not known")
    size, bound = _worst(np.stack(ends)), evidence.value_bound
    if size <= BEYOND * bound:
        return None
    return Concern(
        f"|Q| is {rounded(size)} at the end; the log's largest reward at every step would be worth "
        f"{rounded(bound)}.",
        "No policy can earn what the critics promise: they learn from their own errors, and the policy from "
        "them.",
        "A lower --learning-rate, a smaller --target-update-rate, a smaller --reward-scale, or "
        f"{_steadier_critics(evidence)}.",
    )


def q_growing(evidence: Evidence) -> Concern | NotChecked | None:
    """|Q| grew by more than half (`GROWTH`) within the last quarter, and is above half its bound."""
    worst, seen = 0.0, False
    for name in ("q_real", "q_sim"):
        steps, q = evidence.curves.known(name)
        if len(steps) < 1 / END:
            continue
        seen, last = True, steps[-1]
        before = (steps >= (0.75 - END) * last) & (steps <= 0.75 * last)
        if not before.any():
            continue
        then = np.abs(mean_since(steps[before], q[before], 0.0))
        now = np.abs(mean_since(steps, q, last * (1 - END)))
        large = now > 0.5 * (evidence.value_bound or 0.0)
        worst = max(worst, float(np.nanmax(np.where(large, now / np.maximum(then, 1e-9), 0.0))))
    if not seen:
        return NotChecked("there are fewer than ten rounds of it")
    if worst <= GROWTH:
        return None
    return Concern(
        f"|Q| grew {rounded(worst)}-fold within the last quarter of the steps.",
        "Values should settle. In a short run they may still be on their way; in a long one they diverge.",
        "Train longer (--steps), and if the growth goes on: a lower --learning-rate, a smaller "
        f"--target-update-rate, or {_steadier_critics(evidence)}.",
    )


def classifier_saturated(evidence: Evidence) -> Concern | NotChecked | None:
    """The classifiers recognise more than 99% of held-out rows, or log P̂/P is within 5% of its bound."""
    domains = [evidence.curves.at_the_end(f"classifier_accuracy_sas_{side}") for side in ("real", "sim")]
    ratio, bound = evidence.curves.at_the_end("log_ratio"), 2 * LOGIT_BOUND
    found = []
    if domains[0] is not None and domains[1] is not None:
        accuracy = _worst((domains[0] + domains[1]) / 2)
        if accuracy > SURE:
            found.append(f"on held-out rows they are right in {accuracy:.1%}")
    elif ratio is None:
        return NOT_RECORDED
    if ratio is not None and _worst(np.abs(ratio)) > RATIO_SHARE * bound:
        found.append(f"the mean log-ratio is {rounded(_worst(np.abs(ratio)))}, its bound {bound:g}")
    if not found:
        return None
    return Concern(
        f"The classifiers are sure: {' and '.join(found)}.",
        "They tell log and simulator apart almost always, so that the ratio says that rows differ, and no "
        "longer by how much. Either the simulator is far off, or the classifiers use a trait that does not "
        "matter, such as noise or rounding.",
        "See with simtrust gap what differs. More --classifier-input-noise; or the recipe trust, which "
        "measures the gap.",
    )


def weight_collapsed(evidence: Evidence) -> Concern | NotChecked | None:
    """The mean weight w of simulated rows is below `COLLAPSED` at the end."""
    weight = evidence.curves.at_the_end("weight")
    if weight is None:
        return NOT_RECORDED
    least = float(np.nanmin(weight))
    if least >= COLLAPSED:
        return None
    return Concern(
        f"The mean weight of simulated rows is {rounded(least)} at the end.",
        "The critics hardly learn from the simulator: this is nearly training on the log alone.",
        "See with simtrust gap what differs and correct the simulator; "
        + ("a smaller --gap-sharpness" if evidence.recipe == "trust" else "or use the recipe trust")
        + ", or compare with cql, which needs no simulator.",
    )


def weight_full(evidence: Evidence) -> Concern | NotChecked | None:
    """The mean weight w of simulated rows was above `FULL` in all of the run."""
    steps, weight = evidence.curves.known("weight")
    if not len(steps):
        return NOT_RECORDED
    if float(np.nanmin(weight)) <= FULL:
        return None
    return Concern(
        f"The mean weight of simulated rows never fell below {rounded(np.nanmin(weight))}.",
        "Every simulated row counts as much as a real one: the simulator is right, or the gap is not seen.",
        "Ask simtrust gap, which replays the log where it can. If it finds no gap, sac with this simulator "
        "may do as well.",
    )


def temperature_at_floor(evidence: Evidence) -> Concern | NotChecked | None:
    """The temperature is below `LEAST_TEMPERATURE`, or the entropy far below its target, at the end."""
    temperature = evidence.curves.at_the_end("temperature")
    entropy = evidence.curves.at_the_end("entropy")
    if temperature is None or entropy is None:
        return NOT_RECORDED
    target = evidence.target_entropy
    low, least = float(np.nanmin(temperature)), float(np.nanmin(entropy))
    if least < target - max(ENTROPY_SHARE * abs(target), 1.0):
        return Concern(
            f"The policy's entropy is {rounded(least)}, its target {rounded(target)}.",
            "The policy has become nearly deterministic, faster than the temperature could prevent: it no "
            "longer explores.",
            "A smaller --reward-scale, a lower --learning-rate, or a higher --target-entropy.",
        )
    if low < LEAST_TEMPERATURE:
        return Concern(
            f"The temperature is {rounded(low)}.",
            "The entropy stays above its target by itself, so that nothing keeps the policy from noise, or "
            "the rewards are tiny beside the entropy.",
            "A larger --reward-scale (auto finds one), or a lower --target-entropy.",
        )
    return None


def return_falling(evidence: Evidence) -> Concern | NotChecked | None:
    """The mean of the last 3 evaluations is below the best such mean by over a quarter of the range."""
    steps, returns = evidence.curves.known("return_mean")
    if len(steps) < LEAST_EVALUATIONS:
        return NotChecked(f"there are fewer than {LEAST_EVALUATIONS} evaluations")
    mean = np.nanmean(returns, axis=1)
    smooth = np.convolve(mean, np.full(SMOOTH, 1 / SMOOTH), "valid")
    best = int(smooth.argmax())
    fall, span = smooth[best] - smooth[-1], np.ptp(smooth)
    if span == 0 or fall <= FALL * span:
        return None
    around = steps[best + SMOOTH // 2]
    return Concern(
        f"The return fell from {rounded(smooth[best])} around step {around:,} to {rounded(smooth[-1])}.",
        "The policy was better before. Often the critics overestimate actions that neither log nor simulator "
        "shows truly.",
        f"Train with --steps {around} once more, or keep the simulator from misleading it: a larger --beta, "
        f"a larger --real-fraction, or {_less_simulator(evidence)}.",
    )


def few_episodes(evidence: Evidence) -> Concern | NotChecked | None:
    """Fewer than 5 episodes an evaluation, or a standard error of a seed's return above a tenth of it."""
    final = evidence.final
    if final is None:
        return NOT_EVALUATED
    error = final.spread / np.sqrt(max(final.episodes - 1, 1))
    share = np.nanmax(np.append(error / np.maximum(np.abs(final.mean), 1e-9), 0.0))
    if final.episodes >= LEAST_EPISODES and share <= COARSE:
        return None
    found = f"{final.episodes} episodes for each seed"
    if share > COARSE:
        found += f", whose mean is known to about ±{percent(share)}"
    return Concern(
        f"The last evaluation had {found}.",
        "So small a sample may rank policies wrongly, and bends the learning curve up and down.",
        "Evaluate the finished policy with more: simtrust evaluate RUN --episodes 50. In training, raise "
        "--evaluation-episodes.",
    )


def seeds_disagree(evidence: Evidence) -> Concern | NotChecked | None:
    """The final returns of the seeds differ by more than half of their mean."""
    final = evidence.final
    if final is None:
        return NOT_EVALUATED
    returns = final.mean[np.isfinite(final.mean)]
    if len(returns) < 2:
        return NotChecked("there is one seed; train with --seeds 5")
    if np.ptp(returns) <= DISAGREEMENT * abs(returns.mean()):
        return None
    return Concern(
        f"The seeds end between {rounded(returns.min())} and {rounded(returns.max())}.",
        "Whether training works depends on chance: one seed's return says little about the recipe.",
        "More seeds (--seeds 5), more --steps, and no conclusion from a difference smaller than this.",
    )


def q_sim_above_real(evidence: Evidence) -> Concern | NotChecked | None:
    """Q on simulated rows is above Q on real rows by more than a quarter of it at the end."""
    real, sim = (evidence.curves.at_the_end(name) for name in ("q_real", "q_sim"))
    if real is None or sim is None:
        return NOT_RECORDED
    excess = (sim - real) / np.maximum(np.abs(real), 1e-9)
    worst = int(np.nan_to_num(excess, nan=-np.inf).argmax())
    if not excess[worst] > ABOVE:
        return None
    remedy = f"If it lags behind: a larger --beta, or {_less_simulator(evidence)}."
    return Concern(
        f"Q is {rounded(sim[worst])} on simulated rows and {rounded(real[worst])} on real ones.",
        "The critics expect more where only the simulator was. If the log holds poor behaviour this may be "
        "true; else the policy is drawn to where the simulator flatters it.",
        f"Judge it where the simulator is not (--real-env, or the machine). {remedy}"
        if evidence.reality_unknown
        else f"Compare the real return with the simulated one above. {remedy}",
    )


def real_behind_simulated(evidence: Evidence) -> Concern | NotChecked | None:
    """The last real return is below the simulated one by more than a quarter of it."""
    final, simulated = evidence.final, evidence.curves.at_the_end("simulator_return")
    if evidence.reality_unknown:
        return NotChecked(evidence.reality_unknown)
    if final is None:
        return NOT_EVALUATED
    if simulated is None:
        return NOT_RECORDED
    promised, kept = float(np.nanmean(simulated)), mean_interval(final.mean).mean
    if not promised - kept > BEHIND * abs(promised):
        return None
    return Concern(
        f"The return is {rounded(promised)} in the simulator and {rounded(kept)} in the real environment.",
        "What was learned in the simulator does not carry over: the policy relies on dynamics that reality "
        "does not have.",
        "See with simtrust gap where the simulator errs, and correct it; weigh the log more "
        f"(--real-fraction), or use {_less_simulator(evidence)}.",
    )


CHECKS = (
    Check("Q beyond its bound", "|Q| > 3 · max|r| / (1 − γ), last tenth", q_beyond_bound),
    Check("Q growing at the end", "|Q| × 1.5 in the last quarter, above half its bound", q_growing),
    Check("Classifiers saturated", "held-out accuracy > 99%, or log-ratio > 95% of its bound",
          classifier_saturated),
    Check("Weights collapsed", "mean w < 0.05, last tenth", weight_collapsed),
    Check("Weights all 1", "mean w > 0.99 throughout", weight_full),
    Check("Entropy or temperature at the floor",
          "temperature < 0.001, or entropy below its target by half of it", temperature_at_floor),
    Check("Return falling at the end", "fall from the best > 25% of the range, means of 3 evaluations",
          return_falling),
    Check("Real return behind the simulated", "by > 25% of the simulated return", real_behind_simulated),
    Check("Coarse evaluation", "fewer than 5 episodes, or standard error > 10%", few_episodes),
    Check("Seeds disagree", "range of final returns > 50% of their mean", seeds_disagree),
    Check("Q higher on simulated rows", "excess > 25% of Q on real rows, last tenth", q_sim_above_real),
)  # fmt: skip
"""All checks, in the order in which they are shown."""
