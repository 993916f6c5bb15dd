"""Which policies of a training make a level's log, on scores that are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtrust.errors import RunError
from simtrust.generation.levels import (
    EXPERT_AMONG,
    MEDIUM_SHARE,
    Score,
    choose_expert,
    choose_medium,
    rows_of_parts,
)

RETURNS = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20)


def scored(*means):
    return [Score(1_000 * (index + 1), mean, 0.0) for index, mean in enumerate(means)]


def test_the_expert_is_the_best_of_the_last_five():
    assert choose_expert(scored(900, 100, 200, 500, 300, 400)).step == 4_000
    assert choose_expert(scored(100, 900, 200, 300, 300, 400)).step == 2_000
    assert choose_expert(scored(-5.0)).step == 1_000


def test_of_equals_the_expert_is_the_later():
    assert choose_expert(scored(7, 7, 5)).step == 2_000


def test_medium_is_the_first_that_reaches_a_third_and_need_not_stay_there():
    scores = scored(-300, 0, 299, 300, 100, 900)
    assert choose_medium(scores, scores[-1]) == scores[3]
    assert choose_medium(scored(1, 2), Score(2_000, 2, 0.0)).step == 1_000


def test_the_expert_may_be_the_only_medium_one():
    scores = scored(1, 2, 900)
    assert choose_medium(scores, choose_expert(scores)) == scores[-1]


@pytest.mark.parametrize("mean", [0.0, -280.0])
def test_an_expert_that_earns_nothing_has_no_third(mean):
    scores = scored(-500, mean)
    with pytest.raises(RunError, match=f"return is {mean:,.1f} at step 2,000.*--steps"):
        choose_medium(scores, scores[-1])


@given(RETURNS)
def test_choices_are_what_they_are_said_to_be(means):
    scores = scored(*means)
    expert = choose_expert(scores)
    assert expert in scores[-EXPERT_AMONG:]
    assert expert.mean == max(means[-EXPERT_AMONG:])
    if expert.mean > 0:
        medium = choose_medium(scores, expert)
        before = [score for score in scores if score.step < medium.step]
        assert medium.mean >= MEDIUM_SHARE * expert.mean > max([s.mean for s in before], default=-1e9)


def test_parts_are_equal():
    assert rows_of_parts("medium-expert", 1_000) == {"medium": 500, "expert": 500}
    assert rows_of_parts("random", 7) == {"random": 7}
    assert rows_of_parts("medium-replay", 0) == {}
