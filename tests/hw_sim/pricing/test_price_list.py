from __future__ import annotations

import pytest

from hw_sim.pricing.energy import Conditions
from hw_sim.pricing.equations import price
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.load import load_model
from tests.tolerances import ENERGY

LAYERS = [
    LayerFacts("m", "conv", steps=2, macs=10, weight_words=3, bias_words=1, activation_words=5, adds=4),
    LayerFacts("s", "conv", steps=2, reads="spike", acs=20, spike_bits=64),
    LayerFacts("n", "neuron", steps=2, output_shape=(6, 1, 1), state_words=6, neuron_updates=12, events_out=5, muls=12),
]
EVERYTHING = Conditions(everything=True)


def test_published_alone_are_macs_acs_and_spikes():
    energy = price(load_model("paper"), LAYERS)
    assert energy.total_j == pytest.approx((10 * 12.5 + 20 * 0.077 + 5 * 3.7) * 1e-12, rel=ENERGY)
    assert energy.left_out == {"adds": 4, "muls": 12, "words": 39}
    assert energy.parts["weights"] is None


def test_with_everything_every_operand_moves_once_per_execution():
    energy = price(load_model("horowitz_fp32"), LAYERS, EVERYTHING)
    assert energy.parts == {
        "operations": pytest.approx((10 * 4.6 + 20 * 0.9 + 4 * 0.9 + 12 * 3.7) * 1e-12, rel=ENERGY),
        "addressing": None,
        "weights": pytest.approx(2 * 4 * 5e-12, rel=ENERGY),
        "potentials": pytest.approx(2 * 2 * 6 * 5e-12, rel=ENERGY),
        "input_output": pytest.approx((5 + 64 / 32) * 5e-12, rel=ENERGY),
        "static": None,
    }
    assert energy.left_out == {"spikes": 5}


def test_a_list_without_such_prices_names_the_work_also_then():
    energy = price(load_model("sata"), LAYERS, EVERYTHING)
    assert energy.left_out == {"spikes": 5, "adds": 4, "muls": 12, "words": 39}
