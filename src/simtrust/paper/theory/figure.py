"""The picture of the theory: the counterexample, the states it stands for, and how many there are."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

from simtrust.paper.theory.claims import Count
from simtrust.paper.theory.counterexample import Counterexample

# Okabe and Ito's sky blue and bluish green, and their vermilion darkened, as in figure 3.
HOLDS, REACHED, FAILS = "#56B4E9", "#009E73", "#B23A00"
NEAR_ZERO = 1e-3
"""Below this the axis of the error is linear."""


class HighGapStates(NamedTuple):
    """States of all problems that meet Eq. 25 [N]."""

    delta: np.ndarray
    """``Δ(s)``."""
    shortfall: np.ndarray
    """``(1 − γ)(V − V̂)/β``: the mean of Δ over the visits from s on; negative where V̂ is too high."""
    reached: np.ndarray
    """Whether every state that is reached meets Eq. 25 too."""


def draw(
    counterexample: Counterexample,
    states: HighGapStates,
    by_discount: Mapping[float, Count],
    by_family: Mapping[str, Count],
) -> Figure:
    """Three panels, of width 13.5 inches.

    Args:
        counterexample: of Theorem 1.
        states: to be drawn as dots.
        by_discount: Theorem 1's count at every γ.
        by_family: its count in every family of problems.
    """
    figure = Figure(figsize=(13.5, 4.5), layout="constrained")
    diagram, dots, bars = figure.subplots(1, 3, width_ratios=(1.0, 1.15, 1.0))
    _draw_counterexample(diagram, counterexample)
    _draw_states(dots, states)
    handles, names = dots.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, markerscale=2)
    groups = [(f"γ = {discount}", by_discount[discount]) for discount in sorted(by_discount)]
    _draw_shares(bars, [*groups, *by_family.items()])
    return figure


def _draw_counterexample(axes: Axes, problem: Counterexample) -> None:
    places = ((0.0, 0.0), (2.4, 0.0))
    for number, (place, delta) in enumerate(zip(places, problem.delta, strict=True), start=1):
        axes.add_patch(Circle(place, 0.42, facecolor="white", edgecolor="black"))
        axes.text(*place, f"state {number}", ha="center", va="center")
        kind = "penalty" if delta > 0 else "bonus"
        text = f"Δ = {str(delta).replace('-', '−')}\n{kind}"
        axes.text(place[0], -0.62, text, ha="center", va="top", color=HOLDS if delta > 0 else FAILS)
        axes.add_patch(_arrow((place[0] - 0.22, 0.36), (place[0] + 0.22, 0.36), -1.9))
        axes.text(place[0], 1.02, _chances(problem, number - 1, number - 1), ha="center", va="bottom")
    if problem.real[0][1]:
        axes.add_patch(_arrow((0.42, 0.08), (1.98, 0.08), -0.12))
        axes.text(1.2, 0.24, _chances(problem, 0, 1), ha="center", va="bottom")
    if problem.real[1][0]:
        axes.add_patch(_arrow((1.98, -0.08), (0.42, -0.08), -0.12))
        axes.text(1.2, -0.24, _chances(problem, 1, 0), ha="center", va="top")
    axes.text(
        1.2,
        -1.5,
        f"γ = {problem.discount}, r = 1, one action, starts in state 1\n"
        f"ω = {problem.omega[0]} > d_D = {problem.log_share[0]} in state 1, and yet\n"
        f"V̂(1) = V(1) + {problem.overestimate}·β",
        ha="center",
        va="top",
    )
    axes.set(xlim=(-0.9, 3.3), ylim=(-2.5, 1.7), aspect="equal", title="the smallest counterexample")
    axes.axis("off")


def _chances(problem: Counterexample, state: int, following: int) -> str:
    real, sim = problem.real[state][following], problem.sim[state][following]
    return f"{real}" if real == sim else f"real {real}\nsimulated {sim}"


def _arrow(start: tuple[float, float], end: tuple[float, float], bend: float) -> FancyArrowPatch:
    return FancyArrowPatch(
        start, end, connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>", mutation_scale=12, color="black"
    )


def _draw_states(axes: Axes, states: HighGapStates) -> None:
    wrong = states.shortfall < 0
    kinds = (
        ("V̂ ≤ V", ~wrong & ~states.reached, HOLDS),
        ("V̂ ≤ V, Eq. 25 in all reached", ~wrong & states.reached, REACHED),
        ("V̂ > V", wrong, FAILS),
    )
    for name, shown, colour in kinds:
        label = f"{name}: {shown.sum():,}"
        dots = axes.scatter(states.delta[shown], states.shortfall[shown], s=5, color=colour, label=label)
        dots.set_rasterized(True)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhline(-1, color="black", linewidth=0.8, linestyle=":", label="as low as it can be")
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=NEAR_ZERO)
    axes.set(xlabel="Δ(s)", ylabel="(1 − γ)·(V(s) − V̂(s)) / β", title="states that meet Eq. 25")
    axes.grid(alpha=0.25)


def _draw_shares(axes: Axes, groups: Sequence[tuple[str, Count]]) -> None:
    shares = [100 * np.nan_to_num(count.share) for _, count in groups]
    bars = axes.barh(range(len(groups)), shares, color=FAILS)
    axes.bar_label(bars, [f"{count.failures} of {count.cases:,}" for _, count in groups], padding=3)
    axes.set_yticks(range(len(groups)), [name for name, _ in groups])
    axes.invert_yaxis()
    axes.set(
        xlim=(0, 1.45 * max(*shares, 1)),
        xlabel="% of the states that meet Eq. 25",
        title="how many of these have V̂ > V",
    )
    axes.grid(axis="x", alpha=0.25)
