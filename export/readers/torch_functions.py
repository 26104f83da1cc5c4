"""torch functions between modules as nodes: sums, products, concatenation, reshapes, pools. The rest is refused."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Protocol

import numpy as np

from export.graph import nodes as g
from export.graph.nodes import NetworkError
from export.readers.recorded_loop import Source


class Builder(Protocol):
    """What grows the nodes (torch_modules.py)."""

    @property
    def nodes(self) -> Mapping[str, g.Node]:
        """Those that are there."""
        ...

    def add(self, kind: type[g.Node], name: str, inputs: list[str], **fields: Any) -> str:
        """Append a node; returns its name."""
        ...

    def value(self, source: Source, every_step: bool) -> str:
        """The node that holds a value of this step."""
        ...

    def before(self, source: Source) -> str:
        """The node that holds a value of the step before."""
        ...


SUMS = ("add", "__add__", "__radd__", "__iadd__", "add_")
DIFFERENCES = ("sub", "__sub__", "__isub__", "sub_")
PRODUCTS = ("mul", "__mul__", "__rmul__", "__imul__", "mul_")
RESHAPES = ("flatten", "view", "reshape", "squeeze", "unsqueeze", "ravel")


def add_function(builder: Builder, source: Source, every_step: bool) -> str:
    """Add the node of a function of values; returns the node that holds what it gives."""
    function, (rest, shapes, result) = source.name, source.options
    name = f"{function.strip('_')}{sum(node.startswith(function.strip('_')) for node in builder.nodes)}"
    if any(one.kind == "zero" for one in source.inputs):
        raise NetworkError(f"{name}: torch function {function} reads zeros at every step; leave it out")
    inputs = [builder.before(one) if one.kind == "before" else builder.value(one, every_step) for one in source.inputs]
    late = tuple(builder.before(one) for one in source.inputs if one.kind == "before")
    if set(late) & {one for one, origin in zip(inputs, source.inputs, strict=True) if origin.kind != "before"}:
        raise NetworkError(f"{name}: torch function {function} reads {late[0]} of this step and of the last")
    if function in SUMS + DIFFERENCES + PRODUCTS:
        return _arithmetic(builder, function, name, inputs, late, rest, shapes)
    if function in RESHAPES:
        return _reshape(builder, name, inputs[0], late, shapes[0], result)
    if function in ("cat", "concat", "concatenate"):
        return _join(builder, name, inputs, late, rest)
    if function in ("relu", "relu_"):
        return builder.add(g.Activation, name, inputs, function="relu", late=late)
    if function in ("max_pool2d", "avg_pool2d"):
        return _pool(builder, function, name, inputs, late, rest)
    raise NetworkError(
        f"{name}: no rule for torch function {function} on {shapes[0]}; use a module that has one, or do it outside"
    )


def _arithmetic(
    builder: Builder, function: str, name: str, inputs: list[str], late: tuple[str, ...], rest: Any, shapes: Any
) -> str:
    if len(inputs) == 2:
        if shapes[0] != shapes[1]:
            raise NetworkError(f"{name}: {function} of shapes {shapes[0]} and {shapes[1]}, expected equal ones")
        if any(one != () for one in rest):
            raise NetworkError(f"{name}: {function} with {rest}, expected two values and nothing else")
        if function in DIFFERENCES:
            negated = builder.add(g.Affine, f"{name}.negated", inputs[1:], scale=np.array(-1.0))
            return builder.add(g.Add, name, [inputs[0], negated], late=late)
        kind = g.Mul if function in PRODUCTS else g.Add
        return builder.add(kind, name, inputs, late=late)
    numbers = [one for one in rest if isinstance(one, (int, float)) and not isinstance(one, bool)]
    if len(numbers) != 1 or len(rest) != 1 or (function in DIFFERENCES and late):
        raise NetworkError(f"{name}: {function} with {rest}, expected one number")
    number = float(numbers[0])
    if function in PRODUCTS:
        return builder.add(g.Affine, name, inputs, scale=np.array(number), late=late)
    return builder.add(
        g.Affine, name, inputs, offset=np.array(-number if function in DIFFERENCES else number), late=late
    )


def _reshape(builder: Builder, name: str, x: str, late: tuple[str, ...], shape: Any, result: Any) -> str:
    before, after = (tuple(side for side in one[1:] if side != 1) for one in (shape, result))
    if shape[0] == result[0] == 1 and after == (prod(shape[1:]),) and len(before) > 1:
        return builder.add(g.Flatten, name, [x], late=late)
    if before == after and not late:
        return x
    raise NetworkError(f"{name}: reshapes {tuple(shape)} to {tuple(result)}, expected to flatten all but the batch")


def _join(builder: Builder, name: str, inputs: list[str], late: tuple[str, ...], rest: Any) -> str:
    axes = [one if isinstance(one, int) else one[1] for one in rest if one == 1 or one == ("dim", 1)]
    if len(axes) != 1 or len(rest) != 1:
        raise NetworkError(f"{name}: joins values with {rest}, expected dim=1, the channels")
    return builder.add(g.Concat, name, inputs, late=late)


def _pool(builder: Builder, function: str, name: str, inputs: list[str], late: tuple[str, ...], rest: Any) -> str:
    """F.max_pool2d(x, kernel[, stride[, padding]]) and F.avg_pool2d; other arguments at their defaults."""
    given = [one for one in rest if not (isinstance(one, tuple) and one and isinstance(one[0], str))]
    named = {one[0]: one[1] for one in rest if isinstance(one, tuple) and one and isinstance(one[0], str)}
    usual = {
        "dilation": 1,
        "ceil_mode": False,
        "count_include_pad": True,
        "divisor_override": None,
        "return_indices": False,
    }
    order = ("kernel_size", "stride", "padding")
    named |= dict(zip(order, given, strict=False))
    odd = {key: value for key, value in named.items() if key not in order and value != usual.get(key)}
    if odd or len(given) > len(order):
        raise NetworkError(f"{name}: {function} with {odd or given}, expected kernel, stride and padding alone")
    sizes = {key: (value, value) if isinstance(value, int) else value for key, value in named.items() if key in order}
    kernel = sizes["kernel_size"]
    return builder.add(
        g.Pool, name, inputs, function=function[:3].replace("avg", "mean"), kernel=kernel, late=late,
        stride=sizes.get("stride") or kernel, padding=sizes.get("padding", (0, 0)),
    )  # fmt: skip
