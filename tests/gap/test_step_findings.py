"""What is told of logged steps, threshold by threshold."""

import numpy as np
import pytest

from simtrust.data.log_findings import Column, Log
from simtrust.gap.logged_steps import LoggedSteps
from simtrust.gap.readings import Change
from simtrust.gap.step_findings import changes_otherwise, columns_otherwise, reward_otherwise


@pytest.fixture
def log(known_gaps):
    rows = np.zeros((4, 3))
    columns = [Column("observation", i, f"s{i}", "", 0.0, 0.5, 1.0, 0.3, 4) for i in range(3)]
    columns.append(Column("action", 0, "torque", "", 0.0, 0.5, 1.0, 0.3, 4))
    return Log(known_gaps.dataset_of(rows, np.zeros((4, 1)), rows), tuple(columns))


def steps(*changes, correlation=(1.0, 1.0, 1.0), slope=(1.0, 1.0, 1.0), reward=1.0, mended=0.1):
    error = 0.4 if changes else mended
    return LoggedSteps(
        300, error, mended, changes, np.full(3, error), np.array(correlation), np.array(slope), reward
    )


def test_nothing_is_told_of_steps_that_fit(log):
    assert columns_otherwise(log, steps()) is None
    assert changes_otherwise(log, steps(correlation=(1, np.nan, -0.49), slope=(0.7, np.nan, -1))) is None
    assert reward_otherwise(log, steps(reward=0.21)) is None
    assert reward_otherwise(log, steps(reward=np.nan)) is None


def test_each_mistake_names_its_columns(log):
    mistakes = (
        Change("opposite", "action", (0,)),
        Change("swapped", "observation", (0, 2)),
        Change("degrees", "observation", (1,)),
    )
    found = columns_otherwise(log, steps(*mistakes))
    assert found.found == (
        "The log fits the simulator 4 times better if a sign is turned and two columns are swapped and"
        " degrees are read as such"
    )
    assert [(place.column, place.detail) for place in found.places] == [
        (3, "fits better with the opposite sign: check the sign of the column"),
        (0, "fits better in the place of s2: check the order of columns"),
        (1, "fits better divided by 57.3: degrees for radians?"),
    ]
    assert "falls from 0.4 to 0.1" in found.meaning


def test_changes_that_no_reading_explains(log):
    odd = {"correlation": (-0.6, 0.95, 0.85), "slope": (-1.0, 50.0, 57.3)}
    found = changes_otherwise(log, steps(**odd))
    assert [place.column for place in found.places] == [0, 1]
    assert "has the opposite sign (correlation -0.60)" in found.places[0].detail
    assert found.places[1].detail == "changes 50 times as fast: degrees for radians?"
    other = changes_otherwise(log, steps(correlation=(0.95, 1, 1), slope=(1 / 57.3, 1, 20.0)))
    assert [place.detail for place in other.places] == ["changes 0.0175 times as fast: radians for degrees?"]
    assert changes_otherwise(log, steps(Change("opposite", "action", (0,)), **odd)) is None


@pytest.mark.parametrize(
    ("reward", "words"), [(-0.51, "opposite sign"), (0.19, "is another reward"), (-0.19, "is another reward")]
)
def test_rewards_that_disagree(log, reward, words):
    assert words in reward_otherwise(log, steps(reward=reward)).found


def test_where_nothing_fits_another_reward_is_not_to_be_wondered_at(log):
    assert reward_otherwise(log, steps(reward=0.0, mended=1.5)) is None
    assert reward_otherwise(log, steps(reward=-0.9, mended=1.5)) is not None
