"""Pictures of a gap report: dimensions, drift, and a map over the two axes that matter most."""

import io
from pathlib import Path

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from simtrust.gap.findings import GapReport
from simtrust.reports.gap_map import THIN, GapMap, draw_maps
from simtrust.training.storage import write_atomically


def draw_report(report: GapReport, folder: Path) -> list[Path]:
    """Write the stills that this report allows into ``folder``."""
    drawn = []
    if report.replay is not None:
        drawn.append(_dimensions(report, folder / "gap-dimensions.png"))
        if report.replay.drift is not None:
            drawn.append(_drift(report, folder / "gap-drift.png"))
    drawn += [_map(first, folder / "gap-map.png") for first in draw_maps(report)[:1]]
    return drawn


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
    axes.set_yticks(
        range(len(order)), [_plain(report.observation_names[index]) for index in order], fontsize="small"
    )
    axes.set_xlabel("one-step error, in standard deviations of the logged change")
    return _write(figure, path)


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
    return _write(figure, path)


def _map(drawn: GapMap, path: Path) -> Path:
    """The median gap over the two dimensions that the regions split most."""
    figure = Figure(figsize=(6.5, 5), layout="constrained")
    axes = figure.subplots()
    positive = drawn.median[drawn.median > 0]
    norm = LogNorm(positive.min(), positive.max()) if len(positive) and np.ptp(positive) > 0 else None
    # A cell without any gap has the colour of the least.
    shown = np.clip(drawn.median, positive.min(initial=np.inf), None) if len(positive) else drawn.median
    mesh = axes.pcolormesh(drawn.x_edges, drawn.y_edges, shown, norm=norm)
    figure.colorbar(mesh, label="median one-step gap")
    axes.add_collection(_hatching(drawn), autolim=False)
    axes.set(
        xlabel=_plain(drawn.x),
        ylabel=_plain(drawn.y or ""),
        title=f"hatched: fewer than {THIN} rows; grey: none",
        facecolor="0.88",
    )
    if drawn.y is None:
        axes.set_yticks([])
    return _write(figure, path)


def _write(figure: Figure, path: Path) -> Path:
    image = io.BytesIO()
    figure.savefig(image, dpi=120, format="png")
    write_atomically(path, image.getvalue())
    return path


def _hatching(drawn: GapMap) -> PatchCollection:
    """What lies over the thin cells: paled, and hatched in a colour that is seen on any other."""
    row, column = np.nonzero(drawn.thin)
    width, height = (float(edges[1] - edges[0]) for edges in (drawn.x_edges, drawn.y_edges))
    corners = zip(drawn.x_edges[column].tolist(), drawn.y_edges[row].tolist(), strict=True)
    patches = [Rectangle(corner, width, height) for corner in corners]
    return PatchCollection(
        patches, facecolor=(1, 1, 1, 0.45), edgecolor=(0, 0, 0, 0.75), hatch="//////", linewidth=0
    )


def _plain(name: str) -> str:
    """A name whose dollar signs are no formula."""
    return name.replace("$", r"\$")
