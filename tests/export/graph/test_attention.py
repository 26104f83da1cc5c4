"""Kinds of networks that attend: each equals its definition, and is counted as a loop over its definition counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from esdnet.networks.dual_stage.rearrange import SIDE, SquareWindows
from export.graph import nodes as g
from export.graph.counting import count_node
from export.graph.execute import execute_node
from export.graph.network import Network
from export.graph.values import output_shape, value_kind
from export.graph.words import Operands
from hw_sim.agreement.judge import simulate_layers
from hw_sim.backends import simulator
from tests.esdnet.networks.dual_stage.test_attention import by_definition
from tests.random_networks import random_without_neurons
from tests.tolerances import FLOAT64_OUTPUT

RNG = np.random.default_rng(0)


def run(node: g.Node, *values: np.ndarray) -> np.ndarray:
    return execute_node(node, [torch.from_numpy(np.array(value)) for value in values], 1, torch.float64).numpy()


def counted(node: g.Node, *shapes: tuple[int, int, int, int]) -> dict[str, int]:
    kinds = [g.ValueKind.ANALOG] * len(shapes)
    made = output_shape(node, shapes, 1)
    found = count_node(node, Operands(shapes, kinds, made, value_kind(node, kinds))).totals()
    return {name: count for name, count in found.items() if count}


@given(
    heads=st.integers(1, 3), depth=st.integers(1, 3), height=st.integers(1, 6), width=st.integers(1, 7),
    window=st.integers(1, 20), overlap=st.integers(0, 25), share=st.sampled_from([None, 0.0, 0.5, 1.0]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_attention_is_its_definition(heads, depth, height, width, window, overlap, share):
    """A share of keys is shut, or there is no mask; windows need not divide the pixels, overlaps may pass windows."""
    rng = np.random.default_rng(height * width + window)
    pixels, channels = height * width, heads * depth
    qkv, order = rng.standard_normal((3 * channels, pixels)), rng.permutation(pixels)
    shut = np.zeros(pixels, bool) if share is None else rng.random(pixels) < share
    inputs = ("qkv", "order") if share is None else ("qkv", "order", "mask")
    node = g.WindowAttention(name="a", inputs=inputs, heads=heads, window=window, overlap=overlap, shut_from=0.7)
    mask = np.where(shut, 0.7, 0.6)
    planes = [each.reshape(1, -1, height, width) for each in (qkv, order.astype(float), mask)[: len(inputs)]]
    expected = by_definition(qkv, order, shut, overlap, window, heads)
    np.testing.assert_allclose(run(node, *planes)[0].reshape(channels, -1), expected, rtol=0, atol=FLOAT64_OUTPUT)
    macs = adds = muls = 0
    for place in range(pixels):
        start = place // window * window
        keys = [key for key in range(start - overlap, start + window + overlap) if 0 <= key < pixels]
        keys = [key for key in keys if key < min(start + window, pixels) + overlap]
        macs += 2 * channels * len(keys)
        muls += channels + heads * 2 * len(keys)  # the query scaled; exponentials and quotients
        adds += heads * (4 * len(keys) - 2)  # the largest, differences, exponentials, their sum
        adds += 0 if share is None else 1 + heads * len(keys)
    found = counted(node, *(plane.shape for plane in planes))
    assert (found["macs"], found.get("adds", 0), found["muls"]) == (macs, adds, muls)
    assert found["dense_taps"] == found["nonzero_macs"] == macs
    assert "weight_words" not in found


def test_every_frame_attends_by_its_own_order():
    node = g.WindowAttention(name="a", inputs=("qkv", "order"), heads=1, window=2)
    qkv, order = RNG.standard_normal((2, 3, 2, 3)), np.stack([RNG.permutation(6) for _ in range(2)]).reshape(2, 1, 2, 3)
    both = run(node, qkv, order.astype(float))
    each = [run(node, qkv[[t]], order[[t]].astype(float))[0] for t in range(2)]
    assert np.array_equal(both, np.stack(each))


def test_orders():
    features = np.zeros((2, 5, 2 * SIDE, SIDE))
    squares = run(g.WindowOrder(name="o", inputs=("x",), side=SIDE), features)
    assert squares.shape == (2, 1, 2 * SIDE, SIDE)
    assert np.array_equal(squares[1].ravel(), SquareWindows()(torch.from_numpy(features))[0].numpy())
    rows = run(g.WindowOrder(name="o", inputs=("x",)), features)
    assert np.array_equal(rows[0].ravel(), np.arange(2 * SIDE * SIDE))
    labels = np.array([[2.0, 0, 2], [1, 0, 2]]).reshape(1, 1, 2, 3)
    assert run(g.SortOrder(name="s", inputs=("x",)), labels).ravel().tolist() == [1, 4, 3, 0, 2, 5]
    assert counted(g.WindowOrder(name="o", inputs=("x",)), (1, 5, 4, 4)) == {}  # wiring
    assert counted(g.SortOrder(name="s", inputs=("x",)), (1, 1, 4, 5))["adds"] == 20 * 5  # n log2 n


def test_of_equal_channels_the_first_is_the_largest():
    values = np.array([[1.0, 3, 2], [1, 3, 3], [0, 3, 3]]).reshape(1, 3, 1, 3)
    assert run(g.ArgMax(name="a", inputs=("x",)), values).ravel().tolist() == [0, 0, 1]
    assert counted(g.ArgMax(name="a", inputs=("x",)), (1, 3, 4, 5))["adds"] == 2 * 20


def test_a_layer_norm_by_hand():
    """Channels 1, 2, 6: mean 3, variance (4 + 1 + 9) / 3."""
    values = np.array([1.0, 2, 6]).reshape(1, 3, 1, 1)
    node = g.LayerNorm(name="n", inputs=("x",), weight=np.array([1.0, 2, 3]), bias=np.array([0.0, 10, 0]), epsilon=0.25)
    deviation = np.sqrt(14 / 3 + 0.25)
    assert run(node, values).ravel() == pytest.approx([-2 / deviation, 10 - 2 / deviation, 9 / deviation], rel=1e-14)
    found = counted(node, (1, 3, 4, 5))
    # 20 pixels of 3: mean (2, 1), centred (3, 0), squared (0, 3), mean (2, 1), scaled (0, 3), weight and bias (3, 3)
    assert (found["adds"], found["muls"]) == (20 * (2 + 3 + 2 + 3), 20 * (1 + 3 + 1 + 3 + 3))
    assert found["weight_words"] == 6


def test_channels_become_pixels_and_spikes_stay_spikes():
    node = g.DepthToSpace(name="d", inputs=("x",), factor=2)
    values = RNG.standard_normal((1, 8, 2, 3))
    assert np.array_equal(run(node, values), F.pixel_shuffle(torch.from_numpy(values), 2).numpy())
    assert value_kind(node, [g.ValueKind.SPIKE]) is g.ValueKind.SPIKE
    assert execute_node(node, [torch.from_numpy(values > 0)], 1, torch.float64).dtype is torch.bool
    assert counted(node, (1, 8, 2, 3)) == {}


def test_parts_of_the_channels_and_differences():
    values = RNG.standard_normal((1, 6, 2, 3))
    parts = [run(g.Chunk(name="c", inputs=("x",), part=part, parts=3), values) for part in range(3)]
    assert np.array_equal(np.concatenate(parts, 1), values)
    difference = g.Sub(name="s", inputs=("x", "y"))
    assert np.array_equal(run(difference, values, values[:, :1]), values - values[:, :1])
    assert counted(difference, (1, 6, 2, 3), (1, 6, 2, 3))["adds"] == 36
    assert value_kind(difference, [g.ValueKind.SPIKE] * 2) is g.ValueKind.ANALOG


@pytest.mark.parametrize("seed", range(3))
def test_a_run_is_that_of_its_nodes_one_by_one(seed):
    """No value is written over while a part of it is still to be read; every count is there."""
    network, image = random_without_neurons(seed), np.random.default_rng(seed).random((3, 16, 12))
    result = simulator.run(network, image, precision="float64")
    alone = simulate_layers(network, {"input": image[None]}, "float64")
    assert np.array_equal(result.output, alone[network.output.name][0])
    assert result.counts.keys() == network.by_name.keys()
    assert result.spikes == {}


NETWORKS = {
    "part 2 of 2 equal ones of 6": lambda: [g.Chunk(name="odd", inputs=("x",), part=2, parts=2)],
    "6 channels, expected a multiple of 4": lambda: [g.DepthToSpace(name="odd", inputs=("x",), factor=2)],
    r"weight \(5,\), bias \(6,\), expected \(6,\) of both": lambda: [
        g.LayerNorm(name="odd", inputs=("x",), weight=np.ones(5), bias=np.ones(6))
    ],
    "sorts by 6 channels, expected 1": lambda: [g.SortOrder(name="odd", inputs=("x",))],
    "8x8 pixels, expected whole windows of 3": lambda: [g.WindowOrder(name="odd", inputs=("x",), side=3)],
    "6 channels, expected queries, keys and values of 4 heads": lambda: [
        g.WindowOrder(name="o", inputs=("x",)),
        g.WindowAttention(name="odd", inputs=("x", "o"), heads=4, window=4),
    ],
    "windows of 0 places and 1 beside": lambda: [
        g.WindowOrder(name="o", inputs=("x",)),
        g.WindowAttention(name="odd", inputs=("x", "o"), heads=1, window=0, overlap=1),
    ],
    r"an order or mask of shape \(1, 6, 8, 8\), expected \(1, 1, 8, 8\)": lambda: [
        g.WindowAttention(name="odd", inputs=("x", "x"), heads=1, window=4)
    ],
    "1 inputs, expected 2 or 3": lambda: [g.WindowAttention(name="odd", inputs=("x",), heads=1, window=4)],
}


@pytest.mark.parametrize("message", NETWORKS)
def test_what_does_not_fit_is_refused_by_name(message):
    nodes = NETWORKS[message]()
    with pytest.raises(g.NetworkError, match=rf"^odd .*({message})"):
        Network(name="n", nodes=(g.Input(name="x", channels=6), *nodes, g.Output(name="y", inputs=("odd",))), steps=1)
