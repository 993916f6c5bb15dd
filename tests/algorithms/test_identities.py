"""Recipes that must coincide when the thing that tells them apart is made to vanish."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simtrust.algorithms.agent import GapEstimates
from simtrust.algorithms.critic import (
    REAL,
    SIM,
    CriticInputs,
    Reads,
    Samples,
    bellman,
    by_measured_gap,
    log_sum_exp,
    measured_trust,
    minus_gap,
    uniform,
    value_gap,
    weighted_mean,
)
from simtrust.algorithms.recipes import RECIPES, Recipe
from simtrust.gap.ratio import GAP_MIN


def same(left, right) -> bool:
    """Whether two pytrees hold the same numbers, up to the order of summation."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs)


def with_silent_classifier(case):
    """The case with φ ≡ 0: its classifiers see no difference between simulator and reality."""
    last = case.agent.classifier.transition.layers[-1]
    silent = jax.tree.map(jnp.zeros_like, last)
    case.agent = eqx.tree_at(lambda a: a.classifier.transition.layers[-1], case.agent, silent)
    return case


def with_gap(case, gap):
    """The case with a given gap u in place of the classifiers' estimate."""
    estimates = case.algorithm.gap_estimates

    def replaced(agent, batch, noise):
        return estimates(agent, batch, noise)._replace(gap=jnp.full(batch.sim.reward.shape, gap))

    case.algorithm.gap_estimates = replaced
    return case


def test_without_a_gap_darc_is_sac(case):
    darc = with_silent_classifier(case("darc"))
    assert same(darc.updated_critic(), case("sac").updated_critic())


def test_with_a_gap_darc_is_not_sac(case):
    assert not same(case("darc").updated_critic(), case("sac").updated_critic())


def test_without_a_gap_h2o_is_h2o_without_dynamics_ratio(case):
    h2o = with_silent_classifier(case("h2o"))
    ablated = with_silent_classifier(case("h2o_dr"))
    assert same(h2o.updated_critic(), ablated.updated_critic())


def test_with_a_gap_the_dynamics_ratio_matters(case):
    assert not same(case("h2o").updated_critic(), case("h2o_dr").updated_critic())


@pytest.mark.parametrize("gap", [GAP_MIN, 0.3, 10.0])
def test_a_constant_gap_makes_omega_uniform(case, gap):
    assert same(with_gap(case("h2o"), gap).updated_critic(), case("h2o_a").updated_critic())


def test_a_varying_gap_does_not(case):
    assert not same(case("h2o").updated_critic(), case("h2o_a").updated_critic())


@pytest.mark.parametrize(("whole", "without"), [("h2o", "h2o_reg"), ("h2o_dr", "h2o_reg_dr")])
def test_beta_zero_removes_the_value_term(case, whole, without):
    assert same(case(whole, beta=0.0).updated_critic(), case(without).updated_critic())
    assert not same(case(whole).updated_critic(), case(without).updated_critic())


def test_h2o_layer_norm_is_h2o_but_for_its_layer_norm(case):
    without = case("h2o_layer_norm", critic_layer_norm=False)
    assert same(without.updated_critic(), case("h2o").updated_critic())
    assert same(case("h2o_layer_norm").updated_critic(), case("h2o", critic_layer_norm=True).updated_critic())
    assert not same(without.updated_critic(), case("trust", critic_layer_norm=False).updated_critic())


def with_measured_gap(case, gap):
    """The case with the same measured gap for every simulated row."""
    case.batch = case.batch._replace(measured_gap=jnp.full(case.batch.sim.reward.shape, gap))
    return case


def test_without_a_measured_gap_trust_is_h2o_without_either_use_of_a_gap(case):
    trust = with_measured_gap(case("trust"), 0.0)
    assert same(trust.updated_critic(), case("h2o_a_dr", critic_layer_norm=True).updated_critic())
    assert not same(case("trust").updated_critic(), trust.updated_critic())


BY_MEASURED_GAP = Recipe("", (bellman(REAL), bellman(SIM), value_gap(omega=by_measured_gap)), (REAL, SIM))


@pytest.mark.parametrize("gap", [0.0, 0.3, 1e6, np.inf])
def test_a_constant_measured_gap_makes_omega_uniform(case, gap):
    constant = with_measured_gap(case(BY_MEASURED_GAP), gap)
    assert same(constant.updated_critic(), case("h2o_a_dr").updated_critic())
    assert not same(case(BY_MEASURED_GAP).updated_critic(), case("h2o_a_dr").updated_critic())


BY_MEASURED_TRUST = Recipe("", (bellman(REAL), bellman(SIM, weight=measured_trust)), (REAL, SIM))


def test_the_sharpness_multiplies_the_gap_of_the_weight_and_of_nothing_else(case):
    sharp, plain = case(BY_MEASURED_TRUST, gap_sharpness=3.0), case(BY_MEASURED_TRUST)
    assert not same(sharp.updated_critic(), plain.updated_critic())
    plain.batch = plain.batch._replace(measured_gap=3.0 * plain.batch.measured_gap)
    assert same(sharp.updated_critic(), plain.updated_critic())
    shared = (case(BY_MEASURED_GAP, gap_sharpness=kappa).updated_critic() for kappa in (1.0, 3.0))
    assert same(*shared)


def measured(*gap: float) -> Samples:
    rows = jnp.zeros(len(gap))
    u = jnp.array(gap)
    return Samples(jnp.zeros((2, len(gap))), rows, rows, measured_gap=u, measured_log_ratio=u)


def test_a_row_of_no_measured_gap_counts_in_full():
    assert measured_trust(measured(0.0))[0] == 1.0


def test_the_larger_the_measured_gap_the_smaller_the_weight_and_the_larger_omega():
    rows = measured(0.0, 0.1, 1.0, 5.0)
    weight, log_omega = measured_trust(rows), by_measured_gap(rows)
    np.testing.assert_allclose(weight, np.exp([0.0, -0.1, -1.0, -5.0]), rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(log_omega), np.array([0.0, 0.1, 1.0, 5.0]) / 6.1, atol=1e-6)
    assert (np.diff(weight) < 0).all()
    assert (np.diff(log_omega) > 0).all()
    assert (jnp.diff(uniform(rows)) == 0).all()


def test_the_measured_gap_keeps_its_bounds():
    rows = measured(1.0, 10.0, 1e6, np.inf)
    np.testing.assert_allclose(measured_trust(rows)[2:], 1e-5, rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(by_measured_gap(rows)), np.array([1, 10, 10, 10]) / 31, rtol=1e-6)


def test_no_gradient_flows_through_the_measured_gap(case):
    case = case("trust")
    next_values = jnp.zeros(case.algorithm.options.batch_size)

    def loss(gap):
        batch = case.batch._replace(measured_gap=gap)
        return case.algorithm.critic_loss(
            case.agent.critic, case.agent, batch, next_values, GapEstimates(), case.noise
        )[0]

    value, gradient = jax.value_and_grad(loss)(case.batch.measured_gap)
    assert (gradient == 0).all()
    assert loss(case.batch.measured_gap + 1.0) != value


def test_h2o_is_the_papers_and_has_no_layer_norm(case):
    assert case("h2o").agent.critic.members.norms == ()
    for recipe in ("trust", "h2o_layer_norm"):
        assert len(case(recipe).agent.critic.members.norms) == 2


def test_classifiers_exist_only_where_some_term_reads_them(case):
    with_model = {name for name in RECIPES if case(name).agent.classifier is not None}
    assert with_model == set(RECIPES) - {"trust", "sac", "cql", "h2o_a_dr", "h2o_reg_dr"}


def test_the_gap_is_measured_only_where_some_term_reads_it(case):
    rows = {name: case(name).algorithm.simulated_row_size for name in RECIPES}
    assert {name for name in RECIPES if RECIPES[name].measures_gap} == {"trust"}
    assert rows == {name: 10 + (name == "trust") for name in RECIPES}


def test_reality_is_predicted_only_where_some_term_reads_it(case):
    assert {name for name in RECIPES if RECIPES[name].predicts_reality} == {"h2o_reverse_kl"}
    for name, recipe in RECIPES.items():
        assert (case(name).noise.elite is not None) == recipe.predicts_reality
    noise = case("h2o_reverse_kl").noise
    assert noise.elite.shape == (5, 8)
    assert noise.next_state.shape == (5, 8, 3)


def test_the_reverse_gap_does_not_know_the_simulated_next_state(case):
    """It belongs to (s, a), where w belongs to (s, a, s')."""
    case = case("h2o_reverse_kl")
    elsewhere = case.batch.sim._replace(next_observation=case.batch.sim.next_observation + 1.0)
    batches = (case.batch, case.batch._replace(sim=elsewhere))
    here, there = (case.algorithm.gap_estimates(case.agent, batch, case.noise) for batch in batches)
    np.testing.assert_array_equal(here.reverse_gap, there.reverse_gap)
    assert (here.log_ratio != there.log_ratio).all()
    assert here.gap is there.gap is None


def test_without_a_gap_the_reverse_kl_is_h2o_without_dynamics_ratio_and_adaptive_share(case):
    reverse = with_silent_classifier(case("h2o_reverse_kl"))
    assert same(reverse.updated_critic(), case("h2o_a_dr").updated_critic())
    assert not same(case("h2o_reverse_kl").updated_critic(), case("h2o_a").updated_critic())
    assert not same(case("h2o_reverse_kl").updated_critic(), case("h2o").updated_critic())


def test_only_an_algorithm_of_the_simulator_alone_needs_no_log():
    assert {name for name, recipe in RECIPES.items() if not recipe.needs_log} == {"sac"}


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_value_gap_is_clipped_to_a_thousand(sign):
    """And no gradient leads further out."""
    zero = jnp.zeros(3)

    def value(q):
        real, sim = Samples(jnp.zeros((2, 3)), zero, zero), Samples(jnp.full((2, 3), q), zero, zero)
        return value_gap(omega=uniform).formula(CriticInputs(real, sim, jnp.asarray(0.5), zero[0]))[0]

    assert float(value(sign * 900.0)) == pytest.approx(sign * 450.0, rel=1e-5)
    assert float(value(sign * 1e4)) == pytest.approx(sign * 500.0, rel=1e-6)
    assert float(jax.grad(value)(sign * 1e4)) == 0.0


def test_darcs_correction_is_clipped_to_ten():
    log_ratio = jnp.array([-30.0, -9.0, 0.5, 9.0, 30.0])
    samples = Samples(jnp.zeros((2, 5)), jnp.zeros(5), jnp.ones(5))._replace(log_ratio=log_ratio)
    np.testing.assert_allclose(minus_gap(samples) - samples.reward, [10.0, 9.0, -0.5, -9.0, -10.0], rtol=1e-6)


def test_sources_follow_from_the_terms():
    assert RECIPES["sac"].reads == {Reads.SIM}
    assert RECIPES["cql"].reads == {Reads.REAL, Reads.SAMPLED_ACTIONS}
    assert RECIPES["darc"].reads == {Reads.SIM, Reads.LOG_RATIO}
    assert RECIPES["h2o"].reads == {Reads.REAL, Reads.SIM, Reads.LOG_RATIO, Reads.GAP}
    assert RECIPES["h2o_reverse_kl"].reads == {Reads.REAL, Reads.SIM, Reads.LOG_RATIO, Reads.REVERSE_GAP}
    assert RECIPES["trust"].reads == {Reads.REAL, Reads.SIM, Reads.MEASURED_GAP}
    assert RECIPES["h2o_dr"].reads == {Reads.REAL, Reads.SIM, Reads.GAP}


def test_a_single_source_gets_the_whole_batch(case):
    assert case("sac").algorithm.batch_sizes == {Reads.SIM: 16}
    assert case("h2o", real_fraction=0.25).algorithm.batch_sizes == {Reads.REAL: 4, Reads.SIM: 12}


def test_the_mean_by_omega_is_a_lower_bound_of_the_log_sum_exp():
    """Eq. 9, left; of a Q that does not vary both are that Q."""
    q = 5 * jax.random.normal(jax.random.key(0), (2, 7))
    omega = jax.nn.softmax(jax.random.normal(jax.random.key(1), (7,)))
    mean, pooled = (pool(q, jnp.log(omega)) for pool in (weighted_mean, log_sum_exp))
    np.testing.assert_allclose(mean, np.asarray(q) @ np.asarray(omega), rtol=1e-5)
    assert (mean < pooled).all()
    constant = jnp.full((2, 7), 3.0)
    for pool in (weighted_mean, log_sum_exp):
        np.testing.assert_allclose(pool(constant, jnp.log(omega)), [3.0, 3.0], rtol=1e-5)
