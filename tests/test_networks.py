"""Networks against plain numpy."""

import jax
import numpy as np
import pytest

from simtrust.networks import MLP, CriticEnsemble, LayerNorm, ResidualMLP


@pytest.mark.parametrize("layer_norm", [False, True])
def test_mlp_is_the_textbook_one(layer_norm):
    mlp = MLP(3, (5, 4), 2, layer_norm=layer_norm, key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    hidden = x
    for index, layer in enumerate(mlp.layers):
        hidden = hidden @ np.asarray(layer.weight) + np.asarray(layer.bias)
        if index < 2:
            if layer_norm:
                centred = hidden - hidden.mean(-1, keepdims=True)
                hidden = centred / np.sqrt(hidden.var(-1, keepdims=True) + 1e-5)
            hidden = np.maximum(hidden, 0.0)
    np.testing.assert_allclose(mlp(x), hidden, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hidden_sizes", [(5,), (5, 5), (5, 5, 5, 5)])
def test_residual_mlp_is_swish_and_skips(hidden_sizes):
    mlp = ResidualMLP(3, hidden_sizes, 2, key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    assert len(mlp.layers) == len(hidden_sizes) + 1
    hidden = 0.0
    for index, layer in enumerate(mlp.layers[:-1]):
        reached = (hidden if index else x) @ np.asarray(layer.weight) + np.asarray(layer.bias)
        hidden = hidden + reached / (1 + np.exp(-reached))
    expected = hidden @ np.asarray(mlp.layers[-1].weight) + np.asarray(mlp.layers[-1].bias)
    np.testing.assert_allclose(mlp(x), expected, rtol=1e-4, atol=1e-6)


def test_layer_norm_standardises():
    x = 10.0 + 3.0 * jax.random.normal(jax.random.key(0), (5, 400))
    y = np.asarray(LayerNorm(400)(x))
    np.testing.assert_allclose(y.mean(-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(y.std(-1), 1.0, rtol=1e-4)


def test_members_of_an_ensemble_differ_and_are_independent():
    critic = CriticEnsemble(3, 2, (8,), size=3, key=jax.random.key(0))
    s, a = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    q = np.asarray(critic(s, a))
    assert q.shape == (3, 4)
    assert len({float(v) for v in q[:, 0]}) == 3
    one = jax.tree.map(lambda x: x[1], critic.members)
    np.testing.assert_allclose(one(np.concatenate([s, a], -1))[:, 0], q[1], rtol=1e-5)
