"""The runs of a sweep on a Ray cluster: each a task, which starts again elsewhere if its node is lost."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from simtrust.device import Device
from simtrust.errors import ConfigError, RunWarning, describe_error
from simtrust.sweeps.local_engine import Engine, check_elsewhere
from simtrust.sweeps.work import Order, Outcome, carry_out

STORE_BYTES = 100 * 2**20
"""Of a cluster of our own, whose tasks return next to nothing; Ray would take a third of the memory."""
STOP_SECONDS = 20.0
"""How long interrupted tasks may take to end."""


def on_ray(
    address: str | None = None, *, cpus: float = 1, gpus: float = 0, device: Device = "auto"
) -> Engine:
    """On the cluster at ``address``, or on the one that is connected, or that ``RAY_ADDRESS``
    names, or else on one of this machine alone.

    Each run takes so many processors and GPUs of its node, as Ray counts them, and computes on ``device``.

    Raises:
        ConfigError: Ray is missing. Training raises it if there is no cluster at the address, or if that of
            this machine alone has not so many. Of another cluster it warns with `RunWarning`, since nodes
            may be added.
    """
    ray = _ray()

    def train(orders: Sequence[Order]) -> Iterator[Outcome]:
        # Whatever ends the process of a task is no fault of the run's; its own errors are outcomes.
        task = ray.remote(carry_out).options(num_cpus=cpus, num_gpus=gpus, max_retries=-1)
        with _connected(ray, address) as own:
            _check_resources(ray, {"CPU": cpus, "GPU": gpus}, own=own)
            running = {task.remote(order, device=device): order for order in orders}
            try:
                while running:
                    (ready, *_), _ = ray.wait(list(running), num_returns=1)
                    yield _outcome(ray, ready, running.pop(ready))
            finally:
                _stop(ray, list(running))

    return Engine(check_elsewhere, train)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"--engine ray needs Ray ({error}): pip install 'simtrust[sweep]'") from error
    return ray


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[bool]:
    """Whether the cluster is one of our own."""
    if ray.is_initialized():
        yield False
        return
    # A cluster of our own tells nobody that it exists.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own = {"include_dashboard": False, "object_store_memory": STORE_BYTES} if address == "local" else {}
    try:
        ray.init(address=address, logging_level="warning", **own)
    except Exception as error:
        raise ConfigError(f"--address {address}: no Ray cluster there: {describe_error(error)}") from error
    try:
        yield address == "local"
    finally:
        ray.shutdown()


def _check_resources(ray: Any, wanted: Mapping[str, float], *, own: bool) -> None:
    nodes = [ray.cluster_resources()] if own else [n["Resources"] for n in ray.nodes() if n["Alive"]]
    if any(all(node.get(name, 0) >= count for name, count in wanted.items()) for node in nodes):
        return
    asked = ", ".join(f"--{name.lower()}s {count:g}" for name, count in wanted.items() if count)
    if own:
        has = " and ".join(f"{nodes[0].get(name, 0):g} {name}s" for name in wanted)
        raise ConfigError(f"each run asks for {asked}, but Ray finds {has} on this machine; ask for less")
    warnings.warn(
        f"no node of the Ray cluster has what each run asks for, {asked}; waiting until one is added",
        RunWarning,
        stacklevel=2,
    )


def _outcome(ray: Any, reference: Any, order: Order) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        problem = describe_error(error)
        return Outcome(order.run.name, None, problem.strip().splitlines()[0], problem)


def _stop(ray: Any, running: list[Any]) -> None:
    for reference in running:
        ray.cancel(reference)
    if running:
        ray.wait(running, num_returns=len(running), timeout=STOP_SECONDS)
