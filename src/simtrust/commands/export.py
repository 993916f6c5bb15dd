"""``simtrust export``: a trained policy, home to the robot."""

from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.text import Text

from simtrust.commands.invocation import as_typed

if TYPE_CHECKING:
    from simtrust.export.policy_bundle import PolicyBundle

UNKNOWN_RATE = "unknown; add --rate HZ"


def export(
    directory: tyro.conf.Positional[str],
    out: str,
    seed: int | None = None,
    rate: float | None = None,
    real: str | None = None,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Take a trained policy to the robot: an ONNX file, and the same for numpy alone.

    Writes policy.onnx, policy.npz with policy_runner.py, rows to check them with, and a README. Both files
    give the action in the machine's units, and whether the log ever was where the observation is. They are
    compared with the trained policy before anything is written.

    Args:
        directory: The run directory.
        out: The folder to be made.
        seed: Which of the run's policies. Default: the first.
        rate: At which the machine is controlled, in Hz, if the run's environment does not tell.
        real: The log of an older run, which did not record its range, if the log is no longer where it was.
        overwrite: Replace an older export.
    """
    from simtrust.export.policy_bundle import export_policy

    bundle = export_policy(
        directory, out, seed=seed, rate=rate, real=real, overwrite=overwrite, command=as_typed()
    )
    Console().print(Text(_told(bundle)), soft_wrap=True)


def _told(bundle: "PolicyBundle") -> str:
    metadata, latency = bundle.metadata, bundle.latency
    seeds, timed, plain = metadata["seeds_of_the_run"], latency["onnxruntime"], latency["numpy"]
    rate = f"{metadata['rate_hz']:g} Hz, {metadata['rate_note']}" if metadata["rate_hz"] else UNKNOWN_RATE
    chosen = "the only one" if len(seeds) == 1 else f"of {', '.join(map(str, seeds))}"
    onnx = f"onnxruntime {timed['p50']} µs (p99 {timed['p99']})" if timed else "onnxruntime is not installed"
    lines = (
        ("policy", f"seed {metadata['seed']} ({chosen}), at step {metadata['steps']:,}"),
        ("rate", rate),
        ("valid", metadata["valid_means"]),
        ("parity", f"{max(bundle.deviations.values()):.1e} of the actions' range, at most"),
        ("latency", f"{onnx}; numpy {plain['p50']} µs (p99 {plain['p99']})"),
        ("written", f"{bundle.folder}/README.md tells how to run it"),
    )
    return "\n".join(f"{name:<10}{value}" for name, value in lines)
