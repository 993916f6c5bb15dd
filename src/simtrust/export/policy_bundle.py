"""A trained policy as a folder for the robot: checked against the policy first, then written at once."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simtrust import __version__
from simtrust.errors import ExportError
from simtrust.export import policy_runner
from simtrust.export.latency import measure_latency
from simtrust.export.machine import Machine, describe_machine
from simtrust.export.model_card import model_card
from simtrust.export.policy_arrays import FORMAT, policy_arrays
from simtrust.export.policy_graph import policy_graph
from simtrust.export.policy_metadata import DESCRIPTION, as_texts, policy_metadata
from simtrust.export.policy_parity import check_parity, parity_rows
from simtrust.export.policy_source import TrainedPolicy, load_trained
from simtrust.training.storage import temporary_folder, write_atomically

FILES = (
    "policy.onnx",
    "policy.npz",
    "policy_runner.py",
    "parity.npz",
    "metadata.json",
    "latency.json",
    "README.md",
)


class PolicyBundle(NamedTuple):
    """What was exported: the folder, and what its files say."""

    folder: Path
    metadata: dict[str, Any]
    """Of ``metadata.json``."""
    latency: dict[str, Any]
    """Of ``latency.json``: p50 and p99 in microseconds, of ``onnxruntime`` and ``numpy``."""
    deviations: dict[str, float]
    """From the trained policy, by file and runtime, relative to the actions' range."""


def export_policy(
    directory: str | Path,
    out: str | Path,
    *,
    seed: int | None = None,
    rate: float | None = None,
    real: str | Path | None = None,
    overwrite: bool = False,
    command: str | None = None,
) -> PolicyBundle:
    """Write a trained policy as ``policy.onnx``, and as ``policy.npz`` with a runner that needs only numpy.

    Both take observations [N, O] to ``action`` [N, A], in the machine's units, and ``valid`` [N]: false
    where an observation is not finite (there the action is NaN), or outside of the range that the log saw.
    Both are compared with the trained policy before anything is written.

    Args:
        directory: of the run.
        out: the folder to be made; nothing of it is there before it is complete.
        seed: which of the run's policies; None: the first.
        rate: in Hz, at which the machine is controlled, where the run's environment does not tell.
        real: the log of a run that did not record its range (as older ones), if it is no longer where it was.
        overwrite: replace an older bundle at ``out``.
        command: what is recorded as having made it.

    Raises:
        RunError: ``directory`` holds no run, no checkpoint, or is damaged.
        ConfigError: ``seed``, ``rate`` or ``real`` do not fit the run.
        ExportError: ``out`` exists, the files would not compute what the policy does, or cannot be written.
    """
    directory, out = Path(directory), Path(out)
    _check_free(out, overwrite=overwrite)
    trained = load_trained(directory, seed, real)
    sizes = (len(trained.scaling.observation_mean), len(trained.scaling.action_low))
    machine = describe_machine(trained.policy.environment, sizes, rate, trained.record.get("dimensions"))
    made = command or (
        f"simtrust.export_policy({str(directory)!r}, {str(out)!r}, seed={trained.seed}, rate={rate}, "
        f"real={None if real is None else str(real)!r})"
    )
    return _export(trained, machine, out, made)


def _export(trained: TrainedPolicy, machine: Machine, out: Path, command: str) -> PolicyBundle:
    valid_range = None if trained.observed is None else trained.observed.widened()
    arrays = policy_arrays(trained.layers, trained.scaling, valid_range)
    metadata = policy_metadata(trained, machine, valid_range, command)
    graph = policy_graph(arrays, as_texts(metadata), DESCRIPTION)
    archive = _archive(arrays)
    parity = parity_rows(trained, arrays, ranged=valid_range is not None)
    deviations = check_parity(graph, archive, parity)
    model = graph.SerializeToString()
    latency = measure_latency(model, archive, parity["observation"][0])
    contents = (
        model,
        archive,
        Path(policy_runner.__file__).read_bytes(),
        _archive({**parity, "format": np.array(FORMAT)}),
        _json(metadata),
        _json(latency),
        model_card(metadata, latency, deviations).encode(),
    )
    _write_folder(out, dict(zip(FILES, contents, strict=True)))
    return PolicyBundle(out, metadata, latency, deviations)


def _archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    """npz; with the writer's version, for a runner of another format to name."""
    archive = io.BytesIO()
    np.savez(archive, simtrust_version=np.array(__version__), **arrays)  # pyright: ignore[reportArgumentType]
    return archive.getvalue()


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _check_free(out: Path, *, overwrite: bool) -> None:
    """Only a bundle is ever replaced, and only if nothing of the user's lies in it."""
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise ExportError(f"{out} exists already; replace it with --overwrite, or name another --out")
    if not out.is_dir() or out.is_symlink():
        raise ExportError(f"{out} is not a folder, and is not replaced; name another --out")
    others = sorted({path.name for path in out.iterdir()} - {*FILES, "__pycache__"})
    if others:
        raise ExportError(
            f"{out} holds {others[0]}, which no export wrote; move it away, or name another --out"
        )


def _write_folder(out: Path, contents: Mapping[str, bytes]) -> None:
    """The folder takes its name when it is complete; an older one goes only then."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out) as temporary:
            new, old = temporary / "new", temporary / "old"
            new.mkdir()
            for name, content in contents.items():
                write_atomically(new / name, content)
            if out.exists():
                out.rename(old)
            try:
                new.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
    except OSError as error:
        raise ExportError(
            f"{out} cannot be written: {error.strerror}; free some space, or name another --out"
        ) from error
