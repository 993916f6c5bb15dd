"""Shared by all tests: no compiled code is kept between sessions, and no test depends on the last."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# The machine may be shared: how long an example takes says nothing about the code.
hypothesis.settings.register_profile("simtrust", deadline=None)
hypothesis.settings.load_profile("simtrust")

os.environ.setdefault("JAX_PLATFORMS", "cpu")


@contextmanager
def _compiled_in(place: Path | str) -> Iterator[None]:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    def configure(values: dict[str, object]) -> None:
        for name, value in values.items():
            jax.config.update(name, value)
        jax.clear_caches()
        compilation_cache.reset_cache()

    wanted = {
        "jax_compilation_cache_dir": str(place),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,
    }
    before = {name: jax.config.values[name] for name in wanted}
    configure(wanted)
    try:
        yield
    finally:
        configure(before)


@pytest.fixture(scope="session")
def compiled_in() -> Callable[..., AbstractContextManager[None]]:
    """A context in which compiled programs are kept in a folder, and optimised little.

    Most of a tiny run's time is XLA's.
    """
    return _compiled_in


UNFUSED = "xla_cpu_use_fusion_emitters"
"""Without this way of XLA's to fuse operations a round of updates compiles in half the time; it is slower."""


@contextmanager
def _fused_otherwise() -> Iterator[None]:
    import jax
    from jax._src import compiler

    def quick_options(*arguments: Any, **named: Any) -> Any:
        overrides = {UNFUSED: False, **(named.pop("env_options_overrides", None) or {})}
        return options(*arguments, env_options_overrides=overrides, **named)

    options = compiler.get_compile_options
    # XLA reads its flags once: those below are for the processes that are started here, not for this one.
    jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        # JAX has no setting for it.
        patch.setattr(compiler, "get_compile_options", quick_options)
        patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} --{UNFUSED}=false")
        yield


@pytest.fixture(scope="session")
def fused_otherwise() -> Callable[[], AbstractContextManager[None]]:
    """A context in which compiling takes half as long, for tests that compile more than they compute.

    The processes that are started in it do the same.
    """
    return _fused_otherwise


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """Where compiled programs are kept, for this process and for those that it starts."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def quick_compilation(compiled, compiled_in) -> Iterator[None]:
    """Little is optimised in this module, and everything is compiled once."""
    with compiled_in(compiled):
        yield
