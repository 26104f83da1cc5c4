from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hw_sim.pricing.ann import as_ann
from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.load import available_models, load_model
from hw_sim.pricing.nafnet import nafnet_layers
from hw_sim.pricing.verdicts import judge, variants
from tests.hw_sim.pricing.test_lemaire import NETWORK
from tests.tolerances import ENERGY

SPIKING = [layer for layer in NETWORK if layer.name != "conv1"]  # nothing left that multiplies


def row(name, layers=NETWORK, reference=None, step_seconds=None):
    return judge(layers, [load_model(name)], reference, step_seconds)[0]


def test_a_row_for_every_model_and_variant_and_nothing_that_ranks_them():
    models = [load_model(name) for name in available_models()]
    rows = judge(NETWORK, models, NETWORK)
    expected = [(model.name, variant.label) for model in models for variant in variants(model)]
    assert [(row.model.name, row.variant) for row in rows] == expected
    assert len(variants(load_model("lemaire2022"))) == 3
    assert len(variants(load_model("horowitz_fp32"))) == 2
    assert len(variants(load_model("sata"))) == 1
    assert variants(load_model("paper"))[1].label == "with element-wise work"  # it has no price of a word


def test_wins_and_loses_are_ratios_of_two_full_prices():
    lemaire = row("lemaire2022")
    assert lemaire.against_own.word == "loses"
    assert lemaire.against_own.ratio == pytest.approx(2178.1140625 / 1856.55, rel=ENERGY)
    assert row("lemaire2022", SPIKING).against_own.word == "wins"
    by_hand = (400 * 12.5 + 100 * 0.077 + 30 * 3.7) / (488 * 12.5)  # 200 + 96 + 192 MACs once
    assert row("paper").against_own.ratio == pytest.approx(by_hand, rel=ENERGY)


def test_where_nothing_multiplies_there_is_no_answer_but_a_price_to_break_even():
    verdict = row("tianjic", SPIKING).against_own
    assert (verdict.word, verdict.ratio) == ("no answer", None)
    assert "not the price of a MAC" in verdict.why
    assert verdict.break_even_mac_j == pytest.approx(100 * 1.54e-12 / 288, rel=ENERGY)  # 100 ACs, 96 + 192 MACs
    assert row("tianjic").against_own.break_even_mac_j == pytest.approx(100 * 1.54e-12 / (488 - 400), rel=ENERGY)
    assert row("spikesim", SPIKING).against_own.break_even_mac_j is None


def test_two_spiking_networks_are_compared_on_a_chip_too():
    half = [replace(layer, acs=layer.acs // 2) for layer in SPIKING]
    verdict = row("tianjic", half, reference=SPIKING).against_reference
    assert (verdict.word, verdict.ratio) == ("wins", pytest.approx(0.5, rel=ENERGY))


def test_where_active_updates_were_not_counted_the_price_to_break_even_is_the_dearer():
    events = 100 * 23.6 + 160 * 81 + 30 * 1.7
    assert row("loihi1", SPIKING).against_own.break_even_mac_j == pytest.approx(events * 1e-12 / 288, rel=ENERGY)


def test_a_network_with_more_macs_than_the_ann_has_no_price_to_break_even():
    twice = [LayerFacts("m", "conv", steps=4, macs=400, taps=100)]
    assert row("odin", twice).against_own.break_even_mac_j is None


@pytest.mark.parametrize(("steps", "word"), [(1, "no answer"), (2, "loses")])
def test_a_lower_bound_that_reaches_a_full_price_has_lost_and_below_it_there_is_no_answer(steps, word):
    macs_only = replace(load_model("paper"), constants={"mac": load_model("paper").constants["mac"]})
    often = LayerFacts("m", "conv", steps=steps, macs=100 * steps, taps=100)  # the ANN has 200 MACs
    spiking = LayerFacts("s", "conv", reads="spike", acs=9, taps=100)
    verdict = judge([often, spiking], [macs_only])[0].against_own
    assert verdict.word == word
    assert "its acs have no price" in verdict.why


def test_the_reference_is_priced_by_the_same_rule_and_the_same_reuse():
    rows = judge(SPIKING, [load_model("lemaire2022")], as_ann(SPIKING))
    for row_ in rows:
        assert row_.reference == row_.own_ann
        assert row_.against_reference == row_.against_own
    stated, weights, ann_reuse = rows
    assert stated.energy.parts["weights"] != weights.energy.parts["weights"]
    assert stated.energy == ann_reuse.energy
    assert ann_reuse.own_ann.total_j < weights.own_ann.total_j


def test_static_power_enters_when_a_time_is_given():
    still, timed = row("truenorth", SPIKING), row("truenorth", SPIKING, step_seconds=1e-3)
    assert still.energy.parts["static"] is None
    assert timed.energy.parts["static"] == pytest.approx(64.43e-3 * 2e-3, rel=ENERGY)  # one chip, two steps of 1 ms
    assert timed.operating_points == still.operating_points


def test_a_network_without_spikes_is_its_own_ann():
    models = [load_model(name) for name in available_models()]
    rows = judge(as_ann(NETWORK), models, nafnet_layers(64, 64))
    for row_ in rows:
        assert (row_.against_own.word, row_.against_own.ratio) == ("no answer", None)
        assert row_.against_own.why.startswith("No spikes")
        assert row_.energy == row_.own_ann  # as an ANN it has the ANN's reuse
        assert row_.against_reference.break_even_mac_j is None
    stated, _, reused = [row_ for row_ in rows if row_.model.name == "lemaire2022"]
    assert reused.energy.total_j < stated.energy.total_j
    assert reused.against_reference.word == "wins"


def test_a_row_as_json():
    record = json.loads(json.dumps(row("loihi1", reference=nafnet_layers(16, 16)).to_record()))
    assert record["model"] == "loihi1"
    assert record["unpriced"] == {"macs": 400}
    assert record["parts_uj"]["static"] is None
    assert record["against_reference"]["word"] == "no answer"
    assert record["chips"] == 1
    assert "hops between tiles and chips" in record["not_priced"]
    assert "reference_energy_uj" not in row("loihi1").to_record()
