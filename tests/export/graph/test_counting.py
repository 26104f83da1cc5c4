from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph import nodes as g
from export.graph.counting import count_node
from export.graph.nodes import NetworkError, ValueKind
from export.graph.taps import dense_taps, synaptic_operations
from export.graph.values import output_shape
from export.graph.words import Operands, parameter_words
from hw_sim.backends import simulator


@st.composite
def conv_cases(draw):
    """A convolution of any stride, padding, dilation and grouping, depthwise too, and an input that it fits."""
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    groups, read, made = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))  # of each group
    size = (draw(st.integers(5, 7)), draw(st.integers(5, 7)))
    node = g.Conv(
        name="c", inputs=("x",), weight=np.ones((groups * made, read, *kernel)),
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip
    spikes = np.random.default_rng(draw(st.integers(0, 999))).random((2, groups * read, *size)) < 0.3
    return node, spikes


def brute_force_acs(node: g.Conv, spikes: np.ndarray) -> list[int]:
    """Every output channel and pixel, every channel of its group, every tap: one accumulation if a spike lies there."""
    steps, _, height, width = spikes.shape
    _, outputs, out_height, out_width = output_shape(node, [spikes.shape], steps)
    read = node.weight.shape[1]
    counts = [0] * steps
    for output, y, x, channel, i, j in np.ndindex(outputs, out_height, out_width, *node.weight.shape[1:]):
        source = output // (outputs // node.groups) * read + channel  # the group of this output begins there
        h = y * node.stride[0] + i * node.dilation[0] - node.padding[0]
        w = x * node.stride[1] + j * node.dilation[1] - node.padding[1]
        if 0 <= h < height and 0 <= w < width:
            for step in range(steps):
                counts[step] += int(spikes[step, source, h, w])
    return counts


@given(conv_cases())
@settings(max_examples=25, deadline=None)
def test_acs_equal_a_brute_force_loop(case):
    node, spikes = case
    assert synaptic_operations(node, spikes.sum(1)).tolist() == brute_force_acs(node, spikes)


@given(conv_cases())
@settings(max_examples=50, deadline=None)
def test_acs_and_taps_equal_the_gradient_oracle(case):
    """The fan-out of an input element is the gradient of the sum of all outputs for weights of one."""
    node, spikes = case
    ones = torch.ones(spikes.shape, dtype=torch.float64, requires_grad=True)
    weight = torch.from_numpy(np.array(node.weight))
    F.conv2d(ones, weight, None, node.stride, node.padding, node.dilation, node.groups).sum().backward()
    fan_out = ones.grad.numpy()
    assert synaptic_operations(node, spikes.sum(1)).tolist() == (fan_out * spikes).sum((1, 2, 3)).tolist()
    assert dense_taps(node, spikes.shape) == fan_out[0].sum()


@pytest.mark.parametrize("axis", ["C", "T"])
def test_a_matrix_on_spikes_accumulates_as_a_brute_force_loop(axis):
    """Along C each spike reaches all 7 outputs of its step; along T each frame of the output sums all 4 steps."""
    rng = np.random.default_rng(1)
    spikes = rng.random((4, 5, 3, 2)) < 0.4
    read = spikes.shape[1 if axis == "C" else 0]
    node = g.Linear(name="l", inputs=("x",), weight=rng.normal(size=(7, read)), axis=axis)
    shape = output_shape(node, [spikes.shape], 4)
    expected = [0] * shape[0]
    for step, channel, y, x in np.ndindex(shape):
        for source in range(read):
            expected[step] += int(spikes[(step, source, y, x) if axis == "C" else (source, channel, y, x)])
    operands = Operands(
        [spikes.shape], [ValueKind.SPIKE], shape, ValueKind.ANALOG, spike_map=spikes.sum(1, dtype=np.int64)
    )
    found = count_node(node, operands)
    assert found.acs.tolist() == expected
    arrived = spikes.sum((1, 2, 3)) if axis == "C" else np.array([0] * 6 + [spikes.sum()])
    assert found.events_in.tolist() == arrived.tolist()
    assert not found.macs.any()
    assert found.dense_taps.tolist() == [int(np.prod(shape[1:])) * read] * shape[0]


def test_a_matrix_over_the_channels_costs_what_a_1x1_convolution_does():
    spikes = np.random.default_rng(2).random((4, 16, 8, 8)) < 0.2
    weight = np.ones((12, 16))
    matrix = g.Linear(name="l", inputs=("x",), weight=weight, bias=np.ones(12))
    conv = g.Conv(name="c", inputs=("x",), weight=weight[:, :, None, None], bias=np.ones(12))
    fields = {"kinds": [ValueKind.SPIKE], "spike_map": spikes.sum(1, dtype=np.int64)}
    totals = count(matrix, spikes.shape, **fields)
    assert totals == count(conv, spikes.shape, **fields)
    assert (totals["acs"], totals["macs"]) == (12 * int(spikes.sum()), 0)


def count(node: g.Node, *shapes, steps: int = 4, kinds=None, **fields) -> dict[str, int]:
    """Totals of one node that reads values of these shapes."""
    operands = Operands(
        input_shapes=shapes,
        input_kinds=kinds or [ValueKind.ANALOG] * len(shapes),
        output_shape=output_shape(node, shapes, steps),
        output_kind=ValueKind.SPIKE if isinstance(node, g.Neuron) else ValueKind.ANALOG,
        **fields,
    )
    return count_node(node, operands).totals()


def test_a_neuron_leaks_integrates_and_compares():
    # 4 steps x 3 x 2 x 2 = 48 updates: one multiplication (leak), two additions (integrate, compare) each
    node = g.Neuron(name="n", inputs=("x",), threshold=np.array(1.0), membrane_decay=0.5)
    totals = count(node, (4, 3, 2, 2), spikes_out=np.array([1, 0, 2, 5]))
    assert (totals["neuron_updates"], totals["muls"], totals["adds"], totals["spikes"]) == (48, 48, 96, 8)
    assert (totals["membrane_words"], totals["activation_words"], totals["spike_bits"]) == (96, 48, 48)
    assert totals["weight_words"] == 4 * 2  # threshold and decay


def test_a_neuron_with_current_gain_and_bias_does_more():
    node = g.Neuron(
        name="n", inputs=("x",), threshold=np.array(1.0), membrane_decay=0.5, current_decay=0.25,
        gain=np.array(2.0), bias=np.array(0.1),
    )  # fmt: skip
    totals = count(node, (4, 3, 2, 2), spikes_out=np.zeros(4, np.int64))
    # + current: 1 mul 1 add; + gain: 1 mul; + bias: 1 add
    assert (totals["muls"], totals["adds"], totals["membrane_words"]) == (3 * 48, 4 * 48, 4 * 48)


def test_a_sign_flip_is_not_a_multiplication():
    node = g.Neuron(name="n", inputs=("x",), threshold=np.array(1.0), membrane_decay=0.5, gain=np.array(-1.0))
    assert count(node, (1, 1, 1, 1), spikes_out=np.zeros(1, np.int64))["muls"] == 1


def test_an_analog_convolution_multiplies_and_leaves_padding_out():
    node = g.Conv(name="c", inputs=("x",), weight=np.ones((2, 3, 3, 3)), bias=np.ones(2), padding=(1, 1))
    totals = count(node, (4, 3, 2, 2))
    # every output of a 2x2 image sees 4 pixels: 4 outputs x 4 taps x 3 x 2 channels x 4 steps
    assert (totals["macs"], totals["acs"], totals["adds"]) == (384, 0, 32)
    assert totals["weight_words"] == 4 * (54 + 2)
    assert totals["activation_words"] == 4 * (12 + 8)


@pytest.mark.parametrize(
    ("node", "shapes", "expected"),
    [
        (g.Linear(name="l", inputs=("x",), weight=np.ones((2, 8))), [(1, 8, 1, 1)], {"macs": 16}),
        # over time: 4 -> 2 for each of 3 channels
        (g.Linear(name="l", inputs=("x",), weight=np.ones((2, 4)), axis="T"), [(4, 3, 1, 1)], {"macs": 24}),
        (g.Add(name="a", inputs=("x", "y")), [(4, 3, 2, 2), (1, 3, 1, 1)], {"adds": 48, "muls": 0}),
        (g.Mul(name="m", inputs=("x", "y")), [(4, 3, 2, 2), (4, 1, 1, 1)], {"adds": 0, "muls": 48}),
        (
            g.Affine(name="f", inputs=("x",), scale=np.array(-1.0), offset=np.array(1.0)),
            [(1, 3, 2, 2)], {"adds": 12, "muls": 0},
        ),
        # 12 values to 1 at each step: 11 additions, 1 multiplication by 1/12
        (g.Reduce(name="r", inputs=("x",), axes="CHW"), [(4, 3, 2, 2)], {"adds": 44, "muls": 4}),
        (g.Reduce(name="r", inputs=("x",), function="max", axes="T"), [(4, 3, 2, 2)], {"adds": 36, "muls": 0}),
        (g.Activation(name="s", inputs=("x",), function="sigmoid"), [(1, 3, 2, 2)], {"adds": 12, "muls": 12}),
        (g.Resize(name="u", inputs=("x",)), [(4, 1, 2, 2)], {"adds": 3 * 64, "muls": 4 * 64}),
        (g.Resize(name="u", inputs=("x",), mode="nearest"), [(4, 1, 2, 2)], {"adds": 0, "muls": 0}),
    ],
)  # fmt: skip
def test_counts_worked_out_by_hand(node, shapes, expected):
    totals = count(node, *shapes)
    assert {key: totals[key] for key in expected} == expected


LIF = {"name": "n", "inputs": ("x",), "threshold": np.array(1.0), "membrane_decay": 0.5}
PER_CHANNEL = np.full((3, 1, 1), 2.0)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (g.Neuron(**{**LIF, "threshold": PER_CHANNEL}), 3 + 1),  # learnt thresholds, and the decay
        (
            g.Neuron(**LIF, gain=PER_CHANNEL, bias=PER_CHANNEL, current_decay=0.5, reset_value=0.1),
            1 + 1 + 3 + 3 + 1 + 1,
        ),
        (g.Neuron(**LIF, gain=np.array(-1.0), bias=np.zeros((3, 1, 1))), 1 + 1),  # a sign and a zero are no operands
        (g.Affine(name="f", inputs=("x",), scale=PER_CHANNEL, offset=np.array(0.5)), 3 + 1),
        (g.Affine(name="f", inputs=("x",), scale=np.full((4, 3, 1, 1), 2.0)), 3),  # each step reads its own gains
        (g.Affine(name="f", inputs=("x",), scale=np.array(-1.0)), 0),
        (g.Linear(name="l", inputs=("x",), weight=np.ones((5, 3)), bias=np.ones(5)), 15 + 5),
        # along T each frame reads its row
        (g.Linear(name="l", inputs=("x",), weight=np.ones((4, 4)), bias=np.ones(4), axis="T"), 4 + 1),
        (g.Reduce(name="r", inputs=("x",), axes="C"), 0),
    ],
)
def test_words_of_parameters_are_those_that_change_something(node, words):
    """Of a value of 4 steps and 3 channels."""
    spikes = {"spikes_out": np.zeros(4, np.int64)} if isinstance(node, g.Neuron) else {}
    assert count(node, (4, 3, 2, 2), **spikes)["weight_words"] == 4 * words


def test_gains_and_learnt_thresholds_of_a_network_are_words(spike_driven_network, photo):
    """4 steps of 8 channels: 32 gains in all; a neuron layer reads one threshold and one decay in each step."""
    counts = simulator.run(spike_driven_network, photo).counts
    assert spike_driven_network["encoder_level1.0.attn.gain"].scale.shape == (4, 8, 1, 1)
    assert counts["encoder_level1.0.attn.gain"].totals()["weight_words"] == 32
    assert counts["encoder_level1.0.residual.0.on"].totals()["weight_words"] == 4 * 2


@pytest.mark.parametrize(
    "node",
    [
        g.Conv(name="c", inputs=("x",), weight=np.ones((2, 3, 3, 3))),
        g.Linear(name="c", inputs=("x",), weight=np.ones((2, 3))),
    ],
)
def test_spikes_that_were_not_reported_are_refused(node):
    with pytest.raises(NetworkError, match=rf"c \({node.kind}\): reads spikes, but the run did not report them"):
        count(node, (4, 3, 8, 8), kinds=[ValueKind.SPIKE])


def test_an_unknown_kind_is_not_counted_as_nothing():
    class Strange(g.Node):
        """A kind that nobody knows."""

    operands = Operands([(1, 1, 1, 1)], [ValueKind.ANALOG], (1, 1, 1, 1), ValueKind.ANALOG)
    with pytest.raises(NetworkError, match="s: no counting rule for kind strange"):
        count_node(Strange(name="s", inputs=("x",)), operands)
    with pytest.raises(NetworkError, match="s: no rule for the parameters of kind strange"):
        parameter_words(Strange(name="s", inputs=("x",)), 1)
