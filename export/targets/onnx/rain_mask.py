"""The rain mask in ONNX operators: its lines as shifted copies of the picture, extremes and sums in whole grey levels.

In: a RainMask, the name of an image's value. Out: the mask's, by the rule of esdnet/images/rain_streaks.py.
"""

from __future__ import annotations

import onnx

from esdnet.images.rain_streaks import Offsets, line_across, line_along
from export.graph.nodes import RainMask
from export.targets.onnx.graph import END, Graph


def emit_rain_mask(node: RainMask, graph: Graph, image: str) -> str:
    """Add its operators; returns the name of its value, (1, 1, H, W) of 0 and 1."""
    name, levels = node.name, _levels(node, graph, image)
    responses, strengths = [], []
    for angle in node.angles:
        at = f"{name}/angle{angle}"
        opened = _opening(graph, levels, line_across(angle, node.across), f"{at}/across")
        thin = graph.op("Sub", [levels, opened], f"{at}/thin")
        responses.append(_opening(graph, thin, line_along(angle, node.along), f"{at}/along"))
        strengths.append(_strength(node, graph, responses[-1], at))
    strength = graph.op("Concat", strengths, f"{name}/strengths", axis=2)  # (1, 1, angles, 1)
    largest = graph.op("ReduceMax", [strength, graph.integers(f"{name}/angles", [2])], f"{name}/largest")
    strongest = graph.op("Equal", [strength, largest], f"{name}/strongest")
    ones = graph.op("Cast", [strongest], f"{name}/chosen", to=graph.element)
    beside = graph.op("MaxPool", [ones], f"{name}/beside", kernel_shape=[3, 1], strides=[1, 1], pads=[1, 0, 1, 0])
    shape = graph.integers(f"{name}/shape", [1, len(node.angles), 1, 1])
    kept = graph.op("Reshape", [beside, shape], f"{name}/kept")
    found = graph.op("Mul", [graph.op("Concat", responses, f"{name}/responses", axis=1), kept], f"{name}/found")
    highest = graph.op("ReduceMax", [found, graph.integers(f"{name}/axis", [1])], f"{name}/highest")
    threshold = graph.number(f"{name}/threshold", node.threshold)
    fired = graph.op("GreaterOrEqual", [highest, threshold], f"{name}/fired")
    return graph.op("Cast", [fired], name, to=graph.element)


def _levels(node: RainMask, graph: Graph, image: str) -> str:
    """The darkest channel in whole grey levels, half up, 0 to 255."""
    name = node.name
    darkest = graph.op("ReduceMin", [image, graph.integers(f"{name}/channels", [1])], f"{name}/darkest")
    scaled = graph.op("Mul", [darkest, graph.number(f"{name}/white", 255.0)], f"{name}/scaled")
    moved = graph.op("Add", [scaled, graph.number(f"{name}/half", 0.5)], f"{name}/moved")
    ends = [graph.number(f"{name}/black", 0.0), graph.number(f"{name}/white", 255.0)]
    return graph.op("Clip", [graph.op("Floor", [moved], f"{name}/whole"), *ends], f"{name}/levels")


def _strength(node: RainMask, graph: Graph, response: str, at: str) -> str:
    """The sum over all pixels, each limited: int64, which holds it."""
    limited = graph.op("Min", [response, graph.number(f"{node.name}/clip", node.clip)], f"{at}/limited")
    whole = graph.op("Cast", [limited], f"{at}/whole", to=onnx.TensorProto.INT64)
    return graph.op("ReduceSum", [whole, graph.integers(f"{node.name}/pixels", [2, 3])], f"{at}/strength")


def _opening(graph: Graph, levels: str, line: Offsets, at: str) -> str:
    """Erosion, then dilation; beyond the border it is white to the one and black to the other."""
    return _extreme(
        graph, _extreme(graph, levels, line, "Min", 255.0, f"{at}/eroded"), line, "Max", 0.0, f"{at}/opened"
    )


def _extreme(graph: Graph, levels: str, line: Offsets, kind: str, beyond: float, at: str) -> str:
    rows, columns = (max(abs(offset[axis]) for offset in line) for axis in (0, 1))
    pads = graph.integers(f"{at}/pads", [0, 0, rows, columns, 0, 0, rows, columns])
    padded = graph.op("Pad", [levels, pads, graph.number(f"{at}/beyond", beyond)], f"{at}/padded", mode="constant")
    taps = []
    for down, right in line:
        spans = [(reach + by, by - reach or END, 1) for reach, by in ((rows, down), (columns, right))]
        taps.append(graph.slice(padded, f"{at}/down{down}.right{right}", [2, 3], spans))
    return graph.op(kind, taps, at)
