"""What a bug report should say of the machine: versions, limits, devices, OpenGL, and how fast it is.

Nothing in it tells who the user is: no user name, no host name, and ~ for the home directory.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from simtrust.algorithms.agent import Algorithm
from simtrust.algorithms.options import AlgorithmOptions
from simtrust.algorithms.recipes import get_recipe
from simtrust.data.replay import ReplayBuffer, insert
from simtrust.errors import SimulatorError
from simtrust.export.latency import processor
from simtrust.limits import cpu_limit, memory_limit, usable_processors
from simtrust.simulators import make_simulator
from simtrust.simulators.closing import closed_at_end
from simtrust.training.fleet import UPDATE, Fleet, seed_keys
from simtrust.training.loop import keep_compiled
from simtrust.training.updating import Log

PACKAGES = ("simtrust", "jax", "jaxlib", "equinox", "optax", "mujoco", "gymnasium", "numpy", "scipy", "onnx")
OPTIONAL = {
    "gpu": "jax-cuda12-plugin",
    "tables": "pyarrow",
    "tensorboard": "tensorboardX",
    "wandb": "wandb",
    "mlflow": "mlflow-skinny",
    "sweep": "ray",
}
VARIABLES = ("JAX_PLATFORMS", "XLA_FLAGS", "MUJOCO_GL", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
OBSERVATION, ACTION = 17, 6
"""HalfCheetah's sizes, of the update that is timed."""
OPENGL_SECONDS = 30
GIB = 2**30
TRY_OPENGL = "from simtrust.doctor import try_opengl; print(try_opengl())"

Facts = dict[str, str]


def diagnose() -> Facts:
    """What is installed and what the machine has; takes a second or two, mostly for OpenGL."""
    keep_compiled()
    facts = {
        "versions": ", ".join(f"{name} {_version(name) or 'missing'}" for name in PACKAGES),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "extras": ", ".join(f"{extra} {_version(name) or 'no'}" for extra, name in OPTIONAL.items()),
        "onnxruntime": _version("onnxruntime") or "no",
        "platform": platform.platform(),
        "processor": processor(),
        "cores": _cores(),
        "memory": _memory(),
        "devices": _told(_devices),
        "OpenGL": _opengl(),
        "disk": f"{shutil.disk_usage(Path.cwd()).free / GIB:.1f} GiB free in the working directory",
        "compiled": _compile_cache(),
        "variables": " ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
        or "none",
    }
    return {name: anonymous(fact) for name, fact in facts.items()}


def measure_speed() -> Facts:
    """Matrix products, h2o's updates, and HalfCheetah's steps per second; seconds, once that is compiled."""
    probes: dict[str, Callable[[], str]] = {
        "products": lambda: f"{product_rate():.0f} GFLOP/s, of 256 × 256 in float32",
        "updates": update_speed,
        "MuJoCo": lambda: f"{simulator_rate():,.0f} steps/s of HalfCheetah-v5, 16 side by side",
    }
    return {name: anonymous(_told(probe)) for name, probe in probes.items()}


def to_text(facts: Facts) -> str:
    """A block to paste into a bug report."""
    width = max(map(len, facts)) + 2
    return "\n".join(f"{name:<{width}}{fact}" for name, fact in facts.items())


def anonymous(text: str) -> str:
    """The text with ~ for this user's home directory, and for any other's."""
    for home in {str(Path.home()), os.path.realpath(Path.home())}:
        if len(home) > 1:
            text = re.sub(rf"{re.escape(home)}(?=/|\\|\s|$|['\":;,)])", "~", text)
    return re.sub(r"(/home/|/Users/|[A-Za-z]:\\Users\\)[^/\\\s'\":;,]+", "~", text)


def try_opengl() -> str:
    """Which OpenGL draws without a display here, or why none does. It may crash the process."""
    import mujoco

    from simtrust.simulators.rendering import Renderer

    xml = "<mujoco><worldbody><camera name='c' pos='0 0 3'/><geom size='1'/></worldbody></mujoco>"
    # MuJoCo ships no type stubs.
    model = mujoco.MjModel.from_xml_string(xml)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        renderer = Renderer(model, width=64, height=64, camera="c")
    except SimulatorError as error:
        return f"does not work: {error}"
    drawn = renderer.frame(np.zeros(0)).any()
    backend = type(renderer._context).__module__.split(".")[1].upper()
    return f"{backend} works" if drawn else f"{backend} draws nothing"


def product_rate(products: int = 500, rounds: int = 3) -> float:
    """GFLOP/s of a chain of 256 × 256 float32 products, the best of some rounds."""
    size = 256

    @jax.jit
    def chain(x: jax.Array, weight: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, _: (x @ weight, None), x, None, length=products)[0]

    arguments = (jnp.ones((size, size)), jnp.eye(size))
    jax.block_until_ready(chain(*arguments))
    taken = min(_seconds(lambda: chain(*arguments)) for _ in range(rounds))
    return 2 * size**3 * products / taken / 1e9


def update_speed(updates: int = 40, rounds: int = 3, options: AlgorithmOptions | None = None) -> str:
    """h2o's updates per second with the paper's sizes on random rows, and how long compiling took."""
    algorithm = Algorithm(
        get_recipe("h2o"),
        options or AlgorithmOptions(),
        observation_size=OBSERVATION,
        action_size=ACTION,
        next_state_noise=jnp.eye(OBSERVATION),
    )
    generator = np.random.default_rng(0)
    rows = jnp.asarray(generator.normal(size=(2_000, algorithm.simulated_row_size)), jnp.float32)
    fleet, keys = Fleet(algorithm), seed_keys((0,), UPDATE)
    buffer = insert(ReplayBuffer.create(1, len(rows), rows.shape[1]), rows[None])
    agents, log = fleet.create((0,)), Log(rows, len(rows) - 100, 100)

    def advance() -> Any:
        nonlocal agents
        agents, _ = fleet.train(agents, log, buffer, keys, step=0, updates=updates)
        return agents

    first = _seconds(advance)
    taken = min(_seconds(advance) for _ in range(rounds))
    return f"{updates / taken:,.0f} updates/s of h2o; the first {updates} took {first:.1f} s with compiling"


def simulator_rate(steps: int = 300, instances: int = 16) -> float:
    """Steps per second of HalfCheetah, all instances together, under random actions."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, instances, ACTION)).astype(np.float32)
    with closed_at_end(make_simulator("HalfCheetah-v5", num_envs=instances)) as simulator:
        simulator.reset(seed=0)
        began = time.perf_counter()
        for action in actions:
            simulator.step(action)
        return steps * instances / (time.perf_counter() - began)


def _seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _told(fact: Callable[[], str]) -> str:
    """The fact, or why there is none: what is broken must not hide what is not."""
    try:
        return fact()
    except Exception as error:
        return f"does not work: {type(error).__name__}: {error}"


def _cores() -> str:
    physical, limit = psutil.cpu_count(logical=False), _told(lambda: str(cpu_limit() or "none"))
    usable = usable_processors()
    return f"{os.cpu_count()} ({physical or '?'} physical), {usable} usable, control group's limit {limit}"


def _memory() -> str:
    memory, limit = psutil.virtual_memory(), memory_limit()
    allowed = "none" if limit is None else f"{limit / GIB:.1f} GiB"
    return (
        f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available, "
        f"control group's limit {allowed}"
    )


def _devices() -> str:
    return f"{jax.default_backend()}: {', '.join(str(device.device_kind) for device in jax.devices())}"


def _opengl() -> str:
    """`try_opengl` in a process of its own, which a broken driver may crash."""
    command = [sys.executable, "-c", TRY_OPENGL]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=OPENGL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"does not work: no answer in {OPENGL_SECONDS} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    told = lines[-1] if lines else ""
    return told if done.returncode == 0 else f"does not work: exit status {done.returncode} {told}".rstrip()


def _compile_cache() -> str:
    place = jax.config.values["jax_compilation_cache_dir"]
    if not place:
        return "nothing is kept"
    files = [file for file in Path(place).glob("*") if file.is_file()] if Path(place).is_dir() else []
    size = sum(file.stat().st_size for file in files)
    return f"{place}: {len(files)} files, {size / 2**20:.0f} MiB"
