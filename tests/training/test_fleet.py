"""Runs side by side: a fleet is its members, and what is drawn does not depend on how."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simtrust.algorithms.agent import Algorithm
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import get_recipe
from simtrust.data.replay import ReplayBuffer, insert, row_size, unpack
from simtrust.gap.classifier import REAL, SIM, classifier_accuracy
from simtrust.training import fleet as fleet_module
from simtrust.training import rounds
from simtrust.training.fleet import EXPLORE, UPDATE, Fleet, seed_keys
from simtrust.training.rounds import over_runs, sample
from simtrust.training.updating import Log, Share, update_as_one, update_one_by_one

OBSERVATION, ACTION = 3, 1
TRAINING, HELD_OUT, ROWS, CAPACITY, UPDATES = 40, 10, 60, 32, 5


def make_algorithm(recipe: str, *, beta: float = 0.01, noise: float = 0.1) -> Algorithm:
    options = AlgorithmOptions(
        batch_size=8, hidden_sizes=(8,), classifier_hidden_sizes=(8,), classifier_batch_size=8, beta=beta
    )
    return Algorithm(
        get_recipe(recipe),
        options,
        observation_size=OBSERVATION,
        action_size=ACTION,
        next_state_noise=noise * jnp.eye(OBSERVATION),
    )


def make_fleet(recipe: str, update_all=None) -> Fleet:
    return Fleet(make_algorithm(recipe), update_all)


def random_rows(*leading: int, seed: int) -> np.ndarray:
    rows = (
        np.random.default_rng(seed).normal(size=(*leading, row_size(OBSERVATION, ACTION))).astype(np.float32)
    )
    rows[..., -1] = 0.0
    return rows


def make_log(rows: np.ndarray) -> Log:
    return Log(jnp.asarray(rows), TRAINING, HELD_OUT)


def make_buffer(rows: np.ndarray) -> ReplayBuffer:
    return insert(ReplayBuffer.create(len(rows), CAPACITY, rows.shape[-1]), jnp.asarray(rows))


LOG_ROWS = random_rows(ROWS, seed=0)
SIM_ROWS = random_rows(2, 20, seed=1)


def train(fleet: Fleet, seeds, sim_rows=SIM_ROWS, log_rows=LOG_ROWS, updates=UPDATES, step=0):
    return fleet.train(
        fleet.create(seeds),
        make_log(log_rows),
        make_buffer(sim_rows),
        seed_keys(seeds, UPDATE),
        step=step,
        updates=updates,
    )


@pytest.fixture(scope="module", params=[update_as_one, update_one_by_one])
def h2o(request) -> Fleet:
    """In both of the ways in which a device may update it."""
    return make_fleet("h2o", request.param)


@pytest.fixture(scope="module")
def darc() -> Fleet:
    return make_fleet("darc")


def run_of(tree, run: int):
    return jax.tree.map(lambda x: np.asarray(x[run]), tree)


def assert_close(ours, theirs, tolerance=1e-4):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=1e-6), ours, theirs)


def differ(ours, theirs) -> bool:
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return any(not np.allclose(x, y, rtol=1e-4, atol=1e-6) for x, y in pairs)


def test_fleet_of_two_is_two_fleets_of_one(h2o):
    together, metrics = train(h2o, (3, 4))
    for run, seed in enumerate((3, 4)):
        alone, own_metrics = train(h2o, (seed,), SIM_ROWS[run : run + 1])
        assert_close(run_of(together, run), run_of(alone, 0))
        assert_close(run_of(metrics, run), run_of(own_metrics, 0))
    assert differ(run_of(together, 0), run_of(together, 1))


def test_on_a_cpu_a_run_has_the_same_bits_alone_and_beside_others(darc):
    together, _ = train(darc, (3, 4, 5), random_rows(3, 20, seed=1))
    alone, _ = train(darc, (4,), random_rows(3, 20, seed=1)[1:2])
    jax.tree.map(np.testing.assert_array_equal, run_of(together, 1), run_of(alone, 0))


def test_what_differs_in_coefficients_alone_is_traced_once_and_has_its_own(monkeypatch):
    traced, original = [], fleet_module.train_round
    monkeypatch.setattr(fleet_module, "train_round", lambda *a, **k: traced.append(0) or original(*a, **k))
    fleet_module._compiled.cache_clear()
    weak, strong = (train(Fleet(make_algorithm("h2o", beta=beta)), (3,))[0] for beta in (0.01, 1.0))
    assert len(traced) == 1
    fleet_module._compiled.cache_clear()
    alone, _ = train(Fleet(make_algorithm("h2o", beta=1.0)), (3,))
    assert len(traced) == 2
    jax.tree.map(np.testing.assert_array_equal, strong, alone)
    assert differ(strong, weak)
    fleet_module._compiled.cache_clear()


@pytest.mark.parametrize("other", [{"recipe": "h2o_v"}, {"learning_rate": 0.1}, {"hidden_sizes": (4,)}])
def test_programs_of_other_algorithms_are_others(other):
    """Whatever was trained before in this process."""
    common = {"recipe": "h2o", "learning_rate": 1e-3, "hidden_sizes": (8,)}
    before, after = (own_fleet(**common), own_fleet(**{**common, **other}))
    ours, theirs = (train(each, (3,))[0] for each in (before, after))
    if "hidden_sizes" in other:
        assert theirs.actor.network.layers[0].weight.shape[-1] == 4
    else:
        assert differ(ours, theirs)


def own_fleet(recipe: str, **options) -> Fleet:
    made = make_algorithm(recipe)
    sizes = {"observation_size": OBSERVATION, "action_size": ACTION}
    own = replace(made.options, **options)
    return Fleet(Algorithm(made.recipe, own, **sizes, next_state_noise=jnp.eye(OBSERVATION)))


def shares_of(*algorithms: Algorithm, fleet: Fleet) -> list[Share]:
    """Trainings of other logs, buffers, seeds, steps and coefficients, the first of two runs."""
    return [
        Share(
            fleet.create(seeds),
            make_log(random_rows(ROWS + 7 * index, seed=10 + index)),
            make_buffer(random_rows(len(seeds), 20 + index, seed=20 + index)),
            seed_keys(seeds, UPDATE),
            algorithm.coefficients,
            3 * index,
        )
        for index, (algorithm, seeds) in enumerate(zip(algorithms, ((3, 4), (5,), (6,)), strict=False))
    ]


def test_trainings_side_by_side_are_each_as_alone(h2o):
    """They differ in beta and in the noise around s' too, and every one's own must be used."""
    algorithms = [
        make_algorithm("h2o", beta=beta, noise=n) for beta, n in ((0.0, 0.1), (5.0, 0.1), (5.0, 3.0))
    ]
    side_by_side = h2o.begin_updates(shares_of(*algorithms, fleet=h2o), UPDATES)()
    alone = [h2o.begin_updates([share], UPDATES)()[0] for share in shares_of(*algorithms, fleet=h2o)]
    assert_close(side_by_side, alone)
    first = [h2o.begin_updates([share], UPDATES)()[0] for share in shares_of(*algorithms[:1] * 3, fleet=h2o)]
    assert differ(first[1], alone[1])
    assert differ(first[2], alone[2])


def test_only_coefficients_may_differ_within_a_shape():
    shape = make_algorithm("h2o").shape()
    assert shape == make_algorithm("h2o", beta=1.0, noise=2.0).shape()
    assert shape != make_algorithm("h2o_dr").shape()


def test_same_seed_same_bits_other_seed_other_bits(darc):
    first, again, other = (run_of(train(darc, (seed,), SIM_ROWS[:1])[0], 0) for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert differ(first, other)


def test_batches_do_not_depend_on_how_many_are_drawn_together(monkeypatch):
    agents = {}
    for together in (1, 20):
        monkeypatch.setattr(rounds, "DRAWN_TOGETHER", together)
        agents[together], _ = train(make_fleet("darc"), (3,), SIM_ROWS[:1])
    assert_close(agents[1], agents[20])


def test_a_round_is_one_update_after_another(monkeypatch):
    """Though draws and classifiers are a block ahead of critics and actor, and there are several blocks."""
    monkeypatch.setattr(rounds, "DRAWN_TOGETHER", 2)
    fleet, log, buffer, keys = (
        make_fleet("h2o"),
        make_log(LOG_ROWS),
        make_buffer(SIM_ROWS[:1]),
        seed_keys((3,), UPDATE),
    )
    agents, metrics = fleet.train(fleet.create((3,)), log, buffer, keys, step=0, updates=6)
    agent, update = run_of(fleet.create((3,)), 0), jax.jit(fleet.algorithm.update)
    infos = []
    for step in range(6):
        drawn = fleet.draw(log, buffer, keys, step=step)
        agent, info = update(agent, run_of(drawn.batch, 0), run_of(drawn.noise, 0))
        infos.append(info)
    assert_close(run_of(agents, 0), agent)
    assert_close(run_of(metrics, 0), {name: np.mean([info[name] for info in infos]) for name in infos[0]})


def test_rounds_go_on_where_the_last_one_ended(darc):
    """Batches depend on the step alone, so ten updates are five, and then five from step 5 on."""
    at_once, _ = train(make_fleet("darc"), (3,), SIM_ROWS[:1], updates=2 * UPDATES)
    log, buffer, keys = make_log(LOG_ROWS), make_buffer(SIM_ROWS[:1]), seed_keys((3,), UPDATE)
    ends = {}
    for second_start in (UPDATES, 0):
        agents, _ = train(darc, (3,), SIM_ROWS[:1])
        ends[second_start], _ = darc.train(agents, log, buffer, keys, step=second_start, updates=UPDATES)
    assert_close(ends[UPDATES], at_once)
    assert differ(ends[0], at_once), "or else a step of no effect would have gone unnoticed"


def test_classifiers_never_see_held_out_rows(darc):
    """In DARC only the classifiers read the log: NaN in the rows they may not see changes nothing."""
    poisoned = LOG_ROWS.copy()
    poisoned[TRAINING:] = np.nan
    clean, _ = train(darc, (3,), SIM_ROWS[:1])
    agents, metrics = train(darc, (3,), SIM_ROWS[:1], poisoned)
    jax.tree.map(np.testing.assert_array_equal, agents, clean)
    assert all(np.isfinite(value).all() for value in metrics.values())


def test_poison_in_the_training_rows_would_show(darc):
    poisoned = LOG_ROWS.copy()
    poisoned[:TRAINING] = np.nan
    _, metrics = train(darc, (3,), SIM_ROWS[:1], poisoned)
    assert np.isnan(metrics["classifier_loss_sas"]).all()


def test_critics_learn_from_every_row_of_the_log():
    """CQL reads all of the log, held-out rows too: NaN in these must show, in enough draws."""
    poisoned = LOG_ROWS.copy()
    poisoned[TRAINING:] = np.nan
    fleet = make_fleet("cql")
    _, metrics = fleet.train(
        fleet.create((3,)), make_log(poisoned), None, seed_keys((3,), UPDATE), step=0, updates=UPDATES
    )
    assert np.isnan(metrics["critic_loss"]).all()


def test_held_out_accuracy_is_that_of_the_held_out_rows(darc):
    agents = darc.create((3, 4))
    rows = LOG_ROWS.copy()
    rows[:TRAINING] = rows[TRAINING + HELD_OUT :] = np.nan
    accuracy = darc.held_out_accuracy(agents, make_log(rows), SIM_ROWS)
    for run in (0, 1):
        classifier = run_of(agents, run).classifier
        real = unpack(jnp.asarray(rows[TRAINING : TRAINING + HELD_OUT]), OBSERVATION, ACTION)
        expected = classifier_accuracy(classifier, real, REAL)
        expected |= classifier_accuracy(
            classifier, unpack(jnp.asarray(SIM_ROWS[run]), OBSERVATION, ACTION), SIM
        )
        assert {name: value[run] for name, value in accuracy.items()} == pytest.approx(
            {name: float(value) for name, value in expected.items()}
        )


def test_every_simulated_row_of_a_batch_comes_with_its_own_gap():
    """Here a row's gap is the square of its reward."""
    gap = np.square(SIM_ROWS[..., OBSERVATION + ACTION])
    rows = np.concatenate([SIM_ROWS, gap[..., None]], axis=-1)
    fleet, buffer = make_fleet("trust"), make_buffer(rows)
    share = Share(
        fleet.create((3, 4)),
        make_log(LOG_ROWS),
        buffer,
        seed_keys((3, 4), UPDATE),
        fleet.algorithm.coefficients,
        0,
    )
    batch = sample(fleet.algorithm, share.source(), TRAINING, jnp.asarray(1), jax.random.key(0))
    assert batch.classifier_real is batch.classifier_sim is None
    np.testing.assert_array_equal(batch.measured_gap, jnp.square(batch.sim.reward))
    assert len(np.unique(batch.measured_gap)) > 1
    _, metrics = train(fleet, (3, 4), rows)
    assert (metrics["weight"] < 1).all()
    assert (metrics["gap"] > 0).all()


def test_acting_without_keys_is_deterministic_and_with_keys_explores(darc):
    act, keys = darc.actor(darc.create((3, 4))), seed_keys((3, 4), EXPLORE)
    observation = np.random.default_rng(0).normal(size=(2, 6, OBSERVATION)).astype(np.float32)
    best = act(observation)
    assert best.shape == (2, 6, ACTION)
    np.testing.assert_array_equal(act(observation), best)
    explored = act(observation, keys, 7)
    np.testing.assert_array_equal(act(observation, keys, 7), explored)
    assert len({a.tobytes() for a in (best, explored, act(observation, keys, 8))}) == 3


def test_instances_of_a_run_explore_differently_and_runs_too(darc):
    agents = jax.tree.map(lambda x: jnp.stack([x[0], x[0]]), darc.create((3,)))
    observation = np.zeros((2, 3, OBSERVATION), np.float32)
    explored = darc.actor(agents)(observation, seed_keys((3, 4), EXPLORE), 0)
    assert len(set(explored.ravel().tolist())) == 6


def test_keys_differ_by_seed_and_by_purpose():
    keys = np.concatenate([jax.random.key_data(seed_keys((0, 1, 2), purpose)) for purpose in range(3)])
    assert len({tuple(key) for key in keys.tolist()}) == 9


def test_over_one_run_equals_vmap():
    def function(x, shared, extra):
        return {"sum": x["a"] @ shared + extra, "a": x["a"].T}

    x = {"a": jnp.arange(6.0).reshape(1, 2, 3)}
    arguments = (x, jnp.arange(3.0), jnp.ones((1, 2)))
    axes = (0, None, 0)
    ours, theirs = over_runs(function, axes)(*arguments), jax.vmap(function, axes)(*arguments)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
