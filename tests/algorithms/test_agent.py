"""The pieces of one update: what moves, in which order, and what passes no gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simtrust.algorithms.agent import GapEstimates
from simtrust.algorithms.critic import REAL, CriticInputs, Reads, Samples, bellman, conservative
from simtrust.algorithms.inputs import Batch, concatenate
from simtrust.algorithms.recipes import Recipe, get_recipe
from simtrust.errors import ConfigError
from simtrust.types import Transitions

EVALUATION = Recipe("Bellman evaluation on the log", (bellman(REAL),), (REAL,))


def trained_q(case, reward, terminated, *, discount=0.5, updates=600, **options):
    """Q of the state of a one-state problem, learnt from a log of identical rows."""
    case = case(EVALUATION, discount=discount, learning_rate=3e-3, target_update_rate=0.1, **options)
    size = case.algorithm.options.batch_size
    state = jnp.ones((size, 3))
    log = Transitions(state, jnp.zeros((size, 2)), jnp.full(size, reward), state, jnp.full(size, terminated))
    batch = Batch(log, None, None, None)

    @jax.jit
    def run(agent):
        def step(agent, key):
            # The policy is held at the log's action, so that the value has a closed form.
            noise = case.algorithm.draw_noise(key)
            agent = case.algorithm.update_critic(agent, batch, noise)[0]
            return case.algorithm.update_target(agent), None

        return jax.lax.scan(step, agent, jax.random.split(jax.random.key(0), updates))[0]

    idle = jax.tree.map(jnp.zeros_like, case.agent.actor.network.layers[-1])
    idle = eqx.tree_at(lambda layer: layer.bias, idle, jnp.array([0.0, 0.0, -20.0, -20.0]))
    agent = eqx.tree_at(lambda a: a.actor.network.layers[-1], case.agent, idle)
    agent = run(agent)
    return np.asarray(agent.critic(state[:1], jnp.zeros((1, 2))))


def test_value_of_a_step_that_ends_is_its_reward(case):
    assert trained_q(case, 3.0, 1.0) == pytest.approx(3.0, abs=0.02)


def test_value_of_an_endless_state_is_the_geometric_series(case):
    assert trained_q(case, 3.0, 0.0) == pytest.approx(3.0 / (1 - 0.5), abs=0.05)


def test_the_discount_counts(case):
    assert trained_q(case, 1.0, 0.0, discount=0.8, updates=1500) == pytest.approx(5.0, abs=0.1)


def test_layer_norm_and_larger_ensembles_reach_the_same_value(case):
    q = trained_q(case, 3.0, 0.0, critic_layer_norm=True, critic_ensemble=4)
    assert q == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize("pair", [(0, 1), (3, 2)])
def test_of_a_larger_ensemble_the_drawn_pair_gives_the_target(case, pair):
    case = case("sac", critic_ensemble=4)
    rows, noise = case.batch.sim, case.noise._replace(pair=jnp.array(pair))
    action, _ = case.agent.actor.sample(rows.next_observation, noise.next_action)
    q = np.asarray(case.agent.target_critic(rows.next_observation, action))
    expected = 0.99 * (1 - np.asarray(rows.terminated)) * q[list(pair)].min(0)
    np.testing.assert_allclose(case.algorithm.next_values(case.agent, rows, noise), expected, rtol=1e-5)
    assert (q.min(0) < q[list(pair)].min(0)).any()


def test_entropy_in_the_backup_adds_the_temperature_times_the_entropy(case):
    plain, soft = case("sac"), case("sac", entropy_in_backup=True)
    values = [c.algorithm.next_values(c.agent, c.batch.sim, c.noise) for c in (plain, soft)]
    log_density = plain.agent.actor.sample(plain.batch.sim.next_observation, plain.noise.next_action)[1]
    bonus = -0.99 * (1 - plain.batch.sim.terminated) * log_density
    np.testing.assert_allclose(values[1] - values[0], bonus, rtol=1e-4, atol=1e-5)


def test_target_follows_the_critic_that_has_just_moved(case):
    case = case("h2o")
    new, _ = case.algorithm.update(case.agent, case.batch, case.noise)
    for target, before, after in zip(
        *(jax.tree.leaves(c) for c in (new.target_critic, case.agent.critic, new.critic)), strict=True
    ):
        # The target began as a copy of the critic, so averaging stale weights would leave it there.
        np.testing.assert_allclose(target, before + 0.005 * (after - before), rtol=1e-4, atol=1e-8)
        assert not np.array_equal(target, before)


def test_target_values_pass_no_gradient(case):
    case = case("h2o")

    def loss(critic):
        agent = eqx.tree_at(lambda a: (a.critic, a.target_critic), case.agent, (critic, critic))
        values = case.algorithm.next_values(agent, concatenate(case.batch.real, case.batch.sim), case.noise)
        return values.sum()

    assert all((g == 0).all() for g in jax.tree.leaves(jax.grad(loss)(case.agent.critic)))


@pytest.mark.parametrize("recipe", ["h2o", "h2o_v", "h2o_reverse_kl", "darc", "darc_plus"])
def test_the_critic_passes_no_gradient_to_the_classifiers(case, recipe):
    case = case(recipe)
    case_rows = concatenate(case.batch.real, case.batch.sim)
    next_values = case.algorithm.next_values(case.agent, case_rows, case.noise)

    def loss(classifier):
        agent = eqx.tree_at(lambda a: a.classifier, case.agent, classifier)
        estimates = case.algorithm.gap_estimates(agent, case.batch, case.noise)
        critic_loss = case.algorithm.critic_loss
        return critic_loss(agent.critic, agent, case.batch, next_values, estimates, case.noise)[0]

    assert all((g == 0).all() for g in jax.tree.leaves(jax.grad(loss)(case.agent.classifier)))


def test_terminal_rows_ignore_the_next_state(case):
    case = case("sac")
    sim = case.batch.sim._replace(terminated=jnp.ones(16))
    other = sim._replace(next_observation=sim.next_observation + 100.0)
    values = [case.algorithm.next_values(case.agent, rows, case.noise) for rows in (sim, other)]
    np.testing.assert_array_equal(values[0], 0.0)
    np.testing.assert_array_equal(values[1], 0.0)


def test_darc_lowers_the_reward_by_the_log_ratio(case):
    case = case("darc")
    estimates = case.algorithm.gap_estimates(case.agent, case.batch, case.noise)
    log_ratio = estimates.log_ratio
    assert estimates == (log_ratio, None, None)
    terminal = case.batch._replace(sim=case.batch.sim._replace(terminated=jnp.ones(16)))
    zero = jnp.zeros(16)
    critic = jax.tree.map(jnp.zeros_like, case.agent.critic)
    loss, _ = case.algorithm.critic_loss(critic, case.agent, terminal, zero, estimates, case.noise)
    assert float(loss) == pytest.approx(2 * float(((terminal.sim.reward - log_ratio) ** 2).mean()), rel=1e-5)


def test_cql_of_a_constant_critic_is_the_log_of_the_action_volume(case):
    case = case("cql", cql_alpha=1.0, cql_actions=50)
    critic = jax.tree.map(jnp.zeros_like, case.agent.critic)
    # Importance sampling makes every action count for the volume 2² on average, whatever its density.
    idle = jax.tree.map(jnp.zeros_like, case.agent.actor)
    agent = eqx.tree_at(lambda a: a.actor, case.agent, idle)
    _, info = case.algorithm.critic_loss(critic, agent, case.batch, jnp.zeros(16), GapEstimates(), case.noise)
    per_critic = float(info["critic_conservative"]) / 2
    assert per_critic == pytest.approx(np.log(150 * 2**2), rel=0.05)


def test_cql_lowers_sampled_values_and_raises_logged_ones():
    """Eq. 3 by hand, on two critics, three rows and four sampled actions."""
    generator = np.random.default_rng(0)
    q, sampled, density = (generator.normal(size=size) for size in ((2, 3), (2, 3, 4), (3, 4)))
    rows = jnp.zeros(3)
    real = Samples(
        jnp.array(q), rows, rows, sampled_q=jnp.array(sampled), sampled_log_density=jnp.array(density)
    )
    found = conservative().formula(CriticInputs(real, None, jnp.array(0.0), jnp.array(2.0)))
    expected = 2.0 * (np.log(np.exp(sampled - density).sum(-1)) - q).mean(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_temperature_rises_while_entropy_is_below_its_target(case):
    for target, sign in ((50.0, 1), (-50.0, -1)):
        c = case("sac", target_entropy=target)
        new, _ = c.algorithm.update(c.agent, c.batch, c.noise)
        assert np.sign(new.log_temperature - c.agent.log_temperature) == sign


def test_actor_climbs_the_critic(case):
    case = case("sac", learning_rate=1e-2, actor="deterministic")
    agent, before = case.agent, None
    for _ in range(20):
        agent, metrics = case.algorithm.update_actor(agent, case.batch, case.noise)
        before = metrics["actor_loss"] if before is None else before
    assert metrics["actor_loss"] < before


def test_deterministic_actor_maximises_q_without_entropy(case):
    case = case("h2o", actor="deterministic")
    observation = case.batch.sim.observation
    loss, entropy = case.algorithm.actor_loss(
        case.agent.actor, case.agent, observation, case.noise.action[: len(observation)]
    )
    best = case.agent.actor.best(observation)
    assert float(loss) == pytest.approx(-float(case.agent.critic(observation, best).min(0).mean()), rel=1e-5)
    assert entropy == 0.0
    new, metrics = case.algorithm.update(case.agent, case.batch, case.noise)
    assert "entropy" not in metrics
    assert new.log_temperature == case.agent.log_temperature


def test_actor_of_h2o_improves_in_the_states_of_both_sources(case):
    assert case("h2o").noise.action.shape == (16, 2)
    assert case("darc").noise.action.shape == (16, 2)
    moved = []
    for recipe in ("h2o", "h2o_reg"):
        c = case(recipe)
        c.batch = c.batch._replace(real=c.batch.real._replace(observation=c.batch.real.observation + 1.0))
        moved.append(c.algorithm.update_actor(c.agent, c.batch, c.noise)[1]["actor_loss"])
    untouched = case("h2o")
    base = untouched.algorithm.update_actor(untouched.agent, untouched.batch, untouched.noise)[1][
        "actor_loss"
    ]
    assert moved[0] == moved[1] != base


def test_cqls_random_actions_are_of_the_whole_range(case):
    algorithm = case("cql", cql_actions=500).algorithm
    drawn = np.asarray(algorithm.draw_noise(jax.random.key(0)).sampled_uniform)
    np.testing.assert_allclose(np.quantile(drawn, [0, 0.25, 0.5, 0.75, 1]), [-1, -0.5, 0, 0.5, 1], atol=0.05)


@pytest.mark.parametrize(("share", "real"), [(1e-6, 1), (0.25, 4), (0.5, 8), (1 - 1e-6, 15)])
def test_of_both_sources_there_is_at_least_a_row(case, share, real):
    sizes = case("h2o", batch_size=16, real_fraction=share).algorithm.batch_sizes
    assert sizes == {Reads.REAL: real, Reads.SIM: 16 - real}


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown recipe 'h20'.*trust, h2o"):
        get_recipe("h20")
    assert get_recipe("darc-plus") is get_recipe("darc_plus")
