"""The trust model as an ONNX graph."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 9


class _Graph:
    """Nodes and constants as they are added; values go by their names."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.arrays = arrays

    def constant(self, name: str, value: np.ndarray | np.floating | None = None) -> str:
        """A given value, or the array of this name."""
        array = np.asarray(self.arrays[name] if value is None else value)
        self.initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """One node with one output, whose name is returned."""
        output = name or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"node_{output}", **attributes))
        return output


def trust_graph(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], description: str
) -> onnx.ModelProto:
    """The graph for weights as `simtrust.export.trust_onnx.trust_arrays` gives them; checked.

    Opset 17, IR version 9, float32, with any number of rows.
    """
    graph = _Graph(arrays)
    outputs = _assess(graph)
    sizes = {"observation": len(arrays["scale"])}
    sizes["action"] = len(arrays["input_mean"]) - sizes["observation"]
    proto = helper.make_graph(
        graph.nodes,
        "trust",
        [_rows(name, TensorProto.FLOAT, size) for name, size in sizes.items()],
        outputs,
        list(graph.initializers.values()),
        doc_string=description,
    )
    model = helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="simtrust",
        doc_string=description,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _rows(name: str, kind: int, *sizes: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["rows", *sizes])


def _assess(graph: _Graph) -> list[onnx.ValueInfoProto]:
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

    finite = _all_finite(graph, inputs)
    each = add("Unsqueeze", finite, constant("last_axis", np.array([1])))
    nan = constant("nan", np.float32(np.nan))
    add("Where", finite, _root_mean(graph, expected), nan, name="gap")
    add("Where", finite, doubt, nan, name="doubt")
    add("Where", each, error, nan, name="error")
    certain = add("LessOrEqual", "doubt", constant("one", np.float32(1)))
    add("And", finite, certain, name="valid")
    return [
        _rows("gap", TensorProto.FLOAT),
        _rows("doubt", TensorProto.FLOAT),
        _rows("error", TensorProto.FLOAT, len(graph.arrays["scale"])),
        _rows("valid", TensorProto.BOOL),
    ]


def _networks(graph: _Graph, inputs: str) -> tuple[str, str]:
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
    upper, lower = constant("log_variance_max"), constant("log_variance_min")
    below = add("Sub", upper, add("Softplus", add("Sub", upper, log_variance)))
    return mean, add("Add", lower, add("Softplus", add("Sub", below, lower)))


def _root_mean(graph: _Graph, squares: str) -> str:
    """[rows], over the dimensions that count."""
    total = graph.add("ReduceSum", squares, graph.constant("last_axis", np.array([1])), keepdims=0)
    return graph.add("Sqrt", graph.add("Div", total, graph.constant("kept")))


def _all_finite(graph: _Graph, inputs: str) -> str:
    """[rows] bool. A comparison, since NaN fails every one and few runtimes reduce truth values."""
    largest = graph.constant("largest", np.finfo(np.float32).max)
    each = graph.add("LessOrEqual", graph.add("Abs", inputs), largest)
    counted = graph.add("Cast", each, to=TensorProto.FLOAT)
    return graph.add("Cast", graph.add("ReduceMin", counted, axes=[1], keepdims=0), to=TensorProto.BOOL)
