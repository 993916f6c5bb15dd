"""The page of a gap report: what it shows, in a browser, and that nobody's text can do anything there."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

import simtrust
from simtrust import measuring
from simtrust.errors import RunError
from simtrust.gap.findings import GapReport
from simtrust.gap.step_errors import summarise
from simtrust.reports.charts import Chart, view
from simtrust.reports.gap_advice import headline
from simtrust.reports.gap_html import write_html
from simtrust.reports.page import Figure, Section, compose

DESK, PHONE = (1280, 800), (390, 844)
COMMAND = "simtrust gap --real logs/log.hdf5 --sim HalfCheetah-v5 --shift gravity=2"
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>window.pwned=1</script>",
    "<b>bold</b>",
    "%{x} &lt;i&gt; {{plotly}} @ink",
    "<a href='javascript:alert(1)'>Ω</a>",
)


@pytest.fixture
def opened(open_page, tmp_path):
    """``opened(report, size=, scheme=)``: the report's page, as `open_page` opens it."""

    def write_and_open(report, size=DESK, scheme="light", command=COMMAND):
        path = tmp_path / "report.html"
        write_html(report, path, command)
        assert path.stat().st_size < 8e6
        return open_page(path, size, scheme)

    return write_and_open


def eventually(page, expression):
    """Wait until it holds; playwright's own waiting evaluates a text, which the page forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {expression}")


"""Every chart has its picture."""


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def brightness(page):
    """Of the page's background, 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]])


@pytest.fixture(scope="module")
def whole(build):
    return build()


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_section_is_there_at_any_size_and_in_any_light(whole, opened, size, scheme):
    with opened(whole, size, scheme) as page:
        assert fits(page)
        assert page.inner_text("h1").endswith("There is a dynamics gap.")
        assert page.locator(".chart").count() == 8
        assert page.locator("main h2").all_inner_texts() == [
            "Estimators side by side",
            "Error per dimension",
            "Where the gap is",
            "Drift over the horizon",
            "Worst episodes",
            "What it looks like",
            "The policy",
            "How it was made",
        ]
        assert (brightness(page) < 60) == (scheme == "dark")
        assert "gravity 1 in place of 2 explains 93%" in page.inner_text(".cards")
        assert page.inner_text("#made code") == COMMAND
        assert whole.dataset.sha256 in page.inner_text("#made table")


def test_a_page_is_accessible(whole, opened):
    with opened(whole) as page:
        assert page.get_attribute("html", "lang") == "en"
        assert "width=device-width" in page.get_attribute("meta[name=viewport]", "content")
        assert all(label for label in page.locator(".chart").evaluate_all("all => all.map(c => c.ariaLabel)"))
        assert page.locator("table").count() == page.locator("table > caption").count() > 0
        assert page.locator(".modebar-btn--logo").count() == 0


def test_nothing_but_the_pages_own_scripts_may_run(whole, opened):
    with opened(whole) as page:
        policy = page.get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe-inline" not in policy.split("style-src")[0]
        assert not re.search(r"https?:", policy)


def test_nobodys_text_does_anything(build, opened):
    hostile = build(names=HOSTILE, action_names=("<i>left</i>", "<i>right</i>"), source=HOSTILE[0])
    odd = replace(
        hostile,
        simulator=HOSTILE[1],
        missing={"trust model": HOSTILE[0], HOSTILE[2]: HOSTILE[1]},
        verdict=replace(hostile.verdict, best_explanation=HOSTILE[2], reason=HOSTILE[1]),
        policy=replace(hostile.policy, source=HOSTILE[0]),
    )
    with opened(odd, command=HOSTILE[1]) as page:
        text = page.inner_text("body")
        assert all(part in text for part in HOSTILE)
        assert HOSTILE[1] in page.title()
        assert page.inner_text("#made code") == HOSTILE[1]
        in_charts = page.locator("svg").evaluate_all("all => all.map(svg => svg.textContent).join(' ')")
        assert all(part in in_charts for part in ("<b>bold</b>", "%{x} &lt;i&gt;", "<img src=x", "Ω</a>"))
        page.evaluate("document.querySelector('[data-figure=map]').selectedIndex = 1")
        page.locator("[data-figure=map]").dispatch_event("change")
        page.locator("#chart-map .nsewdrag").first.hover()
        assert page.evaluate("window.pwned") is None
        assert page.locator("img, svg a, svg b, body b").count() == 0
        bold = "all => all.filter(t => /bold|[6-9]00/.test(t.style.fontWeight)).length"
        assert page.locator("#chart-dimensions .ytick tspan").evaluate_all(bold) == 0


def test_no_chart_ends_its_script_element():
    chart = Chart("", 100, {"title": {"text": "</script><script>window.pwned=1</script>"}}, [view()])
    page = compose("gap_report.html", "", "", [Section("a", "a", [Figure("a", chart, "")])])
    (content,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page)
    assert json.loads(content)["a"]["layout"] == chart.layout


def test_a_map_says_which_cell_it_is(build, opened):
    names = ("%{y} <b>first</b>", "second")
    with opened(build(names=names)) as page:
        page.locator("#map").scroll_into_view_if_needed()
        box = page.locator("#chart-map .nsewdrag").first.bounding_box()
        shown = page.locator("#chart-map .hoverlayer .hovertext")
        for share in np.linspace(0.05, 0.95, 20):
            page.mouse.move(box["x"] + share * box["width"], box["y"] + 0.5 * box["height"])
            page.wait_for_timeout(30)
            if shown.count():
                break
        assert "%{y} <b>first</b>" in shown.first.text_content()
        assert "median gap" in shown.first.text_content()


def topmost(page):
    """The bar above all others."""
    ticks = page.locator("#chart-dimensions .ytick").all()
    return min(ticks, key=lambda tick: tick.bounding_box()["y"]).text_content()


def test_what_is_chosen_is_shown(whole, opened):
    with opened(whole) as page:
        titles = "key => { const l = document.getElementById('chart-' + key).layout;"
        titles += " return [l.xaxis.title.text, l.yaxis.title.text]; }"
        before = page.evaluate(titles, "map")
        page.locator("[data-figure=map]").select_option(index=1)
        assert page.evaluate(titles, "map") != before

        worst, other = page.locator("[data-figure=episodes]").all()
        assert worst.evaluate("select => select.value") == whole.verdict.worst_dimension
        worst.select_option("torso angle (rad)")
        other.select_option(index=2)
        assert page.evaluate(titles, "episodes") == [
            "control steps after row 200 of the log",
            "torso angle (rad)",
        ]
        shown = page.evaluate("document.getElementById('chart-episodes').data.map(trace => trace.y)")
        np.testing.assert_allclose(shown[0], whole.worst_episodes[2].real[:, 1], rtol=1e-5)
        assert shown[1][40:] == [None] * 11

        assert topmost(page) == "wheel speed (rad/s)"
        page.locator("[data-figure=dimensions]").select_option("as in the log")
        assert topmost(page) == "torso height (m)"


def test_charts_follow_a_change_of_light(whole, opened):
    ink = "getComputedStyle(document.querySelector('#chart-drift .xtick text')).fill"
    with opened(whole) as page:
        assert page.evaluate(ink) == "rgb(23, 33, 43)"
        page.emulate_media(color_scheme="dark")
        eventually(page, f"{ink} === 'rgb(231, 236, 241)'")
        assert brightness(page) < 60


def test_a_command_is_copied(whole, opened):
    with opened(whole) as page:
        page.locator("#made button").click()
        eventually(page, "document.querySelector('#made button').textContent !== 'Copy'")


def without(report: GapReport, *parts: str) -> GapReport:
    reasons = {part.replace("_", " "): f"no {part} for a reason" for part in parts}
    nothing = {part: () if part == "worst_episodes" else None for part in parts}
    verdict = replace(report.verdict, worst_dimension=None, best_explanation=None)
    return replace(report, missing=reasons, verdict=verdict, **nothing)


def no_gap(report):
    verdict = replace(report.verdict, gap_found=False, worst_dimension=None, best_explanation=None)
    replay = replace(report.replay, corrections=(), actuators=None)
    return replace(report, verdict=verdict, replay=replay, regions=(), worst_episodes=())


def with_errors(report, **changes):
    errors = replace(report.replay.errors, **changes)
    summary = summarise(errors, resamples=50)
    return replace(report, replay=replace(report.replay, errors=errors, summary=summary))


def one_episode(build):
    report = build(rows=100)
    changed = with_errors(report, episode=np.zeros(100, int))
    nothing = np.full(51, np.nan)
    error = report.replay.drift.error._replace(low=nothing, high=nothing)
    drift = report.replay.drift._replace(error=error)
    return replace(changed, replay=replace(changed.replay, drift=drift))


def constant_dimension(build):
    report = build()
    scale = report.replay.errors.scale.copy()
    scale[1] = np.nan
    return with_errors(report, scale=scale)


def nothing_known(build):
    report = without(build(), "replay", "classifier", "worst_episodes")
    assert report.model is not None
    model = replace(report.model, known=np.zeros(400, bool), r_squared=np.full(5, np.nan))
    verdict = replace(report.verdict, gap_found=False, trusted_fraction=np.nan, confidence="low")
    return replace(report, model=model, verdict=verdict, regions=())


def no_cause_no_drift_no_regions(build):
    report = constant_dimension(build)
    replay = replace(report.replay, corrections=(), actuators=None, drift=None)
    return replace(report, replay=replay, regions=(), missing={"drift": "too short", "actuators": "failed"})


CASES = {
    "no replay": lambda build: without(build(), "replay", "worst_episodes"),
    "replay alone": lambda build: without(build(), "model", "classifier", "policy", "worst_episodes"),
    "no gap": lambda build: no_gap(build()),
    "nothing known": nothing_known,
    "no cause, no drift, no regions, a constant dimension": no_cause_no_drift_no_regions,
    "one dimension": lambda build: build(names=("speed",), action_names=("torque",)),
    "a hundred dimensions": lambda build: build(
        names=[f"the angular velocity {i} (rad/s)" for i in range(100)]
    ),
    "one episode": one_episode,
    "Unicode": lambda build: build(names=("Höhe (m)", "θ̇ (rad/s)", "速度 (m/s)", "\ud800 no text", " ")),
    "no error at all": lambda build: with_errors(build(), error=np.zeros((1500, 5)), gap=np.zeros(1500)),
}


@pytest.mark.parametrize("case", CASES)
def test_whatever_is_missing_the_rest_is_shown(build, opened, case):
    report = CASES[case](build)
    with opened(report, PHONE, "dark") as page:
        assert fits(page)
        text = page.inner_text("body")
        assert headline(report) in text
        assert all(reason in text for reason in report.missing.values())
        assert not re.search(r"\b(nan|None|null|undefined)\b", text)


def test_a_page_stays_small_whatever_the_rows_and_holds_plotly_once(build, tmp_path):
    write_html(build(rows=200_000), tmp_path / "1.html", COMMAND)
    content = (tmp_path / "1.html").read_text("utf-8")
    assert len(content.encode()) < 6e6
    assert content.count(get_plotlyjs()[:200]) == 1


def test_measuring_writes_the_page(build, tmp_path, monkeypatch):
    report = build(names=[f"o {i}" for i in range(17)], action_names=[f"a {i}" for i in range(6)])
    monkeypatch.setattr(measuring.measure, "measure_gap", lambda *_, **__: report)
    simtrust.measure_gap(report.dataset, "HalfCheetah-v5", out=tmp_path / "gap", quiet=True)
    assert "There is a dynamics gap." in (tmp_path / "gap" / "report.html").read_text("utf-8")


def test_a_page_that_cannot_be_drawn_costs_no_numbers(build, tmp_path, monkeypatch, capsys):
    report = build(names=[f"o {i}" for i in range(17)], action_names=[f"a {i}" for i in range(6)])
    monkeypatch.setattr(measuring.measure, "measure_gap", lambda *_, **__: report)
    (tmp_path / "gap" / "report.html").mkdir(parents=True)
    with pytest.raises(RunError, match=r"report\.html cannot be written: Is a directory"):
        simtrust.measure_gap(report.dataset, "HalfCheetah-v5", out=tmp_path / "gap", quiet=True)
    assert json.loads((tmp_path / "gap" / "gap.json").read_text())["verdict"]["gap_found"]
    assert "could not write report.html" in capsys.readouterr().err
