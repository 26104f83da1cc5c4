"""What each ONNX operator does to a count: one rule per operator, found by its name; one without a rule is listed.

A rule sees the node after it ran, and says what its first output holds; unless it does, that is numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

import numpy as np

from export.graph import elementwise as cost
from hw_sim.counter import onnx_products
from hw_sim.counter.onnx_context import Call, Context
from hw_sim.counter.synapses import taps_along
from hw_sim.counter.values import GATED, Value, added, chosen, complement, constant, joined, multiplied, summed

Rule = Callable[[Context, Call], None]


def _keep(run: Context, call: Call) -> None:
    """Moved, joined, cast or placed."""
    call.made.known = joined([item.known for item in call.inputs if item is not None and not _is_place(call, item)])
    for other in call.outputs[1:]:
        other.known = call.made.known


def _is_place(call: Call, item: object) -> bool:
    """Shapes, indices and sizes behind the first input, of all but joins."""
    return call.node.op_type not in ("Concat", "SequenceConstruct", "SequenceInsert") and item is not call.inputs[0]


def _scatter(run: Context, call: Call) -> None:
    updates = call.given(2)
    call.made.known = joined([call.read.known, *([] if updates is None else [updates.known])])


def _pad(run: Context, call: Call) -> None:
    value = call.given(2)
    fill = float(call.attributes.get("value", 0.0)) if value is None else float(np.asarray(value.array).flat[0])
    zeros = call.attributes.get("mode", b"constant") in (b"constant", "constant")
    call.made.known = joined([call.read.known, constant(fill)]) if zeros else call.read.known


def _resize(run: Context, call: Call) -> None:
    mode = call.attributes.get("mode", b"nearest")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode == "nearest":
        call.made.known = call.read.known
        return
    axes = sum(a != b for a, b in zip(call.read.array.shape, call.made.array.shape, strict=True))
    name = "bicubic" if mode == "cubic" else {1: "linear_resize", 2: "bilinear"}.get(axes, "trilinear")
    _pointwise(name, run, call)


def _pointwise(name: str, run: Context, call: Call) -> None:
    adds, muls = cost.COST[name]
    run.work(call, adds * call.made.size, muls * call.made.size)


def _values(call: Call) -> list[Value]:
    return [item.known for item in call.inputs if item is not None]


def _add(run: Context, call: Call) -> None:
    parts = [value for value in _values(call) if value.fill != 0.0]
    run.work(call, max(0, len(parts) - 1) * call.made.size, 0)
    call.made.known = added(parts)


def _mean(run: Context, call: Call) -> None:
    run.work(call, (len(call.inputs) - 1) * call.made.size, call.made.size)


def _sub(run: Context, call: Call) -> None:
    values = _values(call)
    run.work(call, 0 if values[1].fill == 0.0 else call.made.size, 0)
    call.made.known = _gated(run, call, complement(values[0], values[1]))


def _mul(run: Context, call: Call) -> None:
    values = _values(call)
    run.work(call, 0, 0 if any(value.fill in (1.0, -1.0) for value in values) else call.made.size)
    call.made.known = _gated(run, call, multiplied(values))


def _div(run: Context, call: Call) -> None:
    values = _values(call)
    run.work(call, 0, 0 if values[1].fill == 1.0 else call.made.size)
    if values[1].fill == 1.0:
        call.made.known = values[0]


def _gated(run: Context, call: Call, value: Value) -> Value:
    return run.gate(call, _values(call)) if value is GATED else value


def _compare(run: Context, call: Call) -> None:
    """A threshold was crossed or not: spikes, if somebody reads them. Equality is no threshold."""
    call.made.known = run.fire(call)
    _equal(run, call)


def _equal(run: Context, call: Call) -> None:
    if call.read.array.dtype.kind == "f":
        run.rest(call.node).add(adds=call.made.size)


def _logic(run: Context, call: Call) -> None:
    if all(value.is_spikes for value in _values(call)):
        run.rest(call.node).add(adds=call.made.size)
        call.made.known = run.gate(call, _values(call))


def _where(run: Context, call: Call) -> None:
    condition, yes, no = _values(call)
    call.made.known = _gated(run, call, chosen(condition, yes, no))


def _reduce(name: str, run: Context, call: Call) -> None:
    adds, muls = cost.reduction(name, call.read.size, call.made.size)
    run.work(call, adds, muls)
    kept = {"max": call.read.known, "min": call.read.known, "sum": summed(call.read.known)}
    kept["cumsum"] = kept["sum"]
    if name in kept:
        call.made.known = kept[name]


def _log_sum(run: Context, call: Call) -> None:
    adds, muls = cost.reduction("sum", call.read.size, call.made.size)
    run.work(call, adds + call.made.size, muls + call.made.size)


def _pool(average: bool, run: Context, call: Call) -> None:
    """n - 1 operations for the n values of a window, padding apart; an average multiplies once more."""
    if call.node.op_type.startswith("Global"):
        values = call.read.size
    else:
        axes = onnx_products.axes_of(call, call.attributes["kernel_shape"], False)
        values = prod(int(taps_along(axis).sum()) for axis in axes) * prod(call.read.array.shape[:2])
    run.work(call, max(0, values - call.made.size), call.made.size if average else 0)
    if not average:
        call.made.known = call.read.known


def _softmax(run: Context, call: Call) -> None:
    shape = call.read.array.shape
    axis = call.attributes.get("axis", -1)
    run.work(call, *cost.softmax(call.read.size, call.read.size // max(1, shape[axis] if shape else 1)))


def _batch_norm(run: Context, call: Call) -> None:
    run.work(call, call.made.size, call.made.size)


def _norm(run: Context, call: Call) -> None:
    """Layer, instance, group and RMS norm, by how many groups share their statistics."""
    read, kind = call.read, call.node.op_type
    shape = read.array.shape
    groups = {
        "InstanceNormalization": prod(shape[:2]),
        "GroupNormalization": shape[0] * call.attributes.get("num_groups", 1),
    }.get(kind, prod(shape[: call.attributes.get("axis", -1)]))
    if kind == "RMSNormalization":  # squares, their mean, scaled, gain
        run.work(call, read.size - groups, 3 * read.size + groups)
    elif kind == "LpNormalization":
        adds, muls = cost.reduction("norm", read.size, read.size // shape[call.attributes.get("axis", -1)])
        run.work(call, adds, muls + read.size)
    else:
        run.work(call, *cost.normalisation(read.size, groups, call.given(1) is not None))


def _lrn(run: Context, call: Call) -> None:
    """Squares, their sum over neighbouring channels, a power, a quotient."""
    size = call.attributes["size"]
    run.work(call, (size + 1) * call.made.size, 4 * call.made.size)


def _sort(run: Context, call: Call) -> None:
    shape = call.read.array.shape
    length = shape[call.attributes.get("axis", -1)] if shape else 1
    run.work(call, *cost.sorting(call.read.size, call.read.size // max(1, length)))
    call.made.known = call.read.known


def _attention(run: Context, call: Call) -> None:
    """Scores and weighted sum by their shapes: queries (batch, heads, n, d), or (batch, n, heads d)."""
    query, key, value = (item for item in call.inputs[:3] if item is not None)
    heads = call.attributes.get("q_num_heads", query.array.shape[1] if query.array.ndim == 4 else 1)
    queries = query.size // query.array.shape[-1] if query.array.ndim == 4 else prod(query.array.shape[:2]) * heads
    width = query.size // queries
    keys = key.array.shape[-2]
    widths = value.array.shape[-1] // (1 if value.array.ndim == 4 else call.attributes.get("kv_num_heads", heads))
    onnx_products.book_shapes(run, call, queries * keys * width, queries * keys * widths)
    adds, muls = cost.softmax(queries * keys, queries)
    run.work(call, adds, muls + queries * keys)


def _numbers(run: Context, call: Call) -> None:
    """Numbers, without work: shapes, look-ups, random values."""


def _fill(run: Context, call: Call) -> None:
    array = np.asarray(call.made.array)
    call.made.known = constant(float(array.flat[0])) if array.size else Value(fill=0.0)


def _rules(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_POINTWISE = {
    "abs": "Abs", "neg": "Neg", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "round": "Round", "relu": "Relu",
    "clamp": "Clip", "leaky_relu": "LeakyRelu", "prelu": "PRelu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp",
    "log": "Log", "sqrt": "Sqrt", "reciprocal": "Reciprocal", "erf": "Erf", "sin": "Sin", "cos": "Cos", "tan": "Tan",
    "asin": "Asin Asinh", "acos": "Acos Acosh", "atan": "Atan Atanh", "sinh": "Sinh", "cosh": "Cosh", "pow": "Pow",
    "gelu": "Gelu", "softplus": "Softplus", "softsign": "Softsign", "selu": "Selu", "elu": "Elu", "celu": "Celu",
    "mish": "Mish", "hardsigmoid": "HardSigmoid", "hardswish": "HardSwish", "remainder": "Mod",
    "bilinear": "GridSample", "mul": "DequantizeLinear", "clamp_scale": "QuantizeLinear",
    "relu6": "ThresholdedRelu Shrink", "silu": "Swish",
}  # fmt: skip
RULES: dict[str, Rule] = {
    **_rules(
        _keep,
        "Identity Reshape Flatten Squeeze Unsqueeze Transpose Slice Gather GatherElements GatherND Split Concat Expand"
        " Tile DepthToSpace SpaceToDepth Cast CastLike Compress ReverseSequence Dropout Trilu SequenceConstruct"
        " SequenceAt SequenceInsert SequenceErase ConcatFromSequence SplitToSequence Optional OptionalGetElement"
        " Upsample Unique Col2Im",
    ),
    **_rules(_scatter, "ScatterElements ScatterND Scatter TensorScatter"),
    **_rules(
        _numbers,
        "Shape Size NonZero Range OneHot EyeLike RandomNormal RandomUniform RandomNormalLike RandomUniformLike"
        " Multinomial SequenceLength SequenceEmpty OptionalHasElement IsNaN IsInf StringNormalizer StringConcat"
        " StringSplit RegexFullMatch TfIdfVectorizer Bernoulli BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot"
        " HannWindow HammingWindow BlackmanWindow ImageDecoder LabelEncoder",
    ),
    **_rules(_fill, "Constant ConstantOfShape"),
    "Pad": _pad,
    "Resize": _resize,
    **_rules(_add, "Add Sum"),
    "Mean": _mean,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    **_rules(_compare, "Greater GreaterOrEqual Less LessOrEqual"),
    "Equal": _equal,
    **_rules(_logic, "And Or Not Xor"),
    "Where": _where,
    **{
        f"Reduce{kind}": partial(_reduce, name)
        for name, kind in {
            "sum": "Sum", "mean": "Mean", "max": "Max", "min": "Min", "prod": "Prod", "norm": "L2",
            "logsumexp": "LogSumExp",
        }.items()
    },
    "ReduceLogSum": _log_sum,
    "ReduceL1": partial(_reduce, "sum_of_sizes"),
    "ReduceSumSquare": partial(_reduce, "squares"),
    "ArgMax": partial(_reduce, "argmax"),
    "ArgMin": partial(_reduce, "argmin"),
    "CumSum": partial(_reduce, "cumsum"),
    **_rules(partial(_pool, False), "MaxPool GlobalMaxPool"),
    **_rules(partial(_pool, True), "AveragePool GlobalAveragePool LpPool GlobalLpPool"),
    **_rules(partial(_pointwise, "maximum"), "Max Min"),
    **_rules(_softmax, "Softmax LogSoftmax"),
    "BatchNormalization": _batch_norm,
    **_rules(
        _norm, "LayerNormalization InstanceNormalization GroupNormalization RMSNormalization LpNormalization"
    ),
    "LRN": _lrn,
    "TopK": _sort,
    "Attention": _attention,
    **{name: partial(_pointwise, rule) for rule, names in _POINTWISE.items() for name in names.split()},
    **onnx_products.RULES,
}  # fmt: skip
