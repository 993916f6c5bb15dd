"""The model estimator of the gap, on systems whose gap is known."""

from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from simtrust.data import Dataset
from simtrust.data.held_out import hold_out
from simtrust.errors import DataError
from simtrust.gap.dynamics_fitting import DynamicsModelOptions
from simtrust.gap.dynamics_model import CHUNK
from simtrust.gap.rollouts import chain_ends
from simtrust.gap.simulator_gap import (
    REALITY,
    SIMULATOR,
    FittedSimulatorGap,
    RowGaps,
    SimulatorGap,
    fit_simulator_gap,
)
from simtrust.types import Transitions

pytestmark = pytest.mark.usefixtures("optimised")
A = np.array([[-0.2, 0.3], [-0.3, -0.1]])
B = np.array([[1.0], [-0.5]])
SCALE = np.sqrt(np.diag(A @ A.T + B @ B.T / 3))
"""Standard deviation of the change, but for the noise."""
NOISE, LOUD = 0.02, 0.3
ROWS, EPISODE = 4_000, 50
CONSTANT = 0.5
QUICK = DynamicsModelOptions(
    members=2,
    elites=2,
    hidden_sizes=(32, 32),
    learning_rate=1e-2,
    final_learning_rate=0.01,
    variance_weighting=0.5,
    epochs=10,
)
ONE = DynamicsModelOptions(members=1, elites=1, hidden_sizes=(8,), epochs=1, epoch_updates=20)


def rows_of(count: int, seed: int, error: float = 0.0, noise: float = NOISE, spread: float = 1.0):
    """Rows of s' = s + A s + B a + noise, where a simulator errs by error·|s₀| in the second dimension.

    Beside the rows: that error, and the noise.
    """
    generator = np.random.default_rng(seed)
    s, a = spread * generator.normal(size=(count, 2)), generator.uniform(-1, 1, size=(count, 1))
    gap, added = error * np.abs(s[:, 0]), noise * generator.normal(size=(count, 2))
    s_next = s + s @ A.T + a @ B.T + added
    s_next[:, 1] += gap
    zero = np.zeros(count)
    return Transitions(*(x.astype(np.float32) for x in (s, a, zero, s_next, zero))), gap, added


def log_of(rows: Transitions) -> Dataset:
    end = np.arange(1, len(rows.reward) + 1) % EPISODE == 0
    end[-1] = True
    return Dataset(rows, end, "log.hdf5", "")


def fit(log: Dataset, simulated: Transitions, options=QUICK, seed=0, **rest) -> FittedSimulatorGap:
    return fit_simulator_gap(log, simulated, key=jax.random.key(seed), options=options, **rest)


@cache
def fitted(error: float = 0.0, simulator_noise: float = NOISE, real_noise: float = NOISE):
    return fit(log_of(rows_of(ROWS, 0, noise=real_noise)[0]), rows_of(ROWS, 1, error, simulator_noise)[0])


def same_bits(one: FittedSimulatorGap, other: FittedSimulatorGap) -> bool:
    pairs = zip(jax.tree.leaves(one.gap.model), jax.tree.leaves(other.gap.model), strict=True)
    return all(bool((x == y).all()) for x, y in pairs)


@pytest.mark.parametrize("error", [0.3, -0.3])
@pytest.mark.parametrize("seed", [1, 2], ids=["fitted rows", "rows never seen"])
def test_the_error_is_the_known_one(error, seed):
    gap = fitted(error).gap
    rows, truth, _ = rows_of(ROWS, seed, error)
    found = gap.assess(rows)
    large = np.abs(truth) > 0.2
    assert spearmanr(truth, found.error[:, 1]).statistic > 0.98
    assert np.median(np.abs(found.error[large, 1] / truth[large] - 1)) < 0.03
    assert np.median(np.abs(found.error[:, 0])) < 0.01
    expected = np.abs(truth) / SCALE[1] / np.sqrt(2)
    assert spearmanr(expected, found.gap).statistic > 0.98
    assert np.median(np.abs(found.gap[large] / expected[large] - 1)) < 0.03


def test_the_gap_is_the_errors_size_in_units_of_the_logged_change():
    gap = fitted(0.3).gap
    np.testing.assert_allclose(gap.scale, SCALE, rtol=0.03)
    found = gap.assess(rows_of(100, 2, 0.3)[0])
    expected = np.sqrt(np.square(found.error / np.asarray(gap.scale)).mean(1))
    np.testing.assert_allclose(found.gap, expected, rtol=1e-5)


def test_a_simulator_like_reality_has_hardly_any_gap():
    same, shifted = (fitted(error) for error in (0.0, 0.3))
    rows, _, _ = rows_of(2_000, 2)
    assert np.median(same.gap.assess(rows).gap) < 0.01
    assert same.distinction == pytest.approx(0.0, abs=0.05)
    assert shifted.distinction > 5


def test_distinction_is_a_matter_of_both_sides():
    """Held-out rows of either kind are less likely as the other's; the mean of both says by how much.

    Rows count where the members agree on what the other domain does.
    """
    found, log, simulated = fitted(0.3), log_of(rows_of(ROWS, 0)[0]), rows_of(ROWS, 1, 0.3)[0]
    medians = []
    for rows, ends, own, other in (
        (log.transitions, log.episode_end, REALITY, SIMULATOR),
        (simulated, chain_ends(simulated), SIMULATOR, REALITY),
    ):
        held_out = np.flatnonzero(hold_out(ends, np.zeros(ROWS, bool), QUICK.held_out_share))
        judges = Transitions(*(x[held_out] for x in rows))
        agreed = found.gap.doubt(judges, other) <= found.disagreement_limit
        assert 0.8 < agreed.mean() < 1
        likelier, less = (found.gap.log_density(judges, domain)[agreed] for domain in (own, other))
        medians.append(np.median(likelier - less))
    assert min(medians) > 5
    assert found.distinction == pytest.approx(np.mean(medians), rel=1e-4)


def test_the_log_density_is_the_gaussians_a_dimension():
    gap = fitted(0.3).gap
    rows, _, _ = rows_of(50, 2, 0.3)
    labelled = np.append(rows.action, np.full((50, 1), SIMULATOR, np.float32), axis=1)
    mean, variance = (np.asarray(x, np.float64).mean(0) for x in gap.model.change(rows.observation, labelled))
    change = rows.next_observation - rows.observation
    expected = norm.logpdf(change, mean, np.sqrt(variance)).mean(1) + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(gap.log_density(rows, SIMULATOR), expected, rtol=1e-3, atol=1e-3)


def test_a_simulator_that_is_only_noisier_is_told_apart():
    """The means agree, so that neither is predicted worse as the other by more than its own noise."""
    assert fitted(simulator_noise=LOUD).distinction > 1


def test_a_simulator_that_only_goes_where_the_log_never_was_confuses_nobody():
    rows, _, _ = rows_of(ROWS, 1)
    far = rows._replace(observation=rows.observation + 50, next_observation=rows.next_observation + 60)
    assert fit(log_of(rows_of(ROWS, 0)[0]), far).distinction == pytest.approx(0.0, abs=0.2)


def test_the_models_own_error_is_no_less_than_the_noise():
    """Noise of two dimensions of known size; its root mean square has a median of its own."""
    noise = NOISE * np.random.default_rng(0).normal(size=(100_000, 2)) / SCALE
    expected = np.median(np.sqrt(np.square(noise).mean(1)))
    found = fitted()
    assert found.floor == pytest.approx(expected, rel=0.15)
    np.testing.assert_allclose(found.r_squared, 1 - NOISE**2 / (SCALE**2 + NOISE**2), atol=1e-3)
    assert found.r_squared_overall == pytest.approx(found.r_squared.mean())


def test_a_simulators_own_noise_is_a_gap_row_by_row():
    gap = fitted(simulator_noise=LOUD).gap
    rows, _, added = rows_of(2_000, 2, noise=LOUD)
    found = gap.assess(rows)
    size = gap.size(added)
    assert np.corrcoef(size, found.gap)[0, 1] > 0.95
    assert np.median(found.gap) == pytest.approx(np.median(size), rel=0.1)
    assert np.corrcoef(added[:, 0], found.error[:, 0])[0, 1] > 0.95, "with its sign"


@pytest.mark.parametrize("simulator_noise", [LOUD, NOISE], ids=["both", "reality alone"])
def test_noise_of_reality_is_no_gap(simulator_noise):
    gap = fitted(simulator_noise=simulator_noise, real_noise=LOUD).gap
    rows, _, _ = rows_of(2_000, 2, noise=simulator_noise)
    loud = np.median(gap.size(rows_of(2_000, 2, noise=LOUD)[2]))
    assert np.median(gap.assess(rows).gap) < 0.15 * loud


def test_an_error_is_found_beside_noise_of_both():
    gap = fitted(0.5, LOUD, LOUD).gap
    rows, truth, _ = rows_of(2_000, 2, 0.5, LOUD)
    found = gap.assess(rows).error[:, 1]
    assert np.abs(found - truth).mean() < 0.25 * np.abs(truth).mean()
    assert spearmanr(found, truth).statistic > 0.9


def test_the_share_of_a_rows_own_error_is_the_one_documented():
    found = fitted(simulator_noise=LOUD).gap
    rows, _, _ = rows_of(50, 2, 0.3, LOUD)

    def of(domain):
        labelled = np.append(rows.action, np.full((50, 1), domain, np.float32), axis=1)
        return (np.asarray(x, np.float64).mean(0) for x in found.model.change(rows.observation, labelled))

    (real, real_variance), (simulated, simulated_variance) = of(REALITY), of(SIMULATOR)
    excess = np.maximum(simulated_variance - real_variance, 0)
    rest = rows.next_observation - rows.observation - simulated
    expected = simulated - real + excess / (excess + real_variance) * rest
    np.testing.assert_allclose(found.assess(rows).error, expected, rtol=1e-2, atol=1e-4)


def with_third(rows: Transitions, here=CONSTANT, following=CONSTANT) -> Transitions:
    columns = [np.broadcast_to(np.float32(x), len(rows.reward))[:, None] for x in (here, following)]
    return rows._replace(
        observation=np.append(rows.observation, columns[0], axis=1),
        next_observation=np.append(rows.next_observation, columns[1], axis=1),
    )


def constant(rows):
    return with_third(rows)


def elsewhere(rows):
    return with_third(rows, 100.0, 250.0)


def wild(rows):
    return with_third(rows, *10 * np.random.default_rng(3).normal(size=(2, len(rows.reward))))


def test_what_is_always_zero_in_the_log_is_not_read():
    """Its deviation is 0, and so is the rounding of what is 0."""
    log = log_of(with_third(rows_of(200, 0)[0], 0.0, 0.0))
    rows = rows_of(200, 1)[0]
    found = fit(log, with_third(rows, 0.0, 0.0), ONE)
    near, far = (found.gap.assess(with_third(rows, x, x)).gap for x in (0.0, 1e4))
    np.testing.assert_array_equal(near, far)


@pytest.mark.parametrize("error", [0.0, 0.3])
@pytest.mark.parametrize("third", [constant, elsewhere, wild])
def test_what_does_not_vary_in_the_log_has_no_influence(third, error):
    log = log_of(constant(rows_of(ROWS, 0)[0]))
    found = fit(log, third(rows_of(ROWS, 1, error)[0]))
    assert np.isinf(found.gap.scale).tolist() == [False, False, True]
    assert np.isnan(found.r_squared).tolist() == [False, False, True]
    rows, truth, _ = rows_of(2_000, 2, error)
    gaps = found.gap.assess(third(rows)).gap
    expected = np.abs(truth) / SCALE[1] / np.sqrt(2)
    assert np.median(np.abs(gaps - expected)) < 0.05
    assert (found.distinction > 1) == (error > 0)
    others = with_third(rows, *1e4 * np.random.default_rng(4).normal(size=(2, 2_000)))
    np.testing.assert_array_equal(found.gap.assess(others).gap, gaps)
    np.testing.assert_array_equal(found.gap.divergence(others), (gaps**2).astype(np.float32))


def test_a_clock_does_not_vary():
    """Its change is constant, but not in float32; nor must rounding add up over many rows."""
    rows = 400_000
    clock = (0.1 * (np.arange(rows) % 1_000)).astype(np.float32)
    here = np.stack([clock, np.full_like(clock, CONSTANT)], axis=1)
    zero = np.zeros(rows, np.float32)
    ticking = Transitions(here, zero[:, None], zero, here + np.float32([0.1, 0]), zero)
    with pytest.raises(DataError, match="no dimension of the change varies"):
        fit(log_of(ticking), rows_of(100, 0)[0], ONE)


def test_the_divergence_is_that_of_gaussians():
    gap = fitted(0.3).gap
    rows, _, _ = rows_of(500, 2, 0.3)
    divergence = gap.divergence(rows)
    assert divergence.dtype == np.float32
    assert (divergence >= 0).all()
    np.testing.assert_array_equal(divergence, (0.5 * 2 * gap.assess(rows).gap ** 2).astype(np.float32))
    sums = 0.5 * np.square(gap.assess(rows).error / np.asarray(gap.scale)).sum(1)
    np.testing.assert_allclose(divergence, sums, rtol=1e-5)


def test_members_disagree_outside_the_log():
    found = fitted(0.3)
    near, far = (
        found.gap.assess(rows_of(2_000, 2, 0.3, spread=spread)[0]).disagreement for spread in (1.0, 10.0)
    )
    assert np.median(far) > 20 * np.median(near)
    assert 0.88 < (near <= found.disagreement_limit).mean() < 0.99
    assert (far <= found.disagreement_limit).mean() < 0.2


def test_the_limit_of_disagreement_is_a_quantile_of_the_logs_held_out_rows():
    found, log = fitted(0.3), log_of(rows_of(ROWS, 0)[0])
    held_out = hold_out(log.episode_end, np.zeros(ROWS, bool), QUICK.held_out_share)
    disagreement = found.gap.assess(Transitions(*(x[held_out] for x in log.transitions))).disagreement
    assert (disagreement <= found.disagreement_limit).mean() == pytest.approx(0.95, abs=1 / held_out.sum())


def chains(count: int, seed: int, length: int = EPISODE) -> Transitions:
    """Rows of the same system, where each starts where the last one ended, but for every 50th."""
    rows, _, added = rows_of(count, seed)
    s = rows.observation.copy()
    for row in range(count):
        if row % length:
            s[row] = rows.next_observation[row - 1]
        rows.next_observation[row] = s[row] + s[row] @ A.T + rows.action[row] @ B.T + added[row]
    return rows._replace(observation=s)


def poison(rows: Transitions, where: np.ndarray) -> Transitions:
    """Other values, that leave chains as they are."""
    names = ("observation", "action", "next_observation")
    return rows._replace(
        **{name: np.where(where[:, None], -8 * getattr(rows, name), getattr(rows, name)) for name in names}
    )


def recorded() -> tuple[Dataset, Transitions]:
    """A log whose terminal rows' next states nobody recorded, and simulated rows."""
    log = log_of(chains(1_000, 0))
    log.transitions.terminated[log.episode_end] = 1.0
    log.transitions.next_observation[log.episode_end] = log.transitions.observation[log.episode_end]
    return log, chains(600, 1)


def test_held_out_rows_are_never_trained_on():
    """Neither whole episodes of the log nor whole chains of the simulator."""
    log, simulated = recorded()
    clean = fit(log, simulated, ONE)
    of_log, of_simulated = (
        hold_out(ends, unknown, ONE.held_out_share)
        for ends, unknown in (
            (log.episode_end, log.episode_end),
            (chain_ends(simulated), np.zeros(600, bool)),
        )
    )
    assert set(of_log.reshape(-1, EPISODE).sum(1)) == {0, EPISODE - 1}
    assert set(of_simulated.reshape(-1, EPISODE).sum(1)) == {0, EPISODE}

    def poisoned(where):
        return replace(log, transitions=poison(log.transitions, where))

    other_log = fit(poisoned(of_log), simulated, ONE)
    other_simulated = fit(log, poison(simulated, of_simulated), ONE)
    for other in (other_log, other_simulated):
        assert same_bits(clean, other)
        assert other.distinction != clean.distinction
    assert (other_log.r_squared != clean.r_squared).all()
    assert other_log.floor > 2 * clean.floor
    np.testing.assert_array_equal(other_simulated.r_squared, clean.r_squared)
    assert other_simulated.floor == clean.floor
    assert not same_bits(clean, fit(poisoned(~of_log), simulated, ONE))
    assert not same_bits(clean, fit(log, poison(simulated, ~of_simulated), ONE))


def test_unknown_next_states_of_the_log_are_never_used():
    log, simulated = recorded()
    action = np.where(log.episode_end[:, None], np.float32(1e5), log.transitions.action)
    other = replace(log, transitions=log.transitions._replace(action=action))
    first, second = (fit(one, simulated, ONE) for one in (log, other))
    assert same_bits(first, second)
    for one, same in zip(first[1:], second[1:], strict=True):
        np.testing.assert_array_equal(one, same)
    known = Transitions(*(x[~log.episode_end] for x in log.transitions))
    expected = (known.next_observation - known.observation).std(0)
    np.testing.assert_allclose(first.gap.scale, expected, rtol=1e-5)


def test_the_same_key_gives_the_same_bits_and_progress_is_told():
    log, simulated, told = log_of(rows_of(ROWS, 0)[0]), rows_of(ROWS, 1, 0.3)[0], []
    again = fit(log, simulated, progress=lambda epoch, loss: told.append((epoch, loss)))
    first, other = fitted(0.3), fit(log, simulated, seed=1)
    assert same_bits(first, again)
    for one, same in zip(first[1:], again[1:], strict=True):
        np.testing.assert_array_equal(one, same)
    assert not same_bits(first, other)
    assert first.disagreement_limit != other.disagreement_limit
    assert [epoch for epoch, _ in told] == list(range(1, len(told) + 1))
    assert told[-1][1] < told[0][1] < 1


def test_nothing_given_is_changed():
    log, simulated = log_of(constant(rows_of(ROWS, 0)[0])), elsewhere(rows_of(ROWS, 1)[0])
    before = [x.copy() for x in (*log.transitions, *simulated)]
    fit(log, simulated).gap.assess(simulated)
    for one, other in zip(before, (*log.transitions, *simulated), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rows", [0, 1, CHUNK + 1])
def test_any_number_of_rows_is_assessed_alike(rows):
    gap: SimulatorGap = fitted(0.3).gap
    some, _, _ = rows_of(CHUNK + 1, 2, 0.3)
    whole = gap.assess(some)
    some = Transitions(*(x[len(x) - rows :] for x in some))
    found = gap.assess(some)
    assert isinstance(found, RowGaps)
    for part, every, shape in zip(found, whole, [(rows, 2), (rows,), (rows,)], strict=True):
        assert part.dtype == np.float32
        assert part.shape == shape
        np.testing.assert_allclose(part, every[len(every) - rows :], rtol=1e-4, atol=1e-5)
    for each in (gap.divergence(some), gap.surprise(some, REALITY)):
        assert each.shape == (rows,)
        assert each.dtype == np.float32


def test_a_machine_that_stands_still_is_refused():
    rows, _, _ = rows_of(100, 0)
    still = log_of(rows._replace(next_observation=rows.observation))
    with pytest.raises(DataError, match=r"log\.hdf5: no dimension of the change varies.*Remedy"):
        fit(still, rows, ONE)


def test_too_few_rows_are_refused():
    enough, few = rows_of(100, 0)[0], rows_of(9, 0)[0]
    with pytest.raises(DataError, match=r"9 rows.*Remedy"):
        fit(log_of(few), enough, ONE)
    with pytest.raises(DataError, match=r"9 rows.*Remedy"):
        fit(log_of(enough), few, ONE)


def test_ten_rows_of_each_are_just_enough():
    found = fit(log_of(rows_of(10, 0)[0]), rows_of(10, 1)[0], ONE)
    assert np.isfinite(found.gap.assess(rows_of(10, 2)[0]).gap).all()
    assert np.isfinite([found.floor, found.distinction, found.disagreement_limit]).all()
