from __future__ import annotations

import pytest

from hw_sim.pricing.energy import Conditions
from hw_sim.pricing.equations import price
from hw_sim.pricing.equations.chip import chips, operating_point_j
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.load import load_model
from tests.tolerances import ENERGY

LAYERS = [
    LayerFacts("c", "conv", steps=4, reads="spike", acs=1000),
    LayerFacts(
        "n", "neuron", steps=4, output_shape=(300, 1, 1), neuron_updates=1200, active_updates=200, events_out=50
    ),
]


def test_loihi_pays_for_active_and_inactive_updates_alike_once():
    energy = price(load_model("loihi1"), LAYERS)
    by_hand = 1000 * 23.6 + 200 * 81 + 1000 * 52 + 50 * 1.7
    assert energy.parts["operations"] == pytest.approx(by_hand * 1e-12, rel=ENERGY)
    assert energy.parts["static"] is None
    assert not energy.unpriced


def test_updates_of_unknown_activity_cost_the_dearer_of_both():
    unknown = LayerFacts("n", "neuron", neuron_updates=1200)
    assert price(load_model("loihi1"), [unknown]).total_j == pytest.approx(1200 * 81e-12, rel=ENERGY)
    assert any("taken as active" in line for line in load_model("loihi1").assumes)
    assert price(load_model("odin"), [unknown]).total_j == 0  # its update is in the synaptic operation


def test_macs_have_no_price_on_a_chip_that_does_not_multiply():
    energy = price(load_model("truenorth"), [LayerFacts("m", "conv", macs=7), *LAYERS])
    assert energy.unpriced == {"macs": 7}


def test_static_power_is_apart_and_needs_a_time():
    odin = load_model("odin")
    assert chips(odin, LAYERS) == 2  # 300 neurons, 256 a chip
    energy = price(odin, LAYERS, Conditions(step_seconds=1e-3))
    watts = 27.3e-6 + 1.78e-6 * 75
    assert energy.parts["static"] == pytest.approx(2 * watts * 4e-3, rel=ENERGY)
    assert energy.parts["operations"] == pytest.approx(8430e-12, rel=ENERGY)
    assert energy.total_j == pytest.approx(8430e-12 + 2 * watts * 4e-3, rel=ENERGY)
    assert price(load_model("seneca"), LAYERS, Conditions(step_seconds=1e-3)).parts["static"] is None  # none published


def test_averages_of_operating_points_stand_beside_the_marginal_energy():
    assert operating_point_j(load_model("odin"), LAYERS) == pytest.approx(
        {"75 MHz, 37.5 MSOP/s": 12.7e-9, "biological time, 650 kSOP/s": 54e-9}
    )
    # The headline of ODIN's title is its own affine form at full speed, two cycles an operation: 476.9 uW / 37.5 MHz.
    odin, example = load_model("odin"), load_model("odin").worked_examples[0]
    power = price(odin, list(example.layers), example.conditions).total_j
    assert power / 37.5e6 == pytest.approx(12.7e-12, rel=2e-3)
