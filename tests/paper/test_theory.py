"""The paper's theory: what is proved holds in every problem, what is printed does not, and by hand."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simtrust.errors import ConfigError
from simtrust.paper.tabular import (
    Pair,
    bellman_update,
    learned_values,
    occupancy,
    reachable,
    threshold,
)
from simtrust.paper.theory import bounds
from simtrust.paper.theory.check import theory
from simtrust.paper.theory.claims import PRINTED, PROVED, THEOREM_1, Count, Tally, tallies
from simtrust.paper.theory.counterexample import (
    Counterexample,
    _problems,
    smallest_counterexample,
    written_out,
)
from simtrust.paper.theory.measures import bias_by_weight, slack_by_discount
from simtrust.paper.theory.operators import jensen_slack
from simtrust.paper.theory.problems import draw_problem
from simtrust.training.storage import StorageError

NUMBERS = st.integers(0, 10**6)
SOME = settings(max_examples=30)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Four hundred problems, and the folder."""
    folder = tmp_path_factory.mktemp("theory") / "new" / "folder"
    return theory(folder, problems=400, quiet=True), folder


# What holds ---------------------------------------------------------------------------------------------


def test_everything_proved_holds_and_is_met(found):
    result, _ = found
    assert not result.broken
    for tally in result.proved:
        assert tally.total.cases >= 30, tally.claim.name


def test_what_is_printed_does_not(found):
    result, _ = found
    for tally in result.printed:
        assert tally.total.failures >= 10, tally.claim.name
    assert 0.1 < result.theorem_1.total.share < 0.3


def test_bounds_hold_in_thousands_more():
    checks = (
        bounds.theorem_1_reached,
        bounds.positive_reached,
        bounds.theorem_1_local,
        bounds.largest_optimism,
        bounds.theorem_2_reached,
    )
    counts = {check.__name__: Count() for check in checks}
    for index in range(2000):
        problem = draw_problem(1, index)
        for check in checks:
            counts[check.__name__].add(*check(problem, np.random.default_rng(0)))
    assert {name: count.failures for name, count in counts.items()} == dict.fromkeys(counts, 0)
    assert min(count.cases for count in counts.values()) > 200


@SOME
@given(NUMBERS)
def test_optimism_comes_only_from_states_that_are_met_later(number):
    """Theorem 1's last step, as it can be had: by iterating Eq. 11 from 0, and looking at what is reached."""
    pair = draw_problem(7, number).pair
    q = np.zeros(pair.reward.shape)
    if pair.discount > 0.9:
        return
    for _ in range(300):
        q = bellman_update(pair, q, 0.5)
    learned = (pair.policy * q).sum(1)
    np.testing.assert_allclose(learned, learned_values(pair, 0.5), rtol=1e-9, atol=1e-9)
    reached = reachable(pair.chain)
    for s in range(len(q)):
        if learned[s] > pair.values[s] + 1e-9:
            assert (pair.delta[reached[s]] < 0).any()
            assert not bounds.high_gap(pair)[reached[s]].all()


@SOME
@given(NUMBERS, st.floats(0, 1))
def test_bounds_hold_whatever_omega_is(number, mixed):
    """They use nothing of ω but that it is a distribution."""
    problem = draw_problem(8, number)
    rng = np.random.default_rng(number)
    other = rng.dirichlet(np.full(problem.pair.reward.size, 0.1)).reshape(problem.pair.reward.shape)
    share = mixed * problem.pair.omega + (1 - mixed) * other
    changed = problem._replace(pair=Pair(**{**vars_of(problem.pair), "share": share / share.sum()}))
    for tally in (Tally(claim) for claim in PROVED):
        tally.add(0, changed, number)
        assert not tally.total.failures, tally.claim.name


def vars_of(pair):
    names = ("real", "sim", "reward", "policy", "behaviour", "start", "discount")
    return {name: getattr(pair, name) for name in names}


def test_the_local_condition_is_the_printed_one_and_more():
    """γ/(1 − γ) times what Δ's bound is divided by; with γ = ½, once."""
    pair = smallest_counterexample().pair()
    assert bounds.high_gap(pair).tolist() == [True, False]
    assert not bounds.local_high_gap(pair).any()
    # ω − d_D = 1/3 in state 1, where d_D + d_M̂ = 17/12.
    assert pair.omega[0, 0] - threshold(pair)[0] == pytest.approx(1 / 3)
    seldom = Counterexample(
        real=((Fraction(1, 2), Fraction(1, 2)), (Fraction(0), Fraction(1))),
        sim=((Fraction(2, 3), Fraction(1, 3)), (Fraction(0), Fraction(1))),
        start=(Fraction(1, 4), Fraction(3, 4)),
        discount=Fraction(1, 2),
    ).pair()
    # d_D = 1/6 and d_M̂ = 3/16: 1 > 1/6 + 1/6 + 3/16.
    assert bounds.local_high_gap(seldom).tolist() == [True, False]
    assert bounds.shortfall(seldom)[0] > 0


def test_the_return_is_off_by_the_mean_adjustment_over_real_visits():
    pair = draw_problem(0, 5).pair
    visits = occupancy(pair.real, pair.policy, pair.start, pair.discount)
    missing = pair.start @ (pair.values - learned_values(pair, 0.2))
    assert missing == pytest.approx(0.2 / (1 - pair.discount) * (visits * pair.adjustment).sum())


# What does not ------------------------------------------------------------------------------------------


def test_the_counterexample_by_hand():
    third, half = Fraction(1, 3), Fraction(1, 2)
    problem = smallest_counterexample()
    assert problem == Counterexample(
        real=((half, half), (Fraction(0), Fraction(1))),
        sim=((2 * third, third), (Fraction(0), Fraction(1))),
        start=(Fraction(1), Fraction(0)),
        discount=half,
    )
    assert problem.meets_condition
    assert problem.log_share == (Fraction(2, 3), Fraction(1, 3))
    assert problem.sim_share == (Fraction(3, 4), Fraction(1, 4))
    assert problem.delta == (Fraction(4, 17), Fraction(-4, 7))
    assert problem.overestimate == Fraction(8, 119)
    for line in ("P = (1/2, 1/2)    P̂ = (2/3, 1/3)", "V̂(1) = 2 + 8/119·β"):
        assert line in written_out(problem)


def test_the_counterexample_by_iteration():
    pair = smallest_counterexample().pair()
    q = np.zeros((2, 1))
    for _ in range(80):
        q = bellman_update(pair, q, 1.0)
    assert q[0, 0] == pytest.approx(2 + 8 / 119)
    assert q[0, 0] > pair.values[0] == pytest.approx(2)
    assert pair.omega[0].sum() > threshold(pair)[0]


def test_none_is_smaller():
    """With halves alone P̂ is P; a single state has all of ω and of d_D."""
    assert not list(_problems(2))
    assert any(_problems(3))


@pytest.mark.parametrize("copies", [2, 3])
def test_the_counterexample_with_more_actions(copies):
    """An action in several copies, between which policies choose at will, changes no state's claim."""
    one = smallest_counterexample().pair()
    policy = np.full((2, copies), 1 / copies)
    many = Pair(
        real=np.repeat(one.real, copies, 1),
        sim=np.repeat(one.sim, copies, 1),
        reward=np.ones((2, copies)),
        policy=policy,
        behaviour=policy,
        start=one.start,
        discount=one.discount,
    )
    assert bounds.high_gap(many)[0]
    assert bounds.shortfall(many)[0] == pytest.approx(-8 / 119)


def test_the_inverse_that_is_not_semi_definite():
    """γ = 9/10, and everything leads to the first state."""
    inverse = np.linalg.inv(np.eye(2) - 0.9 * np.array([[1.0, 0.0], [1.0, 0.0]]))
    x = np.array([0.2, -0.8])
    assert x @ inverse @ x == pytest.approx(-0.4)


def test_a_constant_added_to_q_leaves_the_slack_of_eq_9_and_its_bound():
    omega, q = np.array([0.2, 0.8]), np.array([0.0, np.log(2)])
    slack, bound = jensen_slack(omega, q)
    assert slack == pytest.approx(np.log(1.8) - 0.8 * np.log(2))
    assert bound == pytest.approx(0.2 * 0.8 / 2)
    np.testing.assert_allclose(jensen_slack(omega, q + 500), (slack, bound))
    assert jensen_slack(omega, q * 1000)[1] == np.inf


@SOME
@given(NUMBERS, st.floats(0.01, 50))
def test_the_slack_of_eq_9_is_within_hoeffdings_bound(number, spread):
    rng = np.random.default_rng(number)
    omega, q = rng.dirichlet(np.full(5, 0.5)), spread * rng.standard_normal(5)
    slack, bound = jensen_slack(omega, q)
    assert -1e-9 <= slack <= min(bound, np.ptp(q) ** 2 / 8) + 1e-9


# Theorem 2 ----------------------------------------------------------------------------------------------


def test_condition_30_is_25_once_the_log_tells_everything():
    problem = draw_problem(0, 12)
    exact = problem._replace(sampled=problem.pair.real)
    assert bounds.smallest_constant(exact) == 0
    np.testing.assert_array_equal(bounds.high_gap_sampled(exact), bounds.high_gap(problem.pair))
    np.testing.assert_allclose(
        bounds.sampled_shortfall(exact), problem.beta * bounds.shortfall(problem.pair), rtol=1e-9, atol=1e-12
    )


def test_condition_30_as_printed():
    """With the action of a state that the log has fewest rows of."""
    met = []
    for index in range(40):
        problem = draw_problem(0, index)
        pair, counts, beta = problem.pair, problem.counts, problem.beta
        gamma, constant = pair.discount, bounds.smallest_constant(problem)
        for s in range(len(pair.start)):
            most = max(pair.behaviour[s] / pair.policy[s])
            numerator = gamma * constant * (pair.log_share[s].sum() * most + pair.sim_share[s].sum())
            right = threshold(pair)[s] + numerator / (beta * (1 - gamma) * np.sqrt(min(counts[s])))
            met.append(pair.omega[s].sum() > right)
            assert bounds.high_gap_sampled(problem)[s] == met[-1]
    assert 5 < sum(met) < len(met) - 5


def test_the_constant_is_the_least_with_which_assumption_3_is_true():
    problem = draw_problem(0, 12)
    bound = bounds.smallest_constant(problem) / np.sqrt(problem.counts)
    distance = abs(problem.sampled - problem.pair.real).sum(-1)
    assert (distance <= bound * (1 + 1e-12)).all()
    assert (distance > bound * (1 - 1e-9)).any()


# The command --------------------------------------------------------------------------------------------


def test_files_say_what_was_found(found):
    result, folder = found
    assert sorted(path.name for path in folder.iterdir()) == ["theory.json", "theory.md", "theory.png"]
    numbers = json.loads((folder / "theory.json").read_text())
    assert numbers["problems"] == 400
    one = numbers["printed"]["Theorem 1"]
    assert (one["cases"], one["failures"]) == (result.theorem_1.total.cases, result.theorem_1.total.failures)
    assert sum(group["cases"] for group in one["by_family"].values()) == one["cases"]
    assert numbers["counterexample"]["overestimate_over_beta"] == "8/119"
    page = (folder / "theory.md").read_text()
    assert "Everything that was proved held in every case." in page
    assert f"{one['failures']:,} ({one['failures'] / one['cases']:.1%})" in page
    assert "simtrust paper theory --problems 400 --seed 0" in page
    for line in page.splitlines():
        assert line.count("|") in (0, 4, 5, 6), line
    with Image.open(folder / "theory.png") as picture:
        assert min(picture.size) > 300
    assert len(result.states.delta) == result.theorem_1.total.cases
    assert (result.states.shortfall < 0).sum() == result.theorem_1.total.failures
    assert (result.states.shortfall[result.states.reached] > 0).all()


def test_the_first_failure_can_be_drawn_again(found):
    result, _ = found
    problem = draw_problem(0, result.theorem_1.first_failure)
    met, true = THEOREM_1.check(problem, np.random.default_rng(0))
    assert (met & ~true).any()
    state = int(np.argmax(met & ~true))
    assert learned_values(problem.pair, 1.0)[state] > problem.pair.values[state]


def test_one_problem_is_enough_and_the_terminal_shows_brackets(tmp_path, capsys):
    result = theory(tmp_path, problems=1, seed=3)
    shown = " ".join(capsys.readouterr().out.split())
    assert result.problems == 1
    assert "The smallest counterexample to Theorem 1" in shown
    assert "[d_D(s)" in shown
    assert json.loads((tmp_path / "theory.json").read_text())["seed"] == 3


def test_a_broken_proof_is_told_and_quiet_says_nothing(tmp_path, monkeypatch, capsys):
    false = PROVED[0]._replace(check=lambda problem, rng: (np.array([True]), np.array([False])))
    monkeypatch.setattr(
        "simtrust.paper.theory.findings.tallies", lambda: tallies((false, *PROVED[1:], *PRINTED))
    )
    assert [tally.claim.name for tally in theory(tmp_path, problems=1, quiet=True).broken] == ["Eq. 5, 15"]
    assert "Failed, though proved: Eq. 5, 15" in (tmp_path / "theory.md").read_text()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("options", "name"), [({"problems": 0}, "--problems"), ({"seed": -1}, "--seed")])
def test_numbers_that_cannot_work_are_refused_before_any_work(tmp_path, options, name):
    with pytest.raises(ConfigError, match=name):
        theory(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        theory(tmp_path / "file" / "out")


def test_counts_and_tallies():
    count = Count()
    assert np.isnan(count.share)
    count.add(np.array([True, True, False]), np.array([True, False, False]))
    assert (count.cases, count.failures, count.share) == (2, 1, 0.5)
    names = [claim.name for claim in (*PROVED, *PRINTED)]
    assert len(set(names)) == len(names)


def test_measures_find_what_they_are_of():
    pairs = [draw_problem(0, index).pair for index in range(8)]
    exact, clipped, unweighted = bias_by_weight(pairs)
    assert exact.ninety < 1e-9 < clipped.median < unweighted.median
    slack = slack_by_discount(pairs)
    assert [line.discount for line in slack] == [0.5, 0.9, 0.99, 0.999]
    assert all(0 < line.found < line.bound for line in slack)
    assert slack[-1].largest_q > 100 * slack[0].largest_q
