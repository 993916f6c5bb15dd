"""Which rows judge: whole groups, evenly spread, never too many."""

import numpy as np
import pytest

from simtrust.data.held_out import ROWS_MAX, hold_out, spread_groups
from simtrust.errors import DataError

EPISODE = 50


def ends(rows: int, every: int = EPISODE) -> np.ndarray:
    return np.arange(rows) % every == every - 1


def all_known(rows: int) -> np.ndarray:
    return np.zeros(rows, bool)


def test_whole_episodes_are_held_out_all_over_the_log():
    episodes = hold_out(ends(6_000), all_known(6_000), 0.1).reshape(-1, EPISODE)
    assert (episodes.all(1) | ~episodes.any(1)).all()
    chosen = np.flatnonzero(episodes.all(1))
    assert len(chosen) == 12
    assert chosen[0] < 15
    assert chosen[-1] > 105
    assert np.diff(chosen).min() >= 8


@pytest.mark.parametrize("last", [[599], [589, 599]], ids=["one episode", "one that is nearly everything"])
def test_without_enough_episodes_blocks_of_rows_are_held_out(last):
    held_out = hold_out(np.isin(np.arange(600), last), all_known(600), 0.1)
    assert held_out.sum() == 60
    assert (np.diff(held_out.astype(int)) == 1).sum() == 5


def test_of_two_episodes_the_first_is_held_out():
    np.testing.assert_array_equal(hold_out(ends(40, 20), all_known(40), 0.1), np.arange(40) < 20)


@pytest.mark.parametrize(("rows", "every"), [(200_000, 50), (300_000, 300_000)], ids=["episodes", "blocks"])
def test_a_long_log_gives_no_more_rows_than_it_takes_to_judge(rows, every):
    held_out = hold_out(ends(rows, every), all_known(rows), 0.1)
    assert 0.5 * ROWS_MAX < held_out.sum() <= ROWS_MAX * 1.25
    assert np.flatnonzero(held_out).max() > rows / 2


def test_rows_of_unknown_next_state_never_judge():
    unknown = ends(600)
    held_out = hold_out(ends(600), unknown, 0.1)
    assert not (held_out & unknown).any()
    assert held_out.sum() == EPISODE - 1


def test_blocks_count_only_rows_that_are_known():
    """Half of one long episode is unknown; of the rest, five blocks of a fiftieth are held out."""
    unknown = np.arange(1_000) < 500
    held_out = hold_out(ends(1_000, 1_000), unknown, 0.1)
    assert not (held_out & unknown).any()
    assert held_out.sum() == 50
    np.testing.assert_array_equal(held_out[500:], hold_out(ends(500, 500), all_known(500), 0.1))


def test_ten_known_rows_are_just_enough():
    for rows in (10, 11):
        unknown = np.arange(rows) >= 10
        assert hold_out(ends(rows, rows), unknown, 0.1).sum() == 1
    with pytest.raises(DataError, match=r"^9 rows have a known next state.*Remedy"):
        hold_out(ends(600), np.arange(600) >= 9, 0.1)


@pytest.mark.parametrize(
    ("wanted", "chosen"), [(1, [4]), (2, [3, 6]), (4, [1, 3, 5, 7]), (8, [1, 2, 3, 4, 5, 6, 7, 8])]
)
def test_groups_are_spread_evenly(wanted, chosen):
    """Ten groups; group g has g + 1 rows."""
    group = np.repeat(np.arange(10), np.arange(1, 11))
    np.testing.assert_array_equal(spread_groups(group, wanted), np.isin(group, chosen))


def test_of_no_groups_no_row_is_chosen():
    assert not spread_groups(np.repeat(np.arange(10), 2), 0).any()
