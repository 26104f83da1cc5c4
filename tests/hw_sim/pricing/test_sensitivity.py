"""The tables that a page prices from: their axes, and that layers and parts add up to what Python says of a model."""

from __future__ import annotations

import pytest

from hw_sim.pricing.all_models import price_all
from hw_sim.pricing.ann import as_ann
from hw_sim.pricing.equations import price
from hw_sim.pricing.load import load_model
from hw_sim.pricing.sensitivity import sensitivity
from tests.hw_sim.pricing.test_lemaire import NETWORK
from tests.tolerances import ENERGY

REPORT = {
    "network": "three layers", "image": "x.png", "executed_size": [16, 16], "tiles": 1,
    "facts": [layer.to_record() for layer in NETWORK],
}  # fmt: skip


@pytest.fixture(scope="module")
def tables():
    return sensitivity(price_all(REPORT))


def start_of(tables):
    return {axis["name"]: axis["start"] for axis in tables["axes"]}


def test_parts_add_up_to_the_energy_and_layers_to_it_as_far_as_their_digits_go(tables):
    start = start_of(tables)
    for row in tables["rows"]:
        fixed, per_ac = row["sides"]["network"]["energies"][0][start["sram"] if row["ways"] != [0] else 0]
        size = min(start["sram"], len(row["layers"]["fixed"][0]) - 1)
        parts = sum(part["fixed"][0][size] + part["per_ac"] for part in row["parts"])
        layers = sum(row["layers"]["fixed"][0][size]) + sum(row["layers"]["per_ac"])
        assert parts == pytest.approx(fixed + per_ac, rel=ENERGY), row["title"]
        assert layers == pytest.approx(fixed + per_ac, rel=1e-6), row["title"]


def test_parts_of_a_price_list_are_its_operations(tables):
    row = next(row for row in tables["rows"] if row["model"] == "paper" and row["everything"])
    parts = {part["label"]: part for part in row["parts"]}
    assert list(parts) == [
        "analog MACs", "spike ACs", "signs (spikes)", "element-wise additions", "element-wise multiplications",
    ]  # fmt: skip
    macs = sum(layer.macs for layer in NETWORK)
    assert parts["analog MACs"]["operations"] == macs
    assert parts["analog MACs"]["fixed"] == [[pytest.approx(macs * 12.5e-12, rel=ENERGY)]]
    assert parts["analog MACs"]["per_ac"] == 0.0
    assert parts["spike ACs"]["fixed"] == [[pytest.approx(0.0, abs=1e-25)]]
    assert parts["spike ACs"]["per_ac"] == pytest.approx(sum(layer.acs for layer in NETWORK) * 77e-15, rel=ENERGY)


def test_parts_of_other_models_are_those_that_they_state(tables):
    row = next(row for row in tables["rows"] if row["model"] == "lemaire2022")
    stated = price(load_model("lemaire2022"), NETWORK).parts
    start = start_of(tables)["sram"]
    found = [part["fixed"][0][start] + part["per_ac"] for part in row["parts"]]
    assert found == pytest.approx([joules for joules in stated.values() if joules is not None], rel=ENERGY)
    assert all(part["operations"] is None for part in row["parts"])


def test_without_a_reference_there_are_own_layers_alone():
    rows = sensitivity(price_all(REPORT, None))["rows"]
    assert all(row["sides"].keys() == {"network", "own"} for row in rows)
    paper = next(row for row in rows if row["model"] == "paper")
    assert paper["sides"]["own"]["energies"][0][0][0] == pytest.approx(
        price(load_model("paper"), as_ann(NETWORK)).total_j, rel=ENERGY
    )


def test_a_time_given_is_where_its_slider_starts():
    axis = sensitivity(price_all(REPORT, step_seconds=2e-4))["axes"][3]
    assert axis["positions"][axis["start"]] == 2e-4
    assert axis["labels"][axis["start"]] == "0.0002 s"
