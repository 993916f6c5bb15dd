"""Logs whose columns or rewards mean something else are named so; wrong dynamics are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from simtrust.data import load_dataset
from simtrust.data.log_findings import NotChecked
from simtrust.gap.readings import Change
from simtrust.reports.log_report import check_data
from simtrust.reports.log_text import to_renderable

ROBOT = Path(__file__).parents[2] / "examples/my_robot"
COLUMNS = "observation=theta,theta_dot action=tau reward=r episode=ep terminated=fell time=t"
TITLES = {
    "Signs, units and order of columns",
    "Changes beside the simulator's",
    "Reward beside the simulator's",
    "Log far wider than the simulator",
}
DEGREES = np.float32(np.rad2deg(1))


@pytest.fixture(scope="module")
def pendulum():
    return load_dataset(ROBOT / "log.csv", columns=COLUMNS.split())


@pytest.fixture(autouse=True)
def robot_is_found(monkeypatch):
    monkeypatch.syspath_prepend(str(ROBOT))


def spoilt(dataset, *, observation=None, action=None, reward=None):
    """A copy whose columns are changed in place; observations and next observations alike."""
    rows = dataset.transitions._replace(**{key: x.copy() for key, x in dataset.transitions._asdict().items()})
    for values, change in (
        (rows.observation, observation),
        (rows.next_observation, observation),
        (rows.action, action),
        (rows.reward, reward),
    ):
        if change is not None:
            values[:] = change(values.copy())
    return replace(dataset, transitions=rows)


def scaled(factor, *columns):
    def change(values):
        values[:, columns] *= factor
        return values

    return change


def swapped(one, other):
    def change(values):
        values[:, [one, other]] = values[:, [other, one]]
        return values

    return change


def of_interest(report):
    return {title: finding for title, finding in report.findings if title in TITLES}


CASES = {
    "degrees": ({"observation": scaled(DEGREES, 0, 1)}, Change("degrees", "observation", (0, 1))),
    "one angle": ({"observation": scaled(DEGREES, 0)}, Change("degrees", "observation", (0,))),
    "one velocity": ({"observation": scaled(DEGREES, 1)}, Change("degrees", "observation", (1,))),
    "radians": ({"observation": scaled(1 / DEGREES, 0, 1)}, Change("radians", "observation", (0, 1))),
    "action": ({"action": scaled(-1, 0)}, Change("opposite", "action", (0,))),
    "angle": ({"observation": scaled(-1, 0)}, Change("opposite", "observation", (0,))),
    "velocity": ({"observation": scaled(-1, 1)}, Change("opposite", "observation", (1,))),
    "columns": ({"observation": swapped(0, 1)}, Change("swapped", "observation", (0, 1))),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_with_a_column_is_named(pendulum, case):
    how, change = CASES[case]
    report = check_data(spoilt(pendulum, **how), "pendulum:make")
    assert report.steps.changes == (change,)
    assert report.steps.reward_correlation > 0.99, "the true reward, once the columns are read as they are"
    found = of_interest(report)
    assert found["Signs, units and order of columns"].severity == "warning"
    assert "Reward beside the simulator's" not in found


def test_the_true_log_of_a_worn_machine_has_none_of_these(pendulum):
    report = check_data(pendulum, "pendulum:make")
    assert of_interest(report) == {}
    assert 0.2 < report.steps.error < 0.3 and report.steps.mended == report.steps.error
    assert report.steps.rows == 300
    # The motor lost a quarter of its torque.
    np.testing.assert_allclose(report.steps.slope[1], 0.75, atol=0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: -r, "opposite sign of the simulator's (correlation -1.00 over 300 rows)"),
        (lambda r: np.random.default_rng(0).normal(size=len(r)), "is another reward than the simulator's"),
        (lambda r: 0.1 * r + 5, None),
        (lambda r: 1 + 0 * r, None),
    ],
    ids=["opposite", "another", "scaled", "constant"],
)
def test_rewards(pendulum, change, words):
    report = check_data(spoilt(pendulum, reward=change), "pendulum:make")
    found = of_interest(report)
    assert set(found) == ({"Reward beside the simulator's"} if words else set())
    assert not words or words in found["Reward beside the simulator's"].found


def test_the_reward_is_judged_as_the_columns_should_be_read(pendulum):
    both = spoilt(pendulum, observation=scaled(DEGREES, 0), reward=lambda r: -r)
    found = of_interest(check_data(both, "pendulum:make"))
    assert "opposite sign" in found["Reward beside the simulator's"].found


@pytest.mark.parametrize(
    "shift",
    ["", "gravity=2", "friction=0.3", "joint-noise=1", "dead-zone=0.3", "delay=2"],
)
@pytest.mark.parametrize("name", ["HalfCheetah-v5", "StandingStill-v0", "Walker2d-v5"])
def test_dynamics_that_are_merely_wrong_are_none_of_these(record, tmp_path, name, shift):
    """Walker2d's observations are clipped, so that many of them do not determine the state."""
    machine = record(tmp_path / "log.hdf5", name, [shift] if shift else ())
    report = check_data(machine, name)
    assert of_interest(report) == {}
    assert report.steps.error < 1


@pytest.mark.parametrize(
    ("how", "changes"),
    [
        ({"action": scaled(-1, 2)}, {("opposite", "action", (2,))}),
        ({"action": scaled(-1, 2, 4)}, {("opposite", "action", (2,)), ("opposite", "action", (4,))}),
        ({"action": scaled(-1, *range(6))}, {("opposite", "action", tuple(range(6)))}),
        ({"action": swapped(0, 3)}, {("swapped", "action", (0, 3))}),
        ({"observation": swapped(2, 5)}, {("swapped", "observation", (2, 5))}),
        ({"observation": scaled(-1, 3)}, {("opposite", "observation", (3,))}),
    ],
)
def test_one_of_many_columns_is_named_beside_wrong_dynamics(record, tmp_path, how, changes):
    machine = record(tmp_path / "log.hdf5", "HalfCheetah-v5", ["gravity=2"])
    report = check_data(spoilt(machine, **how), "HalfCheetah-v5")
    assert set(report.steps.changes) == changes


def test_a_reading_that_fits_a_little_better_is_none(known_gaps):
    """The simulator moves 0.1 a + 0.1; reality 0.1 less a fifth of that, and noise as large as both."""
    generator = np.random.default_rng(0)
    here, action = generator.normal(size=(400, 1)), generator.uniform(-1, 1, (400, 1))
    following = here + 0.1 - 0.02 * action + 0.05 * generator.normal(size=(400, 1))
    report = check_data(known_gaps.dataset_of(here, action, following), "known_gaps:Line1")
    assert report.steps.changes == () and of_interest(report) == {}


def test_a_simulator_that_cannot_be_set_is_compared_by_ranges_alone(known_gaps):
    line = known_gaps.record_line(2, rows=60, lengths=(30, 30))
    report = check_data(line, "known_gaps:Unsettable2")
    assert isinstance(report.steps, NotChecked)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(to_renderable(report), soft_wrap=True)
    assert (
        "Logged steps in the simulator: none (the simulator has no method set_observation: only ranges were"
        " compared)"
    ) in capture.get()


def test_a_simulator_that_fails_everywhere_is_no_end(known_gaps):
    line = known_gaps.record_line(1, rows=60, lengths=(30, 30))
    far = spoilt(line, observation=lambda x: x + 1000)
    report = check_data(far, "known_gaps:Line1")
    assert isinstance(report.steps, NotChecked) and "from only 0 of 60 logged states" in report.steps.reason


def test_few_rows_are_not_compared(known_gaps):
    report = check_data(known_gaps.record_line(1, rows=20, lengths=(10, 10)), "known_gaps:Line1")
    assert isinstance(report.steps, NotChecked) and "30 rows" in report.steps.reason


def test_the_page_tells_it_too(pendulum, tmp_path):
    out = tmp_path / "page.html"
    check_data(spoilt(pendulum, action=scaled(-1, 0)), "pendulum:make", out=out)
    page = out.read_text()
    assert "Warning: Signs, units and order of columns" in page
    assert "action 0 &#x27;tau&#x27;: fits better with the opposite sign" in page
    assert "Logged steps in the simulator" in page


def test_degrees_show_in_the_ranges_of_a_simulator_that_cannot_be_set(pendulum, tmp_path, monkeypatch):
    module = "import pendulum\nclass Blind(pendulum.Pendulum):\n    set_observation = None\n"
    (tmp_path / "blind.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert of_interest(check_data(pendulum, "blind:Blind")) == {}
    found = of_interest(check_data(spoilt(pendulum, observation=scaled(DEGREES, 0, 1)), "blind:Blind"))
    assert set(found) == {"Log far wider than the simulator"}
    assert "degrees for radians?" in found["Log far wider than the simulator"].places[0].detail
