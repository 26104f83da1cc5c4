"""One ONNX node at a time on ONNX Runtime, so that every value is seen, those in the bodies of loops too.

In: a node and its arrays. Out: its results. Constants stay constants of the node, as they are in the model, and nothing
is fused: the results are those of the whole model with ONNX Runtime's optimisations off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Value = Any  # an array, or a list of them (an ONNX sequence), or None (an empty optional)


class NodeRunner:
    """Sessions of single nodes, made once for each node, types and constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._opsets = list(model.opset_import)
        self._ir_version = model.ir_version
        self._sessions: dict[Any, onnxruntime.InferenceSession] = {}

    def run(self, node: onnx.NodeProto, inputs: dict[str, Value], constants: dict[str, Value]) -> list[Value]:
        """What the node computes, in the order of its outputs; those that it leaves out are not there."""
        types = tuple((name, _type_key(value)) for name, value in inputs.items())
        key = (id(node), types, tuple(constants))
        if key not in self._sessions:
            self._sessions[key] = self._open(node, inputs, constants)
        session = self._sessions[key]
        return list(session.run(None, inputs))

    def _open(
        self, node: onnx.NodeProto, inputs: dict[str, Value], constants: dict[str, Value]
    ) -> onnxruntime.InferenceSession:
        graph = helper.make_graph(
            [node],
            "node",
            [helper.make_value_info(name, _type_of(value)) for name, value in inputs.items()],
            [helper.make_empty_tensor_value_info(name) for name in node.output if name],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir_version)
        return open_session(model.SerializeToString())


def open_session(model: bytes | str) -> onnxruntime.InferenceSession:
    """A model or a file on one CPU thread, nothing optimised away."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _type_key(value: Value) -> Any:
    if isinstance(value, list):
        return ("sequence", _type_key(value[0]) if value else "float")
    return np.asarray(value).dtype.str


def _type_of(value: Value) -> onnx.TypeProto:
    if isinstance(value, list):
        return helper.make_sequence_type_proto(_type_of(value[0] if value else np.zeros((), np.float32)))
    array = np.asarray(value)
    element = TensorProto.STRING if array.dtype.kind in "OUS" else helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_type_proto(element, None)
