"""What the benchmarks of updates share: a clock, the yardstick, and a fleet with data to learn from."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simtrust.algorithms.agent import Algorithm
from simtrust.data.replay import ReplayBuffer, insert
from simtrust.training.fleet import UPDATE, Fleet, seed_keys
from simtrust.training.updating import Log, Share

GFLOP_PER_H2O_UPDATE = 0.66
"""With HalfCheetah's sizes and the paper's architecture: products alone, forward and backward."""


class Peak(NamedTuple):
    """The maker's figures of a device for dense products, TFLOP/s."""

    float32: float
    tf32: float


A100, H100 = Peak(19.5, 156.0), Peak(66.9, 494.7)
PEAKS = {
    "NVIDIA A100-SXM4-40GB": A100,
    "NVIDIA A100-SXM4-80GB": A100,
    "NVIDIA A100-PCIE-40GB": A100,
    "NVIDIA A100 80GB PCIe": A100,
    "NVIDIA H100 80GB HBM3": H100,
    "NVIDIA H200": H100,
    "NVIDIA GeForce RTX 4090": Peak(82.6, 82.6),
    "NVIDIA L4": Peak(30.3, 60.0),
}
"""By `device_kind`, whole: a slice of a device has a longer name and a lower peak."""


def seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


@partial(jax.jit, static_argnums=2)
def _chain(x, weight, products: int):
    return jax.lax.scan(lambda x, _: (x @ weight, None), x, None, length=products)[0]


def chain_rate(size: int, products: int) -> float:
    """GFLOP/s of a chain of square float32 products."""
    result = seconds(lambda: _chain(jnp.ones((size, size)), jnp.eye(size), products))
    return 2 * size**3 * products / result / 1e9


def random_rows(algorithm: Algorithm, count: int) -> jax.Array:
    """Rows of a log or a simulator [count, row], normally distributed."""
    width = algorithm.simulated_row_size
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, width)), jnp.float32)


def one_round(
    algorithm: Algorithm, runs: int, rows: jax.Array, simulated_rows: int, updates: int
) -> Callable[[], Any]:
    """A function that does so many updates of every run, and returns the agents."""
    begin = begin_round(algorithm, runs, rows, simulated_rows, updates)
    return lambda: begin()()


def begin_round(
    algorithm: Algorithm, runs: int, rows: jax.Array, simulated_rows: int, updates: int
) -> Callable[[], Callable[[], Any]]:
    """A function that begins them, and returns one that waits for them and returns the agents."""
    fleet = Fleet(algorithm)
    buffer = ReplayBuffer.create(runs, simulated_rows, rows.shape[1])
    for _ in range(simulated_rows // len(rows)):
        buffer = insert(buffer, jnp.broadcast_to(rows, (runs, *rows.shape)))
    agents, keys = fleet.create(range(runs)), seed_keys(range(runs), UPDATE)
    log = Log(rows, len(rows) - 2_000, 2_000)

    def begin() -> Callable[[], Any]:
        share = Share(agents, log, buffer, keys, algorithm.coefficients, 0)
        updates_of_all = fleet.begin_updates([share], updates)

        def wait() -> Any:
            nonlocal agents
            ((agents, _, _),) = updates_of_all()
            return agents

        return wait

    return begin
