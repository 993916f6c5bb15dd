"""A report on a log: from a file to a verdict, in words and as a page in a browser."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from rich.console import Console

from simtrust.commands.check_data import check_data as command
from simtrust.data import Dataset, save_dataset
from simtrust.data.dataset import columns_from_rows
from simtrust.data.log_findings import NO_REWARDS
from simtrust.errors import ConfigError, DataError
from simtrust.gap.support import measure_support
from simtrust.reports.log_report import check_data, write_page
from simtrust.reports.log_text import headline, to_renderable
from simtrust.types import Transitions

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>window.pwned=1</script>",
    "%{x} [bold]{{plotly}}",
    "@ink",
)


def log_of(*, jump=None, beyond=None, names=None, timed=False, scale=1.0, source="log.hdf5"):
    """1,500 rows as wide as the balancing robot's: 4 observations, 1 action, in 3 episodes."""
    generator = np.random.default_rng(0)
    shape = (3, 501, 4)
    state = scale * 0.01 * np.cumsum(generator.normal(size=shape), axis=1)
    if jump is not None:
        state[1, 200, 1] += jump
    action = generator.uniform(-1, 1, (1500, 1)).astype(np.float32)
    if beyond is not None:
        action[700] = beyond
    first, following = (part.reshape(1500, 4).astype(np.float32) for part in (state[:, :-1], state[:, 1:]))
    rows = Transitions(
        first, action, generator.normal(size=1500).astype(np.float32), following, np.zeros(1500, np.float32)
    )
    end = np.arange(1, 1501) % 500 == 0
    more = {"observation_names": names, "time": np.arange(1500) / 200 if timed else None}
    return Dataset(rows, end, source, "0123456789abcdef" * 4, **more)


def spoken(report):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(to_renderable(report), soft_wrap=True)
    return capture.get()


def test_a_sound_log():
    report = check_data(log_of())
    assert report.ok and report.findings == []
    assert headline(report) == "Nothing speaks against training on this log"
    text = spoken(report)
    assert "Rows: 1,500 (observations 4 wide, actions 1)" in text
    assert "Episodes: 3 (0 terminated, 3 cut" in text


def test_beside_a_simulator_names_bounds_and_support_are_its_own():
    report = check_data(log_of(scale=3, beyond=100.0), "StandingStill-v0")
    assert not report.ok
    title, finding = report.findings[0]
    assert (title, finding.severity) == ("Actions outside the simulator's bounds", "error")
    assert finding.places[0][1:] == (700, 4)
    assert report.log.columns[0].name == "tilt" and report.log.columns[0].unit == "rad"
    assert report.support is not None and report.support.rows == 2000
    assert "do not train" in spoken(report)


def test_a_log_of_another_machine_is_refused_with_both_names():
    with pytest.raises(DataError, match=r"log\.hdf5.* 4 wide where simulator 'Hopper-v5' has 11"):
        check_data(log_of(), "Hopper-v5")


def test_a_log_in_other_units_is_in_another_place():
    far = log_of()
    rows = far.transitions._replace(observation=far.transitions.observation + np.float32([500, 0, 0, 0]))
    report = check_data(replace(far, transitions=rows), "StandingStill-v0")
    (finding,) = [f for title, f in report.findings if title == "Log and simulator in different places"]
    assert [place.column for place in finding.places] == [0]


def test_support_counts_rows_within_ranges():
    dataset = log_of()
    observation = dataset.transitions.observation
    low, high = observation.min(0), observation.max(0)
    inside, outside = (low + high) / 2, high + 1
    rolled = np.stack([inside] * 300 + [outside] * 300 + [inside] * 150 + [outside] * 150)
    nothing = np.zeros(900, np.float32)
    rows = Transitions(rolled, np.zeros((900, 1)), nothing, rolled, nothing)
    space = gymnasium.spaces.Box(np.append(inside[0], low[1:]), high, dtype=np.float32)
    support = measure_support(dataset, rows, space)
    np.testing.assert_array_equal(support.simulated_inside, np.outer([1, 0, 0.5], np.ones(4)))
    within = (observation >= inside) & (observation <= outside)
    np.testing.assert_allclose(support.log_inside, within.mean(0), atol=0.002)
    np.testing.assert_allclose(support.log_within_bounds, [within[:, 0].mean(), 1, 1, 1], atol=0.002)


@pytest.mark.parametrize("out", ["page.txt", "nowhere/page.html", "."])
def test_a_page_that_cannot_be_written_is_refused_before_any_work(tmp_path, out):
    with pytest.raises(ConfigError, match="--out"):
        check_data("no such log.hdf5", out=tmp_path / out)


def test_options_that_cannot_be():
    with pytest.raises(ConfigError, match="--sim"):
        check_data(log_of(), shifts=["gravity=2"])
    with pytest.raises(ConfigError, match="--seed"):
        check_data(log_of(), seed=-1)


def test_the_command_tells_by_its_status(tmp_path, capsys):
    file = save_dataset(tmp_path / "log.hdf5", log_of())
    command(str(file), out=str(tmp_path / "page.html"))
    assert "Nothing speaks against" in capsys.readouterr().out
    assert (tmp_path / "page.html").stat().st_size > 1e6
    still = log_of()
    still = replace(still, transitions=still.transitions._replace(reward=np.ones(1500, np.float32)))
    bad = save_dataset(tmp_path / "bad.hdf5", still)
    with pytest.raises(SystemExit) as stopped:
        command(str(bad))
    assert stopped.value.code == 1
    assert "error: Constant reward" in capsys.readouterr().out


def test_a_log_without_rewards_is_looked_over(tmp_path):
    dataset = log_of()
    arrays = {key: values for key, values in columns_from_rows(dataset).items() if key != "rewards"}
    report = check_data(
        save_dataset(tmp_path / "log.hdf5", arrays), "StandingStill-v0", out=tmp_path / "page.html"
    )
    errors = [title for title, finding in report.findings if finding.severity == "error"]
    assert errors == ["No rewards"] and not report.ok
    skipped = {check.title for check, outcome in report.outcomes if outcome == NO_REWARDS}
    assert skipped >= {"Constant reward", "Reward at terminals", "Reward scale"}
    text = spoken(report)
    assert "simtrust gap needs none" in text and "return" not in text and "nan" not in text
    page = (tmp_path / "page.html").read_text()
    assert "Mean return" not in page and "return of the episode" not in page


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desk", "phone"])
def test_the_page_shows_all_and_nobodys_text_does_anything(open_page, tmp_path, size):
    dataset = log_of(jump=50.0, names=HOSTILE, timed=True, source=HOSTILE[0])
    report = check_data(dataset, "StandingStill-v0")
    odd = replace(report, simulator=HOSTILE[1], command=HOSTILE[2])
    path = tmp_path / "page.html"
    write_page(odd, path)
    assert path.stat().st_size < 8e6
    with open_page(path, size) as page:
        assert page.locator("main h2").all_inner_texts() == [
            "Dimensions",
            "Actions",
            "Worst places",
            "Episodes",
            "Sampling time",
            "Log and simulator",
            "What was checked",
            "How it was made",
        ]
        text = page.inner_text("body")
        assert "sudden jumps in 1 columns" in text and "episode 1, row 699, observation 1" in text
        assert all(part in text for part in HOSTILE)
        marked = page.evaluate("document.getElementById('chart-places-chart').data[1].x")
        assert marked == [699, 700]
        assert page.evaluate("window.pwned") is None
        assert page.locator("body img, body b").count() == 0
