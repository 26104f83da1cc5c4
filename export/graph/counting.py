"""What one node costs when it runs, exactly, per time step: spikes, ACs, MACs, element-wise work, memory words.

In: a node, the shapes of its values and, where its input is spikes, how many spikes there were per step and pixel.
Out: NodeCounts. The rules are stated in docs/counting.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, singledispatch
from math import prod

import numpy as np
from numpy.typing import NDArray

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import Array, NetworkError, Shape, ValueKind

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class NodeCounts:
    """Operations of one node. Each field is int64 of shape (steps,), or (1,) for a node that runs once an image.

    `adds` and `muls` are element-wise work (biases, leaks, residual sums, gates, interpolation). The `*_words` are
    values moved if every operand moves once per step; spikes are single bits (`spike_bits`). `dense_taps` is what the
    same layer would multiply and accumulate if every input were analog: acs / dense_taps is its firing rate as felt.
    `events_in` are the spikes that a convolution or matrix read; what a neuron emits are its `spikes`.
    """

    spikes: Counts
    acs: Counts
    macs: Counts
    dense_taps: Counts
    adds: Counts
    muls: Counts
    neuron_updates: Counts
    weight_words: Counts
    membrane_words: Counts
    activation_words: Counts
    spike_bits: Counts
    events_in: Counts

    def totals(self) -> dict[str, int]:
        """Every field summed over the steps."""
        return {item.name: int(getattr(self, item.name).sum()) for item in fields(self)}

    @staticmethod
    def zeros(steps: int) -> NodeCounts:
        """All counts 0."""
        return NodeCounts(*(np.zeros(steps, np.int64) for _ in fields(NodeCounts)))

    def plus(self, other: NodeCounts) -> NodeCounts:
        """Field by field: the counts of both runs together (tiles, images)."""
        return NodeCounts(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))


COUNTED = {item.name: row for row, item in enumerate(fields(NodeCounts))}
Work = dict[str, "int | Counts"]  # counts by name, per step or the same in every step


@dataclass(frozen=True)
class Operands:
    """What the counting rules may look at: shapes and kinds of the inputs and the output, and the spikes that came in.

    `spike_map`: for an input of spikes, their number per step and pixel, summed over channels: int64 (steps, H, W). A
    sum over channels loses nothing: groups of a convolution are of one size, so that each channel has the same fan-out.
    `spikes_out`: of a neuron, its spikes per step: int64 (steps,).
    """

    input_shapes: Sequence[Shape]
    input_kinds: Sequence[ValueKind]
    output_shape: Shape
    output_kind: ValueKind
    spike_map: NDArray[np.int64] | None = None
    spikes_out: Counts | None = None

    @property
    def steps(self) -> int:
        """How often the node runs: once per step of its output."""
        return self.output_shape[0]

    @property
    def outputs(self) -> int:
        """Output elements per step."""
        return prod(self.output_shape[1:])


def operands_of(
    network: Network,
    shapes: Mapping[str, Shape],
    node: g.Node,
    spike_map: NDArray[np.int64] | None = None,
    spikes_out: Counts | None = None,
) -> Operands:
    """What a node of a network works on, given the shapes of all values. spike_map, spikes_out: see Operands."""
    return Operands(
        input_shapes=[shapes[name] for name in node.inputs],
        input_kinds=[network.kinds[name] for name in node.inputs],
        output_shape=shapes[node.name],
        output_kind=network.kinds[node.name],
        spike_map=spike_map,
        spikes_out=spikes_out,
    )


@lru_cache(maxsize=4096)
def _taps_along(size: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[int, ...]:
    """For each input position along one axis: how many (output, kernel tap) pairs read it. Padding has no position."""
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    positions = np.arange(outputs)[:, None] * stride + np.arange(kernel)[None, :] * dilation - padding
    inside = positions[(positions >= 0) & (positions < size)]
    return tuple(int(n) for n in np.bincount(inside, minlength=size))


def fan_out(node: g.Conv, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Rows, columns and channels of the fan-out of one input element: a spike at (h, w) reaches
    rows[h] * columns[w] * channels outputs, whatever its channel."""
    rows, columns = (
        np.array(_taps_along(size, kernel, stride, padding, dilation), np.int64)
        for size, kernel, stride, padding, dilation in zip(
            (height, width), node.weight.shape[2:], node.stride, node.padding, node.dilation, strict=True
        )
    )
    return rows, columns, node.weight.shape[0] // node.groups


def dense_taps(node: g.Conv, input_shape: Shape) -> int:
    """Multiply-accumulates of one dense pass over one step; taps that fall on padding are not work."""
    rows, columns, channels = fan_out(node, *input_shape[2:])
    return int(rows.sum() * columns.sum()) * channels * input_shape[1]


def synaptic_operations(node: g.Conv, spike_map: NDArray[np.int64]) -> Counts:
    """Accumulations per step: every input spike times its exact fan-out. spike_map: (steps, H, W) -> (steps,)."""
    rows, columns, channels = fan_out(node, *spike_map.shape[1:])
    return np.asarray((spike_map @ columns) @ rows * channels, np.int64)


def reads_spikes(network: Network, node: g.Node) -> bool:
    """Whether a node accumulates spikes: its ACs need the spike map of its input."""
    return isinstance(node, (g.Conv, g.Linear)) and network.kinds[node.inputs[0]] is ValueKind.SPIKE


def count_node(node: g.Node, operands: Operands) -> NodeCounts:
    """All counts of one node in one run."""
    table = np.zeros((len(COUNTED), operands.steps), np.int64)
    for name, value in {**count_work(node, operands), **_count_memory(node, operands)}.items():
        table[COUNTED[name]] = value
    table.setflags(write=False)  # runs may share it
    return NodeCounts(*table)


def _count_memory(node: g.Node, operands: Operands) -> Work:
    """Values read and written per step when every operand moves once: inputs, output, parameters, membranes."""
    if isinstance(node, (g.Input, g.Output, g.Repeat, g.Concat)):  # wiring: moves nothing by itself
        return {}
    activations = spikes = 0
    sides = [
        *zip(operands.input_shapes, operands.input_kinds, strict=True),
        (operands.output_shape, operands.output_kind),
    ]
    for shape, kind in sides:
        values = prod(shape) // operands.steps if shape[0] >= operands.steps else prod(shape[1:])
        if kind is ValueKind.SPIKE:
            spikes += values
        else:
            activations += values
    states = (2 + 2 * bool(node.current_decay)) if isinstance(node, g.Neuron) else 0
    return {
        "activation_words": activations,
        "spike_bits": spikes,
        "weight_words": parameter_words(node, operands.steps),
        "membrane_words": states * operands.outputs,
    }


@singledispatch
def parameter_words(node: g.Node, steps: int) -> int:
    """Numbers of the network, not of the image, that a node reads in each step; what changes nothing is not there."""
    raise NetworkError(f"{node.name}: no rule for the parameters of kind {node.kind}")


@parameter_words.register(g.Add)
@parameter_words.register(g.Mul)
@parameter_words.register(g.Reduce)
@parameter_words.register(g.Activation)
@parameter_words.register(g.Resize)
def _(node: g.Node, steps: int) -> int:
    return 0


@parameter_words.register
def _(node: g.Conv, steps: int) -> int:
    return node.weight.size + (0 if node.bias is None else node.bias.size)


@parameter_words.register
def _(node: g.Linear, steps: int) -> int:
    """A matrix along T gives a frame for each of its rows: a frame reads its own row."""
    words = node.weight.size + (0 if node.bias is None else node.bias.size)
    return words // steps if node.axis == "T" else words


@parameter_words.register
def _(node: g.Affine, steps: int) -> int:
    """Scale and offset; where they are given per step, a step reads its own."""
    used = [node.scale] * _scales(node.scale) + [node.offset] * _shifts(node.offset)
    return sum(array.size // (steps if array.ndim == 4 and len(array) > 1 else 1) for array in used)


@parameter_words.register
def _(node: g.Neuron, steps: int) -> int:
    """Threshold and decay of the membrane; gain, bias, decay of the current and reset value where there are any."""
    arrays = [node.threshold] + [node.gain] * _scales(node.gain) + [node.bias] * _shifts(node.bias)
    return sum(array.size for array in arrays) + 1 + bool(node.current_decay) + bool(node.reset_value)


def _scales(factor: Array) -> bool:
    """Whether a factor is a multiplication: a change of sign is not."""
    return bool(np.any(np.abs(factor) != 1.0))


def _shifts(summand: Array) -> bool:
    """Whether a summand is an addition: 0 is not."""
    return bool(np.any(summand != 0.0))


@singledispatch
def count_work(node: g.Node, operands: Operands) -> Work:
    """Operations per step of one node; a kind without a rule is refused."""
    raise NetworkError(f"{node.name}: no counting rule for kind {node.kind}")


@count_work.register(g.Input)
@count_work.register(g.Output)
@count_work.register(g.Repeat)
@count_work.register(g.Concat)
def _(node: g.Node, operands: Operands) -> Work:
    return {}


@count_work.register
def _(node: g.Conv, operands: Operands) -> Work:
    taps = dense_taps(node, operands.input_shapes[0])
    work: Work = {"adds": 0 if node.bias is None else operands.outputs, "dense_taps": taps}
    if operands.input_kinds[0] is not ValueKind.SPIKE:
        return {**work, "macs": taps}
    spikes = _spikes_in(node, operands)
    return {**work, "acs": synaptic_operations(node, spikes), "events_in": spikes.sum((1, 2))}


@count_work.register
def _(node: g.Linear, operands: Operands) -> Work:
    """Along C a spike reaches every output of its step; along T, at its own place, every frame of the output."""
    runs = prod(operands.output_shape) // node.weight.shape[0]
    taps = runs * node.weight.size // operands.steps
    work: Work = {"adds": 0 if node.bias is None else operands.outputs, "dense_taps": taps}
    if operands.input_kinds[0] is not ValueKind.SPIKE:
        return {**work, "macs": taps}
    spikes = _spikes_in(node, operands).sum((1, 2))
    if node.axis == "C":
        return {**work, "acs": spikes * node.weight.shape[0], "events_in": spikes}
    events = np.zeros(operands.steps, np.int64)
    events[-1] = spikes.sum()  # the last step's: before it not all of them are there
    return {**work, "acs": spikes.sum(), "events_in": events}


def _spikes_in(node: g.Node, operands: Operands) -> NDArray[np.int64]:
    if operands.spike_map is None:
        raise NetworkError(f"{node.name} ({node.kind}): reads spikes, but the run did not report them")
    return operands.spike_map


@count_work.register
def _(node: g.Neuron, operands: Operands) -> Work:
    """Per neuron and step: leak (1 mul), integrate (1 add), compare (1 add); more for a current state, gain or bias."""
    muls, adds = 1, 2
    if node.current_decay:
        muls, adds = muls + 1, adds + 1
    muls += _scales(node.gain)
    adds += _shifts(node.bias)
    work: Work = {"adds": adds * operands.outputs, "muls": muls * operands.outputs, "neuron_updates": operands.outputs}
    if operands.spikes_out is None:
        raise NetworkError(f"{node.name} (neuron): the run did not report its spikes")
    work["spikes"] = operands.spikes_out
    return work


@count_work.register
def _(node: g.Add, operands: Operands) -> Work:
    return {"adds": operands.outputs}


@count_work.register
def _(node: g.Mul, operands: Operands) -> Work:
    return {"muls": operands.outputs}


@count_work.register
def _(node: g.Affine, operands: Operands) -> Work:
    return {
        "muls": operands.outputs * _scales(node.scale),
        "adds": operands.outputs * _shifts(node.offset),
    }


@count_work.register
def _(node: g.Reduce, operands: Operands) -> Work:
    """n values to one: n - 1 additions or comparisons, and one multiplication by 1/n for a mean."""
    values = prod(operands.input_shapes[0]) // prod(operands.output_shape)
    return {"adds": (values - 1) * operands.outputs, "muls": operands.outputs if node.function == "mean" else 0}


@count_work.register
def _(node: g.Activation, operands: Operands) -> Work:
    """relu: one comparison; sigmoid: one multiply and one add (a table with interpolation)."""
    return {"adds": operands.outputs, "muls": operands.outputs if node.function == "sigmoid" else 0}


@count_work.register
def _(node: g.Resize, operands: Operands) -> Work:
    """Bilinear: four taps per output pixel; nearest copies."""
    if node.mode == "nearest":
        return {}
    return {"muls": 4 * operands.outputs, "adds": 3 * operands.outputs}
