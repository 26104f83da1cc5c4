"""The layers of a report as the scripts of a page read them: one record each, firing rates step by step, blocks.

In: a report as JSON holds it. Out: lists and dictionaries for JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import prod
from typing import Any

from hw_sim.pricing.counted import layer_of_facts

MOST_COLUMNS = 128  # of a chart over steps: beyond that neighbours are drawn together

Report = Mapping[str, Any]


def layers_of(report: Report) -> list[dict[str, Any]]:
    """One record per layer: what it is, what it did, and `inputs`, the places of the layers that it reads."""
    places = {layer["name"]: place for place, layer in enumerate(report["layers"])}
    first = dict(reversed(list(zip(layer_of_facts(report["layers"], report["facts"]), report["facts"], strict=True))))
    return [
        _layer(layer, first[place], [places[name] for name in layer.get("inputs", ())])
        for place, layer in enumerate(report["layers"])
    ]


def _layer(layer: Mapping[str, Any], facts: Mapping[str, Any], inputs: list[int]) -> dict[str, Any]:
    return {
        "name": layer["name"],
        "block": block_of(layer),
        "kind": layer["kind"],
        "reads": layer["input"],
        "place": layer["placement"],
        "inputs": inputs,
        "takes": list(facts["input_shape"]),
        "gives": list(facts["output_shape"]),
        "weights": facts["weight_words"] + facts["bias_words"],
        **{key: layer[key] for key in ("spikes", "acs", "macs", "elementwise")},
        "chances": _chances(facts),
        **({"nonzero_macs": layer["nonzero_macs"]} if "nonzero_macs" in layer else {}),
        **_geometry(facts),
    }


def block_of(layer: Mapping[str, Any]) -> str:
    """The block that a layer is drawn in; a block's attention is in the block. Layers between blocks have none."""
    return str(layer["block"]).removesuffix(".attn")


def _geometry(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Kernel, stride and groups of what has a kernel."""
    if facts["kind"] != "conv":
        return {}
    return {"kernel": list(facts["kernel"]), "stride": list(facts["stride"]), "groups": facts["groups"]}


def rates_of(report: Report) -> dict[str, Any] | None:
    """Spikes per neuron and step of each neuron layer, by columns of one step or several; None without neurons.

    layers: their places in the report. per_column: steps that a column is the mean of. rates: by layer and column.
    """
    of_layer = layer_of_facts(report["layers"], report["facts"])
    neurons = [(place, facts) for place, facts in zip(of_layer, report["facts"], strict=True) if _chances(facts)]
    stepped = [(place, facts) for place, facts in neurons if facts["steps"] == neurons[0][1]["steps"]]
    if not stepped:
        return None
    steps = stepped[0][1]["steps"]
    per_column = -(-steps // MOST_COLUMNS)
    return {
        "layers": [place for place, _ in stepped],
        "per_column": per_column,
        "rates": [_rates(facts, per_column) for _, facts in stepped],
    }


def _chances(facts: Mapping[str, Any]) -> int:
    """How often a layer's neurons could have fired: at every step, behind a shut gate too. 0 of what is no neuron."""
    return prod(facts["output_shape"]) * facts["steps"] * facts["runs"] if facts["kind"] == "neuron" else 0


def _rates(facts: Mapping[str, Any], per_column: int) -> list[float]:
    steps = facts["steps"]
    spikes = facts["per_step"].get("spikes", [0] * steps)
    neurons = _chances(facts) / steps  # in all tiles
    columns = [spikes[start : start + per_column] for start in range(0, steps, per_column)]
    return [float(f"{sum(column) / len(column) / neurons:.4g}") for column in columns]


def blocks_of(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The blocks in order, each with the places of its layers; a layer without a block is one by itself."""
    blocks: dict[str, list[int]] = {}
    for place, layer in enumerate(layers):
        blocks.setdefault(layer["block"] or layer["name"], []).append(place)
    return [{"name": name, "layers": places} for name, places in blocks.items()]


def pieces_of(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The blocks as nodes of a graph. One that others lie within comes in several pieces: together they would read what
    is made of them."""
    runs = groupby(range(len(layers)), key=lambda place: layers[place]["block"] or layers[place]["name"])
    pieces = [(name, list(places)) for name, places in runs]
    piece_at = {place: number for number, (_, places) in enumerate(pieces) for place in places}
    return [
        {
            "name": name,
            "layers": places,
            "inputs": sorted({piece_at[read] for place in places for read in layers[place]["inputs"]} - {number}),
            "gives": layers[places[-1]]["gives"],
        }
        for number, (name, places) in enumerate(pieces)
    ]
