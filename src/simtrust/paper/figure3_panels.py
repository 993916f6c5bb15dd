"""The picture of figure 3: a line of panels for every point of training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simtrust.paper.cheetah import Point
from simtrust.paper.files import save_picture

# Okabe and Ito's sky blue, and their vermilion darkened: apart for every colour vision, and in grey.
ROW_COLOUR, MEDIAN_COLOUR = "#56B4E9", "#B23A00"
BINS = 20
SHOWN = (0.002, 0.998)
"""Quantiles between which an axis runs: a few rows would squeeze all others."""
LABELS = {
    "x_velocity": "x-velocity (m/s)",
    "u": "u by H2O's classifiers",
    "q": "Q",
    "true_gap": "true gap",
}


class Panel(NamedTuple):
    """What is drawn over what, and which of the statistics says how they go together."""

    x: str
    y: str
    statistic: str


PANELS = (
    Panel("x_velocity", "u", "u, x-velocity"),
    Panel("x_velocity", "true_gap", "true gap, x-velocity"),
    Panel("q", "u", "u, Q"),
    Panel("true_gap", "u", "u, true gap"),
)


def draw(points: Sequence[Point], statistics: Sequence[Mapping[str, np.ndarray]], path: Path) -> Path:
    """Rows of all training seeds, medians of bins of equally many rows, and ρ as mean over the seeds.

    Args:
        points: one a line of panels, earliest first.
        statistics: of each point, as `simtrust.paper.figure3.statistics` gives them.
        path: of the PNG.
    """
    figure = Figure(figsize=(4 * len(PANELS), 0.4 + 3.1 * len(points)), layout="constrained")
    grid = figure.subplots(len(points), len(PANELS), squeeze=False)
    limits = {name: _limits([getattr(point, name) for point in points]) for name in LABELS}
    for point, found, line in zip(points, statistics, grid, strict=True):
        own = limits | {"q": _limits([point.q])}
        for axis, panel in zip(line, PANELS, strict=True):
            _draw_panel(axis, panel, point, own)
            rank = f"ρ = {np.mean(found[panel.statistic]):.2f}"
            axis.set_title(f"{point.step:,} updates, {rank}", fontsize="medium")
    handles, names = grid[0, 0].get_legend_handles_labels()
    legend = figure.legend(handles, names, loc="outside upper right", ncols=2, frameon=False, markerscale=2)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    return save_picture(figure, path)


def _draw_panel(axis: Axes, panel: Panel, point: Point, limits: Mapping[str, tuple[float, float]]) -> None:
    x, y = (getattr(point, name).ravel() for name in (panel.x, panel.y))
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    alpha = float(np.clip(2000 / max(len(x), 1), 0.1, 0.8))
    dots = axis.scatter(x, y, s=6, color=ROW_COLOUR, alpha=alpha, linewidths=0, label="simulated row")
    dots.set_rasterized(True)
    axis.plot(
        *binned_medians(x, y),
        color=MEDIAN_COLOUR,
        marker="o",
        markersize=4,
        label=f"medians of {BINS} bins",
    )
    axis.set(xlim=limits[panel.x], ylim=limits[panel.y], xlabel=LABELS[panel.x], ylabel=LABELS[panel.y])
    axis.grid(alpha=0.25)


def _limits(columns: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([column[np.isfinite(column)] for column in columns])
    if not len(values):
        return (0.0, 1.0)
    low, high = (float(value) for value in np.quantile(values, SHOWN))
    margin = 0.04 * (high - low) or 0.5
    return (low - margin, high + margin)


def binned_medians(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians of x and y [N] in bins of about equally many rows, by x; equal x share a bin."""
    if not len(x):
        return x, y
    edges = np.unique(np.quantile(x, np.linspace(0, 1, BINS + 1)))
    in_bin = np.searchsorted(edges[1:-1], x, side="right")
    members = [in_bin == index for index in np.unique(in_bin)]
    return np.array([np.median(x[rows]) for rows in members]), np.array(
        [np.median(y[rows]) for rows in members]
    )
