"""Maps of the gap: their cells, and the still that shows them."""

from dataclasses import replace

import numpy as np

from simtrust.reports import gap_map
from simtrust.reports.gap_map import GapMap, draw_maps, grid_cells
from simtrust.reports.gap_plots import draw_report


def test_cells_hold_their_rows_medians():
    x = np.array([0.0, 0.1, 0.2, 10.0, 10.0, 5.0])
    y = np.array([0.0, 0.0, 0.0, 8.0, 8.0, 4.0])
    x_edges, y_edges, median, rows = grid_cells(x, y, np.array([1.0, 5.0, 2.0, 3.0, 4.0, 7.0]))
    assert median.shape == rows.shape == (gap_map.CELLS, gap_map.CELLS)
    assert (len(x_edges), len(y_edges)) == (gap_map.CELLS + 1, gap_map.CELLS + 1)
    assert (rows[0, 0], median[0, 0]) == (3, 2.0)
    assert (rows[-1, -1], median[-1, -1]) == (2, 3.5)
    middle = np.argwhere(median == 7.0)
    assert len(middle) == 1
    assert rows[tuple(middle[0])] == 1
    assert rows.sum() == 6
    assert np.isnan(median[rows == 0]).all()
    assert not np.isnan(median[rows > 0]).any()


def test_cells_are_rows_of_y_and_columns_of_x():
    x, y = np.array([0.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0])
    *_, median, _ = grid_cells(x, y, np.array([1.0, 2.0, 3.0]))
    assert (median[0, 0], median[0, -1], median[-1, -1]) == (1.0, 2.0, 3.0)


def test_rows_far_out_count_at_the_edge():
    x = np.concatenate([np.linspace(0, 1, 1000), [1e6]])
    x_edges, y_edges, _, rows = grid_cells(x, np.zeros_like(x), np.ones_like(x))
    assert x_edges[-1] < 1
    assert len(y_edges) == 2
    assert rows.sum() == 1001


def test_thin_is_neither_enough_nor_nothing():
    rows = np.array([[0, 1, gap_map.THIN - 1, gap_map.THIN]])
    drawn = GapMap("x", None, np.arange(5.0), np.arange(2.0), np.ones((1, 4)), rows)
    assert drawn.thin.tolist() == [[False, True, True, False]]


def test_maps_are_of_the_dimensions_that_the_regions_split(build):
    whole = build()
    split = {name for region in whole.regions for name in region.bounds}
    assert split == {"torso height (m)"}
    maps = draw_maps(whole)
    assert {drawn.x for drawn in maps} == split
    assert maps[0].y == "torso angle (rad)"
    assert all(drawn.rows.sum() == len(whole.dataset) for drawn in maps)


def test_one_dimension_alone_has_a_strip(build):
    report = build(names=("speed",), action_names=("torque",))
    still = report.dataset.transitions._replace(action=np.zeros((1500, 1), np.float32))
    (strip,) = draw_maps(replace(report, dataset=replace(report.dataset, transitions=still)))
    assert (strip.x, strip.y) == ("speed", None)
    assert strip.median.shape == (1, gap_map.CELLS)


def test_hatching_is_seen_on_the_still(build, tmp_path, monkeypatch):
    whole = build()
    draw_report(whole, tmp_path)
    hatched = (tmp_path / "gap-map.png").read_bytes()
    monkeypatch.setattr(gap_map, "THIN", 0)
    draw_report(whole, tmp_path)
    assert (tmp_path / "gap-map.png").read_bytes() != hatched


def test_a_still_takes_dollars_for_dollars(build, tmp_path):
    assert len(draw_report(build(names=("$\\frac$", "$x")), tmp_path)) == 3
