"""Pictures of a gap report: dimensions, drift, and a map over the two axes that matter most."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from simtrust.gap.findings import GapReport

CELLS = 24
THIN = 5
"""A cell of the map with fewer rows is hatched: the log hardly says anything there."""


def draw_report(report: GapReport, folder: Path) -> list[Path]:
    """Write the stills that this report allows into ``folder``."""
    drawn = []
    if report.replay is not None:
        drawn.append(_dimensions(report, folder / "gap-dimensions.png"))
        if report.replay.drift is not None:
            drawn.append(_drift(report, folder / "gap-drift.png"))
    map_of = _map(report, folder / "gap-map.png")
    return drawn + ([map_of] if map_of else [])


def _dimensions(report: GapReport, path: Path) -> Path:
    """Absolute one-step error of every dimension, with intervals by episode."""
    assert report.replay is not None
    errors = report.replay.summary.normalised
    order = np.argsort(np.nan_to_num(errors.mean, nan=-1.0))
    figure = Figure(figsize=(7, 0.28 * len(order) + 1.2), layout="constrained")
    axes = figure.subplots()
    mean = errors.mean[order]
    reach = np.nan_to_num(np.abs(np.stack([mean - errors.low[order], errors.high[order] - mean])))
    axes.barh(range(len(order)), np.nan_to_num(mean), xerr=reach, color="C0", ecolor="black", capsize=2)
    axes.set_yticks(range(len(order)), [report.observation_names[index] for index in order], fontsize="small")
    axes.set_xlabel("one-step error, in standard deviations of the logged change")
    figure.savefig(path, dpi=120)
    return path


def _drift(report: GapReport, path: Path) -> Path:
    """How far the simulator goes astray on its own under the logged actions."""
    assert report.replay is not None
    assert report.replay.drift is not None
    error = report.replay.drift.error
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(len(error.mean))
    axes.plot(steps, error.mean)
    axes.fill_between(steps, error.low, error.high, alpha=0.2, linewidth=0)
    axes.set(xlabel="steps on its own", ylabel="error, in standard deviations of the state")
    axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=120)
    return path


def _map(report: GapReport, path: Path) -> Path | None:
    """The median gap over the two dimensions that the regions split most; None if nothing was split."""
    names = [*report.observation_names, *report.action_names]
    split = [name for region in report.regions for name in region.bounds]
    axes_names = sorted(set(split), key=lambda name: (-split.count(name), names.index(name)))[:2]
    if not axes_names:
        return None
    features, gap = _rows(report)
    spread = np.ptp(np.quantile(features, [0.005, 0.995], axis=0), axis=0)
    varying = [name for name, width in zip(names, spread, strict=True) if width > 0]
    # One axis alone is shown against the first other dimension.
    axes_names = [name for name in axes_names if name in varying]
    axes_names += [name for name in varying if name not in axes_names][: 2 - len(axes_names)]
    if len(axes_names) < 2:
        return None
    x, y = (features[:, names.index(name)] for name in axes_names)
    limits = [np.quantile(values, [0.005, 0.995]) for values in (x, y)]
    edges = [np.linspace(low, high, CELLS + 1) for low, high in limits]
    column, row = (np.clip(np.digitize(v, e) - 1, 0, CELLS - 1) for v, e in zip((x, y), edges, strict=True))
    cell = row * CELLS + column
    counts = np.bincount(cell, minlength=CELLS**2).reshape(CELLS, CELLS)
    median = np.full(CELLS**2, np.nan)
    for index in np.unique(cell):
        median[index] = np.median(gap[cell == index])
    figure = Figure(figsize=(6.5, 5), layout="constrained")
    axes = figure.subplots()
    positive = median[median > 0]
    norm = LogNorm(positive.min(), positive.max()) if len(positive) and np.ptp(positive) > 0 else None
    mesh = axes.pcolormesh(*edges, np.where(median > 0, median, np.nan).reshape(CELLS, CELLS), norm=norm)
    figure.colorbar(mesh, label="median one-step gap")
    thin = np.ma.masked_where(counts >= THIN, np.ones_like(counts, float))
    axes.pcolor(*edges, thin, hatch="///", alpha=0.0)
    axes.set(
        xlabel=axes_names[0], ylabel=axes_names[1], title=f"hatched: fewer than {THIN} rows", facecolor="0.93"
    )
    figure.savefig(path, dpi=120)
    return path


def _rows(report: GapReport) -> tuple[np.ndarray, np.ndarray]:
    """States and actions side by side [N, O + A] and their gaps [N], of the estimator the regions are of."""
    if report.replay is not None:
        errors = report.replay.errors
        usable = ~np.isnan(errors.gap)
        rows, gap, source = errors.rows[usable], errors.gap[usable], report.dataset.transitions
    else:
        assert report.model is not None
        known = report.model.known
        rows, gap, source = np.flatnonzero(known), report.model.gap[known], report.model.simulated
    parts = [np.asarray(field)[rows] for field in (source.observation, source.action)]
    return np.concatenate(parts, axis=1), gap
