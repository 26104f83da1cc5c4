from __future__ import annotations

import pytest

from hw_sim.pricing.layer_facts import LayerFacts
from hw_sim.pricing.thresholds import Threshold, firing_rate, load_thresholds, spikes_per_synapse, stand


def network(acs: int, spikes: int) -> list[LayerFacts]:
    return [
        LayerFacts("image", "conv", macs=500, taps=500),  # reads no spikes: its synapses do not count
        LayerFacts("c", "conv", steps=4, runs=2, reads="spike", acs=acs, taps=100),
        LayerFacts("n", "neuron", steps=4, runs=2, output_shape=(100, 1, 1), neuron_updates=500, events_out=spikes),
    ]


def test_the_quantities():
    layers = network(acs=100, spikes=80)
    assert spikes_per_synapse(layers) == 0.5  # 100 ACs over 100 synapses in each of 2 runs
    assert firing_rate(layers) == 0.1


@pytest.mark.parametrize(
    ("acs", "sides", "verdict"),
    [
        (29, ["below", "below"], "below all"),
        (30, ["within", "below"], "within"),  # 0.15: both ends of a band are inside
        (276, ["within", "below"], "within"),  # 1.38
        (300, ["above", "below"], "within"),  # between the thresholds
        (344, ["above", "within"], "within"),  # 1.72
        (345, ["above", "above"], "above all"),
    ],
)
def test_sides_and_the_verdict_in_words(acs, sides, verdict):
    per_synapse, rate = stand(network(acs, spikes=0), load_thresholds())
    assert list(per_synapse.sides) == ["Dampfhoffer 2023", "Davidson and Furber 2021"]
    assert list(per_synapse.sides.values()) == sides
    assert per_synapse.verdict == verdict
    assert (rate.sides, rate.verdict) == ({"Yan 2024": "below"}, "below all")


def test_a_network_without_spikes_has_no_answer_instead_of_a_flattering_zero():
    standings = stand([LayerFacts("c", "conv", macs=5, taps=5)], load_thresholds())
    assert [(standing.value, standing.verdict) for standing in standings] == [(None, "no answer")] * 2
    assert stand(network(1, 1), [])[0].verdict == "no answer"


def test_thresholds_are_ratios_and_say_what_they_hold_for():
    for threshold in load_thresholds():
        assert isinstance(threshold, Threshold)
        assert 0 < threshold.low <= threshold.high < 2
        assert threshold.holds_for
        assert threshold.source
