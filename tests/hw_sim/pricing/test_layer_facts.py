from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esdnet.command.errors import UserError
from hw_sim.pricing.equations import price
from hw_sim.pricing.layer_facts import LayerFacts, make_layer, read_layers, total
from hw_sim.pricing.load import available_models, load_model
from tests.tolerances import ENERGY

CONV = LayerFacts(
    "c", "conv", steps=4, runs=2, reads="spike", input_shape=(3, 4, 5), output_shape=(2, 4, 5), kernel=(3, 3),
    weight_words=54, events_in=7, acs=99, taps=960,
)  # fmt: skip


def test_sizes_are_those_of_one_execution():
    assert (CONV.executions, CONV.inputs, CONV.outputs) == (8, 60, 40)


def test_a_saved_layer_comes_back_and_other_keys_are_ignored():
    record = json.loads(json.dumps({**CONV.to_record(), "energy_uj": 1.5}))
    assert read_layers([record]) == [CONV]


def test_a_report_without_a_count_is_refused_and_not_read_as_zero():
    record = {key: value for key, value in CONV.to_record().items() if key not in ("events_in", "active_updates")}
    with pytest.raises(UserError, match=r"layer c: the report lacks events_in, active_updates; .* run energy.py again"):
        read_layers([record])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "pool"}, "layer x: kind 'pool', expected one of conv, linear, neuron, other"),
        ({"kind": "conv", "reads": "bits"}, "layer x: reads 'bits', expected one of spike, graded, analog"),
        ({"kind": "conv", "reads": "spike", "macs": 3}, "3 MACs, but it reads spikes; expected ACs"),
        ({"kind": "conv", "acs": 3}, "3 ACs, but it reads analog values; expected MACs"),
        ({"kind": "conv", "macs": -1}, "macs is -1, expected whole numbers of at least 0"),
        ({"kind": "conv", "taps": 1.5}, "taps is 1.5, expected whole numbers"),
        ({"kind": "conv", "kernel": (3, -3)}, r"kernel is \(3, -3\), expected whole numbers"),
        ({"kind": "conv", "output_shape": (3, 4)}, r"output_shape is \(3, 4\), expected 3 numbers"),
        ({"kind": "conv", "acs": None}, "acs is None, expected whole numbers"),
        ({"kind": "neuron", "neuron_updates": 2, "active_updates": 3}, "active_updates 3 exceed neuron_updates 2"),
        ({"kind": "conv", "macs": 2, "nonzero_macs": 3}, "nonzero_macs 3 exceed macs 2"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        LayerFacts("x", **fields)


def test_an_unknown_field_is_refused():
    with pytest.raises(UserError, match=r"layer x: needs name and kind, unknown fields \['ac'\]"):
        make_layer({"name": "x", "kind": "conv", "ac": 3})
    with pytest.raises(UserError, match=r"layer \?: needs name and kind"):
        make_layer({"kind": "conv"})
    with pytest.raises(UserError, match="a layer is 'conv', expected its fields by name"):
        read_layers(["conv"])


def test_a_sum_over_a_count_that_was_not_made_is_refused():
    assert total([CONV, CONV], "acs") == 198
    with pytest.raises(UserError, match="layer c: active_updates was not counted"):
        total([CONV], "active_updates")


MODELS = [load_model(name) for name in available_models()]
COUNTS = ("events_in", "acs", "adds", "muls", "activation_words", "spike_bits")


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(0, 10**9), st.integers(1, 4))
def test_twice_the_runs_cost_twice_the_energy_in_every_part_of_every_model(steps, acs, factor):
    """Counts of several tiles or images add up: a model that is not linear in them would price the sum wrongly."""
    sizes = {"input_shape": (2, 8, 8), "output_shape": (3, 8, 8), "kernel": (3, 3), "weight_words": 54, "bias_words": 3}

    def network(times):
        counts = {name: times * acs for name in COUNTS}
        updates = 192 * steps * times
        return [
            LayerFacts("c", "conv", steps=steps, runs=times, reads="spike", taps=1, **sizes, **counts),
            LayerFacts("m", "conv", steps=steps, runs=times, macs=times * acs, taps=1, **sizes),
            LayerFacts(
                "n", "neuron", steps=steps, runs=times, output_shape=(3, 8, 8), state_words=192, leaky=True,
                neuron_updates=updates, active_updates=0, events_out=updates,
            ),
        ]  # fmt: skip

    for model in MODELS:
        once, often = price(model, network(1)), price(model, network(factor))
        for part, joules in once.parts.items():
            assert often.parts[part] == (None if joules is None else pytest.approx(factor * joules, rel=ENERGY))
