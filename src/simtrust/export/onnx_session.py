"""A policy's graph in onnxruntime, where that is installed."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx

from simtrust.errors import ExportError, describe_error
from simtrust.export.policy_graph import OUTPUTS

Session = Callable[[np.ndarray], Any]


def open_session(model: bytes) -> Session | None:
    """From observations [N, O] to actions [N, A] and validity [N], on one thread; None if not installed.

    Raises:
        ExportError: the model is damaged, no policy of ours, or keeps its numbers in other files, of which
            none is opened.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    _check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # It raises a dozen kinds, none of which has a base class of its own.
    except Exception as error:
        raise ExportError(f"the model cannot be used: {describe_error(error)}") from error
    outputs = list(OUTPUTS)
    return lambda observation: session.run(outputs, {"observation": observation})


def _check_model(model: bytes) -> None:
    try:
        proto = onnx.ModelProto.FromString(model)
        elsewhere = next((tensor.name for tensor in _tensors(proto) if _is_elsewhere(tensor)), None)
        if elsewhere is None:
            onnx.checker.check_model(proto)
    except Exception as error:
        raise ExportError(f"the model is damaged: {describe_error(error)}") from error
    if elsewhere is not None:
        raise ExportError(f"the model keeps {elsewhere!r} in another file, which is not opened; embed it")
    inputs, found = ([value.name for value in values] for values in (proto.graph.input, proto.graph.output))
    if inputs != ["observation"] or not set(OUTPUTS) <= set(found):
        raise ExportError(f"the model maps {inputs} to {found}, which is no policy of simtrust")


def _is_elsewhere(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location != onnx.TensorProto.DEFAULT or bool(tensor.external_data)


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Every tensor of a message, wherever in it."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if isinstance(value, list) or hasattr(value, "extend") else [value]:
                yield from _tensors(inner)
