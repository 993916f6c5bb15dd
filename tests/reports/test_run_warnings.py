"""Each check of a run's metrics: what it must warn of, and what it must leave alone."""

import re

import numpy as np
import pytest

from simtrust.reports import run_warnings as checks
from simtrust.reports.run_evidence import Concern, Evidence, NotChecked
from simtrust.reports.run_record import Curves, FinalReturns
from simtrust.reports.run_warnings import CHECKS

ROUNDS = 100


def evidence(
    *,
    returns=None,
    spread=0.0,
    episodes=10,
    bound: float | None = 1000.0,
    target=-6.0,
    rounds=ROUNDS,
    **metrics,
):
    """Metrics over 100 rounds of 1,000 steps: a number, ``[T]``, or ``[T, R]``; NaN where unknown."""
    steps = 1000 * np.arange(1, rounds + 1)
    values = {}
    for name, value in metrics.items():
        array = np.asarray(value, float)
        array = array[:, None] if array.ndim == 1 else array
        values[name] = np.array(np.broadcast_to(array, (rounds, 1 if array.ndim < 2 else array.shape[1])))
    runs = max((array.shape[1] for array in values.values()), default=1)
    values = {name: np.broadcast_to(array, (rounds, runs)) for name, array in values.items()}
    final = None
    if returns is not None:
        mean = np.asarray(returns, float)
        seeds = tuple(range(len(mean)))
        final = FinalReturns(int(steps[-1]), seeds, mean, np.full(len(mean), spread), episodes)
    return Evidence(Curves(steps, tuple(range(runs)), values), final, bound, target)


def ramp(start, end, at=0.0):
    """From ``start`` to ``end``, rising from this share of the rounds on."""
    share = np.arange(1, ROUNDS + 1) / ROUNDS
    return start + (end - start) * np.clip((share - at) / (1 - at), 0, 1)


def evaluated(values):
    """An evaluation at every tenth round."""
    column = np.full(ROUNDS, np.nan)
    column[9::10] = values
    return column


WARNS = [
    ("q beyond", checks.q_beyond_bound, evidence(q_real=100.0, q_sim=3001.0), "3,000"),
    ("q beyond, below zero", checks.q_beyond_bound, evidence(q_real=-3001.0), "3,000"),
    ("q beyond, one seed of two", checks.q_beyond_bound, evidence(q_sim=[[10.0, 4000.0]]), "4,000"),
    ("q grows", checks.q_growing, evidence(q_real=ramp(600, 1300, at=0.7)), "fold"),
    ("q grows, bound unknown", checks.q_growing, evidence(q_real=ramp(6, 13, at=0.7), bound=None), "fold"),
    (
        "accuracy",
        checks.classifier_saturated,
        evidence(classifier_accuracy_sas_real=0.995, classifier_accuracy_sas_sim=0.987),
        "99.1%",
    ),
    ("log-ratio", checks.classifier_saturated, evidence(log_ratio=-3.85), "3.85"),
    ("w collapsed", checks.weight_collapsed, evidence(weight=ramp(0.4, 0.0)), "0.02"),
    ("w full", checks.weight_full, evidence(weight=0.995), "0.995"),
    ("temperature", checks.temperature_at_floor, evidence(temperature=9e-4, entropy=-5.0), "0.0009"),
    ("entropy", checks.temperature_at_floor, evidence(temperature=5.0, entropy=-9.1), "−9.1"),
    (
        "falling",
        checks.return_falling,
        evidence(return_mean=evaluated([0, 20, 40, 60, 80, 100, 100, 100, 60, 40])),
        "from 100 around step 70,000 to 66.7",
    ),
    ("behind", checks.real_behind_simulated, evidence(returns=[70.0], simulator_return=100.0), "70"),
    ("few episodes", checks.few_episodes, evidence(returns=[100.0], episodes=4), "4 episodes"),
    ("wide episodes", checks.few_episodes, evidence(returns=[100.0], spread=33.0, episodes=10), "±11%"),
    ("seeds", checks.seeds_disagree, evidence(returns=[60.0, 140.0]), "between 60 and 140"),
    ("seeds around zero", checks.seeds_disagree, evidence(returns=[-285.0, 475.0]), "−285"),
    ("q on sim", checks.q_sim_above_real, evidence(q_real=100.0, q_sim=126.0), "126"),
    ("q on sim, below zero", checks.q_sim_above_real, evidence(q_real=-100.0, q_sim=-70.0), "−70"),
]
FINE = [
    ("q below the bound", checks.q_beyond_bound, evidence(q_real=2999.0, q_sim=-2999.0)),
    ("q was large before", checks.q_beyond_bound, evidence(q_real=ramp(9000, 0))),
    ("q settled", checks.q_growing, evidence(q_real=np.minimum(ramp(0, 2000), 800))),
    ("q grows, but is small", checks.q_growing, evidence(q_real=ramp(100, 400, at=0.7))),
    (
        "accuracy",
        checks.classifier_saturated,
        evidence(classifier_accuracy_sas_real=0.985, classifier_accuracy_sas_sim=0.99, log_ratio=3.7),
    ),
    ("w low", checks.weight_collapsed, evidence(weight=0.051)),
    ("w full at last", checks.weight_full, evidence(weight=ramp(0.5, 1))),
    ("temperature", checks.temperature_at_floor, evidence(temperature=2e-3, entropy=-8.9)),
    (
        "noise",
        checks.return_falling,
        evidence(return_mean=evaluated([0, 20, 40, 60, 80, 100, 90, 105, 95, 92])),
    ),
    ("constant", checks.return_falling, evidence(return_mean=evaluated([5.0] * 10))),
    ("below zero, rising", checks.return_falling, evidence(return_mean=evaluated(np.arange(-10, 0)))),
    ("behind a little", checks.real_behind_simulated, evidence(returns=[76.0], simulator_return=100.0)),
    ("ahead, below zero", checks.real_behind_simulated, evidence(returns=[-76.0], simulator_return=-100.0)),
    ("episodes", checks.few_episodes, evidence(returns=[100.0], spread=29.0, episodes=10)),
    ("seeds", checks.seeds_disagree, evidence(returns=[80.0, 120.0, np.nan])),
    ("q on sim", checks.q_sim_above_real, evidence(q_real=100.0, q_sim=124.0)),
    ("q on sim below", checks.q_sim_above_real, evidence(q_real=100.0, q_sim=-500.0)),
]


@pytest.mark.parametrize(("check", "given", "said"), [case[1:] for case in WARNS], ids=[c[0] for c in WARNS])
def test_a_check_warns_with_the_number(check, given, said):
    outcome = check(given)
    assert isinstance(outcome, Concern)
    assert said in outcome.found


@pytest.mark.parametrize(("check", "given"), [case[1:] for case in FINE], ids=[case[0] for case in FINE])
def test_a_check_leaves_a_healthy_run_alone(check, given):
    assert check(given) is None


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.title)
def test_a_run_without_the_metric_is_not_checked(check):
    empty = Evidence(Curves(np.zeros(0, int), (), {}), None, None, -1.0)
    assert isinstance(check.find(empty), NotChecked)


def test_every_check_is_made():
    tried = {case[1] for case in WARNS}
    assert tried == {case[1] for case in FINE} == {check.find for check in CHECKS}


def test_where_there_was_no_reality_none_is_compared_with():
    given = evidence(returns=[70.0], simulator_return=100.0)
    unknown = given._replace(reality_unknown="judged in the simulator itself")
    assert isinstance(checks.real_behind_simulated(given), Concern)
    assert checks.real_behind_simulated(unknown) == NotChecked("judged in the simulator itself")


def test_no_remedy_is_to_train_what_was_trained():
    # It has no classifiers.
    cases = [case[1:3] for case in WARNS if case[1] is not checks.classifier_saturated]
    found = {}
    for recipe in ("trust", "h2o"):
        remedies = [check(given._replace(recipe=recipe)).remedy for check, given in cases]
        found[recipe] = sum(bool(re.search(r"such as trust|recipes? trust\b", said)) for said in remedies)
    assert found["trust"] == 0 < found["h2o"]


def test_the_bound_is_not_guessed():
    outcome = checks.q_beyond_bound(evidence(q_real=1e9, bound=None)._replace(bound_unknown="no log"))
    assert outcome == NotChecked("no log")


def test_one_seed_does_not_disagree_and_few_evaluations_do_not_fall():
    assert isinstance(checks.seeds_disagree(evidence(returns=[1.0])), NotChecked)
    column = np.full(ROUNDS, np.nan)
    column[[10, 50, 99]] = [1.0, 100.0, 0.0]
    assert isinstance(checks.return_falling(evidence(return_mean=column)), NotChecked)
