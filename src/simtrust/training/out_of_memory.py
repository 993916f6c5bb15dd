"""Out of memory in the midst of a run: said as what it is, whoever noticed it."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from simtrust.errors import RunError

RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
"""The message of JAX's error has this in it if the device's memory, or the machine's, is used up."""


class OutOfMemoryError(RunError):
    """The memory was used up in the midst of a run."""


@contextmanager
def telling_out_of_memory() -> Iterator[None]:
    """Python's and JAX's errors for want of memory become an `OutOfMemoryError`."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and RESOURCE_EXHAUSTED not in str(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise OutOfMemoryError(
            f"the memory was used up{f' ({reason})' if reason else ''}; end other programs, or train anew "
            "with a lower --buffer-capacity or --seeds"
        ) from error
