"""Multi-layer perceptrons, batch first, with ensembles as a leading axis of the parameters.

Weights are stored ``[in, out]`` and applied as ``x @ weight`` to a whole batch: on CPU, XLA runs this
faster than per-sample layers under ``vmap`` (``benchmarks/update_rate.py`` measures the whole update).
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

LAYER_NORM_EPSILON = 1e-5
NARROW = 16
"""A layer of fewer outputs is narrow."""


@jax.custom_vjp
def product(x: Float[Array, "*batch in"], weight: Float[Array, "in out"]) -> Float[Array, "*batch out"]:
    """``x @ weight``, whose gradient by a narrow weight is quick on a CPU too."""
    return x @ weight


def _product(x: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ weight, (x, weight)


def _product_gradients(factors: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, weight = factors
    rows, by_output = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    if 1 < weight.shape[-1] < NARROW:
        # A tall product of few columns takes XLA's CPU ten times as long as its transpose, which is the same
        # numbers; without the barrier it would turn one into the other.
        by_weight = jax.lax.optimization_barrier(by_output.T @ rows).T
    else:
        by_weight = rows.T @ by_output
    return gradient @ weight.T, by_weight


product.defvjp(_product, _product_gradients)


class Linear(eqx.Module):
    """``x @ weight + bias`` over the last axis; weights and bias start uniform in ±1/√in."""

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]

    def __init__(self, in_size: int, out_size: int, *, key: PRNGKeyArray):
        weight_key, bias_key = jax.random.split(key)
        bound = in_size**-0.5
        self.weight = jax.random.uniform(weight_key, (in_size, out_size), minval=-bound, maxval=bound)
        self.bias = jax.random.uniform(bias_key, (out_size,), minval=-bound, maxval=bound)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return product(x, self.weight) + self.bias


class LayerNorm(eqx.Module):
    """Layer normalisation of the last axis, with learnt scale and offset (Ba et al., 2016)."""

    scale: Float[Array, " size"]
    offset: Float[Array, " size"]

    def __init__(self, size: int):
        self.scale = jnp.ones(size)
        self.offset = jnp.zeros(size)

    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        centred = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON) * self.scale + self.offset


class MLP(eqx.Module):
    """Linear layers with ReLU between them, and optionally LayerNorm before each ReLU."""

    layers: tuple[Linear, ...]
    norms: tuple[LayerNorm, ...]

    def __init__(
        self,
        in_size: int,
        hidden_sizes: Sequence[int],
        out_size: int,
        *,
        layer_norm: bool = False,
        key: PRNGKeyArray,
    ):
        sizes = (in_size, *hidden_sizes, out_size)
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(Linear(i, o, key=k) for i, o, k in zip(sizes[:-1], sizes[1:], keys, strict=True))
        self.norms = tuple(LayerNorm(size) for size in hidden_sizes) if layer_norm else ()

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        *hidden, last = self.layers
        for index, layer in enumerate(hidden):
            x = layer(x)
            if self.norms:
                x = self.norms[index](x)
            x = jax.nn.relu(x)
        return last(x)


class ResidualMLP(eqx.Module):
    """Swish layers of one width, each but the first added to what it reads (He et al., 2016).

    Smooth, as most of a machine's dynamics are, and deep enough for contacts; ``benchmarks/gap_truth.py``
    measures what it fits.
    """

    layers: tuple[Linear, ...]

    def __init__(self, in_size: int, hidden_sizes: Sequence[int], out_size: int, *, key: PRNGKeyArray):
        self.layers = MLP(in_size, hidden_sizes, out_size, key=key).layers

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        first, *middle, last = self.layers
        x = jax.nn.swish(first(x))
        for layer in middle:
            x = x + jax.nn.swish(layer(x))
        return last(x)


class CriticEnsemble(eqx.Module):
    """``E`` independent action-value functions ``Q_e(s, a)``, stored as one MLP with a leading axis."""

    members: MLP

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int],
        *,
        size: int = 2,
        layer_norm: bool = False,
        key: PRNGKeyArray,
    ):
        def member(key: PRNGKeyArray) -> MLP:
            in_size = observation_size + action_size
            return MLP(in_size, hidden_sizes, 1, layer_norm=layer_norm, key=key)

        self.members = eqx.filter_vmap(member)(jax.random.split(key, size))

    def __call__(
        self, observation: Float[Array, "*batch O"], action: Float[Array, "*batch A"]
    ) -> Float[Array, "E *batch"]:
        inputs = jnp.concatenate([observation, action], axis=-1)
        return jax.vmap(lambda member: member(inputs)[..., 0])(self.members)
