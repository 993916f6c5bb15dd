"""A trained policy as an ONNX graph."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from simtrust.export.onnx_graph import Graph, checked_model, rows

OUTPUTS = ("action", "valid")


def policy_graph(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], description: str
) -> onnx.ModelProto:
    """The graph for arrays as `simtrust.export.policy_arrays.policy_arrays` gives them; checked.

    From ``observation`` [rows, O] to ``action`` [rows, A], float32, and ``valid`` [rows] bool. Opset 17, IR
    version 9, weights embedded, with any number of rows.
    """
    graph = Graph(arrays)
    add, constant = graph.add, graph.constant
    squashed = add("Tanh", _network(graph))
    scaled = add("Add", add("Mul", squashed, constant("action_half")), constant("action_centre"))
    action = add("Min", add("Max", scaled, constant("action_low")), constant("action_high"))
    known = graph.all_finite(add("Concat", "observation", squashed, axis=1))
    add("Where", graph.each_column(known), action, constant("nan", np.float32(np.nan)), name="action")
    above = add("GreaterOrEqual", "observation", constant("valid_low"))
    below = add("LessOrEqual", "observation", constant("valid_high"))
    add("And", known, graph.every(add("And", above, below)), name="valid")
    return checked_model(
        graph,
        "policy",
        [rows("observation", TensorProto.FLOAT, len(arrays["observation_mean"]))],
        [rows("action", TensorProto.FLOAT, len(arrays["action_low"])), rows("valid", TensorProto.BOOL)],
        metadata,
        description,
    )


def _network(graph: Graph) -> str:
    """[rows, A], before the tanh."""
    add, constant = graph.add, graph.constant
    centred = add("Sub", "observation", constant("observation_mean"))
    centred = add("Sub", centred, constant("observation_mean_rest"))
    hidden = add("Div", centred, constant("observation_std"))
    last = int(graph.arrays["layers"]) - 1
    for index in range(last + 1):
        product = add("MatMul", hidden, constant(f"weight_{index}"))
        hidden = add("Add", product, constant(f"bias_{index}"))
        if index < last:
            hidden = add("Relu", hidden)
    return hidden
