from __future__ import annotations

from hw_sim.pricing.ann import as_ann
from hw_sim.pricing.layer_facts import LayerFacts


def test_layers_run_once_and_multiply():
    conv = LayerFacts(
        "c", "conv", steps=4, runs=3, reads="spike", input_shape=(2, 4, 4), output_shape=(3, 4, 4), kernel=(3, 3),
        weight_words=54, bias_words=3, events_in=9, acs=77, taps=600, adds=4 * 3 * 48, spike_bits=999,
    )  # fmt: skip
    (ann,) = as_ann([conv])
    assert (ann.steps, ann.runs, ann.reads, ann.acs, ann.macs) == (1, 3, "analog", 0, 1800)
    assert (ann.adds, ann.activation_words, ann.spike_bits, ann.weight_words) == (3 * 48, 3 * (32 + 48), 0, 54)


def test_a_neuron_becomes_one_comparison_without_a_membrane():
    neuron = LayerFacts(
        "n", "neuron", steps=4, output_shape=(3, 4, 4), state_words=48, leaky=True, neuron_updates=192,
        active_updates=5, events_out=50, adds=384, muls=192,
    )  # fmt: skip
    (ann,) = as_ann([neuron])
    assert (ann.kind, ann.adds, ann.muls, ann.state_words, ann.neuron_updates, ann.events_out) == (
        "other", 48, 0, 0, 0, 0,
    )  # fmt: skip


def test_the_rest_is_done_once_a_run_instead_of_once_a_step():
    rest = LayerFacts("s", "other", steps=4, reads="graded", adds=400, muls=40, activation_words=12, spike_bits=8)
    (ann,) = as_ann([rest])
    assert (ann.steps, ann.adds, ann.muls, ann.activation_words, ann.spike_bits) == (1, 100, 10, 5, 0)


def test_an_ann_is_its_own_ann():
    layers = [
        LayerFacts("c", "conv", output_shape=(1, 2, 2), input_shape=(1, 2, 2), taps=4, macs=4, activation_words=8)
    ]
    assert as_ann(layers) == layers
