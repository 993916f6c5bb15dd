"""Maps of the gap over two dimensions: the cells that the stills and the page draw alike."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from simtrust.gap.findings import GapReport

CELLS = 24
"""Along each axis."""
THIN = 5
"""With fewer rows a cell is thin: the log hardly says anything there."""
AXES = 4
"""So many dimensions at most are paired with each other."""
COVERED = (0.005, 0.995)
"""The quantiles that a map spans; rows further out count in the cells at its edge."""


class GapMap(NamedTuple):
    """The median gap in the cells of a grid over two dimensions, or over one."""

    x: str
    y: str | None
    """None if only one dimension varies: the grid then has one row of cells."""
    x_edges: np.ndarray  # [C + 1]
    y_edges: np.ndarray  # [D + 1]
    median: np.ndarray  # [D, C] of the cell's rows; NaN where it has none
    rows: np.ndarray  # [D, C] int

    @property
    def thin(self) -> np.ndarray:
        """[D, C] bool: some rows, but fewer than `THIN`."""
        return (self.rows > 0) & (self.rows < THIN)


def draw_maps(report: GapReport) -> tuple[GapMap, ...]:
    """Maps over the dimensions that the regions split, the most split pair first; none if nothing was."""
    split = [name for region in report.regions for name in region.bounds]
    if not split:
        return ()
    names = [*report.observation_names, *report.action_names]
    features, gap = _rows(report)
    if not len(gap):
        return ()
    spread = np.ptp(np.quantile(features, COVERED, axis=0), axis=0)
    varying = [index for index, width in enumerate(spread) if width > 0]
    chosen = [index for index in varying if names[index] in split]
    chosen.sort(key=lambda index: (-split.count(names[index]), index))
    if len(chosen) > 1:
        pairs = list(combinations(chosen[:AXES], 2))
    else:
        # One axis alone is shown against the first others.
        pairs = [(index, other) for index in chosen for other in varying if other != index][: AXES - 1]
    if chosen and not pairs:
        values = features[:, chosen[0]]
        cells = grid_cells(values, np.zeros_like(values), gap)
        return (GapMap(names[chosen[0]], None, *cells),)
    return tuple(
        GapMap(names[x], names[y], *grid_cells(features[:, x], features[:, y], gap)) for x, y in pairs
    )


def grid_cells(
    x: np.ndarray, y: np.ndarray, gap: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Edges of x and of y, and each cell's median of ``gap [N]`` and number of rows, as in `GapMap`.

    A dimension ``[N]`` that does not vary has one cell.
    """
    x_edges, y_edges = _edges(x), _edges(y)
    width, height = len(x_edges) - 1, len(y_edges) - 1
    cell = _position(y, y_edges) * width + _position(x, x_edges)
    rows = np.bincount(cell, minlength=width * height)
    median = np.full(width * height, np.nan)
    by_cell = np.split(gap[np.argsort(cell, kind="stable")], np.cumsum(rows)[:-1])
    for index in np.flatnonzero(rows):
        median[index] = np.median(by_cell[index])
    return x_edges, y_edges, median.reshape(height, width), rows.reshape(height, width)


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = np.quantile(np.asarray(values, np.float64), COVERED)
    return np.linspace(low, high, CELLS + 1) if high > low else np.array([low - 0.5, low + 0.5])


def _position(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.clip(np.digitize(values, edges) - 1, 0, len(edges) - 2)


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
