from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from export.network import (
    Activation,
    Add,
    Affine,
    Conv,
    Linear,
    Mul,
    NetworkError,
    Neuron,
    Node,
    Reduce,
    Resize,
    ValueKind,
    output_shape,
)
from hw_sim.counts import Operands, count_node, dense_taps, synaptic_operations


@st.composite
def conv_cases(draw):
    """A convolution of any stride, padding, dilation and grouping, and an input that it fits."""
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    groups = draw(st.sampled_from([1, 2]))
    size = (draw(st.integers(8, 12)), draw(st.integers(8, 12)))
    node = Conv(
        name="c", inputs=("x",), weight=np.ones((4, 2, *kernel)),
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip
    spikes = np.random.default_rng(draw(st.integers(0, 999))).random((3, 2 * groups, *size)) < 0.3
    return node, spikes


def brute_force_acs(node: Conv, spikes: np.ndarray) -> list[int]:
    """Every output, every kernel tap, every channel: one accumulation if a spike lies there."""
    steps, _, height, width = spikes.shape
    _, outputs, out_height, out_width = output_shape(node, [spikes.shape], steps)
    kernel_height, kernel_width = node.weight.shape[2:]
    counts = []
    for step in range(steps):
        count = 0
        for y in range(out_height):
            for x in range(out_width):
                for i in range(kernel_height):
                    for j in range(kernel_width):
                        h = y * node.stride[0] + i * node.dilation[0] - node.padding[0]
                        w = x * node.stride[1] + j * node.dilation[1] - node.padding[1]
                        if 0 <= h < height and 0 <= w < width:
                            count += int(spikes[step, :, h, w].sum()) * (outputs // node.groups)
        counts.append(count)
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


def count(node: Node, *shapes, steps: int = 4, kinds=None, **fields) -> dict[str, int]:
    """Totals of one node that reads values of these shapes."""
    operands = Operands(
        input_shapes=shapes,
        input_kinds=kinds or [ValueKind.ANALOG] * len(shapes),
        output_shape=output_shape(node, shapes, steps),
        output_kind=ValueKind.SPIKE if isinstance(node, Neuron) else ValueKind.ANALOG,
        **fields,
    )
    return count_node(node, operands).totals()


def test_a_neuron_leaks_integrates_and_compares():
    # 4 steps x 3 x 2 x 2 = 48 updates: one multiplication (leak), two additions (integrate, compare) each
    node = Neuron(name="n", inputs=("x",), threshold=np.array(1.0), membrane_decay=0.5)
    totals = count(node, (4, 3, 2, 2), spikes_out=np.array([1, 0, 2, 5]))
    assert (totals["neuron_updates"], totals["muls"], totals["adds"], totals["spikes"]) == (48, 48, 96, 8)
    assert (totals["membrane_words"], totals["activation_words"], totals["spike_bits"]) == (96, 48, 48)


def test_a_neuron_with_current_gain_and_bias_does_more():
    node = Neuron(
        name="n", inputs=("x",), threshold=np.array(1.0), membrane_decay=0.5, current_decay=0.25,
        gain=np.array(2.0), bias=np.array(0.1),
    )  # fmt: skip
    totals = count(node, (4, 3, 2, 2), spikes_out=np.zeros(4, np.int64))
    # + current: 1 mul 1 add; + gain: 1 mul; + bias: 1 add
    assert (totals["muls"], totals["adds"], totals["membrane_words"]) == (3 * 48, 4 * 48, 4 * 48)


def test_a_sign_flip_is_not_a_multiplication():
    node = Neuron(name="n", inputs=("x",), threshold=np.array(1.0), membrane_decay=0.5, gain=np.array(-1.0))
    assert count(node, (1, 1, 1, 1), spikes_out=np.zeros(1, np.int64))["muls"] == 1


def test_an_analog_convolution_multiplies_and_leaves_padding_out():
    node = Conv(name="c", inputs=("x",), weight=np.ones((2, 3, 3, 3)), bias=np.ones(2), padding=(1, 1))
    totals = count(node, (4, 3, 2, 2))
    # every output of a 2x2 image sees 4 pixels: 4 outputs x 4 taps x 3 x 2 channels x 4 steps
    assert (totals["macs"], totals["acs"], totals["adds"]) == (384, 0, 32)
    assert totals["weight_words"] == 4 * (54 + 2)
    assert totals["activation_words"] == 4 * (12 + 8)


@pytest.mark.parametrize(
    ("node", "shapes", "expected"),
    [
        (Linear(name="l", inputs=("x",), weight=np.ones((2, 8))), [(1, 8, 1, 1)], {"macs": 16}),
        # over time: 4 -> 2 for each of 3 channels
        (Linear(name="l", inputs=("x",), weight=np.ones((2, 4)), axis="T"), [(4, 3, 1, 1)], {"macs": 24}),
        (Add(name="a", inputs=("x", "y")), [(4, 3, 2, 2), (1, 3, 1, 1)], {"adds": 48, "muls": 0}),
        (Mul(name="m", inputs=("x", "y")), [(4, 3, 2, 2), (4, 1, 1, 1)], {"adds": 0, "muls": 48}),
        (
            Affine(name="f", inputs=("x",), scale=np.array(-1.0), offset=np.array(1.0)),
            [(1, 3, 2, 2)], {"adds": 12, "muls": 0},
        ),
        # 12 values to 1 at each step: 11 additions, 1 multiplication by 1/12
        (Reduce(name="r", inputs=("x",), axes="CHW"), [(4, 3, 2, 2)], {"adds": 44, "muls": 4}),
        (Reduce(name="r", inputs=("x",), function="max", axes="T"), [(4, 3, 2, 2)], {"adds": 36, "muls": 0}),
        (Activation(name="s", inputs=("x",), function="sigmoid"), [(1, 3, 2, 2)], {"adds": 12, "muls": 12}),
        (Resize(name="u", inputs=("x",)), [(4, 1, 2, 2)], {"adds": 3 * 64, "muls": 4 * 64}),
        (Resize(name="u", inputs=("x",), mode="nearest"), [(4, 1, 2, 2)], {"adds": 0, "muls": 0}),
    ],
)  # fmt: skip
def test_counts_worked_out_by_hand(node, shapes, expected):
    totals = count(node, *shapes)
    assert {key: totals[key] for key in expected} == expected


def test_spikes_that_were_not_reported_are_refused():
    node = Conv(name="c", inputs=("x",), weight=np.ones((2, 3, 3, 3)))
    with pytest.raises(NetworkError, match=r"c \(conv\): reads spikes, but the run did not report them"):
        count(node, (4, 3, 8, 8), kinds=[ValueKind.SPIKE])


def test_an_unknown_kind_is_not_counted_as_nothing():
    class Strange(Node):
        """A kind that nobody knows."""

    operands = Operands([(1, 1, 1, 1)], [ValueKind.ANALOG], (1, 1, 1, 1), ValueKind.ANALOG)
    with pytest.raises(NetworkError, match="s: no counting rule for kind strange"):
        count_node(Strange(name="s", inputs=("x",)), operands)
