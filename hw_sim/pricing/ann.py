"""The same layers run once as an ANN: every value analog, no time steps, no membranes.

What spikes must beat. Widths, kernels and the number of layers stay; a neuron becomes one comparison (ReLU).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from hw_sim.pricing.layer_facts import LayerFacts


def as_ann(layers: list[LayerFacts]) -> list[LayerFacts]:
    """Each layer once per run: convolutions and matrices multiply at every tap, neurons compare, the rest as it is."""
    return [_once(layer) for layer in layers]


def has_spikes(layers: list[LayerFacts]) -> bool:
    """Whether anything fires, or adds up spikes; else the layers are that ANN already."""
    return any(layer.kind == "neuron" or layer.acs for layer in layers)


def _once(layer: LayerFacts) -> LayerFacts:
    runs = layer.runs
    silent = partial(
        replace, layer, steps=1, reads="analog", events_in=0, events_out=0, acs=0, nonzero_macs=None, spike_bits=0
    )
    if layer.kind in ("conv", "linear"):
        return silent(
            macs=layer.taps * runs,
            adds=layer.outputs * runs if layer.bias_words else 0,
            muls=0,
            activation_words=(layer.inputs + layer.outputs) * runs,
        )
    if layer.kind == "neuron":
        return silent(
            kind="other",
            state_words=0,
            leaky=False,
            neuron_updates=0,
            active_updates=None,
            adds=layer.outputs * runs,
            muls=0,
            activation_words=2 * layer.outputs * runs,
        )
    return silent(
        adds=layer.adds // layer.steps,
        muls=layer.muls // layer.steps,
        activation_words=(layer.activation_words + layer.spike_bits) // layer.steps,
    )
