"""The trust model as an ONNX graph."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from simtrust.export.onnx_graph import Graph, checked_model, rows


def trust_graph(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], description: str
) -> onnx.ModelProto:
    """The graph for weights as `simtrust.export.trust_onnx.trust_arrays` gives them; checked.

    Opset 17, IR version 9, float32, with any number of rows.
    """
    graph = Graph(arrays)
    outputs = _assess(graph)
    sizes = {"observation": len(arrays["scale"])}
    sizes["action"] = len(arrays["input_mean"]) - sizes["observation"]
    inputs = [rows(name, TensorProto.FLOAT, size) for name, size in sizes.items()]
    return checked_model(graph, "trust", inputs, outputs, metadata, description)


def _assess(graph: Graph) -> list[onnx.ValueInfoProto]:
    """The steps of `TrustModel.assess`, in its order."""
    add, constant = graph.add, graph.constant
    inputs = add("Concat", "observation", "action", axis=1)
    mean, log_variance = _networks(graph, inputs)
    spread, squared_spread = constant("spread"), constant("squared_spread", np.square(graph.arrays["spread"]))
    average = add("ReduceMean", mean, axes=[0], keepdims=0)
    variance = add("ReduceMean", add("Exp", log_variance), axes=[0], keepdims=0)
    bias = add("Add", constant("shift"), add("Mul", average, spread))
    expected = add("Add", add("Mul", bias, bias), add("Mul", variance, squared_spread))
    deviation = add("Sub", mean, average)
    between = add("ReduceMean", add("Mul", deviation, deviation), axes=[0], keepdims=0)
    disagreement = _root_mean(graph, add("Mul", between, squared_spread))
    doubt = add("Div", disagreement, constant("doubt_limit"))
    change = add("Mul", average, constant("change_scale"))
    error = add("Add", constant("change_mean"), change)

    finite = graph.all_finite(inputs)
    each = graph.each_column(finite)
    nan = constant("nan", np.float32(np.nan))
    add("Where", finite, _root_mean(graph, expected), nan, name="gap")
    half = constant("half_kept", np.float32(0.5 * graph.arrays["kept"]))
    add("Mul", half, add("Mul", "gap", "gap"), name="divergence")
    add("Where", finite, doubt, nan, name="doubt")
    add("Where", each, error, nan, name="error")
    certain = add("LessOrEqual", "doubt", constant("one", np.float32(1)))
    add("And", finite, certain, name="valid")
    return [
        rows("gap", TensorProto.FLOAT),
        rows("divergence", TensorProto.FLOAT),
        rows("doubt", TensorProto.FLOAT),
        rows("error", TensorProto.FLOAT, len(graph.arrays["scale"])),
        rows("valid", TensorProto.BOOL),
    ]


def _networks(graph: Graph, inputs: str) -> tuple[str, str]:
    """Every member's mean and log-variance [M, rows, O], standardised."""
    add, constant = graph.add, graph.constant
    centred = add("Sub", inputs, constant("input_mean"))
    hidden = add("Div", centred, constant("input_scale"))

    def layer(name: object) -> str:
        product = add("MatMul", hidden, constant(f"weight_{name}"))
        return add("Add", product, constant(f"bias_{name}"))

    for index in range(int(graph.arrays["hidden_layers"])):
        reached = layer(index)
        swish = add("Mul", reached, add("Sigmoid", reached))
        hidden = add("Add", hidden, swish) if index else swish
    mean, log_variance = layer("mean"), layer("log_variance")
    above, below = (
        add("Mul", bound, add("Softsign", add("Relu", add("Div", log_variance, bound))))
        for bound in (constant("log_variance_max"), constant("log_variance_min"))
    )
    return mean, add("Add", above, below)


def _root_mean(graph: Graph, squares: str) -> str:
    """[rows], over the dimensions that count."""
    total = graph.add("ReduceSum", squares, graph.constant("last_axis", np.array([1])), keepdims=0)
    return graph.add("Sqrt", graph.add("Div", total, graph.constant("kept")))
