"""Lemaire's model by hand, term by term, and where implementations of the paper part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hw_sim.pricing.ann import as_ann
from hw_sim.pricing.energy import Conditions
from hw_sim.pricing.equations import price
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.load import load_model
from tests.tolerances import ENERGY

PJ = 1e-12
STEPS = 2
# An image at every step -> 3x3 convolution -> LIF -> 1x1 convolution -> IF -> matrix.
NETWORK = [
    LayerFacts(
        "conv1", "conv", steps=STEPS, input_shape=(1, 4, 4), output_shape=(2, 4, 4), kernel=(3, 3),
        weight_words=18, bias_words=2, macs=400, taps=200,  # 10 valid taps an axis, 10 x 10 x 2 outputs
    ),
    LayerFacts(
        "lif1", "neuron", steps=STEPS, input_shape=(2, 4, 4), output_shape=(2, 4, 4), state_words=32, leaky=True,
        events_out=20, neuron_updates=64,
    ),
    LayerFacts(
        "conv2", "conv", steps=STEPS, reads="spike", input_shape=(2, 4, 4), output_shape=(3, 4, 4),
        weight_words=6, events_in=20, acs=60, taps=96,
    ),
    LayerFacts(
        "if2", "neuron", steps=STEPS, input_shape=(3, 4, 4), output_shape=(3, 4, 4), state_words=48,
        events_out=10, neuron_updates=96,
    ),
    LayerFacts(
        "fc", "linear", steps=STEPS, reads="spike", input_shape=(48, 1, 1), output_shape=(4, 1, 1),
        weight_words=192, bias_words=4, events_in=10, acs=40, taps=192,
    ),
]  # fmt: skip


def picojoules(energy):
    return {part: joules / PJ for part, joules in energy.parts.items() if joules is not None}


def test_three_layers_by_hand():
    # An access to m bytes (below 8,192) costs 10 m / 8192 pJ, a word has 4 bytes: 20 words of conv1's parameters
    # 0.09765625, 6 of conv2's 0.029296875, 196 of fc's 0.95703125; values of 16 words 0.078125, of 32 0.15625, of 48
    # 0.234375, of 4 0.01953125; a FIFO of 1,000 words 4.8828125. An addition costs 0.1, a MAC 3.1 + 0.1 = 3.2.
    expected = {
        "operations": (
            (400 * 3.2 + 2 * 32 * 0.1)  # conv1: 400 MACs, a bias per output and step
            + (64 * 3.2 + 20 * 0.1)  # lif1: a leak per update, a reset per spike
            + 60 * 0.1  # conv2: 60 ACs, no bias
            + 10 * 0.1  # if2: no leak, 10 resets
            + (40 * 0.1 + 2 * 4 * 0.1)  # fc: 40 ACs, 8 biases
        ),
        "addressing": (
            2 * (16 + 32 + 2 * 9) * 0.1  # conv1, formal: inputs, outputs and Cout K^2, each once a step
            + (60 * 0.1 + 2 * 20 * 3.2)  # conv2: an addition per access, two MACs per spike
            + 40 * 0.1  # fc: an addition per access
        ),
        "weights": (
            (400 + 64) * 0.09765625  # conv1: one per MAC, and the biases, kept with them
            + 60 * 0.029296875  # conv2: one per AC
            + (40 + 8) * 0.95703125  # fc: one per AC, and the biases
        ),
        "potentials": (
            2 * 64 * 0.15625  # lif1: 32 read and written at both steps
            + 2 * 60 * 0.234375  # conv2: an accumulator read and written per AC
            + 2 * 96 * 0.234375  # if2
            + 2 * 40 * 0.01953125  # fc
        ),
        "input_output": (
            (400 * 0.078125 + 2 * 32 * 0.15625)  # conv1: an input per MAC, each output written
            + (20 + 20 + 10 + 10) * 4.8828125  # spikes: written by lif1, read by conv2, written by if2, read by fc
        ),
    }
    energy = price(load_model("lemaire2022"), NETWORK)
    assert picojoules(energy) == pytest.approx(expected, rel=ENERGY)
    assert energy.total_j == pytest.approx(2178.1140625 * PJ, rel=ENERGY)
    assert not energy.unpriced
    assert not energy.left_out


def test_the_same_layers_as_an_ann_by_hand():
    expected = {
        "operations": (200 * 3.2 + 32 * 0.1) + 96 * 3.2 + (192 * 3.2 + 4 * 0.1),
        "addressing": ((16 + 32 + 18) + (32 + 48 + 3) + (48 + 4)) * 0.1,
        "weights": (200 + 32) * 0.09765625 + 96 * 0.029296875 + (192 + 4) * 0.95703125,
        "potentials": 0.0,
        "input_output": (
            200 * 0.078125 + 32 * 0.15625  # conv1: an input per MAC, each output once
            + 96 * 0.15625 + 48 * 0.234375  # conv2
            + 48 * 0.234375 + 4 * 0.01953125  # fc: each input once (eq. 4)
        ),
    }  # fmt: skip
    energy = price(load_model("lemaire2022"), as_ann(NETWORK))
    assert picojoules(energy) == pytest.approx(expected, rel=ENERGY)
    assert energy.left_out == {"adds": 32 + 48}  # the comparisons of two ReLUs


def test_reuse_by_hand():
    model = load_model("lemaire2022")
    weights = picojoules(price(model, NETWORK, Conditions("weights")))["weights"]
    assert weights == pytest.approx(2 * (20 * 0.09765625 + 6 * 0.029296875 + 196 * 0.95703125), rel=ENERGY)
    ann = picojoules(price(model, as_ann(NETWORK), Conditions("operands")))
    assert ann["weights"] == pytest.approx(20 * 0.09765625 + 6 * 0.029296875 + 196 * 0.95703125, rel=ENERGY)
    moved = 16 * 0.078125 + 32 * 0.15625 + 32 * 0.15625 + 48 * 0.234375 + 48 * 0.234375 + 4 * 0.01953125
    assert ann["input_output"] == pytest.approx(moved, rel=ENERGY)


def test_implementations_of_the_paper_differ_and_why():
    """conv 16 -> 32, 3x3 on 8x8, LIF, one step, 64 spikes in, 100 out: 712,465 pJ or 881,216 pJ."""
    models = {name: load_model(name) for name in ("lemaire2022", "lemaire2022_qualia")}
    layers = list(models["lemaire2022"].worked_examples[0].layers)
    spikingjelly, qualia = (picojoules(price(model, layers)) for model in models.values())
    assert sum(spikingjelly.values()) == pytest.approx(712_465.18125, rel=ENERGY)
    assert sum(qualia.values()) == pytest.approx(881_216.3348736, rel=ENERGY)
    # The operations are the same. Qualia's addressing counts K^2 additions per spike, not K^2 Cout:
    assert spikingjelly["operations"] == qualia["operations"]
    assert spikingjelly["addressing"] - qualia["addressing"] == pytest.approx(64 * 9 * (32 - 1) * 0.1, rel=ENERGY)
    # Memory: Qualia's line starts at 13.2 pJ and rises slowly, the other starts at 0 and is at 10 pJ for 8 kB.
    assert models["lemaire2022_qualia"].memory.access_j(8192) == pytest.approx(13.9143424 * PJ, rel=ENERGY)
    assert models["lemaire2022"].memory.access_j(8192) == pytest.approx(10 * PJ, rel=ENERGY)
    # Biases: in a memory of their own (13.21 pJ for 128 bytes), or with the weights (14.22 pJ for 18,560 bytes).
    own = 18_432 * (13.2 + 1.09e-5 * 32 * 4608) + 2_048 * (13.2 + 1.09e-5 * 32 * 32)
    assert qualia["weights"] == pytest.approx(own, rel=ENERGY)
    assert spikingjelly["weights"] == pytest.approx(20_480 * (10 + 10 * (18_560 - 8192) / 24_576), rel=ENERGY)
    # With Cout in the addressing, as the comment above Qualia's own line says, it would be 883,002.
    consistent = replace(models["lemaire2022_qualia"], choices={"bias_memory": "own", "address_per_channel": True})
    assert price(consistent, layers).total_j == pytest.approx(883_001.9348736 * PJ, rel=ENERGY)


def test_element_wise_layers_are_named_not_free():
    energy = price(load_model("lemaire2022"), [LayerFacts("sum", "other", adds=7, muls=3)])
    assert energy.total_j == 0
    assert energy.left_out == {"adds": 7, "muls": 3}


def test_banks_bound_an_access_and_small_memories_stay_cheap():
    banks, whole = load_model("lemaire2022_banks").memory, load_model("lemaire2022").memory
    assert banks.access_j(1e9) == banks.access_j(8192) == pytest.approx(10 * PJ)
    assert banks.access_j(100) == whole.access_j(100)
    assert whole.access_j(1e9) == whole.access_j(2**20) == pytest.approx(100 * PJ)
    assert whole.access_j(20480) == pytest.approx(15 * PJ)  # half way from 8 to 32 kB
