from __future__ import annotations

import numpy as np
import pytest

from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from export.graph.counting import count_node
from export.graph.network import Network, infer_shapes
from export.graph.nodes import Conv, Input, Neuron, Output, ValueKind
from export.graph.words import Operands
from export.readers.esdnet import lower
from hw_sim.backends import simulator
from hw_sim.pricing.prices import load_prices
from hw_sim.report.energy_report import Run, assumptions, build_report, dense_ann_macs, price_table, text_rule_energy_j

RUN = Run("x.png", "net", "simulator", "float64", 4, 0, 8, 1, (64, 64), 0.1)


@pytest.fixture(scope="module")
def golden_report(golden, golden_network):
    counts = simulator.run(golden_network, golden.input[0], precision="float64").counts
    return build_report(golden_network, counts, RUN, load_prices("paper"))


def silent_counts(network, side):
    """Counts of a network in which no neuron fires: all that follows from shapes alone."""
    shapes = infer_shapes(network, side, side)
    counts = {}
    for node in network.nodes:
        spiking = isinstance(node, Conv) and network.kinds[node.inputs[0]] is ValueKind.SPIKE
        source = shapes[node.inputs[0]] if node.inputs else shapes[node.name]
        operands = Operands(
            [shapes[name] for name in node.inputs],
            [network.kinds[name] for name in node.inputs],
            shapes[node.name],
            network.kinds[node.name],
            np.zeros((source[0], *source[2:]), np.int64) if spiking else None,
            np.zeros(network.steps, np.int64) if isinstance(node, Neuron) else None,
        )
        counts[node.name] = count_node(node, operands)
    return counts


def test_the_released_network_at_256_does_what_its_shapes_say():
    """The figures that the paper's counter missed: 22 analog shortcuts, and dense work of 486.6 G taps."""
    network = lower(ESDNet(preset("released")))
    counts = silent_counts(network, 256)
    shortcuts = [counts[n.name].totals()["macs"] for n in network.nodes if ".shortcut." in n.name]
    convolutions = [counts[n.name].totals()["dense_taps"] for n in network.nodes if isinstance(n, Conv)]
    assert len(shortcuts) == 22
    assert round(sum(shortcuts) / 1e9, 2) == 150.40
    assert round(sum(convolutions) / 1e9, 1) == 486.6
    assert round(sum(c.totals()["macs"] for c in counts.values()) / 1e9, 2) == 157.67
    refinement = sum(counts[n.name].totals()["macs"] for n in network.nodes if n.block == "refinement")
    assert round(refinement / 1e9, 2) == 6.76
    # 9.769e4 with padded taps in the FLOP layers; here taps on padding are no work: 0.6 % less
    assert text_rule_energy_j(network, counts) * 1e6 == pytest.approx(9.769e4, rel=1e-2)
    assert dense_ann_macs(network, counts) < sum(convolutions) / 2


def test_totals_are_the_sums_of_the_rows(golden_report):
    content = golden_report.to_dict()
    for key in ("spikes", "acs", "macs", "elementwise", "energy_uj"):
        assert content["totals"][key] == pytest.approx(sum(row[key] for row in content["layers"]), rel=1e-12)
    assert content["parameters"] == {"model": 375_735, "counted": 375_735}


def test_energy_is_counts_times_prices(golden_report):
    totals = golden_report.total()
    expected = totals["macs"] * 12.5 + totals["acs"] * 0.077 + totals["spikes"] * 3.7
    assert golden_report.energy_j() == pytest.approx(expected * 1e-12)


def test_firing_rate_is_spikes_per_neuron_and_step(golden, golden_report, golden_network):
    shapes = infer_shapes(golden_network, 64, 64)
    updates = sum(np.prod(shapes[node.name]) for node in golden_network.neurons)
    spikes = sum(int(count) for count in golden.spikes.values())
    assert golden_report.firing_rate == pytest.approx(spikes / updates)


def test_a_network_without_neurons_fires_at_a_rate_of_nothing():
    nodes = (
        Input(name="x"),
        Conv(name="c", inputs=("x",), weight=np.ones((3, 3, 1, 1))),
        Output(name="y", inputs=("c",)),
    )
    network = Network(name="plain", nodes=nodes, steps=1)
    report = build_report(network, simulator.run(network, np.ones((3, 8, 8))).counts, RUN, load_prices("paper"))
    assert report.firing_rate == 0.0
    assert report.to_dict()["firing_rate"] == 0.0
    assert report.break_even is None


def test_the_price_table_shows_what_is_not_priced(golden_report):
    lists = [load_prices(name) for name in ("paper", "loihi1")]
    rows = {row["prices"]: row for row in price_table(golden_report.total(), lists)}
    assert rows["loihi1"]["with_elementwise_uj"] is None
    assert rows["loihi1"]["unpriced"]["macs"] == golden_report.total()["macs"]
    assert rows["paper"]["with_elementwise_uj"] > rows["paper"]["energy_uj"]


def test_an_unpriced_total_says_so_under_the_table(golden, golden_network):
    counts = simulator.run(golden_network, golden.input[0], precision="float64").counts
    report = build_report(golden_network, counts, RUN, load_prices("loihi1"))
    assert any("UNPRICED" in line and "macs" in line for line in assumptions(report))


def test_break_even_is_where_both_cost_the_same(golden_report, golden_network, golden):
    counts = simulator.run(golden_network, golden.input[0], precision="float64").counts
    totals, ratio = golden_report.total(), golden_report.break_even
    assert totals["macs"] + ratio * totals["acs"] == pytest.approx(dense_ann_macs(golden_network, counts))
