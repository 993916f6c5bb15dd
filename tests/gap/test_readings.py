"""Other readings of a log: each undoes one mistake, and forth and back is where one was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtrust.gap.readings import DEGREES, Change, Entries, Reading, candidates

ROWS = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


@pytest.mark.parametrize(
    ("mistake", "entries", "first"),
    [
        ("opposite", (1,), [1, -2, 3]),
        ("opposite", (0, 2), [-1, 2, -3]),
        ("swapped", (0, 2), [3, 2, 1]),
        ("degrees", (1,), [1, np.deg2rad(2), 3]),
        ("radians", (0,), [np.rad2deg(1), 2, 3]),
    ],
)
def test_one_mistake_is_undone(mistake, entries, first):
    found = Entries.same(3).changed(mistake, entries)
    np.testing.assert_allclose(found.to_simulator(ROWS)[0], first)


MISTAKES = st.one_of(
    st.tuples(st.sampled_from(["opposite", "degrees", "radians"]), st.tuples(st.integers(0, 2))),
    st.tuples(st.just("swapped"), st.sampled_from([(0, 1), (0, 2), (1, 2)])),
)


@given(st.lists(MISTAKES, max_size=4))
def test_forth_and_back(mistakes):
    entries = Entries.same(3)
    for mistake in mistakes:
        entries = entries.changed(*mistake)
    np.testing.assert_allclose(entries.to_log(entries.to_simulator(ROWS)), ROWS)


def test_a_sign_is_the_columns_own_wherever_it_is_moved():
    entries = Entries.same(3).changed("opposite", (0,)).changed("swapped", (0, 2))
    np.testing.assert_array_equal(entries.to_simulator(ROWS)[0], [3, 2, -1])


def test_a_reading_remembers_what_was_changed():
    change = Change("opposite", "action", (0,))
    reading = Reading.as_logged(3, 1).changed(change)
    assert reading.changes == (change,)
    assert reading.action.factor.tolist() == [-1] and reading.observation.factor.tolist() == [1, 1, 1]


def test_only_what_may_be_wrong_is_tried():
    alike = np.zeros((4, 4))
    alike[1, 3] = alike[3, 1] = 1
    poor, widths = np.array([True, True, False, True]), np.array([DEGREES, 60, 1, np.nan])
    tried = list(candidates(poor, alike, widths, 2, wider=8))
    assert tried[:4] == [
        Change("opposite", "action", (0,)),
        Change("opposite", "action", (1,)),
        Change("opposite", "action", (0, 1)),
        Change("swapped", "action", (0, 1)),
    ]
    assert [change.entries for change in tried[4:7]] == [(0,), (1,), (3,)]
    assert [change.entries for change in tried[7:10]] == [(1, 3), (0, 1), (0, 3)]  # the likeliest first
    assert tried[10:] == [
        Change("degrees", "observation", (0, 1)),
        Change("degrees", "observation", (0,)),
        Change("degrees", "observation", (1,)),
    ]
    narrow = list(candidates(~poor & poor, alike, 1 / widths, 1, wider=8))
    assert [change.mistake for change in narrow] == ["opposite", *["radians"] * 3]
