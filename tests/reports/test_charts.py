"""Charts as plotly draws them, and numbers and names on them."""

import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest

from simtrust.gap.findings import PolicyTrust
from simtrust.reports import gap_figures
from simtrust.reports.charts import escaped, label, log_ticks, percent, rounded
from simtrust.reports.gap_map import draw_maps


def test_charts_are_what_plotly_knows(build):
    whole = build()
    replay, model = whole.replay, whole.model
    charts = [
        gap_figures.dimension_chart(whole.observation_names, replay),
        gap_figures.held_out_chart(whole.observation_names, model.r_squared),
        gap_figures.correction_chart(replay),
        gap_figures.calibration_chart(whole.classifier.calibration),
        gap_figures.map_chart(draw_maps(whole)),
        gap_figures.drift_chart(replay.drift),
        gap_figures.episode_chart(whole),
        gap_figures.policy_chart(whole.policy, 0.1),
    ]
    for chart in charts:
        assert len(chart.views) == np.prod([len(choice.options) for choice in chart.choices], initial=1)
        for part in ({"data": [], "layout": chart.layout}, *chart.views):
            go.Figure(json.loads(re.sub(r'"@[a-z]+"', '"#000"', json.dumps(part))))


def test_a_histograms_bins_lie_on_one_side_of_the_limit():
    policy = PolicyTrust("runs/first", 5, 0.4, 0.0, np.array([0.01, 0.0999, 0.05, 0.11, 1.0]))
    (shown,) = gap_figures.policy_chart(policy, 0.1).views
    trusted, low = shown["data"]
    assert (sum(trusted["y"]), sum(low["y"])) == pytest.approx((0.6, 0.4))
    assert max(trusted["x"]) < -1 < min(low["x"])


def test_numbers_are_for_people():
    numbers = [rounded(value) for value in (0.123456, 12345.6, -0.5, np.nan, 1e-9, np.inf, 0)]
    assert numbers == ["0.123", "12,300", "−0.5", "unknown", "1e−09", "∞", "0"]
    assert [percent(share) for share in (0, 0.001, 0.5, 0.999, 1)] == ["0%", "<1%", "50%", ">99%", "100%"]
    assert escaped("<b>%{x}</b>&") == "&lt;b&gt;&#37;{x}&lt;/b&gt;&amp;"
    assert log_ticks(0.1, 10)["ticktext"] == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]


def test_a_label_has_two_lines_at_most():
    assert label("front thigh angular velocity (rad/s)", 24) == "front thigh angular<br>velocity (rad/s)"
    assert label("<b> and much that follows it, at length", 12) == "&lt;b&gt; and much<br>that…"
