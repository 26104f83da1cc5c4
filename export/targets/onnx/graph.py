"""An ONNX graph as it grows: operators, constants, and where each value of a Network is found in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.graph.network import Network, infer_shapes
from export.graph.nodes import Array

END = np.iinfo(np.int64).max  # Slice: as far as there is

Precision = Literal["float32", "float64"]


class Graph:
    """The ONNX graph as it grows: nodes, constants, and under which ONNX name each network node's value is found."""

    def __init__(self, network: Network, precision: Precision) -> None:
        self.network = network
        self.dtype = np.dtype(precision)
        self.element = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.shapes = infer_shapes(network, *network.probe_size)
        self.values: dict[str, str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.known: set[str] = set()  # their names: one constant serves every step

    def op(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append one operator; returns the name of its output."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def number(self, name: str, value: Array | float) -> str:
        """A constant of the graph's precision."""
        return self._constant(name, np.asarray(value, self.dtype))

    def double(self, name: str, value: float) -> str:
        """A constant of float64, whatever the graph's precision."""
        return self._constant(name, np.asarray(value, np.float64))

    def integers(self, name: str, value: Sequence[int]) -> str:
        """A constant of int64: axes, sizes, positions."""
        return self._constant(name, np.asarray(value, np.int64))

    def whole(self, name: str, value: NDArray[np.int64]) -> str:
        """A constant array of int64."""
        return self._constant(name, value)

    def slice(self, x: str, output: str, axes: Sequence[int], spans: Sequence[tuple[int, int, int]]) -> str:
        """x[start:stop:step] along each of the axes."""
        starts, stops, steps = zip(*spans, strict=True)
        parts = {"starts": starts, "stops": stops, "axes": axes, "steps": steps}
        return self.op("Slice", [x, *(self.integers(f"{output}/{key}", v) for key, v in parts.items())], output)

    def pad(self, x: str, output: str, before: tuple[int, int], after: tuple[int, int], mode: str) -> str:
        """Rows and columns added around (T, C, H, W)."""
        pads = self.integers(f"{output}/pads", [0, 0, *before, 0, 0, *after])
        return self.op("Pad", [x, pads], output, mode=mode)

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self.known:
            self.known.add(name)
            self.constants.append(numpy_helper.from_array(value, name))
        return name
