"""The trust model as files for the robot: an ONNX graph, and its weights with a script that needs numpy."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from simtrust import __version__
from simtrust.errors import ExportError
from simtrust.export import numpy_runner
from simtrust.export.graph import trust_graph
from simtrust.export.onnx_graph import encodable
from simtrust.gap.dynamics_model import LOG_VARIANCE_MAX, LOG_VARIANCE_MIN
from simtrust.gap.trust_model import TrustModel
from simtrust.training.storage import temporary_folder, write_atomically

FORMAT = 1
DESCRIPTION = (
    "How far the simulator is expected to be off at a state and an action, and whether its log says anything "
    "there. gap: expected one-step error, in standard deviations of the logged change. divergence: u, half "
    "its square times the number of dimensions that vary, in nats. doubt: above 1, the log says nothing. "
    "error: simulated - real next observation, in the log's units; NaN in dimensions that do not vary in the "
    "log. valid: false where doubt exceeds 1, or where an input is not finite; then the others are NaN."
)
PARITY_ROWS = 64
PARITY_SPREADS = (0.5, 1.0, 2.0)
"""How far the compared rows lie from the log's mean, in its standard deviations; as many rows each."""
OUTPUTS = ("gap", "divergence", "doubt", "error", "valid")


def export_trust(
    trust: TrustModel,
    folder: Path,
    *,
    observation_names: Sequence[str],
    action_names: Sequence[str],
    metadata: Mapping[str, str],
) -> list[Path]:
    """Write ``trust.onnx``, ``trust.npz`` and ``trust_runner.py``.

    Inputs are ``observation`` [N, O] and ``action`` [N, A], float32, in the log's units. Outputs are those of
    `TrustModel.assess`, and ``valid`` [N] bool: false where an input is not finite or doubt exceeds 1. Both
    the graph and the script are compared with the model before anything is written.

    Args:
        trust: the model.
        folder: is created if it is not there; older files of these names are replaced.
        observation_names: of the O dimensions.
        action_names: of the A dimensions.
        metadata: what to say of its origin: versions, the log's SHA-256, the command. What the export itself
            says of units and limits has precedence.

    Returns:
        The paths of the three files.

    Raises:
        ExportError: the names do not fit the model, its numbers are not finite, the files would not compute
            the same as it does, or they cannot be written.
    """
    arrays = trust_arrays(trust)
    _check(arrays, observation_names, action_names)
    names = {
        "observation_names": [encodable(name) for name in observation_names],
        "action_names": [encodable(name) for name in action_names],
    }
    origin = {encodable(key): encodable(text) for key, text in metadata.items()} | _limits(trust)
    listed = {key: json.dumps(each, ensure_ascii=False) for key, each in names.items()}
    graph = trust_graph(arrays, origin | listed, DESCRIPTION)
    archive = io.BytesIO()
    texts = {"metadata": list(origin.items()), **names}
    stored: dict[str, Any] = {key: np.array(text, np.str_) for key, text in texts.items()}
    stored |= arrays | _parity_rows(trust, arrays)
    np.savez(archive, **stored)
    _check_parity(graph, archive.getvalue())
    return _write_all(
        folder,
        {
            "trust.onnx": graph.SerializeToString(),
            "trust.npz": archive.getvalue(),
            "trust_runner.py": Path(numpy_runner.__file__).read_bytes(),
        },
    )


def trust_arrays(trust: TrustModel) -> dict[str, np.ndarray]:
    """All that the answers depend on, float32; weights with a leading axis M, biases [M, 1, size].

    ``shift`` and ``spread`` are mean and scale of the error in standard deviations of the logged change. Both
    are 0 where the log does not vary, and ``change_mean`` is NaN there, so that no mask is needed.
    """
    model, kept = trust.model, trust.kept
    *hidden, last = model.elites.network.layers
    heads = (np.split(np.asarray(x), 2, axis=-1) for x in (last.weight, last.bias))
    layers = [
        *((str(index), layer.weight, layer.bias) for index, layer in enumerate(hidden)),
        *zip(("mean", "log_variance"), *heads, strict=True),
    ]
    arrays: dict[str, Any] = {f"weight_{name}": weight for name, weight, _ in layers}
    arrays |= {f"bias_{name}": np.asarray(bias)[:, None] for name, _, bias in layers}
    arrays |= {"log_variance_min": LOG_VARIANCE_MIN, "log_variance_max": LOG_VARIANCE_MAX}
    scale = np.asarray(trust.scale)
    arrays |= {
        "input_mean": model.input_mean,
        "input_scale": model.input_scale,
        "change_mean": np.where(kept, model.change_mean, np.nan),
        "change_scale": model.change_scale,
        "shift": np.where(kept, model.change_mean / scale, 0.0),
        "spread": np.where(kept, model.change_scale / scale, 0.0),
        "scale": scale,
        "kept": kept.sum(),
        "doubt_limit": trust.doubt_limit,
        "trusted_error": trust.trusted_error,
    }
    counts = {
        "format": np.array(FORMAT),
        "simtrust_version": np.array(__version__),
        "hidden_layers": np.array(len(hidden)),
    }
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()} | counts


def _check(
    arrays: Mapping[str, np.ndarray], observation_names: Sequence[str], action_names: Sequence[str]
) -> None:
    size = len(arrays["scale"])
    sizes = size, len(arrays["input_mean"]) - size
    if (len(observation_names), len(action_names)) != sizes:
        raise ExportError(
            f"{len(observation_names)} names of observations and {len(action_names)} of actions were given; "
            f"the trust model has {sizes[0]} and {sizes[1]}"
        )
    unusual = ("scale", "change_mean")
    numbers = {name: x for name, x in arrays.items() if x.dtype.kind != "U" and name not in unusual}
    wrong = [name for name, x in numbers.items() if not np.isfinite(x).all()]
    if wrong:
        raise ExportError(f"the trust model cannot be exported: {', '.join(wrong)} are not finite")


def _limits(trust: TrustModel) -> dict[str, str]:
    return {
        "format": str(FORMAT),
        "simtrust_version": __version__,
        "unit_of_observation_and_action": "those of the log",
        "unit_of_gap": "standard deviation of the logged change, root mean square over dimensions",
        "unit_of_divergence": "nats; u, where the recipe trust weighs a simulated row by exp(-kappa u)",
        "unit_of_doubt": "its limit: above 1, the log says nothing here",
        "unit_of_error": "those of the log; simulated - real next observation",
        "scale": json.dumps([None if np.isnan(x) else float(x) for x in np.asarray(trust.scale)]),
        "doubt_limit": repr(float(trust.doubt_limit)),
        "trusted_error": repr(float(trust.trusted_error)),
    }


def _parity_rows(trust: TrustModel, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Rows around the log's mean, the last two not finite, what the model says of them, and in which units.

    Rows whose doubt is 1 up to rounding are left out: that alone decides on which side they fall.
    """
    units = _parity_units(arrays)
    generator = np.random.default_rng(0)
    mean, scale = (np.asarray(x) for x in (trust.model.input_mean, trust.model.input_scale))
    spread = np.resize(PARITY_SPREADS, PARITY_ROWS)[:, None]
    inputs = (mean + spread * scale * generator.normal(size=(PARITY_ROWS, len(mean)))).astype(np.float32)
    inputs[-1, 0], inputs[-2, -1] = np.nan, np.inf
    parts = np.split(inputs, [len(trust.scale)], axis=1)
    answers = trust.assess(*parts)
    decided = ~(np.abs(answers.doubt - 1) <= numpy_runner.TOLERANCE * max(units["doubt"], 1.0))
    columns = (*parts, *answers, answers.doubt <= 1)
    rows = zip(("observation", "action", *OUTPUTS), columns, strict=True)
    return {f"parity_{name}": column[decided] for name, column in rows} | {
        f"parity_unit_{name}": unit for name, unit in units.items()
    }


def _parity_units(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What a deviation of 1 means: the logged change, or more if more is added up on the way to an answer.

    The members' disagreement is a difference of their outputs, and their rounding is relative to these.
    """
    spread, shift = (np.sqrt(np.square(arrays[name]).sum() / arrays["kept"]) for name in ("spread", "shift"))
    parts = (arrays[name] for name in ("scale", "change_scale", "change_mean"))
    return {
        "gap": max(1.0, spread, shift),
        "divergence": arrays["kept"] * max(1.0, spread, shift) ** 2,
        "doubt": spread / arrays["doubt_limit"],
        "error": np.nan_to_num(np.max(np.abs([*parts]), axis=0), nan=1.0),
    }


def _check_parity(graph: onnx.ModelProto, archive: bytes) -> None:
    runner = numpy_runner.TrustRunner(io.BytesIO(archive))
    rows = {name: runner.arrays[f"parity_{name}"] for name in ("observation", "action")}
    with np.errstate(all="ignore"):
        answers = ReferenceEvaluator(graph).run(list(OUTPUTS), rows)
    found = {"trust.onnx": dict(zip(OUTPUTS, answers, strict=True)), "trust_runner.py": runner(**rows)}
    for name, answer in found.items():
        deviation = runner.deviation(answer)
        if not deviation <= numpy_runner.TOLERANCE:
            raise ExportError(
                f"{name} does not compute the same as the trust model: they differ by {deviation:.1e}, "
                f"allowed is {numpy_runner.TOLERANCE:.0e}. Nothing was written."
            )


def _write_all(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """No file takes its name before all are complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder / "trust") as temporary:
            for name, content in contents.items():
                write_atomically(temporary / name, content)
            return [(temporary / name).replace(folder / name) for name in contents]
    except OSError as error:
        raise ExportError(
            f"{folder}: the trust model cannot be written: {error.strerror}; free some space, or name another"
            " folder"
        ) from error
