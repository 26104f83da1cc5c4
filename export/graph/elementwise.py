"""What element-wise operations cost, for the graph, torch and ONNX alike: additions and multiplications per element.

A comparison is an addition. What a chip reads from a table (exp, tanh, a root) is one of each, an interpolation.
The table is the one of docs/count_anything.md.
"""

from __future__ import annotations

from math import ceil, log2

TABLE = (1, 1)  # a table with interpolation
FREE = (0, 0)

COST = {  # (adds, muls) per element of the result
    **dict.fromkeys(("abs", "neg", "sign", "where", "floor", "ceil", "round", "trunc", "frac"), FREE),
    **dict.fromkeys(("add", "sub", "maximum", "minimum", "relu", "compare", "logic"), (1, 0)),
    **dict.fromkeys(("mul", "div", "square"), (0, 1)),
    **dict.fromkeys(("fmod", "remainder"), (1, 1)),
    **dict.fromkeys(
        (
            "sigmoid", "tanh", "exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal",
            "erf", "erfc", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "pow", "gelu", "softplus",
            "log_sigmoid", "softsign", "selu", "elu", "celu", "mish", "atan2",
        ),
        TABLE,
    ),
    "clamp": (2, 0),
    "clamp_scale": (3, 1),  # to whole numbers: scaled, shifted, within limits
    "relu6": (2, 0),
    "leaky_relu": (1, 1),
    "prelu": (1, 1),
    "silu": (1, 2),
    "hardsigmoid": (3, 1),
    "hardswish": (3, 2),
    "lerp": (2, 1),
    "addcmul": (1, 2),
    "addcdiv": (1, 2),
    "bilinear": (3, 4),
    "bicubic": (15, 16),
    "linear_resize": (1, 2),
    "trilinear": (7, 8),
}  # fmt: skip


def reduction(name: str, read: int, made: int) -> tuple[int, int]:
    """`read` values to `made`: n - 1 additions or comparisons each; a mean one multiplication, others as stated."""
    adds = max(0, read - made)
    if name in ("sum", "max", "min", "prod", "argmax", "argmin", "any", "all", "cumsum"):
        return (0, adds) if name == "prod" else (adds, 0)
    if name == "mean":
        return adds, made
    if name == "sum_of_sizes":
        return adds, 0
    if name == "squares":
        return adds, read
    if name == "norm":  # squares, their sum, a root
        return adds + made, read + made
    if name == "var":  # mean, centred, squared, mean
        return 2 * adds + read, read + 2 * made
    if name == "std":
        return 2 * adds + read + made, read + 3 * made
    if name == "logsumexp":
        return 2 * adds + 3 * read + made, read + made
    raise KeyError(name)


def softmax(read: int, groups: int) -> tuple[int, int]:
    """Maximum, difference, exp, sum, quotient over each group."""
    return 4 * read - 2 * groups, 2 * read


def normalisation(elements: int, groups: int, affine: bool) -> tuple[int, int]:
    """Mean, centred, squared, mean, scaled over each group; gain and offset. The root is not counted."""
    return 3 * elements - 2 * groups + affine * elements, 2 * elements + 2 * groups + affine * elements


def sorting(read: int, groups: int) -> tuple[int, int]:
    """n log2 n comparisons over each group of n."""
    length = max(1, read // max(1, groups))
    return read * ceil(log2(length)) if length > 1 else 0, 0


# Recurrent layers

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
STEP = {  # element-wise (adds, muls) of one hidden element and step, biases and sums of both products apart
    "lstm": (4 + 1 + 1, 4 + 3 + 1),  # four gates and tanh(c) from tables; f c + i g; o tanh(c)
    "gru": (3 + 2, 3 + 3),  # three gates; r n, (1 - z) n + z h
    "rnn_tanh": (1, 1),
    "rnn_relu": (1, 0),
}
