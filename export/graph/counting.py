"""What one node costs when it runs, exactly, per time step: spikes, ACs, MACs, element-wise work, memory words.

In: a node, the shapes of its values and, where its input is spikes, how many spikes there were per step and pixel.
Out: NodeCounts. The rules are stated in docs/counting.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import singledispatch
from math import prod

import numpy as np
from numpy.typing import NDArray

from esdnet.images.rain_streaks import Offsets, line_across, line_along
from export.graph import elementwise as cost
from export.graph import nodes as g
from export.graph.attention import windows
from export.graph.network import Network
from export.graph.nodes import NetworkError, Shape, ValueKind, gate_of
from export.graph.taps import dense_taps, open_taps, synaptic_operations, taps_along, taps_on
from export.graph.words import Counts, Operands, Work, count_memory, scales, shifts


@dataclass(frozen=True, eq=False)
class NodeCounts:
    """Operations of one node. Each field is int64 of shape (steps,), or (1,) for a node that runs once an image.

    `adds` and `muls` are element-wise work (biases, leaks, residual sums, gates, interpolation). The `*_words` are
    values moved if every operand moves once per step; spikes are single bits (`spike_bits`). `dense_taps` is what the
    same layer would multiply and accumulate if every input were analog: acs / dense_taps is its firing rate as felt.
    `events_in` are the spikes that a convolution or matrix read; what a neuron emits are its `spikes`. Beside `macs`,
    which are dense: `nonzero_macs`, those that multiply by a value other than 0, and `events`, of graded values alone,
    value times fan-out: what hardware does that sends a value of n as n spikes. Both are 0 where nobody looked at the
    values (`Operands.value_map`): runs in the simulator do.
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
    nonzero_macs: Counts
    events: Counts

    def totals(self) -> dict[str, int]:
        """Every field summed over the steps."""
        return {item.name: int(getattr(self, item.name).sum()) for item in fields(self)}

    @staticmethod
    def zeros(steps: int) -> NodeCounts:
        """All counts 0."""
        return NodeCounts(*(np.zeros(steps, np.int64) for _ in fields(NodeCounts)))

    def agrees(self, other: NodeCounts) -> bool:
        """Whether the totals are equal, but for what only who looks at the values can count: backends need not, and
        whether a sum is exactly 0 hangs on the order it is added up in."""
        mine, others = self.totals(), other.totals()
        return all(mine[name] == others[name] for name in mine if name not in OF_VALUES)

    def but(self, seen: Work) -> NodeCounts:
        """The same but for these, per step or the same in every step."""
        steps = len(self.spikes)
        arrays = {name: value if np.ndim(value) else np.full(steps, value) for name, value in seen.items()}
        return NodeCounts(**{**vars(self), **arrays})

    def then(self, later: NodeCounts) -> NodeCounts:
        """Step after step: the counts of these steps and of later ones."""
        both = ((getattr(self, item.name), getattr(later, item.name)) for item in fields(self))
        return NodeCounts(*(np.concatenate(pair) for pair in both))

    def less(self, other: NodeCounts) -> NodeCounts:
        """Field by field: what these counts have more."""
        return NodeCounts(*(getattr(self, item.name) - getattr(other, item.name) for item in fields(self)))

    def plus(self, other: NodeCounts) -> NodeCounts:
        """Field by field: the counts of both runs together (tiles, images)."""
        return NodeCounts(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))


OF_VALUES = ("nonzero_macs", "events")
COUNTED = {item.name: row for row, item in enumerate(fields(NodeCounts))}


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


def multiplies(network: Network, node: g.Node) -> bool:
    """Whether a node multiplies by values other than spikes: its MACs."""
    return isinstance(node, (g.Conv, g.Linear)) and network.kinds[node.inputs[0]] is not ValueKind.SPIKE


def reads_spikes(network: Network, node: g.Node) -> bool:
    """Whether a node accumulates spikes: its ACs need the spike map of its input."""
    return isinstance(node, (g.Conv, g.Linear)) and network.kinds[node.inputs[0]] is ValueKind.SPIKE


def count_node(node: g.Node, operands: Operands) -> NodeCounts:
    """All counts of one node in one run."""
    if gate_of(node) is not None and operands.gate is None:
        raise NetworkError(f"{node.name} ({node.kind}): has a gate, but the run did not report where it was open")
    table = np.zeros((len(COUNTED), operands.steps), np.int64)
    work = {**count_work(node, operands), **count_seen(node, operands), **count_memory(node, operands)}
    for name, value in work.items():
        table[COUNTED[name]] = value
    table.setflags(write=False)  # runs may share it
    return NodeCounts(*table)


@singledispatch
def count_work(node: g.Node, operands: Operands) -> Work:
    """Operations per step of one node that only sizes and its gate decide; a kind without a rule is refused."""
    raise NetworkError(f"{node.name}: no counting rule for kind {node.kind}")


@singledispatch
def count_seen(node: g.Node, operands: Operands) -> Work:
    """Those that hang on the spikes and values that were seen in a run."""
    return {}


@count_work.register(g.Input)
@count_work.register(g.Output)
@count_work.register(g.Repeat)
@count_work.register(g.Concat)
@count_work.register(g.Flatten)
@count_work.register(g.Chunk)
@count_work.register(g.DepthToSpace)
@count_work.register(g.WindowOrder)
@count_work.register(g.Delay)
@count_work.register(g.Membrane)
def _(node: g.Node, operands: Operands) -> Work:
    return {}


@count_work.register
def _(node: g.Conv, operands: Operands) -> Work:
    taps = dense_taps(node, operands.input_shapes[0])
    work: Work = {"adds": 0 if node.bias is None else operands.running, "dense_taps": taps}
    if operands.gate is not None:
        return {**work, "macs": open_taps(node, operands.input_shapes[0], operands.gate, operands.place)}
    return work if operands.input_kinds[0] is ValueKind.SPIKE else {**work, "macs": taps}


@count_seen.register
def _(node: g.Conv, operands: Operands) -> Work:
    gate = operands.gate
    if gate is not None:
        return _looked_at(operands, lambda values: taps_on(node, values, gate))
    where = (operands.input_shapes[0][2:], operands.place)
    if operands.input_kinds[0] is not ValueKind.SPIKE:
        return _looked_at(operands, lambda values: synaptic_operations(node, values, *where))
    spikes = _spikes_in(node, operands)
    return {"acs": synaptic_operations(node, spikes, *where), "events_in": spikes.sum((1, 2))}


@count_work.register
def _(node: g.Linear, operands: Operands) -> Work:
    read = node.weight.shape[1]
    work: Work = {"adds": 0 if node.bias is None else operands.running, "dense_taps": operands.outputs * read}
    return work if operands.input_kinds[0] is ValueKind.SPIKE else {**work, "macs": operands.running * read}


@count_seen.register
def _(node: g.Linear, operands: Operands) -> Work:
    """Along C a spike reaches every output of its step; along T, at its own place, every frame of the output."""
    if operands.input_kinds[0] is not ValueKind.SPIKE:

        def taps_at(values: NDArray[np.int64]) -> Counts | int:
            here = (values if operands.gate is None else values * operands.gate).sum((1, 2))
            return here * len(node.weight) if node.axis == "C" else here.sum()

        return _looked_at(operands, taps_at)
    spikes = _spikes_in(node, operands).sum((1, 2))
    if node.axis == "C":
        return {"acs": spikes * node.weight.shape[0], "events_in": spikes}
    events = np.zeros(operands.steps, np.int64)
    events[-1] = spikes.sum()  # the last step's: before it not all of them are there
    return {"acs": spikes.sum(), "events_in": events}


def _looked_at(operands: Operands, taps_of: Callable[[NDArray[np.int64]], Counts | int]) -> Work:
    """Multiplications by what is not 0, and events of graded values, as far as somebody looked at the values."""
    maps = {"nonzero_macs": operands.value_map, "events": operands.sum_map}
    return {name: taps_of(values) for name, values in maps.items() if values is not None}


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
    muls += scales(node.gain)
    adds += shifts(node.bias)
    return {"adds": adds * operands.running, "muls": muls * operands.running, "neuron_updates": operands.running}


@count_seen.register(g.Spiking)
@count_seen.register(g.Threshold)
def _(node: g.Node, operands: Operands) -> Work:
    if operands.spikes_out is None:
        raise NetworkError(f"{node.name} ({node.kind}): the run did not report its spikes")
    return {"spikes": operands.spikes_out}


@count_work.register
def _(node: g.Euler, operands: Operands) -> Work:
    """The equations as they are written there: a factor and two or three sums for the membrane, as many for a current;
    factors of 1 and summands of 0 are none."""
    muls, adds = int(scales(node.r)), 1
    if node.tau is not None:
        muls, adds = muls + 1, adds + 1 + shifts(node.v_leak)
    if node.tau_syn is not None:
        muls, adds = muls + 1 + scales(node.w_in), adds + 2
    return {"adds": adds * operands.outputs, "muls": muls * operands.outputs, "neuron_updates": operands.outputs}


@count_work.register
def _(node: g.EulerNeuron, operands: Operands) -> Work:
    """And one comparison."""
    work = count_work.dispatch(g.Euler)(node, operands)
    return {**work, "adds": work["adds"] + operands.outputs}


@count_work.register
def _(node: g.Leaky, operands: Operands) -> Work:
    """Per neuron and step: leak (1 mul), integrate (1 add), compare (1 add); more for a current, a gain, a second
    input. A reset is part of the comparison, as in Neuron."""
    current = node.current_decay is not None
    muls, adds = 1 + current + scales(node.gain), 2 + current + len(operands.input_shapes) - 1
    return {"adds": adds * operands.outputs, "muls": muls * operands.outputs, "neuron_updates": operands.outputs}


@count_work.register
def _(node: g.LoihiNeuron, operands: Operands) -> Work:
    """As Neuron: a decay of 4096 keeps nothing and one of 0 everything, so that there is no multiplication."""
    keeps = node.current_decay < 4096
    muls = (keeps and node.current_decay > 0) + (0 < node.membrane_decay < 4096)
    adds = 1 + keeps + (node.membrane_decay < 4096) + shifts(node.bias)
    return {"adds": adds * operands.outputs, "muls": muls * operands.outputs, "neuron_updates": operands.outputs}


@count_work.register
def _(node: g.Threshold, operands: Operands) -> Work:
    return {"adds": operands.outputs}


@count_work.register
def _(node: g.Pool, operands: Operands) -> Work:
    """Sums and comparisons of the values that lie inside; one multiplication by 1/n for a mean."""
    _, channels, height, width = operands.input_shapes[0]
    along = zip((height, width), node.kernel, node.stride, node.padding, strict=True)
    inside = channels * prod(int(taps_along(*side, 1)[0].sum()) for side in along)
    return {"adds": max(0, inside - operands.outputs), "muls": operands.outputs if node.function == "mean" else 0}


@count_work.register(g.Add)
@count_work.register(g.Sub)
def _(node: g.Node, operands: Operands) -> Work:
    return {"adds": operands.outputs}


@count_work.register
def _(node: g.Mul, operands: Operands) -> Work:
    return {"muls": operands.outputs}


@count_work.register
def _(node: g.Affine, operands: Operands) -> Work:
    return {
        "muls": operands.outputs * scales(node.scale),
        "adds": operands.outputs * shifts(node.offset),
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


@count_work.register
def _(node: g.RainMask, operands: Operands) -> Work:
    """The darkest channel as a grey level: C - 1 comparisons, a multiplication, a sum, two limits. For each direction
    two openings (`_along_line`, twice each), the difference, the clip and the sum of all pixels. Then which direction
    is the largest, which ones equal it, which ones lie beside one; the largest response kept, and the threshold."""
    _, channels, height, width = operands.input_shapes[0]
    pixels, directions = height * width, len(node.angles)
    lines = [line_across(angle, node.across) for angle in node.angles]
    lines += [line_along(angle, node.along) for angle in node.angles]
    openings = sum(2 * _along_line(line, height, width) for line in lines)
    strengths = directions * (2 * pixels + pixels - 1)
    chosen = 2 * (directions - 1) + directions + (directions - 1)
    adds = (channels - 1 + 3) * pixels + openings + strengths + chosen + directions * pixels
    return {"adds": adds, "muls": pixels}


@count_work.register
def _(node: g.Flood, operands: Operands) -> Work:
    """Adding up n ones, comparing their number, and joining each with what that gave."""
    return {"adds": 2 * operands.outputs}


def _along_line(line: Offsets, height: int, width: int) -> int:
    """Comparisons that find the extreme of each pixel's line: one less than its points that lie inside."""
    inside = sum(max(0, height - abs(down)) * max(0, width - abs(right)) for down, right in line)
    return inside - height * width


@count_work.register
def _(node: g.LayerNorm, operands: Operands) -> Work:
    """Mean, centred, squared, mean, scaled over the channels of each pixel; weight and bias."""
    adds, muls = cost.normalisation(operands.outputs, prod(operands.output_shape[2:]), affine=True)
    return {"adds": adds, "muls": muls}


@count_work.register
def _(node: g.ArgMax, operands: Operands) -> Work:
    return {"adds": (operands.input_shapes[0][1] - 1) * operands.outputs}


@count_work.register
def _(node: g.SortOrder, operands: Operands) -> Work:
    """n log2 n comparisons."""
    return {"adds": cost.sorting(operands.outputs, 1)[0]}


@count_work.register
def _(node: g.WindowAttention, operands: Operands) -> Work:
    """Both products, of queries and keys and of weights and values, on places that there are; each query scaled once, a
    softmax for each query and head; where keys are shut, a comparison for each pixel and a subtraction for each logit.

    Weights are taken not to be 0: nobody looks at them.
    """
    pixels = prod(operands.output_shape[2:])
    places = windows(pixels, node.window, node.overlap)
    logits = node.heads * sum((asking.stop - asking.start) * (near.stop - near.start) for asking, near in places)
    macs = 2 * operands.output_shape[1] // node.heads * logits
    adds, muls = cost.softmax(logits, node.heads * pixels)
    if len(operands.input_shapes) == 3:
        adds += pixels + logits
    scaled = operands.outputs
    return {"macs": macs, "nonzero_macs": macs, "dense_taps": macs, "adds": adds, "muls": muls + scaled}
