"""Where JAX computes: on the processor or on a GPU, chosen for the whole process.

A property of the machine, not of a run: no configuration holds it. JAX itself is imported only when it is
asked, so that commands can name the choice.
"""

import importlib.metadata
import os
from typing import Any, Literal

from simtrust.errors import ConfigError

Device = Literal["auto", "cpu", "gpu"]
PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu"}
"""JAX's names, the default first; what runs on a GPU may still call back to the processor."""
PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
ADVICE = " (set JAX_PLATFORMS="
"""Where JAX's own advice begins, about a variable that the user did not set."""


def choose_device(name: Device) -> None:
    """Let JAX compute on the processor or on an NVIDIA GPU from here on; ``auto`` leaves it to JAX.

    Must be called before JAX computes anything in this process. ``JAX_PLATFORMS`` is overruled.

    Raises:
        ConfigError: there is no such device, with the reason; or JAX computes on another one already.
    """
    if name == "auto":
        return
    import jax
    from jax._src.xla_bridge import backends_are_initialized

    before = jax.config.values["jax_platforms"]
    if begun := backends_are_initialized():
        found = jax.default_backend()
    else:
        jax.config.update("jax_platforms", PLATFORMS[name])
        try:
            found = jax.default_backend()
        except RuntimeError as error:
            jax.config.update("jax_platforms", before)
            raise ConfigError(_no_gpu(str(error).split(ADVICE)[0])) from error
    if found == name:
        return
    if begun:
        raise ConfigError(
            f"--device {name}: JAX computes on {found} in this process already; choose the device before JAX "
            "is first used"
        )
    jax.config.update("jax_platforms", before)
    raise ConfigError(
        _no_gpu(
            "JAX sees no NVIDIA GPU on this machine, where CUDA_VISIBLE_DEVICES is "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}; does nvidia-smi show one?"
        )
    )


def device_kind() -> str:
    """What JAX computes on, for the record: ``cpu``, or a GPU's name such as ``NVIDIA H200``."""
    import jax

    return str(jax.devices()[0].device_kind)


def free_device_memory() -> int | None:
    """Bytes of a GPU's memory that JAX may still take.

    None where JAX computes in the machine's own memory, or the device does not tell.
    """
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))


def processor() -> Any:
    """JAX's device for the processor; None where ``JAX_PLATFORMS`` leaves it out."""
    import jax

    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        return None


def _no_gpu(told: str) -> str:
    if not any(map(_is_installed, PLUGINS)):
        return "--device gpu: JAX's CUDA plugin is not installed: pip install 'simtrust[gpu]'"
    return f"--device gpu: {told}"


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
