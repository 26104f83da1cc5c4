"""Convolutions, products of matrices, recurrent layers of ONNX: who accumulates, who multiplies (as torch_products).

An operand is a layer's weight if it is made of constants alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graph import elementwise as cost
from export.graph.nodes import ValueKind
from hw_sim.counter.ledger import Layer, frame_shape
from hw_sim.counter.onnx_context import Call, Context, Item
from hw_sim.counter.synapses import Axis, dense_operations, operations
from hw_sim.counter.values import NUMBERS, Value

Marks = NDArray[Any]  # of an operand's shape: what each element counts
Operations = Callable[[Marks], int]


def _reads(known: Value) -> str:
    if known.fill == 0.0:
        return "zero"
    return known.kind.value if known.fill is None else "analog"


def _synaptic(run: Context, read: Item, dense: int, operations_of: Operations) -> dict[str, int]:
    """acs, or macs with their finer counts, of a layer that reads this."""
    known, marks = read.known, read.array != 0
    if known.fill == 0.0:
        return {}
    if known.is_spikes:
        run.emit(known)
        return {"acs": operations_of(marks)}
    counts = {"macs": dense, "nonzero_macs": operations_of(marks)}
    if known.fill is None and known.kind is ValueKind.GRADED:
        run.emit(known)
        counts["events"] = operations_of(np.asarray(read.array).astype(np.int64))
    return counts


def _book(run: Context, layer: Layer, read: Item, made: Item, dense: int, counts: dict[str, int], biased: bool) -> None:
    executions = read.array.shape[0] if read.array.ndim > 1 else 1
    spikes = read.known.is_spikes
    run.ledger.row(layer).add(
        executions,
        **counts,
        dense_taps=dense,
        events_in=int(np.count_nonzero(read.array)) if spikes else 0,
        adds=made.size if biased else 0,
        weight_words=executions * (layer.weight_words + layer.bias_words),
        activation_words=made.size + (0 if spikes else read.size),
        spike_bits=read.size if spikes else 0,
    )


def _pair(numbers: Sequence[int]) -> tuple[int, int]:
    inner = (1, *(int(n) for n in numbers))
    return (prod(inner[:-1]), inner[-1])


def convolution(run: Context, call: Call) -> None:
    """Conv and ConvTranspose, ConvInteger and QLinearConv."""
    kind = call.node.op_type
    weight = call.inputs[3 if kind == "QLinearConv" else 1]
    bias = call.given({"Conv": 2, "ConvTranspose": 2, "QLinearConv": 8}.get(kind, 99))
    zero = call.given({"ConvInteger": 2, "QLinearConv": 2}.get(kind, 99))
    read = call.read if zero is None else Item(call.read.array.astype(np.int64) - zero.array, call.read.known)
    if weight is None:
        return
    transposed, shape = kind == "ConvTranspose", weight.array.shape
    groups = call.attributes.get("group", 1)
    axes = axes_of(call, shape[2:], transposed)
    channels = shape[1] if transposed else shape[0] // groups
    dense = dense_operations(axes, channels, prod(read.array.shape[:2]))
    counts = _synaptic(run, read, dense, lambda marks: operations(axes, channels, marks.sum((0, 1), dtype=np.int64)))
    index = 3 if kind == "QLinearConv" else 1
    layer = Layer(
        run.layer_name(call.node, call.node.input[index]), "conv", _reads(read.known),
        frame_shape(read.array.shape[1:]), frame_shape(call.made.array.shape[1:]), _pair(shape[2:]),
        _pair([axis.stride for axis in axes]), groups, weight.size, 0 if bias is None else bias.size,
    )  # fmt: skip
    _book(run, layer, read, call.made, dense, counts, bias is not None)


def axes_of(call: Call, kernel: Sequence[int], transposed: bool) -> list[Axis]:
    """The axes of a convolution or a pool, by its attributes and what it made."""
    sizes, made = call.read.array.shape[2:], call.made.array.shape[2:]
    count = len(sizes)
    strides = call.attributes.get("strides", [1] * count)
    dilations = call.attributes.get("dilations", [1] * count)
    extra = call.attributes.get("output_padding", [0] * count)
    auto = call.attributes.get("auto_pad", b"NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    pads = list(call.attributes.get("pads", [0] * count))[:count]
    axes = []
    for i in range(count):
        reach = (kernel[i] - 1) * dilations[i] + 1
        if transposed and (auto.startswith("SAME") or "output_shape" in call.attributes):
            total = strides[i] * (sizes[i] - 1) + extra[i] + reach - made[i]
            pads[i] = total // 2 if auto == "SAME_UPPER" else total - total // 2
        elif auto.startswith("SAME"):
            total = max(0, (made[i] - 1) * strides[i] + reach - sizes[i])
            pads[i] = total // 2 if auto == "SAME_UPPER" else total - total // 2
        elif auto == "VALID":
            pads[i] = 0
        axes.append(Axis(sizes[i], made[i], kernel[i], strides[i], pads[i], dilations[i], transposed))
    return axes


def product(run: Context, call: Call) -> None:
    """MatMul, Gemm, MatMulInteger, QLinearMatMul."""
    kind, attributes = call.node.op_type, call.attributes
    places = (0, 3) if kind == "QLinearMatMul" else (0, 1)
    sides = [call.inputs[place] for place in places]
    if any(side is None for side in sides):
        return
    items = [_without_zero_point(call, place, side) for place, side in zip(places, sides, strict=True) if side]
    a, b = items[0].array.ndim, items[1].array.ndim
    letters = "abcdefghijklmnop"  # of batches
    shared = max(a, b, 2) - 2
    left = letters[shared - max(0, a - 2) : shared] + ("x" if a > 1 else "") + "y"
    right = letters[shared - max(0, b - 2) : shared] + "y" + ("z" if b > 1 else "")
    if attributes.get("transA", 0):
        left = left[:-2] + left[:-3:-1]
    if attributes.get("transB", 0):
        right = right[:-2] + right[:-3:-1]
    bias = call.given(2) if kind == "Gemm" else None
    names = [call.node.input[place] for place in places]
    count_product(run, call, items, (left, right), names, bias)
    if kind == "Gemm" and attributes.get("alpha", 1.0) != 1.0:
        run.work(call, 0, call.made.size)


def _without_zero_point(call: Call, place: int, side: Item) -> Item:
    """A quantised operand as it enters the product: 0 is its zero point."""
    kind = call.node.op_type
    zero = call.given({"MatMulInteger": place + 2, "QLinearMatMul": place + 2}.get(kind, 99))
    if zero is None:
        return side
    points = zero.array if zero.array.ndim == 0 or place else zero.array[..., None]
    return Item(side.array.astype(np.int64) - points, side.known, side.static)


def einsum(run: Context, call: Call) -> None:
    """Of two operands; of one a sum."""
    equation = call.attributes["equation"]
    equation = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
    terms, _, _ = equation.partition("->")
    labels = terms.split(",")
    items = [item for item in call.inputs if item is not None]
    if len(items) == 1:
        adds, muls = cost.reduction("sum", call.read.size, call.made.size)
        run.work(call, adds, muls)
    elif len(items) == 2 and "." not in equation:
        count_product(run, call, items, (labels[0], labels[1]), list(call.node.input), None)
    else:
        run.ledger.list_unknown("Einsum of more than two, or with dots", call.made.size)


def count_product(
    run: Context, call: Call, items: list[Item], labels: tuple[str, str], names: list[str], bias: Item | None
) -> None:
    """A product of two operands whose axes bear these letters; axes that one of them has are repeated for the other."""
    sizes: dict[str, int] = {}
    for item, letters in zip(items, labels, strict=True):
        for letter, size in zip(letters, item.array.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    dense = prod(sizes.values()) if all(item.size for item in items) else 0
    of_weights = [item.static for item in items]
    reads = _reads_of(items)
    chosen = 0 if of_weights == [False, True] else 1 if of_weights == [True, False] else None
    if chosen is not None:
        read, weight = items[chosen], items[1 - chosen]
        reach = dense // max(1, read.size)
        counts = _synaptic(run, read, dense, lambda marks: int(marks.sum(dtype=np.int64)) * reach)
        layer = Layer(
            run.layer_name(call.node, names[1 - chosen]), "linear", _reads(read.known), _frame(read), _frame(call.made),
            weight_words=weight.size, bias_words=0 if bias is None else bias.size,
        )  # fmt: skip
        _book(run, layer, read, call.made, dense, counts, bias is not None)
    else:
        _book_pair(run, call, items, labels, sizes, reads, dense)
    both = all(item.known.is_spikes for item in items)
    call.made.known = Value(ValueKind.GRADED) if both else NUMBERS


def _reads_of(items: list[Item]) -> str:
    reads = [_reads(item.known) for item in items]
    return next((kind for kind in ("zero", "spike") if kind in reads), "analog")


def _frame(item: Item) -> tuple[int, ...]:
    """(channels, height, width) of one element of a batch: of four axes as an image, else channels are last."""
    shape = item.array.shape[1:] if item.array.ndim > 1 else item.array.shape
    return frame_shape(shape if len(shape) > 2 or not shape else (shape[-1], *shape[:-1]))


def _book_pair(
    run: Context, call: Call, items: list[Item], labels: tuple[str, str], sizes: dict[str, int], reads: str, dense: int
) -> None:
    """Two computed operands. Spikes by spikes: an AC where both are 1; beside spikes whatever there is is added."""
    active = []
    for item, letters in zip(items, labels, strict=True):
        whole = reads == "spike" and not item.known.is_spikes
        marks = np.ones(item.array.shape) if whole else (item.array != 0).astype(np.float64)
        active.append(np.broadcast_to(marks, [sizes[letter] for letter in letters]))
    worked = int(np.einsum(f"{labels[0]},{labels[1]}->", *active, optimize=True)) if dense else 0
    counts = {"spike": {"acs": worked}, "zero": {}}.get(reads, {"macs": dense, "nonzero_macs": worked})
    words, bits, events = call.made.size, 0, 0
    for item in items:
        if item.known.is_spikes:
            run.emit(item.known)
            bits, events = bits + item.size, events + int(np.count_nonzero(item.array))
        else:
            words += item.size
    layer = Layer(run.product_name(call.node), "linear", reads, _frame(items[0]), _frame(call.made))
    executions = items[0].array.shape[0] if items[0].array.ndim > 1 else 1
    run.ledger.row(layer).add(
        executions, **counts, dense_taps=dense, events_in=events if reads == "spike" else 0, activation_words=words,
        spike_bits=bits,
    )  # fmt: skip


def book_shapes(run: Context, call: Call, scores: int, sums: int) -> None:
    """Attention as one operator: its two products by their operations, values inside not seen."""
    for name, taps in (("keys", scores), ("values", sums)):
        title = f"{run.product_name(call.node)} of {name}"
        layer = Layer(title, "linear", "analog", _frame(call.read), _frame(call.made))
        run.ledger.row(layer).add(
            call.read.array.shape[0], macs=taps, nonzero_macs=taps, dense_taps=taps,
            activation_words=call.read.size + call.made.size,
        )  # fmt: skip
        run.ledger.by_shape.add(layer.name)


def recurrent(run: Context, call: Call) -> None:
    """LSTM, GRU, RNN over a sequence: what is read is seen, hidden states are not (each is taken not to be 0)."""
    kind = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}[call.node.op_type]
    read, weight, hidden_weight = call.read, call.inputs[1], call.inputs[2]
    if weight is None or hidden_weight is None:
        return
    directions, rows, hidden = hidden_weight.array.shape
    runs = prod(read.array.shape[:-1])
    dense = read.size * rows * directions
    counts = _synaptic(run, read, dense, lambda marks: int(marks.sum(dtype=np.int64)) * rows * directions)
    bias = call.given(3)
    name = run.layer_name(call.node, call.node.input[1])
    layer = Layer(
        name, "linear", _reads(read.known), (read.array.shape[-1], 1, 1), (rows * directions, 1, 1),
        weight_words=weight.size, bias_words=0 if bias is None else bias.size,
    )  # fmt: skip
    row = run.ledger.row(layer)
    _book(run, layer, read, Item(np.zeros(0)), dense, counts, False)
    row.add(adds=0 if bias is None else bias.size * runs)
    taps = hidden_weight.size * runs
    inner = Layer(f"{name}.hidden", "linear", "analog", (hidden, 1, 1), (rows, 1, 1), weight_words=hidden_weight.size)
    run.ledger.row(inner).add(
        runs, macs=taps, nonzero_macs=taps, dense_taps=taps, weight_words=hidden_weight.size * runs,
        activation_words=(hidden + rows) * directions * runs,
    )  # fmt: skip
    run.ledger.by_shape.add(f"{name}.hidden")
    adds, muls = cost.STEP[kind]
    elements = hidden * directions * runs
    run.rest(call.node).add(
        adds=(adds + cost.GATES[kind]) * elements, muls=muls * elements,
        membrane_words=(4 if kind == "lstm" else 2) * elements,
    )  # fmt: skip


RULES: dict[str, Callable[[Context, Call], None]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "ConvInteger", "QLinearConv"), convolution),
    **dict.fromkeys(("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul"), product),
    "Einsum": einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
}
