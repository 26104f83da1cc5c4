from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from esdnet.command.errors import UserError
from export.graph.network import Network
from export.graph.nodes import Add, Conv, Input, Neuron, Output, Repeat
from export.targets.loihi.fit import Limits, fit_table, largest_tile, load_limits, place

LIMITS = Limits("Toy chip", "Nothing else.", 8, 64, 400, 4, 1, {"cores_per_chip": "a data sheet (vendor)"})


def network() -> Network:
    """x -> conv a -> lif -> conv b; conv a and conv b meet in a sum."""
    weight = np.ones((4, 3, 3, 3))
    return Network(
        name="toy",
        nodes=(
            Input(name="x"),
            Repeat(name="coding", inputs=("x",)),
            Conv(name="a", inputs=("coding",), weight=weight, padding=(1, 1)),
            Neuron(name="lif", inputs=("a",), threshold=np.array(1.0), membrane_decay=0.5),
            Conv(name="b", inputs=("lif",), weight=np.ones((4, 4, 1, 1))),
            Add(name="sum", inputs=("b", "a")),
            Output(name="y", inputs=("sum",)),
        ),
        steps=4,
    )


def test_populations_by_hand():
    """8x8 pixels. `a` is read by two populations, so it has sums of its own; `b` adds its kernel to `sum`.

    a: 4 channels x 64 pixels; a kernel of 27 weights a channel. All four channels on a core: 400 - 108 bytes leave 73
    states of 4 bytes, at most 64 neurons, so 16 pixels: 4 cores. lif: no weights: 64 neurons a core, 4 cores.
    """
    a, lif, total = place(network(), 8, 8, LIMITS, {"lif": 0.25})
    assert (a.name, a.neurons, a.synapses, a.weights_per_channel, a.cores) == ("a", 256, 256 * 27, 27, 4)
    assert (lif.name, lif.synapses, lif.weights_per_channel, lif.cores) == ("lif", 0, 0, 4)
    assert lif.spikes_per_step == 64
    assert (total.name, total.synapses, total.weights_per_channel, total.cores) == ("sum", 256 * 4, 4, 4)


def test_a_kernel_of_one_output_channel():
    """1 x 64 pixels, 27 weights: 400 - 27 bytes leave 93 states, at most 64 neurons: one core."""
    nodes = list(network().nodes)
    nodes[2] = dataclasses.replace(nodes[2], weight=np.ones((1, 3, 3, 3)))
    nodes[4] = dataclasses.replace(nodes[4], weight=np.ones((1, 1, 1, 1)))
    a, _, total = place(Network(name="thin", nodes=tuple(nodes), steps=4), 8, 8, LIMITS, {})
    assert (a.synapses, a.weights_per_channel, a.cores) == (64 * 27, 27, 1)
    assert (total.synapses, total.weights_per_channel, total.cores) == (64, 1, 1)


def test_memory_splits_channels_when_a_kernel_is_large():
    """180 weights a channel: a core holds one channel's kernel (360 would leave 10 states, 5 pixels: 2 x 13 = 26
    cores); with one, 220 bytes leave 55 pixels: 4 x 2 = 8 cores."""
    nodes = list(network().nodes)
    nodes[2] = dataclasses.replace(nodes[2], weight=np.ones((4, 3, 10, 6)), padding=(4, 0), stride=(1, 1))
    wide = Network(name="wide", nodes=tuple(nodes), steps=4)
    a = place(wide, 9, 13, LIMITS, {})[0]
    assert (a.shape, a.cores) == ((4, 8, 8), 8)


def test_a_kernel_that_no_core_holds_is_refused():
    nodes = list(network().nodes)
    nodes[2] = dataclasses.replace(nodes[2], weight=np.ones((4, 3, 12, 12)), padding=(6, 6))
    with pytest.raises(UserError, match="Toy chip: 432 weights of one output channel do not fit into a core"):
        place(Network(name="wide", nodes=tuple(nodes), steps=4), 8, 8, LIMITS, {})


def test_the_largest_tile():
    """n x n pixels need 3 x ceil(n^2 / 16) cores; 8 cores of a chip hold 5x5 (6 cores), 64 hold 18x18 (63)."""
    assert largest_tile(network(), LIMITS, 1) == (5, 6)
    assert largest_tile(network(), LIMITS, 8) == (18, 63)
    assert largest_tile(network(), dataclasses.replace(LIMITS, cores_per_chip=2), 1) == (0, 0)


def test_the_table_says_what_it_is():
    text = fit_table(network(), 8, 8, LIMITS, {"lif": 0.25})
    assert "Estimate for Toy chip" in text
    assert "12 cores, 2 chips; 768 neurons" in text
    assert "largest square tile on 1 chip: 5x5 (6 cores)" in text
    assert "cores_per_chip: a data sheet (vendor)" in text
    assert next(line for line in text.splitlines() if line.startswith("lif")).split() == [
        "lif",
        "256",
        "0",
        "0",
        "4",
        "16",
    ]


def test_the_limits_that_ship_have_sources():
    limits = load_limits("loihi2")
    assert (limits.cores_per_chip, limits.neurons_per_core, limits.memory_per_core_bytes) == (128, 8192, 192 * 1024)
    assert len(limits.sources) == 5
    assert all(len(source) > 20 for source in limits.sources.values())
    with pytest.raises(UserError, match="--target tpu: unknown, expected one of loihi2"):
        load_limits("tpu")
