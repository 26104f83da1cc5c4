"""What the counting rules look at, and the words that one node moves per time step: parameters, states, values.

In: a node and its operands. Out: numbers of words, if every operand moves once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graph import nodes as g
from export.graph.nodes import Array, NetworkError, Shape, ValueKind

Counts = NDArray[np.int64]
Place = tuple[slice, slice]
EVERYWHERE: Place = (slice(None), slice(None))
Work = dict[str, "int | Counts"]  # counts by name, per step or the same in every step


@dataclass(frozen=True)
class Operands:
    """What the counting rules may look at: shapes and kinds of the inputs and the output, and the spikes that came in.

    `spike_map`: for an input of spikes, their number per step and pixel, summed over channels: int64 (steps, H, W). A
    sum over channels loses nothing: groups of a convolution are of one size, so that each channel has the same fan-out.
    `spikes_out`: of a neuron, its spikes per step: int64 (steps,). `value_map`: for an input of other values, how many
    are not 0 per step and pixel; `sum_map`: for graded ones, their sum. Like spike_map; None where nobody looked.
    `gate`: where the node runs, 1 or 0 for each pixel of its value, int64 (H, W); None: everywhere. `place`: the rows
    and columns that the maps are of, if not all (part.py): of the input, or behind a gate of the value, as the gate.
    """

    input_shapes: Sequence[Shape]
    input_kinds: Sequence[ValueKind]
    output_shape: Shape
    output_kind: ValueKind
    spike_map: NDArray[np.int64] | None = None
    spikes_out: Counts | None = None
    value_map: NDArray[np.int64] | None = None
    sum_map: NDArray[np.int64] | None = None
    gate: NDArray[np.int64] | None = None
    place: Place = EVERYWHERE

    def seeing(self, fired: Counts | None = None, **maps: Counts) -> Operands:
        """With what was seen of the node in a run: where it `fired` itself, (steps, H, W), and maps by their names."""
        given: dict[str, Any] = dict(maps)
        return replace(self, spikes_out=None if fired is None else fired.sum((1, 2)), **given)

    @property
    def steps(self) -> int:
        """How often the node runs: once per step of its output."""
        return self.output_shape[0]

    @property
    def outputs(self) -> int:
        """Output elements per step."""
        return prod(self.output_shape[1:])

    @property
    def running(self) -> int:
        """Those of them that are computed: where the gate, if there is one, is open."""
        return self.outputs if self.gate is None else self.output_shape[1] * int(self.gate.sum())


def count_memory(node: g.Node, operands: Operands) -> Work:
    """Values read and written per step when every operand moves once: inputs, output, parameters, membranes.

    Behind a gate, which is read everywhere, nothing is read where it is shut, no membrane either; only a convolution,
    which looks around, reads its input whole. All of a value is written, zeros too.
    """
    if isinstance(
        node,
        (g.Input, g.Output, g.Repeat, g.Concat, g.Chunk, g.DepthToSpace, g.Flatten, g.WindowOrder, g.Membrane),
    ):  # wiring: moves nothing by itself
        return {}
    shapes, kinds = [*operands.input_shapes, operands.output_shape], [*operands.input_kinds, operands.output_kind]
    moved = [prod(shape) // operands.steps if shape[0] >= operands.steps else prod(shape[1:]) for shape in shapes]
    if operands.gate is not None and not isinstance(node, g.Conv):
        moved[0] = moved[0] // prod(shapes[0][2:]) * int(operands.gate.sum())
    spikes = sum(values for values, kind in zip(moved, kinds, strict=True) if kind is ValueKind.SPIKE)
    return {
        "activation_words": sum(moved) - spikes,
        "spike_bits": spikes,
        "weight_words": parameter_words(node, operands.steps),
        "membrane_words": 2 * states_of(node) * operands.running,
    }


def states_of(node: g.Node) -> int:
    """Numbers that an element keeps between steps; each is read and written in every step."""
    if isinstance(node, g.LoihiNeuron):
        return 1 + (node.current_decay < 4096)
    if isinstance(node, (g.Neuron, g.Leaky)):
        return 1 + bool(node.current_decay is not None and np.any(node.current_decay))
    if isinstance(node, g.Euler):
        return 1 + (node.tau_syn is not None)
    return int(isinstance(node, g.Delay))


@singledispatch
def parameter_words(node: g.Node, steps: int) -> int:
    """Numbers of the network, not of the image, that a node reads in each step; what changes nothing is not there."""
    raise NetworkError(f"{node.name}: no rule for the parameters of kind {node.kind}")


@parameter_words.register(g.Add)
@parameter_words.register(g.Mul)
@parameter_words.register(g.Reduce)
@parameter_words.register(g.Activation)
@parameter_words.register(g.Resize)
@parameter_words.register(g.Pool)
@parameter_words.register(g.Flatten)
@parameter_words.register(g.Membrane)
@parameter_words.register(g.RainMask)
@parameter_words.register(g.Sub)
@parameter_words.register(g.Chunk)
@parameter_words.register(g.DepthToSpace)
@parameter_words.register(g.ArgMax)
@parameter_words.register(g.WindowOrder)
@parameter_words.register(g.SortOrder)
@parameter_words.register(g.WindowAttention)
@parameter_words.register(g.Flood)
def _(node: g.Node, steps: int) -> int:
    return 0


@parameter_words.register
def _(node: g.Conv, steps: int) -> int:
    return node.weight.size + (0 if node.bias is None else node.bias.size)


@parameter_words.register
def _(node: g.LayerNorm, steps: int) -> int:
    return node.weight.size + node.bias.size


@parameter_words.register
def _(node: g.Linear, steps: int) -> int:
    """A matrix along T gives a frame for each of its rows: a frame reads its own row."""
    words = node.weight.size + (0 if node.bias is None else node.bias.size)
    return words // steps if node.axis == "T" else words


@parameter_words.register
def _(node: g.Affine, steps: int) -> int:
    """Scale and offset; where they are given per step, a step reads its own."""
    used = [node.scale] * scales(node.scale) + [node.offset] * shifts(node.offset)
    return sum(array.size // (steps if array.ndim == 4 and len(array) > 1 else 1) for array in used)


@parameter_words.register
def _(node: g.Neuron, steps: int) -> int:
    """Threshold and decay of the membrane; gain, bias, decay of the current and reset value where there are any."""
    arrays = [node.threshold] + [node.gain] * scales(node.gain) + [node.bias] * shifts(node.bias)
    return sum(array.size for array in arrays) + 1 + bool(node.current_decay) + bool(node.reset_value)


@parameter_words.register(g.Euler)
@parameter_words.register(g.EulerNeuron)
@parameter_words.register(g.Leaky)
@parameter_words.register(g.LoihiNeuron)
@parameter_words.register(g.Threshold)
@parameter_words.register(g.Delay)
def _(node: g.Node, steps: int) -> int:
    """Its arrays, but for factors of 1 and summands of 0."""
    arrays = {key: value for key, value in vars(node).items() if isinstance(value, np.ndarray)}
    factors = [arrays.pop(key) for key in ("r", "w_in", "gain") if key in arrays]
    summands = [arrays.pop(key) for key in ("v_leak", "v_reset", "bias") if key in arrays]
    used = [*arrays.values(), *filter(scales, factors), *filter(shifts, summands)]
    return sum(array.size for array in used)


def scales(factor: Array) -> bool:
    """Whether a factor is a multiplication: a change of sign is not."""
    return bool(np.any(np.abs(factor) != 1.0))


def shifts(summand: Array) -> bool:
    """Whether a summand is an addition: 0 is not."""
    return bool(np.any(summand != 0.0))


def is_leaky(node: g.Node) -> bool:
    """Whether a membrane or current decays: LIF and the like, not IF."""
    if isinstance(node, g.Neuron):
        return node.membrane_decay != 1.0 or node.current_decay not in (0.0, 1.0)
    if isinstance(node, g.Leaky):
        return any(bool(np.any(decay != 1.0)) for decay in (node.beta, node.current_decay) if decay is not None)
    if isinstance(node, g.LoihiNeuron):
        return node.membrane_decay > 0
    return isinstance(node, g.Euler) and (node.tau is not None or node.tau_syn is not None)
