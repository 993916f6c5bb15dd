"""H2O's critic loss, and ours, against a slow transcription of Eq. 6, 7, 8, 33 and 36, one number at a time.

The transcription runs in float64 and knows nothing of the library but the networks' weights. It uses
the four log-probabilities of Eq. 7 as the paper writes them. Gradients are central differences of it.
"""

import math

import jax
import numpy as np
import pytest

GAMMA, BETA = 0.99, 0.3


def network(mlp, x, layer_norm=False):
    """A perceptron on one sample, from its weights as float64 lists of layers."""
    layers, norms = mlp
    for index, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        if index == len(layers) - 1:
            return x
        if norms:
            scale, offset = norms[index]
            x = (x - x.mean()) / math.sqrt(x.var() + 1e-5) * scale + offset
        x = np.maximum(x, 0.0)
    raise AssertionError


def weights(mlp, member=None):
    """The weights of an `MLP` as float64, one member of an ensemble if asked."""
    pick = (
        (lambda a: np.asarray(a, np.float64))
        if member is None
        else (lambda a: np.asarray(a[member], np.float64))
    )
    layers = [(pick(layer.weight), pick(layer.bias)) for layer in mlp.layers]
    return layers, [(pick(norm.scale), pick(norm.offset)) for norm in mlp.norms]


def log_probabilities(logits):
    """Log of the softmax of two logits, real first."""
    return logits - math.log(np.exp(logits).sum())


def log_ratio(phi, psi, s, a, s_next):
    """log P̂/P by Eq. 7, literally: four log-probabilities."""
    sa = 2.0 * np.tanh(network(psi, np.concatenate([s, a])))
    sas = sa + 2.0 * np.tanh(network(phi, np.concatenate([s, a, s_next])))
    real_sas, sim_sas = log_probabilities(sas)
    real_sa, sim_sa = log_probabilities(sa)
    return (sim_sas - real_sas) - (sim_sa - real_sa)


def action_of(actor, s, noise):
    mean, log_std = np.split(network(actor, s), 2)
    return np.tanh(mean + np.exp(np.clip(log_std, -20, 2)) * noise)


def around(factor, noise):
    """Eq. 33's next states of a row: around the simulated one."""
    return lambda row, s_next: [s_next + factor @ e for e in noise.next_state[:, row]]


def of_the_model(predicted, noise):
    """Eq. 36's next states of a row: each from an elite of its own, whatever the simulated."""
    mean, std = (np.asarray(x, np.float64) for x in predicted)

    def draws(row, _):
        pairs = zip(noise.elite[:, row], noise.next_state[:, row], strict=True)
        chosen = [(int(float(share) * len(mean)), e) for share, e in pairs]
        return [mean[m, row] + std[m, row] * e for m, e in chosen]

    return draws


def classified(sim, phi, psi, draws, direction):
    """w and u of every simulated row by the classifiers, before they are clipped.

    u is the mean of ``direction`` times log P̂/P over the next states that ``draws`` gives.
    """
    w, u = [], []
    for index, (s, a, _, s_next, _) in enumerate(zip(*sim, strict=True)):
        w.append(math.exp(-log_ratio(phi, psi, s, a, s_next)))
        terms = [direction * log_ratio(phi, psi, s, a, drawn) for drawn in draws(index, s_next)]
        u.append(sum(terms) / len(terms))
    return w, u


def literal_loss(critics, frozen, real, sim, noise, w, u):
    """Σ_critics of Eq. 8 (without its ½) plus β times the bracket of Eq. 6."""
    targets, actor = frozen
    rows = [*zip(*real, strict=True), *zip(*sim, strict=True)]
    q = [[network(c, np.concatenate([s, a]))[0] for s, a, *_ in rows] for c in critics]
    y = []
    for (_, _, r, s_next, terminated), e in zip(rows, noise.next_action, strict=True):
        inputs = np.concatenate([s_next, action_of(actor, s_next, e)])
        value = min(network(t, inputs)[0] for t in targets)
        y.append(r + (0.0 if terminated else GAMMA * value))
    count = len(real[0])
    w = [min(max(x, 1e-5), 1.0) for x in w]
    u = [min(max(x, float(np.finfo(np.float32).tiny)), 10.0) for x in u]
    omega = [x / sum(u) for x in u]
    total = 0.0
    for values in q:
        total += sum((v - t) ** 2 for v, t in zip(values[:count], y[:count], strict=True)) / count
        errors = zip(w, values[count:], y[count:], strict=True)
        total += sum(x * (v - t) ** 2 for x, v, t in errors) / len(w)
        soft_maximum = math.log(sum(o * math.exp(v) for o, v in zip(omega, values[count:], strict=True)))
        total += BETA * (soft_maximum - sum(values[:count]) / count)
    return total


@pytest.fixture(params=["h2o", "h2o_layer_norm", "h2o_reverse_kl", "trust"])
def problem(case, request):
    case = case(request.param, beta=BETA)
    agent = case.agent
    # A target network that is not the critic, or the two could be mixed up unnoticed.
    agent = case.algorithm.create(jax.random.key(11))
    frozen = (
        [weights(agent.target_critic.members, e) for e in range(2)],
        weights(agent.actor.network),
    )
    as_float64 = lambda t: [np.asarray(x, np.float64) for x in t]  # noqa: E731
    data = as_float64(case.batch.real), as_float64(case.batch.sim), case.noise
    w, u = by_row(case, agent, sign=1)
    assert sum(x > 0.1 for x in u) > 2, "or ω would hardly depend on it"
    return case, agent, frozen, (*data, w, u)


def by_row(case, agent, *, sign):
    """w and u of every simulated row; the log-ratio or gap that both are made from times ``sign``."""
    if case.batch.measured_gap is not None:
        gap = sign * np.asarray(case.batch.measured_gap, np.float64)
        return np.exp(-gap), gap
    phi, psi = weights(agent.classifier.transition), weights(agent.classifier.state_action)
    if sign < 0:
        phi = ([*phi[0][:-1], tuple(x[..., ::-1] for x in phi[0][-1])], phi[1])
    sim = [np.asarray(x, np.float64) for x in case.batch.sim]
    if case.batch.predicted is not None:
        return classified(sim, phi, psi, of_the_model(case.batch.predicted, case.noise), -1)
    factor = np.asarray(case.algorithm.coefficients.next_state_noise, np.float64)
    return classified(sim, phi, psi, around(factor, case.noise), 1)


def jax_loss(critic, case, agent):
    next_values = case.algorithm.next_values(agent, _concatenated(case.batch), case.noise)
    estimates = case.algorithm.gap_estimates(agent, case.batch, case.noise)
    return case.algorithm.critic_loss(critic, agent, case.batch, next_values, estimates, case.noise)[0]


def _concatenated(batch):
    from simtrust.algorithms.agent import concatenate

    return concatenate(batch.real, batch.sim)


def test_loss_is_the_literal_one(problem):
    case, agent, frozen, data = problem
    critic = case.agent.critic
    literal = literal_loss([weights(critic.members, e) for e in range(2)], frozen, *data)
    assert float(jax_loss(critic, case, agent)) == pytest.approx(literal, rel=2e-5)


def test_gradient_is_the_literal_one(problem):
    case, agent, frozen, data = problem
    critic = case.agent.critic
    gradient = jax.grad(jax_loss)(critic, case, agent)
    generator = np.random.default_rng(0)
    for _ in range(3):
        direction = jax.tree.map(lambda x: generator.normal(size=x.shape), critic)

        def along(t, direction=direction):
            moved = jax.tree.map(lambda x, d: np.asarray(x, np.float64) + t * d, critic, direction)
            return literal_loss([weights(moved.members, e) for e in range(2)], frozen, *data)

        literal = (along(1e-5) - along(-1e-5)) / 2e-5
        parts = jax.tree.map(lambda g, d: (np.asarray(g, np.float64) * d).sum(), gradient, direction)
        assert sum(jax.tree.leaves(parts)) == pytest.approx(literal, rel=2e-3, abs=1e-4)


def test_the_wrong_sign_of_the_reverse_gap_alone_would_be_noticed(case):
    """With w as it is: log P̂/P at the model's next states would punish where the simulator is right."""
    case = case("h2o_reverse_kl", beta=BETA)
    phi, psi = (weights(x) for x in (case.agent.classifier.transition, case.agent.classifier.state_action))
    sim = [np.asarray(x, np.float64) for x in case.batch.sim]
    draws = of_the_model(case.batch.predicted, case.noise)
    estimated = np.asarray(case.algorithm.gap_estimates(case.agent, case.batch, case.noise).reverse_gap)
    for direction, same in ((-1, True), (1, False)):
        _, u = classified(sim, phi, psi, draws, direction)
        clipped = np.clip(u, np.finfo(np.float32).tiny, 10.0)
        assert np.allclose(estimated, clipped, rtol=1e-4, atol=1e-6) is same
    assert 0 < (estimated > 1e-3).sum() < len(estimated), "both signs occur"


def test_the_wrong_sign_of_the_gap_would_be_noticed(problem):
    case, agent, frozen, data = problem
    critic = [weights(case.agent.critic.members, e) for e in range(2)]
    inverted = literal_loss(critic, frozen, *data[:3], *by_row(case, agent, sign=-1))
    assert abs(float(jax_loss(case.agent.critic, case, agent)) - inverted) > 1e-3
