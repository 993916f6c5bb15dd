"""Finite MDPs: evaluation against sums over time, the paper's formulas against loops, the code's loss."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrust.algorithms import critic
from simtrust.gap.ratio import WEIGHT_MAX, WEIGHT_MIN
from simtrust.paper import tabular
from simtrust.paper.tabular import Pair
from simtrust.paper.theory.counterexample import smallest_counterexample
from simtrust.paper.theory.problems import DISCOUNTS, FAMILIES, draw_problem

NUMBERS = st.integers(0, 10**6)
SOME = settings(max_examples=40)


def pair_of(number):
    return draw_problem(11, number).pair


@pytest.fixture
def small():
    """Two states, two actions, everything different."""
    return Pair(
        real=np.array([[[0.5, 0.5], [0.2, 0.8]], [[0.9, 0.1], [0.4, 0.6]]]),
        sim=np.array([[[0.6, 0.4], [0.2, 0.8]], [[0.3, 0.7], [0.5, 0.5]]]),
        reward=np.array([[1.0, 0.0], [0.25, 0.5]]),
        policy=np.array([[0.75, 0.25], [0.5, 0.5]]),
        behaviour=np.array([[0.1, 0.9], [0.6, 0.4]]),
        start=np.array([0.7, 0.3]),
        discount=0.8,
    )


# Exact evaluation ---------------------------------------------------------------------------------------


def test_occupancy_and_values_are_sums_over_time(small):
    state, values, visits = small.start.copy(), np.zeros(2), np.zeros((2, 2))
    moved = np.eye(2)
    chain = np.zeros((2, 2))
    for s in range(2):
        for a in range(2):
            chain[s] += small.policy[s, a] * small.real[s, a]
    for t in range(300):
        visits += (1 - small.discount) * small.discount**t * state[:, None] * small.policy
        values += small.discount**t * moved @ (small.policy * small.reward).sum(1)
        state, moved = state @ chain, moved @ chain
    args = (small.real, small.policy, small.start, small.discount)
    np.testing.assert_allclose(tabular.occupancy(*args), visits, atol=1e-12)
    np.testing.assert_allclose(small.values, values, atol=1e-12)
    q = tabular.action_values(small.real, small.reward, small.policy, small.discount)
    assert q[1, 0] == pytest.approx(0.25 + 0.8 * (0.9 * values[0] + 0.1 * values[1]))


def test_shares_are_of_their_own_dynamics_and_policy(small):
    np.testing.assert_allclose(
        small.log_share, tabular.occupancy(small.real, small.behaviour, small.start, 0.8)
    )
    np.testing.assert_allclose(small.sim_share, tabular.occupancy(small.sim, small.policy, small.start, 0.8))


def test_divergence_is_of_the_simulator_from_reality(small):
    assert tabular.divergence(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == pytest.approx(
        0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    )
    gap = [
        [0.6 * math.log(0.6 / 0.5) + 0.4 * math.log(0.4 / 0.5), 0],
        [0.3 * math.log(0.3 / 0.9) + 0.7 * math.log(0.7 / 0.1), 0.5 * math.log(0.5 / 0.4 * 0.5 / 0.6)],
    ]
    np.testing.assert_allclose(small.omega, np.array(gap) / np.sum(gap), atol=1e-15)


def test_without_a_gap_every_pair_has_the_same_share(small):
    np.testing.assert_array_equal(replace(small, sim=small.real).omega, np.full((2, 2), 0.25))


def test_reachable_follows_long_ways_and_no_way_back():
    path = np.eye(9, k=1)
    path[8, 8] = 1
    assert (tabular.reachable(path) == np.triu(np.ones((9, 9), bool))).all()
    assert (tabular.reachable(np.eye(3)) == np.eye(3, dtype=bool)).all()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("start", np.array([0.7, 0.4]), "start holds no probabilities"),
        ("policy", np.array([[1.5, -0.5], [0.5, 0.5]]), "policy holds no probabilities"),
        ("policy", np.array([[1.0, 0.0], [0.5, 0.5]]), "must be positive"),
        ("share", np.full((2, 2), 0.3), "share holds no probabilities"),
        ("sim", np.array([[[1.0, 0.0], [0.2, 0.8]], [[0.3, 0.7], [0.5, 0.5]]]), "same next states"),
    ],
)
def test_what_the_theory_does_not_cover_is_refused(small, field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(small, **{field: value})


# The paper's formulas, one number at a time -------------------------------------------------------------


@SOME
@given(NUMBERS)
def test_adjustment_delta_and_threshold_as_printed(number):
    pair = pair_of(number)
    pi, pi_d, omega = pair.policy, pair.behaviour, pair.omega
    log, sim = pair.log_share.sum(1), pair.sim_share.sum(1)
    for s, a in np.ndindex(pi.shape):
        nu = (omega[s, a] - log[s] * pi_d[s, a]) / (log[s] * pi_d[s, a] + sim[s] * pi[s, a])
        assert pair.adjustment[s, a] == pytest.approx(nu, rel=1e-6)
    for s in range(len(pi)):
        actions = range(pi.shape[1])
        ratio = [pi_d[s, a] / pi[s, a] for a in actions]
        delta = sum((omega[s, a] - log[s] * pi_d[s, a]) / (log[s] * ratio[a] + sim[s]) for a in actions)
        assert pair.delta[s] == pytest.approx(delta, rel=1e-6, abs=1e-9)
        zeta = [(log[s] * max(ratio) + sim[s]) / (log[s] * ratio[a] + sim[s]) for a in actions]
        assert min(zeta) >= 1 - 1e-12
        right = sum(log[s] * pi_d[s, a] * zeta[a] for a in actions)
        assert tabular.threshold(pair)[s] == pytest.approx(right, rel=1e-9)


def test_objective_is_eq_19_summed_over_everything_that_can_happen(small):
    q, following = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([0.3, -0.4])
    total = 0.0
    for s, a in np.ndindex(2, 2):
        total += 0.6 * (small.omega[s, a] - small.log_share[s, a]) * q[s, a]
        for t in range(2):
            error = (q[s, a] - small.reward[s, a] - 0.8 * following[t]) ** 2
            p, p_hat = small.real[s, a, t], small.sim[s, a, t]
            total += 0.5 * small.log_share[s, a] * p * error
            total += 0.5 * small.sim_share[s, a] * p_hat * (p / p_hat) * error
    assert tabular.objective(small, q, following, small.ratio, 0.6) == pytest.approx(total)


@SOME
@given(NUMBERS)
def test_eq_11_is_where_eq_19_is_flat(number):
    """Central differences are exact for a quadratic; squaring the weight moves the minimum."""
    pair = pair_of(number)
    rng = np.random.default_rng(number)
    q = rng.random(pair.reward.shape)
    following = (pair.policy * q).sum(1)
    updated = tabular.bellman_update(pair, q, 0.5)
    step = rng.standard_normal(q.shape)

    def slope(weight, at):
        ends = (tabular.objective(pair, at + side * step, following, weight, 0.5) for side in (1, -1))
        size = abs(tabular.objective(pair, at + step, following, weight, 0.5))
        first, second = ends
        return abs(first - second) / (1 + size)

    assert slope(pair.ratio, updated) < 1e-9
    dynamics, reward = tabular.equivalent_problem(pair, pair.ratio**2, 0.5)
    elsewhere = reward + pair.discount * dynamics @ following
    assert slope(pair.ratio**2, elsewhere) < 1e-9


def test_the_exact_weight_leaves_reality_and_a_changed_reward(small):
    dynamics, reward = tabular.equivalent_problem(small, small.ratio, 0.3)
    np.testing.assert_allclose(dynamics, small.real)
    np.testing.assert_allclose(reward, small.reward - 0.3 * small.adjustment)


def test_without_the_weight_simulator_and_reality_are_mixed(small):
    dynamics, _ = tabular.equivalent_problem(small, np.ones_like(small.ratio), 0.3)
    share = small.log_share[1, 0] / (small.log_share[1, 0] + small.sim_share[1, 0])
    assert dynamics[1, 0, 0] == pytest.approx(share * 0.9 + (1 - share) * 0.3)


# The log-sum-exp ----------------------------------------------------------------------------------------


def test_log_sum_exp_neither_overflows_nor_sees_what_has_no_share():
    omega, q = np.array([0.25, 0.75, 0.0]), np.array([1000.0, 1000.0, 9e9])
    assert tabular.log_sum_exp(omega, q) == pytest.approx(1000)
    np.testing.assert_allclose(tabular.worst_share(omega, np.array([math.log(3), 0, 0])), [0.5, 0.5, 0])


def test_a_gap_in_one_place_makes_both_updates_the_same(small):
    """Then the log-sum-exp is Q there, as is the mean."""
    share = np.array([[0.0, 0.0], [1.0, 0.0]])
    pair, q = replace(small, share=share), np.array([[1.0, -2.0], [0.5, 3.0]])
    expected = tabular.bellman_update(pair, q, 0.7)
    np.testing.assert_allclose(tabular.log_sum_exp_update(pair, q, 0.7), expected, atol=1e-9)
    assert abs(expected - tabular.bellman_update(small, q, 0.7)).max() > 0.01


@SOME
@given(NUMBERS)
def test_the_log_sum_exp_update_is_a_minimum(number):
    pair = pair_of(number)
    rng = np.random.default_rng(number)
    q = 3 * rng.standard_normal(pair.reward.shape)
    following = (pair.policy * q).sum(1)
    updated = tabular.log_sum_exp_update(pair, q, 2.0)

    def loss(at):
        quadratic = tabular.objective(pair, at, following, pair.ratio, 0.0)
        return quadratic + 2.0 * (tabular.log_sum_exp(pair.omega, at) - (pair.log_share * at).sum())

    least = loss(updated)
    for _ in range(5):
        assert loss(updated + 0.1 * rng.standard_normal(q.shape)) > least


# The code's own loss ------------------------------------------------------------------------------------

ROWS = {"real": [(0, 0), (0, 1), (1, 1)], "sim": [(0, 0), (0, 0), (0, 1), (1, 1)]}
"""(s, s') in just the shares of the counterexample: d_D P = 1/3 each; d_M̂ P̂ = 1/2, 1/4, 1/4."""


def unclipped(samples):
    return jnp.exp(-samples.log_ratio)


@pytest.mark.parametrize(
    ("pool", "weight"),
    [(critic.weighted_mean, unclipped), (critic.log_sum_exp, critic.dynamics_ratio)],
)
def test_the_codes_loss_has_the_theorys_fixed_point_with_half_of_beta(pool, weight):
    """Eq. 8's ½ is left out there. With its clip, w leaves other dynamics than reality's."""
    pair, beta = smallest_counterexample().pair(), 0.6
    for name, rows in ROWS.items():
        share = np.zeros((2, 2))
        for row in rows:
            share[row] += 1 / len(rows)
        kind = "log" if name == "real" else name
        expected = getattr(pair, f"{kind}_share") * getattr(pair, name)[:, 0]
        np.testing.assert_allclose(share, expected, atol=1e-12)
    clipped = np.clip(pair.ratio, WEIGHT_MIN, WEIGHT_MAX)
    assert (clipped < pair.ratio).any()
    dynamics, reward = tabular.equivalent_problem(
        pair, pair.ratio if weight is unclipped else clipped, beta / 2
    )
    q = tabular.action_values(dynamics, reward, pair.policy, pair.discount)[:, 0]
    log_ratio = -np.log(np.where(pair.real > 0, pair.ratio, 1.0))[:, 0]

    def loss(values):
        def samples(rows):
            states, following = np.array(rows).T
            return critic.Samples(
                q=values[None, states],
                reward=jnp.ones(len(rows)),
                next_value=jnp.asarray(pair.discount * q[following]),
                log_ratio=jnp.asarray(log_ratio[states, following]),
                gap=jnp.where(states == 0, 0.7, 1e-30),
            )

        inputs = critic.CriticInputs(
            real=samples(ROWS["real"]),
            sim=samples(ROWS["sim"]),
            beta=jnp.array(beta),
            cql_alpha=jnp.array(0.0),
        )
        terms = (
            critic.bellman(critic.REAL),
            critic.bellman(critic.SIM, weight=weight),
            critic.value_gap(pool=pool),
        )
        return sum(term.formula(inputs)[0] for term in terms)

    slope = jax.jit(jax.grad(loss))
    np.testing.assert_allclose(slope(jnp.asarray(q)), 0, atol=1e-5)
    assert abs(np.asarray(slope(jnp.asarray(q + 0.1)))).max() > 1e-2


def test_of_mini_batches_the_penalty_outside_the_log_is_the_gap_in_units_of_its_mean(small):
    never = np.array([[0.0, 1.0], [0.6, 0.4]])
    pair = replace(small, behaviour=never)
    gap = tabular.divergence(pair.sim, pair.real)
    mean = (pair.sim_share * gap).sum()
    assert tabular.adjustment(pair, pair.batch_omega)[0, 0] == pytest.approx(gap[0, 0] / mean)
    assert pair.batch_omega.sum() == pytest.approx(1)


# Random problems ----------------------------------------------------------------------------------------


@SOME
@given(NUMBERS)
def test_problems_are_what_their_family_says(number):
    problem = draw_problem(3, number)
    pair = problem.pair
    reached = tabular.reachable(pair.chain)
    if problem.family == "P̂ wrong in places":
        assert (pair.omega > 0).any()
    if problem.family == "few next states":
        assert (pair.real > 0).sum(-1).max() <= 2
    if problem.family == "a trap":
        assert reached[:, -1].all() and not reached[-1, 0]
    assert pair.discount in DISCOUNTS
    assert (problem.counts >= 1).all()
    np.testing.assert_allclose(problem.sampled.sum(-1), 1)
    assert not problem.sampled[pair.real == 0].any()


def test_a_problem_can_be_drawn_again_and_families_take_turns():
    again = draw_problem(0, 29)
    np.testing.assert_array_equal(draw_problem(0, 29).pair.real, again.pair.real)
    assert [draw_problem(5, index).family for index in range(8)] == 2 * list(FAMILIES)
    assert draw_problem(1, 29).pair.discount != again.pair.discount or not np.array_equal(
        draw_problem(1, 29).pair.start, again.pair.start
    )
