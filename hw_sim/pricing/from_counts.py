"""From a counted run to what energy models read: the facts of every node, and its counts step by step.

In: a Network, its NodeCounts by node, the size of one execution. Out: LayerFacts. No count is made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from export.graph.counting import NodeCounts
from export.graph.network import Network, infer_shapes
from export.graph.nodes import Conv, Euler, Linear, Node, Shape, Spiking, WindowAttention
from export.graph.words import is_leaky, states_of
from hw_sim.pricing.layer_facts import LayerFacts

PER_STEP = ("spikes", "events_in", "acs", "macs")
SAME_NAME = ("acs", "macs", "neuron_updates", "adds", "muls", "activation_words", "spike_bits")


def layer_facts(
    network: Network,
    counts: Mapping[str, NodeCounts],
    size: tuple[int, int],
    runs: int = 1,
    looks_at_values: bool = True,
) -> list[LayerFacts]:
    """Facts of all nodes, in order. size: (height, width) of one execution; runs: executions that the counts add up.

    `active_updates` stays None, and `nonzero_macs` unless the backend `looks_at_values`.
    """
    shapes = infer_shapes(network, *size)
    facts = []
    for node in network.nodes:
        layer = _facts(network, node, shapes, counts[node.name], runs)
        facts += _products_and_rest(layer) if isinstance(node, WindowAttention) else [layer]
    return facts if looks_at_values else [replace(layer, nonzero_macs=None) for layer in facts]


def steps_of(counts: NodeCounts) -> dict[str, list[int]]:
    """Those counts of a node that differ from 0, step by step."""
    found = {name: getattr(counts, name).tolist() for name in PER_STEP}
    return {name: numbers for name, numbers in found.items() if any(numbers)}


def _facts(network: Network, node: Node, shapes: Mapping[str, Shape], counts: NodeCounts, runs: int) -> LayerFacts:
    totals, steps = counts.totals(), shapes[node.name][0]
    words = totals["weight_words"] // (steps * runs)
    same: dict[str, Any] = {name: totals[name] for name in SAME_NAME}
    taken = shapes[node.inputs[0]] if node.inputs else shapes[node.name]
    return LayerFacts(
        name=node.name,
        steps=steps,
        runs=runs,
        reads=network.kinds[node.inputs[0]].value if node.inputs else "analog",
        input_shape=taken[1:],
        output_shape=shapes[node.name][1:],
        events_in=totals["events_in"],
        events_out=totals["spikes"],
        taps=totals["dense_taps"] // (steps * runs),
        nonzero_macs=totals["nonzero_macs"],
        **same,
        **_held(node, words, shapes[node.name]),
    )


def _products_and_rest(layer: LayerFacts) -> list[LayerFacts]:
    """Attention is two products of matrices, which are no weights, and element-wise work."""
    rest = replace(
        layer, name=f"{layer.name}: the rest", kind="other", macs=0, nonzero_macs=0, taps=0, activation_words=0
    )
    return [replace(layer, kind="linear", adds=0, muls=0), rest]


def _held(node: Node, words: int, shape: Shape) -> dict[str, Any]:
    """Kind, geometry and what is held: `words` of parameters, biases among them; states of every neuron."""
    if isinstance(node, (Conv, Linear)):
        biases = 0 if node.bias is None else node.bias.size
        if isinstance(node, Conv):
            geometry = {"kernel": node.weight.shape[2:], "stride": tuple(node.stride), "groups": node.groups}
            return {"kind": "conv", **geometry, "weight_words": words - biases, "bias_words": biases}
        if node.axis == "T":  # a frame reads its own row
            biases //= shape[0]
        return {"kind": "linear", "weight_words": words - biases, "bias_words": biases}
    if isinstance(node, (Spiking, Euler)):
        states = states_of(node) * prod(shape[1:])
        return {"kind": "neuron", "weight_words": words, "state_words": states, "leaky": is_leaky(node)}
    return {"kind": "other", "weight_words": words}
