"""The shapes in annotations are checked while the tests run (see pyproject.toml)."""

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from simtrust.algorithms.actor import tanh_gaussian_log_density
from simtrust.algorithms.critic import Samples, own_reward


def test_arrays_of_other_shapes_than_annotated_are_refused():
    noise, other = jnp.zeros((2, 3)), jnp.zeros((2, 1))
    assert tanh_gaussian_log_density(noise, noise, noise).shape == (2,)
    with pytest.raises(TypeCheckError):
        tanh_gaussian_log_density(noise, other, noise)
    with pytest.raises(TypeCheckError):
        own_reward(Samples(jnp.zeros((2, 5)), jnp.zeros((5, 1)), jnp.zeros(5)))
