from __future__ import annotations

import pytest

from hw_sim.pricing.all_models import price_all
from hw_sim.pricing.equations import price
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.load import available_models
from hw_sim.pricing.own_prices import own_prices
from hw_sim.pricing.prices import available, load_prices
from tests.tolerances import ENERGY

LAYERS = [
    LayerFacts("m", "conv", macs=10, adds=4),
    LayerFacts("s", "conv", reads="spike", acs=20),
    LayerFacts("n", "neuron", neuron_updates=12, events_out=5, muls=12),
]
REPORT = {"network": "net", "executed_size": [16, 16], "tiles": 1, "facts": [layer.to_record() for layer in LAYERS]}


@pytest.mark.parametrize("name", available())
def test_a_list_that_ships_is_a_model_already(name):
    assert own_prices({"prices": name, "prices_pj": load_prices(name).to_record()}) is None
    assert name in available_models()


def test_a_report_of_before_that_does_not_say_its_prices_has_none():
    assert own_prices({"prices": "mine"}) is None


def test_another_list_of_the_same_name_is_not_taken_for_the_one_that_ships():
    model = own_prices({"prices": "paper", "prices_pj": load_prices("paper").to_record() | {"mac": 1.0}})
    assert model.name == "paper (own)"
    assert model.si("mac") == 1e-12


def test_it_prices_what_the_list_prices(tmp_path):
    path = tmp_path / "mine.toml"
    pj = {"mac": 2, "ac": 0.5, "neuron_update": 1.5, "add": 7}
    path.write_text("".join(f"[{key}]\npj = {value}\nsource = 'mine'\ngrade = 'guess'\n" for key, value in pj.items()))
    prices = load_prices(str(path))
    model = own_prices({"prices": prices.name, "prices_pj": prices.to_record()})
    totals = {"macs": 10, "acs": 20, "spikes": 5, "neuron_updates": 12, "adds": 4, "muls": 12}
    assert price(model, LAYERS).total_j == pytest.approx(prices.energy_j(totals), rel=ENERGY)
    assert "add" not in model.constants  # without a price of multiplications it prices nothing
    assert price(model, LAYERS).left_out["spikes"] == 5


def test_it_comes_first_among_all_models():
    rows = price_all(REPORT | {"prices": "mine", "prices_pj": {"mac": 2.0}}).rows
    assert [rows[0].model.name, rows[0].grade] == ["mine (own)", "yours"]
    assert len({row.model.name for row in rows}) == len(available_models()) + 1
