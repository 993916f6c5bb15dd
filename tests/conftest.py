"""Shared by all tests: how JAX compiles in them and in the processes that they start."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest

# The machine may be shared: how long an example takes says nothing about the code.
hypothesis.settings.register_profile("simtrust", deadline=None)
hypothesis.settings.load_profile("simtrust")

WORKER = "PYTEST_XDIST_WORKER" in os.environ
COMPILED = os.environ["SIMTRUST_COMPILED"] if WORKER else tempfile.mkdtemp(prefix="simtrust-compiled-")
"""Of all workers and what they start. An entry that another has half written is compiled anew."""

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time of tiny runs is XLA's. It compiles fastest when it optimises little and does not fuse
# operations in its newest way, and what a process has compiled its children only load.
os.environ |= {
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_COMPILATION_CACHE_DIR": COMPILED,
    "SIMTRUST_COMPILED": COMPILED,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


def pytest_unconfigure() -> None:
    if not WORKER:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """A process may map so many pieces of memory, of which every compiled program takes some."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """All of XLA's optimisations, for a module that computes for longer than it compiles."""
    import jax

    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()
