"""Shapes in NIR's terms, (N,), (C, L) or (C, H, W); in the graph these are (N, 1, 1), (C, 1, L) and (C, H, W)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from export.graph.nodes import Array
from export.readers.nir_file import FileGraph, FileNode

Side = tuple[int, ...]


def numbers(node: FileNode, field: str) -> Array:
    """A field that must hold numbers."""
    value = node.fields[field]
    if isinstance(value, str):
        node.refuse(f"{field} is the word {value!r}, expected numbers")
    return value


def integers(node: FileNode, field: str, length: int, least: int) -> tuple[int, ...]:
    """So many whole numbers, from one that stands for all or from all of them."""
    values = numbers(node, field)
    if values.size not in (1, length) or (values != np.rint(values)).any() or (values < least).any():
        node.refuse(f"{field} is {values.tolist()}, expected {length} whole numbers of at least {least}")
    return tuple(int(value) for value in np.broadcast_to(values.ravel(), length))


def in_graph(shape: Side) -> tuple[int, int, int]:
    """(C, H, W) of NIR's shape."""
    channels, *sides = shape
    return (channels, 1, sides[0] if sides else 1) if len(sides) < 2 else (channels, sides[0], sides[1])


def constant(node: FileNode, field: str, shape: Side) -> Array:
    """A field with a number per element, as it lies in the graph; an axis along which nothing varies has length 1."""
    values = numbers(node, field)
    if values.size == 1:
        return np.array(values, np.float64).reshape(())
    if values.shape != shape:
        node.refuse(f"{field} of shape {values.shape}, but it reads {shape}, expected the same; write one per element")
    values = values.reshape(in_graph(shape)).astype(np.float64)
    for axis in range(3):
        first = values.take([0], axis)
        values = first if (values == first).all() else values
    return values if values.size > 1 else values.reshape(())


def infer(graph: FileGraph) -> dict[str, Side]:
    """The shape of what every node gives. NetworkError for a node that cannot read what is given to it."""
    sources = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    shapes: dict[str, Side] = {}
    waiting = list(graph.nodes)
    while waiting:
        later = []
        for name in waiting:
            node, known = graph.nodes[name], [shapes[source] for source in sources[name] if source in shapes]
            if node.type == "Input":
                shapes[name] = _declared(node)
            elif known:
                shapes[name] = gives(graph, node, known[0])
            else:
                later.append(name)
        if len(later) == len(waiting):
            graph.nodes[later[0]].refuse("no edge from an Input leads to it, expected one; connect it or take it out")
        waiting = later
    for name, node in graph.nodes.items():
        for source in sources[name]:
            if shapes[source] != shapes[sources[name][0]] or gives(graph, node, shapes[source]) != shapes[name]:
                node.refuse(
                    f"reads {sources[name][0]} of shape {shapes[sources[name][0]]} and {source} of shape "
                    f"{shapes[source]}, expected the same of all that it sums"
                )
    return shapes


def gives(graph: FileGraph, node: FileNode, shape: Side) -> Side:
    """The shape that a node makes of the shape that it reads."""
    rule = SHAPE_RULES.get(node.type, _elementwise)
    return _flat(graph, node, shape) if node.type == "Flatten" else rule(node, shape)


def _declared(node: FileNode) -> Side:
    values = numbers(node, "shape")
    if values.ndim != 1 or not 1 <= values.size <= 3 or (values < 1).any() or (values != np.rint(values)).any():
        node.refuse(f"shape {values.tolist()}, expected 1 to 3 positive whole numbers: (N,), (C, L) or (C, H, W)")
    return tuple(int(value) for value in values)


def _elementwise(node: FileNode, shape: Side) -> Side:
    for field in node.fields:
        constant(node, field, shape)
    return shape


def _output(node: FileNode, shape: Side) -> Side:
    if _declared(node) != shape:
        node.refuse(f"reads {shape}, but its shape is {_declared(node)}, expected the same; correct one of them")
    return shape


def _matrix(node: FileNode, shape: Side) -> Side:
    weight = numbers(node, "weight")
    if weight.ndim != 2:
        node.refuse(f"weight of shape {weight.shape}, expected (out, in); a batch of matrices cannot be read")
    if shape != weight.shape[1:]:
        node.refuse(f"reads {shape}, but its weight {weight.shape} takes {weight.shape[1:]}; put a Flatten before it?")
    return (weight.shape[0],)


def _conv(node: FileNode, shape: Side) -> Side:
    axes = int(node.type[4])
    weight, groups = numbers(node, "weight"), integers(node, "groups", 1, 1)[0]
    if weight.ndim != axes + 2:
        node.refuse(f"weight of shape {weight.shape}, expected {axes + 2} axes: (out, in / groups, *kernel)")
    if len(shape) != axes + 1 or shape[0] != weight.shape[1] * groups:
        node.refuse(
            f"reads {shape}, expected {weight.shape[1] * groups} channels and {axes} more axes for {weight.shape}"
        )
    if "input_shape" in node.fields and integers(node, "input_shape", axes, 1) != shape[1:]:
        node.refuse(f"reads {shape}, but its input_shape is {node.fields['input_shape']}, expected the same")
    return (weight.shape[0], *windows(node, shape[1:], weight.shape[2:], *conv_geometry(node)))


def conv_geometry(node: FileNode) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Stride, padding and dilation along each axis."""
    axes = int(node.type[4])
    stride, dilation = integers(node, "stride", axes, 1), integers(node, "dilation", axes, 1)
    word = node.fields["padding"]
    if not isinstance(word, str):
        return stride, integers(node, "padding", axes, 0), dilation
    reach = [d * (k - 1) for d, k in zip(dilation, numbers(node, "weight").shape[2:], strict=True)]
    if word == "valid":
        return stride, (0,) * axes, dilation
    if word != "same" or set(stride) != {1} or any(length % 2 for length in reach):
        node.refuse(
            f"padding {word!r} with stride {stride} and a reach of {reach}, expected numbers, 'valid', or 'same' with "
            "stride 1 and an odd kernel; write the padding as numbers"
        )
    return stride, tuple(length // 2 for length in reach), dilation


def _pool(node: FileNode, shape: Side) -> Side:
    if len(shape) != 3:
        node.refuse(f"reads {shape}, expected (C, H, W)")
    kernel, stride, padding = (integers(node, field, 2, int(field != "padding")) for field in POOL_FIELDS)
    if any(2 * pad > side for pad, side in zip(padding, kernel, strict=True)):
        node.refuse(f"padding {padding} is more than half of the kernel {kernel}, expected at most half")
    return (shape[0], *windows(node, shape[1:], kernel, stride, padding, (1, 1)))


def windows(node: FileNode, shape: Side, kernel: Side, stride: Side, padding: Side, dilation: Side) -> Side:
    """How many windows fit along each axis."""
    found = tuple(
        (side + 2 * pad - d * (k - 1) - 1) // step + 1
        for side, k, step, pad, d in zip(shape, kernel, stride, padding, dilation, strict=True)
    )
    if min(found) < 1:
        node.refuse(f"reads {shape}, expected at least its kernel {tuple(kernel)}, padding {padding} included")
    return found


def _flat(graph: FileGraph, node: FileNode, shape: Side) -> Side:
    """All axes in one. Old exporters counted a batch axis that is not in the file: their first axis is 1. It is read so
    where what reads it takes that many numbers and would not take what start_dim says."""
    rank, whole = len(shape), (prod(shape),)
    start, end = (integers(node, field, 1, -rank)[0] for field in ("start_dim", "end_dim"))
    first, last = (axis + rank if axis < 0 else axis for axis in (start, end))
    joined = (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :])
    takers = {_takes(graph.nodes[reader]) for source, reader in graph.edges if source == node.name} - {None}
    if joined != whole and start == 1 and last in (rank - 1, rank) and takers == {whole}:
        return whole
    if first > last or last >= rank or joined != whole:
        node.refuse(f"start_dim {start} and end_dim {end} leave axes of {shape}, expected all in one: 0 and -1")
    return whole


def _takes(node: FileNode) -> Side | None:
    """The shape that a node reads, where its fields say so."""
    if node.type in ("Affine", "Linear"):
        return numbers(node, "weight").shape[1:]
    if node.type == "Output":
        return _declared(node)
    sizes = [value.shape for value in node.fields.values() if not isinstance(value, str) and value.size > 1]
    return sizes[0] if sizes and node.type not in SHAPE_RULES and node.type != "Flatten" else None


POOL_FIELDS: Sequence[str] = ("kernel_size", "stride", "padding")
SHAPE_RULES: Mapping[str, Callable[[FileNode, Side], Side]] = {
    "Affine": _matrix, "Linear": _matrix, "Conv1d": _conv, "Conv2d": _conv, "SumPool2d": _pool, "AvgPool2d": _pool,
    "Output": _output,
}  # fmt: skip
