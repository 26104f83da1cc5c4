"""The one meaning of every kind of node in floating point. In: a node and the values that it reads. Out: its value.

torch serves as the array library: CPU or GPU, float32 or float64. The simulator, Lava's processes and the host's half
of a NIR export compute by these rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from esdnet.images.rain_streaks import rain_mask
from export.graph import nodes as g
from export.graph.as_numbers import numbers
from export.graph.attention import attend
from export.graph.convolution import convolve
from export.graph.nodes import AXES, NetworkError
from export.graph.states import State, open_state, run_state

_CONSTANTS: WeakKeyDictionary[g.Node, dict[tuple[str, torch.dtype, torch.device], Tensor]] = WeakKeyDictionary()


def _constant(node: g.Node, name: str, like: Tensor, dtype: torch.dtype) -> Tensor:
    """A node's array as a tensor, made once per dtype and device; weights of convolutions with the channels last."""
    made = _CONSTANTS.setdefault(node, {})
    key = (name, dtype, like.device)
    if key not in made:
        made[key] = torch.tensor(getattr(node, name), dtype=dtype, device=like.device)
        if made[key].ndim == 4:
            made[key] = made[key].contiguous(memory_format=torch.channels_last)
    return made[key]


def _bias(node: g.Conv | g.Linear, like: Tensor, dtype: torch.dtype) -> Tensor | None:
    return None if node.bias is None else _constant(node, "bias", like, dtype)


@singledispatch
def execute_node(node: g.Node, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    """The value of one node, (T or 1, C, H, W): boolean for spikes, else of `dtype`. Unknown kinds are refused."""
    raise NetworkError(f"{node.name}: no rule to execute kind {node.kind}; add one to export/graph/execute.py")


@execute_node.register(g.Input)
@execute_node.register(g.Output)
def _(node: g.Node, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return inputs[0]


@execute_node.register
def _(node: g.Repeat, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return inputs[0].expand(steps, -1, -1, -1)


@execute_node.register
def _(node: g.Conv, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    value = convolve(node, inputs[0], _constant(node, "weight", inputs[0], dtype), _bias(node, inputs[0], dtype))
    return _behind_gate(value, inputs)


def _behind_gate(value: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """0 where the gate, if there is one, is shut. In place."""
    return value.mul_(numbers(inputs[1], value.dtype)) if len(inputs) > 1 else value


@execute_node.register
def _(node: g.Linear, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    axis = AXES.index(node.axis)
    x = numbers(inputs[0], dtype).transpose(axis, 3)
    value = F.linear(x, _constant(node, "weight", x, dtype), _bias(node, x, dtype)).transpose(axis, 3)
    return _behind_gate(value, inputs)


@execute_node.register(g.Spiking)
@execute_node.register(g.Euler)
@execute_node.register(g.EulerNeuron)
@execute_node.register(g.Delay)
def _(node: g.Node, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    """From the first step on; whoever keeps states between calls opens them (states.py)."""
    return advance(node, open_state(node, inputs[0][0].to(dtype)), inputs, dtype)


def advance(
    node: g.Node, state: State, inputs: Sequence[Tensor], dtype: torch.dtype, membranes: Tensor | None = None
) -> Tensor:
    """The values of a node that remembers, for the next steps (T, C, H, W): boolean for spikes, else of `dtype`.
    `membranes` is filled with those that each step leaves."""
    spikes = isinstance(node, g.Spiking) or (isinstance(node, g.Delay) and inputs[0].dtype is torch.bool)
    return run_state(state, [numbers(value, dtype) for value in inputs], spikes, membranes)


@execute_node.register
def _(node: g.Threshold, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = numbers(inputs[0], dtype)
    return x > _constant(node, "threshold", x, dtype)


@execute_node.register
def _(node: g.Pool, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = numbers(inputs[0], dtype)
    if node.function == "max":
        best = F.max_pool2d(x, node.kernel, node.stride, node.padding)
        return best > 0 if inputs[0].dtype is torch.bool else best
    divisor = 1 if node.function == "sum" else None
    return F.avg_pool2d(x, node.kernel, node.stride, node.padding, divisor_override=divisor)


@execute_node.register
def _(node: g.Flatten, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return inputs[0].reshape(len(inputs[0]), -1, 1, 1)


@execute_node.register
def _(node: g.Add, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return numbers(inputs[0], dtype) + numbers(inputs[1], dtype)


@execute_node.register
def _(node: g.Sub, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return numbers(inputs[0], dtype) - numbers(inputs[1], dtype)


@execute_node.register
def _(node: g.Mul, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return numbers(inputs[0], dtype) * numbers(inputs[1], dtype)


def execute_in(spare: Tensor, node: g.Add | g.Mul | g.Activation, inputs: Sequence[Tensor]) -> Tensor:
    """The same values as `execute_node` gives, written over an input that nobody reads afterwards."""
    if isinstance(node, g.Activation):
        return spare.relu_() if node.function == "relu" else spare.sigmoid_()
    first, second = (numbers(value, spare.dtype) for value in inputs)
    return torch.add(first, second, out=spare) if isinstance(node, g.Add) else torch.mul(first, second, out=spare)


@execute_node.register
def _(node: g.Affine, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = numbers(inputs[0], dtype)
    return (x * _constant(node, "scale", x, dtype)).add_(_constant(node, "offset", x, dtype))


@execute_node.register
def _(node: g.Concat, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    same = all(value.dtype is torch.bool for value in inputs)
    return torch.cat([value if same else numbers(value, dtype) for value in inputs], dim=1)


@execute_node.register
def _(node: g.Reduce, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    axes = [AXES.index(axis) for axis in node.axes]
    if node.function == "max":
        return inputs[0].amax(axes, keepdim=True)
    return numbers(inputs[0], dtype).mean(axes, keepdim=True)


@execute_node.register
def _(node: g.Activation, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = numbers(inputs[0], dtype)
    return torch.relu(x) if node.function == "relu" else torch.sigmoid(x)


@execute_node.register
def _(node: g.Resize, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    if node.mode == "nearest":
        return inputs[0].repeat_interleave(node.factor, dim=2).repeat_interleave(node.factor, dim=3)
    return F.interpolate(numbers(inputs[0], dtype), scale_factor=node.factor, mode="bilinear", align_corners=False)


@execute_node.register
def _(node: g.RainMask, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    found = rain_mask(
        numbers(inputs[0], dtype),
        angles=node.angles, across=node.across, along=node.along, clip=node.clip, threshold=node.threshold,
    )  # fmt: skip
    return found > 0


@execute_node.register
def _(node: g.Chunk, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return inputs[0].chunk(node.parts, dim=1)[node.part]


@execute_node.register
def _(node: g.DepthToSpace, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return F.pixel_shuffle(inputs[0], node.factor)


@execute_node.register
def _(node: g.LayerNorm, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    x = numbers(inputs[0], dtype).movedim(1, -1)
    weight, bias = (_constant(node, name, x, dtype) for name in ("weight", "bias"))
    return F.layer_norm(x, x.shape[-1:], weight, bias, node.epsilon).movedim(-1, 1)


@execute_node.register
def _(node: g.ArgMax, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    return numbers(inputs[0], dtype).argmax(1, keepdim=True).to(dtype)


@execute_node.register
def _(node: g.WindowOrder, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    time, _, height, width = inputs[0].shape
    pixels = torch.arange(height * width, dtype=dtype, device=inputs[0].device)
    order = pixels.view(height // node.side, node.side, width // node.side, node.side).transpose(1, 2)
    return order.reshape(1, 1, height, width).repeat(time, 1, 1, 1)


@execute_node.register
def _(node: g.SortOrder, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    order = numbers(inputs[0], dtype).flatten(1).argsort(dim=1, stable=True)
    return order.to(dtype).view(inputs[0].shape)


@execute_node.register
def _(node: g.WindowAttention, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    frames = zip(*(numbers(value, dtype) for value in inputs), strict=True)
    return torch.stack([attend(node, qkv, order, *(mask or [None])) for qkv, order, *mask in frames])


@execute_node.register
def _(node: g.Flood, inputs: Sequence[Tensor], steps: int, dtype: torch.dtype) -> Tensor:
    ones = inputs[0] > 0
    return ones | (ones.sum((1, 2, 3), keepdim=True) > node.limit(ones[0].numel()))
