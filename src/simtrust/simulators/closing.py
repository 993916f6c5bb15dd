"""Closing environments, which may be hardware: every one of them, whatever one of them raises."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from gymnasium import Env
from gymnasium.vector import SyncVectorEnv, VectorEnv

from simtrust.errors import describe_error

Environment = TypeVar("Environment", bound=VectorEnv)


def close_all(*environments: VectorEnv) -> None:
    """Close vector environments, and each instance of those that run in this process.

    What ``close`` raises becomes a `RuntimeWarning`: it must neither hide an earlier error nor cost a result.
    """
    with ExitStack() as stack:
        for environment in reversed(environments):
            bare = environment.unwrapped
            if isinstance(bare, SyncVectorEnv) and not bare.closed:
                # Its own close() would leave out the instances after the first that raises.
                bare.closed = True
                stack.callback(close_instances, str(environment), bare.envs)
            else:
                stack.callback(_close, str(environment), environment.close)


def close_instances(name: str, instances: Sequence[Env]) -> None:
    """Close every one, as `close_all`."""
    with ExitStack() as stack:
        for instance in reversed(instances):
            stack.callback(_close, name, instance.close)


@contextmanager
def closed_at_end(environment: Environment) -> Iterator[Environment]:
    """The environment, closed by `close_all` at the end of the block."""
    try:
        yield environment
    finally:
        close_all(environment)


def _close(name: str, close: Callable[[], object]) -> None:
    try:
        close()
    except Exception as error:
        warnings.warn(
            f"{name}: closing it raised {describe_error(error)}; see that what is behind it is shut down",
            RuntimeWarning,
            stacklevel=2,
        )
