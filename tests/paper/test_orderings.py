"""Orderings: the paper's, told as clearly as its runs tell them, and ours told in the same way."""

import numpy as np
import pytest

from simtrust.paper.comparison import Sample, Verdict, counts, differ
from simtrust.paper.orderings import is_clear, judge, judgements, orderings
from simtrust.paper.published import Published
from simtrust.paper.scores import Score
from simtrust.paper.studies import STUDIES, Setting

SETTING = Setting("halfcheetah", "medium-replay", "gravity")


def score(recipe, returns, step=1_000, setting=SETTING):
    returns = np.array(returns, float)
    curve = (np.array([step]), returns[None])
    return Score(setting.cell(recipe), returns, 1, step, 1_000, curve)


def scored(*scores):
    return {one.cell: one for one in scores}


def ordering(better, worse):
    (found,) = (o for o in orderings(STUDIES["table2"]) if (o.better, o.worse) == (better, worse))
    return found


def test_the_papers_orderings_go_by_its_means_and_say_how_clear_they_are():
    found = orderings(STUDIES["table2"])
    assert len(found) == 8 * 7 // 2
    assert ordering("h2o", "h2o_dr").clear
    assert ordering("h2o", "h2o_dr").claim == "6,813 ± 289 against 4,721 ± 196"
    assert not ordering("h2o", "h2o_a").clear
    # "Outperforms" in the paper's words, by 569 ± 406.
    assert ordering("h2o_reg_dr", "h2o_dr").clear
    for one in found:
        better, worse = (SETTING.cell(recipe).published for recipe in (one.better, one.worse))
        assert better is not None
        assert worse is not None
        assert better.mean > worse.mean


def test_figure_6_claims_that_h2o_is_ahead_above_50k_rows():
    found = orderings(STUDIES["figure6"])
    assert [one.setting.thousands for one in found] == [60, 70, 80, 90, 100]
    assert {(one.better, one.worse, one.clear) for one in found} == {("h2o", "cql", None)}


def test_the_papers_orderings_are_clear_if_they_are_whatever_its_deviations_divide_by():
    """Of 5,774 ± 214 against 5,290 ± 356 they are if by R − 1, and are not if by R."""
    by_runs = [Sample(mean, std * np.sqrt(5 / 4), 5) for mean, std in ((5_774, 214), (5_290, 356))]
    assert differ(Sample(5_774, 214, 5), Sample(5_290, 356, 5))
    assert not differ(*by_runs)
    assert not ordering("cql", "h2o_reg_dr").clear
    assert not is_clear(Published(5_774, 214, 5), Published(5_290, 356, 5))
    assert is_clear(Published(5_974, 214, 5), Published(5_290, 356, 5))


@pytest.mark.parametrize(
    ("h2o", "dr", "verdict"),
    [
        ([5.0, 5.1, 5.2], [1.0, 1.1, 1.2], Verdict.HOLDS),
        ([1.0, 1.1, 1.2], [5.0, 5.1, 5.2], Verdict.FAILS),
        ([5.0, 1.0, 3.0], [1.0, 4.0, 2.0], Verdict.UNTOLD),
        ([5.0], [1.0, 1.1, 1.2], Verdict.UNTOLD),
        ([5.0, 5.1, np.nan], [1.0, 1.1, 1.2], Verdict.HOLDS),
    ],
)
def test_ours_are_told_apart_or_not(h2o, dr, verdict):
    found = judge(ordering("h2o", "h2o_dr"), scored(score("h2o", h2o), score("h2o_dr", dr)))
    assert found.verdict == verdict
    assert found.difference == pytest.approx(np.nanmean(h2o) - np.nanmean(dr))


def test_runs_after_different_numbers_of_updates_are_not_compared():
    found = judge(
        ordering("h2o", "h2o_dr"), scored(score("h2o", [5, 5.1]), score("h2o_dr", [1, 1.1], step=500))
    )
    assert found.verdict == Verdict.NOT_COMPARED
    assert found.note == "after 1,000 and 500 updates"


def test_what_was_not_run_is_not_judged():
    found = judgements(STUDIES["table2"], scored(score("h2o", [5.0, 5.1]), score("cql", [1.0, 1.1])))
    assert counts(one.verdict for one in found) == {Verdict.HOLDS: 1, Verdict.MISSING: 27}
