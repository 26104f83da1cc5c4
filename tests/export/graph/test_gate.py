"""Gates: where a node runs, what its value is elsewhere, what is counted of it, and what may be a gate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph import nodes as g
from export.graph.counting import OF_VALUES, NodeCounts, count_node, operands_of
from export.graph.execute import execute_node
from export.graph.network import Network, infer_shapes
from export.graph.nodes import NetworkError, ValueKind, gate_of
from export.graph.receptive_field import find_halo
from export.graph.values import output_shape
from export.graph.words import Operands
from hw_sim.backends import simulator
from hw_sim.backends.result import Result
from tests.export.graph.test_counting import conv_cases
from tests.export.graph.test_part import differing, in_tiles
from tests.random_networks import Builder, random_gated

SEEDS = range(6)


def picture(seed: int, height: int = 24, width: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).random((3, height, width))


def run(network: Network, image: np.ndarray) -> Result:
    return simulator.run(network, image, precision="float64")


def written_out(network: Network) -> Network:
    """The same by other kinds: every node runs everywhere, and its value is multiplied by its gate."""
    nodes: list[g.Node] = []
    for node in network.nodes:
        gate = gate_of(node)
        if gate is None:
            nodes.append(node)
        else:
            nodes.append(replace(node, name=f"{node.name}.free", inputs=node.inputs[:1]))
            nodes.append(g.Mul(name=node.name, inputs=(nodes[-1].name, gate)))
    return replace(network, nodes=tuple(nodes))


def gated_by(network: Network, constant: int) -> Network:
    """Every gate replaced by one that is 1 everywhere, or 0."""
    nodes: list[g.Node] = [network.nodes[0]]
    nodes.append(g.Reduce(name="one channel", inputs=(network.input.name,), function="max", axes="C"))
    nodes.append(g.Threshold(name="whole", inputs=("one channel",), threshold=np.array(2.0 - 3 * constant)))
    nodes.append(g.Pool(name="half", inputs=("whole",), function="max", kernel=(2, 2), stride=(2, 2)))
    first, second = network.gates
    instead = {first: "whole", second: "half"}
    for node in network.nodes[1:]:
        nodes.append(replace(node, inputs=tuple(instead.get(name, name) for name in node.inputs)))
    return replace(network, nodes=tuple(node for node in nodes if node.name not in network.gates))


def without_gates(network: Network) -> Network:
    return replace(network, nodes=tuple(replace(node, inputs=node.inputs[:1]) if gate_of(node) else node
                                        for node in network.nodes))  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_a_value_is_what_it_was_or_zero(seed: int) -> None:
    network, image = random_gated(seed), picture(seed)
    found, expected = run(network, image), run(written_out(network), image)
    assert np.array_equal(found.output, expected.output)
    for name, gate in found.gates.items():
        assert 0.05 < gate.mean() < 0.95, name
    for name, spikes in found.spikes.items():
        gate = gate_of(network[name])
        fired = expected.spikes[name if gate is None else f"{name}.free"]
        assert np.array_equal(spikes, fired if gate is None else fired & (found.gates[gate][:, None] > 0)), name
        assert spikes.any()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_gate_of_ones_changes_no_bit_and_no_count_but_that_it_is_read(seed: int) -> None:
    network, image = gated_by(random_gated(seed), 1), picture(seed)
    found, expected = run(network, image), run(without_gates(network), image)
    assert np.array_equal(found.output, expected.output)
    assert not np.array_equal(found.output, image)
    for node in network.nodes:
        totals, free = found.counts[node.name].totals(), expected.counts[node.name].totals()
        gate, steps = gate_of(node), len(found.counts[node.name].acs)
        bits = 0 if gate is None else steps * found.gates[gate].size
        assert totals == free | {"spike_bits": free["spike_bits"] + bits}, node.name


@pytest.mark.parametrize("seed", SEEDS)
def test_behind_a_gate_of_zeros_nothing_happens(seed: int) -> None:
    network, image = gated_by(random_gated(seed), 0), picture(seed)
    found = run(network, image)
    assert np.array_equal(found.output, image)
    behind = [node for node in network.nodes if gate_of(node)]
    for node in behind:
        totals = found.counts[node.name].totals()
        assert {name for name in totals if totals[name]} <= {
            "dense_taps", "weight_words", "activation_words", "spike_bits",
        }, node.name  # fmt: skip
    gated = {node.name for node in behind if isinstance(node, g.Neuron)}
    assert not any(found.spikes[name].any() for name in gated)
    fed = [node.name for node in network.nodes if isinstance(node, g.Conv) and comes_from(network, node.name, gated)]
    assert len(fed) >= 6
    assert not any(found.counts[name].acs.any() or found.counts[name].macs.any() for name in fed)


def comes_from(network: Network, name: str, neurons: set[str]) -> bool:
    """Whether what a node reads are the spikes of these neurons, passed on as they are."""
    return any(
        source in neurons
        or (isinstance(network[source], (g.Concat, g.Resize)) and comes_from(network, source, neurons))
        for source in network[name].inputs
    )


# --- counts ---------------------------------------------------------------------------------------------------------


def gate_like(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape[2:]) < 0.4).astype(np.int64)


def count(node: g.Node, value: np.ndarray, gate: np.ndarray, kind: ValueKind = ValueKind.ANALOG, **maps) -> NodeCounts:
    """Counts of a node that reads a value and has a gate."""
    gate_shape = (1, 1, *gate.shape)
    shape = output_shape(node, [value.shape, gate_shape], 2)
    made = ValueKind.SPIKE if isinstance(node, g.Neuron) else ValueKind.ANALOG
    operands = Operands([value.shape, gate_shape], [kind, ValueKind.SPIKE], shape, made)
    return count_node(node, operands.seeing(gate=gate, **maps))


@given(conv_cases(), st.integers(0, 99), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_convolution_multiplies_at_open_outputs(case, seed: int, bias: bool) -> None:
    """Every stride, padding, dilation and grouping: the taps of each open output, border by border, one by one."""
    node, ones = case
    outputs = len(node.weight)
    node = replace(node, inputs=("x", "gate"), bias=np.ones(outputs) if bias else None)
    value = ones * np.random.default_rng(seed).integers(1, 5, ones.shape)
    shape = output_shape(node, [value.shape], len(value))
    gate = gate_like(shape, seed)
    macs, events = 0, np.zeros(len(value), np.int64)
    nonzero = events.copy()
    read = node.weight.shape[1]
    for output, y, x, channel, i, j in np.ndindex(outputs, *shape[2:], *node.weight.shape[1:]):
        h = y * node.stride[0] + i * node.dilation[0] - node.padding[0]
        w = x * node.stride[1] + j * node.dilation[1] - node.padding[1]
        if gate[y, x] and 0 <= h < value.shape[2] and 0 <= w < value.shape[3]:
            macs += 1
            seen = value[:, output // (outputs // node.groups) * read + channel, h, w]
            nonzero += seen != 0
            events += seen
    maps = {"value_map": (value != 0).sum(1), "sum_map": value.sum(1)}
    found = count(node, value, gate, ValueKind.GRADED, **maps)
    assert found.macs.tolist() == [macs] * len(value)
    assert found.nonzero_macs.tolist() == nonzero.tolist()
    assert found.events.tolist() == events.tolist()
    assert found.adds.tolist() == [bias * outputs * int(gate.sum())] * len(value)
    free = replace(node, inputs=("x",))
    whole = count_node(free, Operands([value.shape], [ValueKind.GRADED], shape, ValueKind.ANALOG))
    assert found.dense_taps.tolist() == whole.dense_taps.tolist()


@pytest.mark.parametrize("axis", ["C", "T"])
def test_a_matrix_multiplies_at_open_places(axis: str) -> None:
    value = np.random.default_rng(3).integers(0, 3, (4, 5, 6, 7))
    read = value.shape[1 if axis == "C" else 0]
    node = g.Linear(name="l", inputs=("x", "gate"), weight=np.ones((2, read)), bias=np.ones(2), axis=axis)
    gate = gate_like(value.shape, 3)
    maps = {"value_map": (value != 0).sum(1)}
    found = count(node, value, gate, **maps)
    places, steps = int(gate.sum()), len(found.macs)
    of_step = 2 * read * places if axis == "C" else read * 5 * places
    assert found.macs.tolist() == [of_step] * steps
    ones = (value != 0) * gate
    assert found.nonzero_macs.tolist() == (
        [2 * n for n in ones.sum((1, 2, 3))] if axis == "C" else [ones.sum()] * steps
    )
    assert found.adds.tolist() == [(2 if axis == "C" else 5) * places] * steps
    assert found.dense_taps.tolist() == [of_step // places * gate.size] * steps
    read_open = 5 * places * (4 // steps)
    assert found.activation_words.tolist() == [read_open + (2 if axis == "C" else 5) * gate.size] * steps


def test_neurons_are_updated_where_the_gate_is_open() -> None:
    fields_ = {"threshold": np.array(0.5), "membrane_decay": 0.5, "current_decay": 0.5, "bias": np.ones((3, 1, 1))}
    node = g.Neuron(name="n", inputs=("x", "gate"), **fields_)
    value = np.ones((2, 3, 4, 5))
    gate = gate_like(value.shape, 1)
    places = 3 * int(gate.sum())
    totals = count(node, value, gate, fired=np.ones((2, 4, 5), np.int64)).totals()
    assert 0 < places < 60
    assert (totals["neuron_updates"], totals["adds"], totals["muls"]) == (2 * places, 2 * 4 * places, 2 * 2 * places)
    assert totals["membrane_words"] == 2 * 2 * 2 * places  # two states, read and written
    assert totals["activation_words"] == 2 * places  # currents of those that are updated
    assert totals["spike_bits"] == 2 * (20 + 60)  # the gate, and what is written of it
    assert totals["spikes"] == 40


def test_a_gate_that_was_not_reported_is_refused() -> None:
    network = random_gated(0)
    node = next(node for node in network.nodes if gate_of(node) and isinstance(node, g.Conv))
    with pytest.raises(NetworkError, match=rf"{node.name} \(conv\): has a gate, but the run did not report where"):
        count_node(node, operands_of(network, infer_shapes(network, 8, 8), node))


# --- flood ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ones", "flooded"), [(0, False), (12, False), (13, True), (40, True)])
def test_a_flood_opens_all_above_its_share(ones: int, flooded: bool) -> None:
    """0.3 of 40 elements are 12, which is not more than 0.3."""
    spikes = torch.zeros(40, dtype=torch.bool)
    spikes[:ones] = True
    spikes = spikes.reshape(1, 1, 5, 8)
    node = g.Flood(name="f", inputs=("x",), most=0.3)
    for dtype in (torch.float32, torch.float64):
        for value in (spikes, spikes.to(dtype)):  # as checks hand them over
            found = execute_node(node, [value], 1, dtype)
            assert torch.equal(found, torch.ones_like(spikes) if flooded else spikes)
    operands = Operands([(1, 1, 5, 8)], [ValueKind.SPIKE], (1, 1, 5, 8), ValueKind.SPIKE)
    totals = count_node(node, operands).totals()
    assert totals["adds"] == 39 + 1 + 40  # their sum, one comparison, a maximum each
    assert totals["spikes"] == totals["muls"] == 0


def test_each_step_is_flooded_by_itself() -> None:
    spikes = torch.zeros(3, 1, 2, 2, dtype=torch.bool)
    spikes[1, 0, 0, 0] = spikes[2, 0, 0] = True
    found = execute_node(g.Flood(name="f", inputs=("x",), most=0.25), [spikes], 3, torch.float64)
    assert found.sum((1, 2, 3)).tolist() == [0, 1, 4]


# --- what may be a gate ----------------------------------------------------------------------------------------------


def small(*nodes: g.Node, last: str = "") -> Network:
    start = (g.Input(name="image", channels=1), g.Repeat(name="coding", inputs=("image",)))
    end = g.Output(name="out", inputs=(last or nodes[-1].name,))
    return Network(name="n", nodes=(*start, *nodes, end), steps=2)


OPEN = g.Threshold(name="open", inputs=("image",), threshold=np.array(0.5))
LIF = {"threshold": np.array(0.5), "membrane_decay": 0.5}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((g.Neuron(name="n", inputs=("coding", "image"), **LIF),),
         r"n \(neuron\): its gate image is analog, expected spikes"),
        ((g.Threshold(name="open", inputs=("coding",), threshold=np.array(0.5)),
          g.Neuron(name="n", inputs=("coding", "open"), **LIF)),
         r"n \(neuron\): a gate of shape \(2, 1, 8, 8\), expected \(1, 1, 8, 8\)"),
        ((OPEN, g.Conv(name="c", inputs=("coding", "open"), weight=np.ones((1, 1, 2, 2)))),
         r"c \(conv\): a gate of shape \(1, 1, 8, 8\), expected \(1, 1, 7, 7\)"),
        ((OPEN, g.Linear(name="l", inputs=("open", "open"), weight=np.ones((1, 1)))),
         r"l \(linear\): has a gate, and is driven by the spikes of open"),
        ((OPEN, g.Neuron(name="n", inputs=("coding", "open"), late=("open",), **LIF)),
         r"n \(neuron\): reads its gate open late"),
        ((OPEN, g.Conv(name="c", inputs=("coding", "open", "open"), weight=np.ones((1, 1, 1, 1)))),
         r"c \(conv\): 3 inputs, expected 1 or 2"),
        ((g.Flood(name="f", inputs=("image",), most=0.5),), r"f \(flood\): its input image is analog, expected spikes"),
        ((OPEN, g.Flood(name="f", inputs=("open",), most=1.5)), r"f \(flood\): most 1.5, expected a share from 0 to 1"),
    ],
)  # fmt: skip
def test_other_gates_are_refused_by_name(nodes: tuple[g.Node, ...], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        small(*nodes)


def test_behind_a_gate_a_cycle_goes_step_by_step_as_elsewhere() -> None:
    """A neuron that reads its own last spikes: where it is shut it neither fires nor feeds back."""
    loop = (
        OPEN,
        g.Add(name="sum", inputs=("coding", "back"), late=("back",)),
        g.Neuron(name="n", inputs=("sum", "open"), **LIF),
        g.Conv(name="back", inputs=("n",), weight=np.full((1, 1, 3, 3), -0.1), padding=(1, 1)),
    )
    network = replace(small(*loop, last="n"), steps=5)
    image = np.random.default_rng(0).random((1, 8, 8))
    found = run(network, image)
    membrane, before = np.zeros((8, 8)), np.zeros((8, 8))
    for step in range(5):
        padded = np.pad(before, 1)
        fed = -0.1 * sum(padded[i : i + 8, j : j + 8] for i in range(3) for j in range(3))
        membrane = 0.5 * membrane + image[0] + fed
        before = ((membrane >= 0.5) & (image[0] > 0.5)).astype(float)
        membrane *= 1 - before
        assert np.array_equal(found.spikes["n"][step, 0], before > 0), step
    assert found.spikes["n"].any()


# --- parts ------------------------------------------------------------------------------------------------------------


def local_gated(seed: int) -> Network:
    """A random network whose gate looks at its surround only; dyadic, so that no sum rounds."""
    rng = np.random.default_rng(seed)
    network = random_gated(2 * seed)

    def dyadic(node: g.Node) -> g.Node:
        if isinstance(node, g.Conv):
            return replace(node, weight=rng.integers(-8, 9, node.weight.shape) / 8.0,
                           bias=None if node.bias is None else rng.integers(-8, 9, node.bias.shape) / 8.0)  # fmt: skip
        if isinstance(node, g.Linear):
            return replace(node, weight=rng.integers(-8, 9, node.weight.shape) / 8.0, bias=None)
        if isinstance(node, g.Neuron):
            return replace(node, gain=np.sign(node.gain), bias=np.zeros(()), current_decay=0.0, membrane_decay=0.5)
        return node

    return replace(network, nodes=tuple(map(dyadic, network.nodes)))


@pytest.mark.parametrize(
    ("seed", "side"),
    [(0, 10), (1, 10), (2, 10), (7, 10), *(pytest.param(seed, 4, marks=pytest.mark.slow) for seed in (0, 1, 2, 7))],
)
def test_counts_of_the_cores_of_tiles_add_up(seed: int, side: int) -> None:
    network = local_gated(seed)
    image = np.random.default_rng(seed).integers(0, 17, (3, 28, 22)) / 16.0
    gates = run(network, image).gates.values()
    assert all(0.02 < gate.mean() < 0.98 for gate in gates)
    assert differing(network, image, in_tiles(network, image, side)) == set()


def test_a_gate_read_beside_a_tile_would_be_noticed() -> None:
    network, image = local_gated(1), np.random.default_rng(1).integers(0, 17, (3, 44, 30)) / 16.0
    assert {"neuron_updates", "macs", "membrane_words"} <= differing(
        network, image, in_tiles(network, image, 10, less=8), OF_VALUES
    )


def test_the_halo_of_a_gate_is_that_of_its_nodes() -> None:
    b = Builder(0, 0.5)
    image = b.add(g.Input(name="input"), 3)
    gate = b.neuron(b.conv(image, 1, kernel=7), plain=True)
    b.one(g.Output, b.conv(image, 3, kernel=3, gate=gate))
    network = Network(name="n", nodes=tuple(b.nodes), steps=1)
    assert find_halo(network) == (3, 3, 3, 3)  # the gate's kernel alone reaches further than the convolution's
    with pytest.raises(NetworkError, match=r"rainmask\d+ \(rainmask\) and 1 more nodes look at the whole image"):
        find_halo(random_gated(1))
