"""Layers, rates and blocks as the scripts read them, and where the graph draws them."""

from __future__ import annotations

import numpy as np
import pytest

from export.graph.network import infer_shapes
from export.readers.architectures import lower
from hw_sim.backends import simulator
from hw_sim.pricing.all_models import price_all
from hw_sim.pricing.prices import load_prices
from hw_sim.report.energy_report import Run, build_report
from hw_sim.report.page.layers import blocks_of, layers_of, pieces_of, rates_of
from hw_sim.report.page.layout import draw
from hw_sim.report.page.models import tables_of


@pytest.fixture(scope="module")
def result(spike_driven_network, photo):
    return simulator.run(spike_driven_network, photo, precision="float64")


@pytest.fixture(scope="module")
def report(spike_driven_network, result):
    run = Run("x.png", "net", "simulator", "float64", 4, 0, 8, 1, result.executed_size, 0.1)
    return build_report(spike_driven_network, result.counts, run, load_prices("paper")).to_dict()


@pytest.fixture(scope="module")
def layers(report):
    return layers_of(report)


def test_a_layer_says_what_its_node_is_and_did(spike_driven_network, result, layers):
    shapes = infer_shapes(spike_driven_network, *result.executed_size)
    for layer, node in zip(layers, spike_driven_network.nodes, strict=True):
        totals = result.counts[node.name].totals()
        assert (layer["name"], layer["kind"], layer["reads"]) == (
            node.name, node.kind, spike_driven_network.kinds[node.inputs[0]].value if node.inputs else "analog",
        )  # fmt: skip
        assert (layer["spikes"], layer["acs"], layer["macs"]) == (totals["spikes"], totals["acs"], totals["macs"])
        assert tuple(layer["gives"]) == shapes[node.name][1:]
        assert [spike_driven_network.nodes[place].name for place in layer["inputs"]] == list(node.inputs)


def test_what_models_read_as_two_is_one_layer(dual_stage_model, photo):
    """Attention: its products and the rest of it."""
    dual_stage_network = lower(dual_stage_model, "dual")
    image = np.pad(photo, ((0, 0), (0, 0), (0, 8)), mode="edge")
    result = simulator.run(dual_stage_network, image, precision="float64")
    run = Run("x.png", "net", "simulator", "float64", 1, 0, 8, 1, result.executed_size, 0.1)
    report = build_report(dual_stage_network, result.counts, run, load_prices("paper")).to_dict()
    assert len(report["facts"]) > len(report["layers"])
    layers = layers_of(report)
    assert [layer["name"] for layer in layers] == [node.name for node in dual_stage_network.nodes]
    tables = tables_of(price_all(report), report)
    row = next(row for row in tables["rows"] if row["model"] == "paper" and row["everything"])
    prices = load_prices("paper")
    found = [sum(pair) for pair in zip(row["layers"]["fixed"][0][0], row["layers"]["per_ac"], strict=True)]
    expected = [prices.energy_j(layer, elementwise=True) for layer in report["layers"]]
    assert found == pytest.approx(expected, rel=1e-6)
    assert rates_of(report) is None


def test_rates_are_spikes_of_a_step_over_neurons(spike_driven_network, result, report, layers):
    rates = rates_of(report)
    assert rates["per_column"] == 1
    assert [layers[place]["name"] for place in rates["layers"]] == [node.name for node in spike_driven_network.neurons]
    for place, steps in zip(rates["layers"], rates["rates"], strict=True):
        spikes = result.spikes[layers[place]["name"]]
        assert steps == pytest.approx(spikes.mean((1, 2, 3)), rel=1e-3)
    assert len({tuple(steps) for steps in rates["rates"]}) > 5


def test_many_steps_are_drawn_together_and_none_is_lost(report):
    facts = next(facts for facts in report["facts"] if facts["kind"] == "neuron")
    steps = 300
    spikes = list(range(steps))
    long = facts | {"steps": steps, "output_shape": [10, 1, 1], "per_step": {"spikes": spikes}}
    rates = rates_of({"layers": [{"name": long["name"]}], "facts": [long]})
    assert rates["per_column"] == 3
    assert rates["rates"][0][0] == pytest.approx((0 + 1 + 2) / 3 / 10)
    assert sum(rates["rates"][0]) * 3 * 10 == pytest.approx(sum(spikes), rel=1e-3)
    silent = rates_of({"layers": [{"name": long["name"]}], "facts": [long | {"per_step": {}}]})
    assert set(silent["rates"][0]) == {0.0}
    assert rates_of({"layers": [{"name": facts["name"]}], "facts": [facts | {"kind": "other"}]}) is None


@pytest.mark.parametrize("parts_of", [blocks_of, pieces_of])
def test_blocks_and_pieces_hold_every_layer_once(layers, parts_of):
    parts = parts_of(layers)
    assert sorted(place for part in parts for place in part["layers"]) == list(range(len(layers)))
    names = {part["name"] for part in parts}
    assert "encoder_level1.0" in names  # its attention too
    assert not any(name.endswith(".attn") for name in names)


def test_pieces_read_what_their_layers_read(layers):
    pieces = pieces_of(layers)
    at = {place: number for number, piece in enumerate(pieces) for place in piece["layers"]}
    edges = {(at[read], at[place]) for place, layer in enumerate(layers) for read in layer["inputs"]}
    drawn = {(read, number) for number, piece in enumerate(pieces) for read in piece["inputs"]}
    assert drawn == {edge for edge in edges if edge[0] != edge[1]}


def test_a_block_around_others_is_one_block_and_several_pieces():
    layers = [
        {"name": name, "block": block, "inputs": inputs, "gives": [1, 4, 4]}
        for name, block, inputs in (("a.in", "a", []), ("b.x", "a.b", [0]), ("a.out", "a", [0, 1]))
    ]
    assert [(block["name"], block["layers"]) for block in blocks_of(layers)] == [("a", [0, 2]), ("a.b", [1])]
    pieces = pieces_of(layers)
    assert [(piece["name"], piece["inputs"]) for piece in pieces] == [("a", []), ("a.b", [0]), ("a", [0, 1])]
    assert not any(late for _, _, late in draw(pieces)["edges"])


def node(gives, *inputs):
    return {"gives": gives, "inputs": list(inputs)}


def test_the_graph_is_drawn_by_order_and_size():
    big, small = [3, 8, 8], [3, 4, 4]
    nodes = [node(big), node(big, 0), node(big, 0), node(small, 1), node([7, 1, 1], 3), node(big, 2, 4)]
    graph = draw(nodes)
    assert graph["x"] == [0, 1, 1, 2, 3, 4]
    assert graph["y"] == [0, 0, 1, 6, 6, 0]  # a second lane; a row for small ones; a vector beside what it is made of
    assert graph["edges"] == [[0, 1, False], [0, 2, False], [1, 3, False], [3, 4, False], [2, 5, False], [4, 5, False]]


def test_an_edge_a_step_late_goes_back_and_moves_nobody():
    graph = draw([node([1, 4, 4]), node([1, 4, 4], 0, 2), node([1, 4, 4], 1)])
    assert graph["x"] == [0, 1, 2]
    assert graph["edges"] == [[0, 1, False], [2, 1, True], [1, 2, False]]


def test_what_reads_nothing_is_no_graph():
    assert draw([node([1, 1, 1]), node([1, 1, 1])]) is None


def test_no_two_nodes_of_a_network_lie_on_each_other(layers):
    for nodes in (layers, pieces_of(layers)):
        graph = draw(nodes)
        assert len(set(zip(graph["x"], graph["y"], strict=True))) == len(nodes)
        assert all(graph["x"][a] < graph["x"][b] for a, b, late in graph["edges"] if not late)
