"""Runs an ONNX model node by node on ONNX Runtime and counts what each node did, spikes told by their producer.

In: a file, its inputs, and which of them are spikes. Out: a Report. Rules for operators are in onnx_rules.py.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from esdnet.command.errors import UserError
from export.graph.nodes import ValueKind
from hw_sim.counter.onnx_context import Call, Context, Item, known_constant
from hw_sim.counter.onnx_nodes import NodeRunner
from hw_sim.counter.onnx_rules import RULES
from hw_sim.counter.report import Report
from hw_sim.counter.values import NUMBERS, Value, joined

RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
DOMAINS = ("", "ai.onnx")


def count_onnx(
    path: Path,
    inputs: Mapping[str, NDArray[Any]] | Sequence[NDArray[Any]],
    input_kinds: Mapping[str, str] | Sequence[str] | None = None,
    strict: bool = False,
) -> Report:
    """Run an ONNX model once on these inputs (by name, or in the model's order) and count what ran.

    input_kinds: "spike" (0 and 1), "graded" (numbers of events) or "analog", in the model's order or by name; without,
    bool arrays are spikes, others analog. strict: UserError for operators that there is no rule for; else they are
    listed. `Report.output` has the model's outputs by name: those of ONNX Runtime with its optimisations off. UserError
    names what does not fit.
    """
    model = _load(path)
    _check_opset(path, model)
    given = _match(path, model, inputs)
    kinds = _check_kinds(path, given, input_kinds or {})
    feeds = {value.name: _fit(path, value, given[value.name]) for value in model.graph.input if value.name in given}
    run = Context()
    started = time.perf_counter()
    values = {name: Item(array, _known(kinds[name])) for name, array in feeds.items()}
    graph = _GraphRun(run, NodeRunner(model))
    outputs = graph.run(model.graph, values)
    for item in outputs:
        if item.known.is_spikes:
            run.emit(item.known)
    seconds = time.perf_counter() - started
    if strict:
        run.ledger.refuse_unknown(str(path))
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer if _is_float(tensor)}
    return Report(
        network=path.stem,
        engine="onnx",
        inputs=", ".join("x".join(map(str, array.shape)) for array in feeds.values()),
        input_kinds=tuple(kinds.values()),
        dtype=next((str(array.dtype) for array in feeds.values()), ""),
        parameters=sum(sizes.values()),
        counted_parameters=sum(size for name, size in sizes.items() if name in graph.read),
        rows=tuple(run.ledger.rows()),
        unknown=dict(run.ledger.unknown),
        by_shape=tuple(sorted(run.ledger.by_shape)),
        seconds=seconds,
        output={value.name: item.array for value, item in zip(model.graph.output, outputs, strict=True)},
    )


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except Exception as error:  # protobuf's and onnx's own, which share no class
        raise UserError(f"{path}: cannot be read as an ONNX model: {error}") from error


def _check_opset(path: Path, model: onnx.ModelProto) -> None:
    version = max((opset.version for opset in model.opset_import if opset.domain in DOMAINS), default=1)
    if version < 9 and any(node.op_type == "Scan" for node in model.graph.node):
        raise UserError(f"{path}: Scan of opset {version}, expected 9 or later; convert it with onnx.version_converter")


def _is_float(tensor: onnx.TensorProto) -> bool:
    return helper.tensor_dtype_to_np_dtype(tensor.data_type).kind == "f"


def _match(
    path: Path, model: onnx.ModelProto, given: Mapping[str, NDArray[Any]] | Sequence[NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Arrays by input, as they were given."""
    constants = {tensor.name for tensor in model.graph.initializer}
    wanted = [value for value in model.graph.input if value.name not in constants]
    names = [value.name for value in wanted]
    for value in wanted:
        if not value.type.HasField("tensor_type"):
            raise UserError(f"{path}: input {value.name} is no tensor; only tensors can be given")
    if not isinstance(given, Mapping):
        if len(given) != len(names):
            raise UserError(f"{path}: {len(given)} inputs given, expected {len(names)}: {', '.join(names)}")
        given = dict(zip(names, given, strict=True))
    if set(given) != set(names):
        raise UserError(f"{path}: inputs {', '.join(given)} given, expected {', '.join(names)}")
    return {name: np.asarray(given[name]) for name in names}


def _fit(path: Path, value: onnx.ValueInfoProto, array: NDArray[Any]) -> NDArray[Any]:
    """An array of the type and shape that an input states; dynamic sizes take the array's."""
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim]
    fits = len(dims) == array.ndim and all(d is None or d == n for d, n in zip(dims, array.shape, strict=True))
    if tensor.HasField("shape") and not fits:
        shape = "x".join("?" if dim is None else str(dim) for dim in dims)
        raise UserError(f"{path}: input {value.name} has shape {array.shape}, expected {shape}")
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    numbers = array.dtype.kind in "fiub" and dtype.kind in "fiub"
    if array.dtype != dtype and not numbers:
        raise UserError(f"{path}: input {value.name} is of {array.dtype}, expected {dtype}")
    fitted = np.ascontiguousarray(array, dtype) if array.ndim else array.astype(dtype)
    if dtype.kind != "f" and numbers and not np.array_equal(fitted, array):
        raise UserError(f"{path}: input {value.name} holds values that {dtype} cannot, found {array.dtype}")
    return fitted


def _check_kinds(
    path: Path, feeds: Mapping[str, NDArray[Any]], given: Mapping[str, str] | Sequence[str]
) -> dict[str, str]:
    """The kind of each input."""
    if not isinstance(given, Mapping):
        if len(given) != len(feeds):
            raise UserError(f"{path}: {len(given)} input_kinds, expected one for each of {', '.join(feeds)}")
        given = dict(zip(feeds, given, strict=True))
    odd = sorted(set(given) - set(feeds))
    if odd:
        raise UserError(f"{path}: input_kinds names {odd[0]!r}, expected one of {', '.join(feeds)}")
    return {name: _check_kind(path, name, array, given.get(name)) for name, array in feeds.items()}


def _check_kind(path: Path, name: str, array: NDArray[Any], kind: str | None) -> str:
    if kind is None:
        return "spike" if array.dtype.kind == "b" else "analog"
    if kind not in ("spike", "graded", "analog"):
        raise UserError(f"{path}: input {name} is said to be {kind!r}, expected spike, graded or analog")
    if kind == "spike" and not np.isin(array, (0, 1)).all():
        raise UserError(f"{path}: input {name} is declared spike, but holds values other than 0 and 1")
    if (kind == "graded" and not (array >= 0).all()) or (kind == "graded" and (array % 1).any()):
        raise UserError(f"{path}: input {name} is declared graded, but holds values other than whole numbers from 0")
    return kind


def _known(kind: str) -> Value:
    return NUMBERS if kind == "analog" else Value(ValueKind(kind))


class _GraphRun:
    """Graphs executed node by node; the bodies of If, Loop and Scan too, in the scope of the graph around them."""

    def __init__(self, run: Context, runner: NodeRunner) -> None:
        self._run, self._runner = run, runner
        self.read: set[str] = set()
        self._graphs: dict[int, tuple[onnx.GraphProto, list[onnx.NodeProto], dict[str, Item]]] = {}
        self._attributes: dict[int, dict[str, Any]] = {}

    def run(self, graph: onnx.GraphProto, scope: dict[str, Item]) -> list[Item]:
        """The graph's outputs. scope: what it may read: its inputs, and the values around it."""
        nodes, constants = self._open(graph)
        values = {**scope, **constants}
        left = Counter(_all_inputs(nodes))
        left.update(value.name for value in graph.output)
        made_here: set[str] = set()
        for node in nodes:
            for name, item in zip(node.output, self._execute(node, values), strict=False):
                if name:
                    values[name] = item
                    made_here.add(name)
            for name in _all_inputs([node]):
                left[name] -= 1
                if not left[name] and name in made_here:
                    del values[name]
        return [values[value.name] for value in graph.output]

    def _open(self, graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], dict[str, Item]]:
        """Its nodes, the same objects each time, and its constants."""
        if id(graph) not in self._graphs:
            arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
            constants = {name: Item(array, known_constant(array), True, True) for name, array in arrays.items()}
            self._graphs[id(graph)] = (graph, list(graph.node), constants)
        _, nodes, constants = self._graphs[id(graph)]
        return nodes, constants

    def _execute(self, node: onnx.NodeProto, values: dict[str, Item]) -> list[Item]:
        inputs = [values[name] if name else None for name in node.input]
        self.read.update(name for name in node.input if name)
        control = {"If": self._if, "Loop": self._loop, "Scan": self._scan}.get(node.op_type)
        if control is not None and node.domain in DOMAINS:
            return control(self._attributes_of(node), inputs, values)
        given = {name: item for name, item in zip(node.input, inputs, strict=True) if item is not None}
        moving = {name: item.array for name, item in given.items() if not _constant_here(node, item)}
        fixed = {name: item.array for name, item in given.items() if _constant_here(node, item)}
        arrays = self._runner.run(node, moving, fixed)
        static = all(item.static for item in given.values()) and node.op_type not in RANDOM
        outputs = _by_place(node, [Item(array, static=static, stored=node.op_type == "Constant") for array in arrays])
        if static:  # made of constants: once, before any input is there
            for item in outputs:
                item.known = known_constant(item.array)
            return outputs
        self._count(Call(node, self._attributes_of(node), inputs, outputs))
        return outputs

    def _count(self, call: Call) -> None:
        rule = RULES.get(call.node.op_type) if call.node.domain in DOMAINS else None
        if rule is None:
            name = f"{call.node.domain}::{call.node.op_type}".removeprefix("::")
            self._run.ledger.list_unknown(name, sum(item.size for item in call.outputs))
        else:
            rule(self._run, call)

    def _attributes_of(self, node: onnx.NodeProto) -> dict[str, Any]:
        if id(node) not in self._attributes:
            self._attributes[id(node)] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        return self._attributes[id(node)]

    def _if(self, attributes: dict[str, Any], inputs: list[Item | None], scope: dict[str, Item]) -> list[Item]:
        condition = inputs[0]
        holds = condition is not None and bool(np.asarray(condition.array).all())
        return self.run(attributes["then_branch" if holds else "else_branch"], scope)

    def _loop(self, attributes: dict[str, Any], inputs: list[Item | None], scope: dict[str, Item]) -> list[Item]:
        body, trips, going = attributes["body"], inputs[0], inputs[1]
        carried = [item for item in inputs[2:] if item is not None]
        scanned: list[list[Item]] = []
        turn, on = 0, going is None or bool(np.asarray(going.array).all())
        while on and (trips is None or turn < int(np.asarray(trips.array).flat[0])):
            given = [Item(np.asarray(turn, np.int64)), Item(np.asarray(True)), *carried]
            names = [value.name for value in body.input]
            out = self.run(body, {**scope, **dict(zip(names, given, strict=True))})
            on = bool(np.asarray(out[0].array).all())
            carried = out[1 : 1 + len(carried)]
            scanned.append(out[1 + len(carried) :])
            turn += 1
        scans = body.output[1 + len(carried) :]
        return [*carried, *(_stack([row[i] for row in scanned], scan) for i, scan in enumerate(scans))]

    def _scan(self, attributes: dict[str, Any], inputs: list[Item | None], scope: dict[str, Item]) -> list[Item]:
        body, count = attributes["body"], attributes["num_scan_inputs"]
        items = [item for item in inputs if item is not None]
        carried, read = items[: len(items) - count], items[len(items) - count :]
        axes = attributes.get("scan_input_axes", [0] * count)
        backwards = attributes.get("scan_input_directions", [0] * count)
        length = read[0].array.shape[axes[0]]
        names, rows = [value.name for value in body.input], []
        for turn in range(length):
            frames = [
                Item(np.take(item.array, length - 1 - turn if back else turn, axis), item.known)
                for item, axis, back in zip(read, axes, backwards, strict=True)
            ]
            out = self.run(body, {**scope, **dict(zip(names, [*carried, *frames], strict=True))})
            carried = out[: len(carried)]
            rows.append(out[len(carried) :])
        columns = len(body.output) - len(carried)
        out_axes = attributes.get("scan_output_axes", [0] * columns)
        reverse = attributes.get("scan_output_directions", [0] * columns)
        stacked = []
        for i in range(columns):
            parts = [row[i] for row in rows]
            joined_up = _stack(parts[::-1] if reverse[i] else parts, body.output[len(carried) + i])
            stacked.append(Item(np.moveaxis(joined_up.array, 0, out_axes[i]), joined_up.known))
        return [*carried, *stacked]


def _constant_here(node: onnx.NodeProto, item: Item) -> bool:
    """What the file stores stays a constant of the node, so that kernels prepare it as they do in the whole model. A
    sequence cannot be one, and of Range vectors of one number cannot."""
    return item.stored and not isinstance(item.array, list) and node.op_type != "Range"


def _by_place(node: onnx.NodeProto, made: list[Item]) -> list[Item]:
    """Results in the places of the node's outputs; of one that was left out nothing."""
    results = iter(made)
    return [next(results) if name else Item(np.zeros(0)) for name in node.output]


def _stack(items: list[Item], value: onnx.ValueInfoProto) -> Item:
    if not items:
        tensor = value.type.tensor_type
        shape = [0, *(dim.dim_value for dim in tensor.shape.dim)]
        return Item(np.zeros(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return Item(np.stack([item.array for item in items]), joined([item.known for item in items]))


def _all_inputs(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    """What nodes read, those in their bodies too."""
    names: list[str] = []
    for node in nodes:
        names.extend(name for name in node.input if name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                names.extend(_all_inputs(attribute.g.node))
                names.extend(value.name for value in attribute.g.output)
    return names
