"""Recipes that must coincide when the thing that tells them apart is made to vanish."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simtrust.algorithms.critic import Reads
from simtrust.algorithms.recipes import RECIPES
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

    def replaced(agent, sim, noise):
        log_ratio, _ = estimates(agent, sim, noise)
        return log_ratio, jnp.full(sim.reward.shape, gap)

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


def test_trust_without_layer_norm_is_h2o(case):
    assert same(case("trust", critic_layer_norm=False).updated_critic(), case("h2o").updated_critic())


def test_h2o_is_the_papers_and_has_no_layer_norm(case):
    assert case("h2o").agent.critic.members.norms == ()
    assert len(case("trust").agent.critic.members.norms) == 2


def test_a_gap_model_exists_only_where_some_term_reads_it(case):
    with_model = {name for name in RECIPES if case(name).agent.classifier is not None}
    assert with_model == set(RECIPES) - {"sac", "cql", "h2o_a_dr", "h2o_reg_dr"}


def test_sources_follow_from_the_terms():
    assert RECIPES["sac"].reads == {Reads.SIM}
    assert RECIPES["cql"].reads == {Reads.REAL, Reads.SAMPLED_ACTIONS}
    assert RECIPES["darc"].reads == {Reads.SIM, Reads.LOG_RATIO}
    assert RECIPES["h2o"].reads == {Reads.REAL, Reads.SIM, Reads.LOG_RATIO, Reads.GAP}
    assert RECIPES["h2o_dr"].reads == {Reads.REAL, Reads.SIM, Reads.GAP}


def test_a_single_source_gets_the_whole_batch(case):
    assert case("sac").algorithm.batch_sizes == {Reads.SIM: 16}
    assert case("h2o", real_fraction=0.25).algorithm.batch_sizes == {Reads.REAL: 4, Reads.SIM: 12}
