"""Building an ONNX graph: nodes and constants as they are added, and the checked model of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 9


class Graph:
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

    def every(self, truth: str) -> str:
        """[rows] bool, from [rows, n] bool. By numbers, since few runtimes reduce truth values."""
        counted = self.add("Cast", truth, to=TensorProto.FLOAT)
        return self.add("Cast", self.add("ReduceMin", counted, axes=[1], keepdims=0), to=TensorProto.BOOL)

    def all_finite(self, inputs: str) -> str:
        """[rows] bool, from [rows, n]. A comparison, since NaN fails every one."""
        largest = self.constant("largest", np.finfo(np.float32).max)
        return self.every(self.add("LessOrEqual", self.add("Abs", inputs), largest))

    def each_column(self, rows: str) -> str:
        """[rows, 1], from [rows]."""
        return self.add("Unsqueeze", rows, self.constant("last_axis", np.array([1])))


def rows(name: str, kind: int, *sizes: int) -> onnx.ValueInfoProto:
    """An input or output with any number of rows of these sizes."""
    return helper.make_tensor_value_info(name, kind, ["rows", *sizes])


def checked_model(
    graph: Graph,
    name: str,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    metadata: Mapping[str, str],
    description: str,
) -> onnx.ModelProto:
    """The model of a complete graph, weights embedded: opset 17, IR version 9; checked."""
    proto = helper.make_graph(
        graph.nodes, name, inputs, outputs, list(graph.initializers.values()), doc_string=description
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


def encodable(text: str) -> str:
    """Without what UTF-8 cannot hold, and without zeros, which numpy drops from the end of a text."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
