"""``simtrust sweep``: many runs from one file."""

from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console
from rich.text import Text

from simtrust.commands.invocation import as_typed
from simtrust.device import Device, choose_device
from simtrust.errors import ConfigError

if TYPE_CHECKING:
    from simtrust.sweeps.local_engine import Engine


def sweep(
    file: tyro.conf.Positional[str],
    engine: Literal["local", "ray"] = "local",
    out: str | None = None,
    jobs: int | None = None,
    address: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    device: Device = "auto",
) -> None:
    """Train every run of a sweep file, here or on a Ray cluster; the same command goes on where it was.

    Everything is checked before anything trains. Each run is a run directory of its own, as `simtrust
    train` writes it; sweep.csv beside them has the results as they come. A run that fails ends no other.

    Args:
        file: The sweep file, in TOML: options of all runs in [common], lists of values in [grid], options
            that vary together in [[variants]].
        engine: Where the runs train: on this machine, or on a Ray cluster (pip install 'simtrust[sweep]').
        out: The folder of the sweep, or a URL that fsspec knows, such as s3://bucket/sweep, to which each
            run is copied whenever it saves. Default: runs/ and the file's name.
        jobs: Runs trained at a time on this machine, each in a process of its own. Default: 1.
        address: Of the Ray cluster, or auto for the one that this machine belongs to. Default: that of
            RAY_ADDRESS, or else a cluster of this machine alone.
        cpus: Processors that Ray sets aside for each run. Default: 1.
        gpus: GPUs that Ray sets aside for each run; a fraction shares one. Default: 0.
        device: Where each run computes: on the processor, on an NVIDIA GPU, or wherever JAX does by itself.
            On Ray, gpu needs --gpus.
    """
    chosen = _engine(engine, jobs, address, cpus, gpus, device)
    from simtrust.sweeps.sweep import raise_failures
    from simtrust.sweeps.sweep import sweep as train_all

    console = Console()
    summary = train_all(
        file,
        out,
        chosen,
        command=as_typed(),
        tell=lambda line: console.print(Text(line), soft_wrap=True),
    )
    console.print(summary.table())
    console.print(Text(f"All of it in {summary.place}/sweep.csv"), soft_wrap=True)
    raise_failures(summary)


def _engine(
    name: str,
    jobs: int | None,
    address: str | None,
    cpus: float | None,
    gpus: float | None,
    device: Device,
) -> "Engine":
    wrong = {"jobs": jobs} if name == "ray" else {"address": address, "cpus": cpus, "gpus": gpus}
    for option, value in wrong.items():
        if value is not None:
            raise ConfigError(f"--{option} {value} says nothing to --engine {name}; leave it out")
    for option, value in {"jobs": jobs, "cpus": cpus, "gpus": gpus}.items():
        least = 0 if option == "gpus" else 1 if option == "jobs" else 1e-4
        if value is not None and not least <= value < float("inf"):
            raise ConfigError(f"--{option} is {value}; it must be at least {least:g}")
    if name == "ray":
        if device == "gpu" and not gpus:
            raise ConfigError(
                "--device gpu: Ray shows a run only the GPUs that are set aside for it; give --gpus"
            )
        from simtrust.sweeps.ray_engine import on_ray

        return on_ray(address, cpus=1 if cpus is None else cpus, gpus=gpus or 0, device=device)
    if jobs in (None, 1):
        choose_device(device)
        from simtrust.sweeps.local_engine import one_after_the_other

        return one_after_the_other()
    from simtrust.sweeps.local_engine import side_by_side

    return side_by_side(jobs, device)
