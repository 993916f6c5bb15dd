"""A policy's graph in onnxruntime, where that is installed."""

from collections.abc import Callable
from typing import Any

import numpy as np

from simtrust.export.policy_graph import OUTPUTS

Session = Callable[[np.ndarray], Any]


def open_session(model: bytes) -> Session | None:
    """From observations [N, O] to actions [N, A] and validity [N], on one thread; None if not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    outputs = list(OUTPUTS)
    return lambda observation: session.run(outputs, {"observation": observation})
