"""Where a network is cut, and that every stock form computes exactly what the simulator computes."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.graph import nodes as g
from export.graph.execute import execute_node
from export.graph.network import Network, infer_shapes
from export.graph.nodes import NetworkError
from export.targets.nir import graph as nir_graph
from export.targets.nir.graph import segment_graph
from export.targets.nir.read import open_export, read_network
from export.targets.nir.run import run_export, run_graph
from export.targets.nir.segments import cut, expresses, stock_nodes
from export.targets.nir.write import write_folder, write_graph
from hw_sim.backends.simulator import run
from tests.export.networks import conv, dyadic, gated_network, image, mixed_network, network, neuron, stock_networks
from tests.random_networks import random_gated

STOCK = stock_networks()


def agree(found: Network, path, height: int = 8, width: int = 12) -> None:
    """The folder written for a network runs as the simulator runs the network: every bit of the output, every spike."""
    write_folder(found, height, width, path)
    picture = image(found.input.channels, height, width)
    expected = run(found, picture, precision="float64", count=False)
    spikes: dict[str, np.ndarray] = {}
    output = run_export(open_export(path), read_network(path), picture, spikes.__setitem__)
    assert set(spikes) == set(expected.spikes)
    assert all(np.array_equal(spikes[name], expected.spikes[name]) for name in spikes)
    assert np.array_equal(output, expected.output)


@pytest.mark.parametrize("name", STOCK)
def test_a_network_without_host_operations_is_one_segment(name):
    steps = cut(STOCK[name], 8, 12)
    assert [step.segment for step in steps] == [False, True, False]
    assert steps[0].nodes == ("image", "coding")
    assert steps[2].nodes == ("result",)


@pytest.mark.parametrize("name", STOCK)
def test_stock_forms_compute_what_the_simulator_computes(name, tmp_path):
    agree(STOCK[name], tmp_path / "nir")


def test_host_operations_cut_and_values_of_one_size_share_an_output(tmp_path):
    steps = cut(mixed_network(), 8, 12)
    assert [(step.segment, step.nodes) for step in steps] == [
        (False, ("image", "coding")),
        (True, ("embed", "l1")),  # two outputs of 8x12; the strided convolution's is 4x6, so it begins the next
        (True, ("down", "l2", "deep")),
        (False, ("up",)),
        (True, ("l3", "skip", "c")),
        (False, ("mean", "restored", "result")),
    ]
    assert steps[1].outputs == ("embed", "l1")
    assert steps[4].inputs == ("embed", "up")
    agree(mixed_network(), tmp_path / "nir")


def test_gates_come_from_outside_and_shut_neurons_by_inhibition(tmp_path):
    found = gated_network()
    steps = [(step.inputs, step.nodes) for step in cut(found, 8, 12) if step.segment]
    assert steps == [
        (("image",), ("look", "open")),  # once an image: not in the graph of the neurons that it shuts
        (("coding",), ("a", "b", "ab")),
        (("open", "ab"), ("on", "off", "pair")),
        (("pair",), ("down",)),
        (("half", "down"), ("low", "deep")),
        (("open", "mixed"), ("last", "end")),
    ]
    gates = run(found, image(), precision="float64").gates
    assert all(0.1 < gate.mean() < 0.9 for gate in gates.values())
    agree(found, tmp_path / "nir")


@pytest.mark.parametrize("seed", range(4))
def test_random_gated_networks_fire_what_the_simulator_fires(seed, tmp_path):
    found, picture = random_gated(seed), np.random.default_rng(seed).random((3, 12, 10))
    path = tmp_path / "nir"
    nodes = tuple(replace(node, current_decay=0.0, bias=np.zeros(())) if node.kind == "neuron" else node
                  for node in found.nodes)  # fmt: skip
    nodes = tuple(replace(node, groups=1, weight=np.concatenate([node.weight] * 2, 1) / 2)
                  if node.kind == "conv" and node.groups == 2 else node for node in nodes)  # fmt: skip
    found = replace(found, nodes=nodes)
    write_folder(found, 12, 10, path)
    expected = run(found, picture, precision="float64")
    spikes: dict[str, np.ndarray] = {}
    output = run_export(open_export(path), read_network(path), picture, spikes.__setitem__)
    assert all(np.array_equal(spikes[name], fired) for name, fired in expected.spikes.items())
    assert np.abs(output - expected.output).max() < 1e-9
    again = run(read_network(path), picture, precision="float64").counts
    assert all(again[name].agrees(counts) for name, counts in expected.counts.items())


def worst_case(threshold: float) -> Network:
    """A neuron of 21 + 5 at most, if all that it reads fires, behind a gate from the host."""
    return network(
        "worst case",
        g.Conv(name="c", inputs=("coding",), weight=np.ones((2, 3, 3, 3)), padding=(1, 1)),
        neuron("first", "c"),
        g.Conv(name="sum", inputs=("first",), weight=np.ones((2, 2, 3, 3)), bias=np.full(2, 3.0), padding=(1, 1)),
        g.Reduce(name="any", inputs=("first",), function="max", axes="TC"),
        neuron("shut", "sum", inputs=("sum", "any"), threshold=np.array(threshold), bias=np.array(5.0)),
    )  # fmt: skip


@pytest.mark.parametrize("threshold", [0.15, 0.0, -2.0])
def test_no_image_makes_a_shut_neuron_fire(threshold, monkeypatch):
    """Every current at its largest for many steps, whatever the sign of the threshold; half as much does not hold."""
    found = worst_case(threshold)
    shapes = infer_shapes(found, 8, 12)
    (step,) = (step for step in cut(found, 8, 12) if step.segment and "shut" in step.nodes)
    assert step.inputs == ("sum", "any")

    def fired(open_: float, current: float) -> np.ndarray:
        spikes: dict[str, np.ndarray] = {}
        stream = torch.full((20, 3, 8, 12), current, dtype=torch.float64)
        stream[:, 2] = open_
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nir infers types with a deprecated function
            graph = as_nir(segment_graph(found, step, shapes))
        run_graph(graph, stream, 1e-4, spikes.__setitem__)
        return spikes["shut"]

    largest = 2 * 9 + 3.0
    assert not fired(0.0, largest).any()
    assert fired(1.0, largest).all()
    free = replace(found["shut"], inputs=("sum",))
    for current in (-6.0, -4.0, -3.25):
        expected = execute_node(free, [torch.full((20, 2, 8, 12), current, dtype=torch.float64)], 20, torch.float64)
        assert np.array_equal(fired(1.0, current), expected.numpy())
    monkeypatch.setattr(nir_graph._Builder, "inhibition", lambda self, node: 8.0)
    assert fired(0.0, largest).any()


def as_nir(spec: nir_graph.NIRSpec) -> nir.NIRGraph:
    """The graph as nir.read gives it."""
    with tempfile.TemporaryDirectory() as folder:
        write_graph(Path(folder) / "graph.nir", spec, {"dt": 1e-4})
        return nir.read(Path(folder) / "graph.nir")


def test_a_strided_convolution_beside_an_input_of_its_own_size_stands_alone(tmp_path):
    """`half` is 4x6 and comes from the host; `down` reads 8x12: they cannot come in by one Input."""
    rng = np.random.default_rng(2)
    found = network(
        "two sizes",
        neuron("l", "coding"), conv(rng, "small", "l", (3, 3), stride=(2, 2)),
        g.Resize(name="large", inputs=("small",)),
        g.Reduce(name="half", inputs=("small",), axes="H"),
        g.Affine(name="host", inputs=("small",), scale=dyadic(rng, 4, 1, 1, 1)),
        conv(rng, "down", "large", (3, 3), stride=(2, 2)), g.Add(name="sum", inputs=("down", "host")),
        g.Add(name="wide", inputs=("sum", "half")),
    )  # fmt: skip
    inputs = [step.inputs for step in cut(found, 8, 12) if step.segment]
    assert inputs == [("coding",), ("large",), ("host", "down")]
    agree(found, tmp_path / "nir")


@pytest.mark.parametrize("stride", [(2, 1), (1, 2)], ids=["height", "width"])
def test_a_change_of_one_side_is_a_change_of_size(stride, tmp_path):
    """`down` reads 8x12 and gives 4x12 or 8x6, as `host` is: they cannot come in by one Input."""
    rng = np.random.default_rng(3)
    found = network(
        "one side",
        neuron("l", "coding"), conv(rng, "small", "l", (3, 3), stride=stride),
        g.Affine(name="large", inputs=("l",), scale=dyadic(rng, 4, 1, 1, 1)),
        g.Affine(name="host", inputs=("small",), scale=dyadic(rng, 4, 1, 1, 1)),
        conv(rng, "down", "large", (3, 3), stride=stride), g.Add(name="sum", inputs=("down", "host")),
    )  # fmt: skip
    inputs = [step.inputs for step in cut(found, 8, 12) if step.segment]
    assert inputs == [("coding",), ("l",), ("large",), ("host", "down")]
    agree(found, tmp_path / "nir")


def test_the_released_network_has_only_the_documented_operations_on_the_host(tiny_network):
    stock = stock_nodes(tiny_network)
    host = {(node.block.rsplit(".", 1)[-1], node.kind) for node in tiny_network.nodes if node.name not in stock}
    blocks = {block for block, _ in host}
    assert blocks == {"", "attn", "up3_2", "up2_1", "refinement", "output"}
    assert {kind for block, kind in host if block == ""} == {"input", "repeat"}
    assert {kind for block, kind in host if block.startswith("up")} == {"resize"}


def test_the_spike_driven_network_has_fewer_and_no_gate_among_them(spike_driven_network):
    """A gain per step and channel with its ReLU in each block, two enlargements, and what reads all steps at once."""
    host = {node.name for node in spike_driven_network.nodes} - stock_nodes(spike_driven_network)
    blocks = [
        f"{side}_level{level}.0"
        for side, levels in (("encoder", (1, 2, 3)), ("decoder", (3, 2, 1)))
        for level in levels
    ]
    gains = [f"{block}.attn.{part}" for block in blocks for part in ("gain", "relu")]
    assert sorted(host) == sorted(
        ["input", "coding", *gains, "up3_2.resize", "up2_1.resize", "time_weights", "output.0", "restored", "derained"]
    )
    steps = cut(spike_driven_network, 16, 16)
    assert sum(step.segment for step in steps) == 12


def test_graphs_keep_fan_in_at_two_and_one_edge_into_the_output(either_network):
    for found in [*STOCK.values(), mixed_network(), either_network]:
        shapes = infer_shapes(found, 16, 16)
        for step in cut(found, 16, 16):
            if not step.segment:
                continue
            graph = segment_graph(found, step, shapes)
            fan_in = {name: [reader for _, reader in graph.edges].count(name) for name in graph.nodes}
            assert fan_in.pop("input") == 0
            assert fan_in["output"] == 1
            assert set(fan_in.values()) <= {1, 2}
            assert len(set(graph.edges)) == len(graph.edges)


def test_an_unknown_kind_is_refused_by_name():
    @dataclass(frozen=True, kw_only=True, eq=False)
    class Surprise(g.Node):
        pass

    with pytest.raises(NetworkError, match=r"odd \(surprise\): no rule for this kind"):
        expresses(Surprise(name="odd", inputs=("x",)), [(1, 1, 1, 1)])


def test_names_that_importers_confuse_are_refused():
    rng = np.random.default_rng(0)
    found = network("names", conv(rng, "a.b", "coding", (3, 3)), conv(rng, "a_b", "a.b", (3, 3)))
    with pytest.raises(NetworkError, match=r"a_b: used twice in one graph"):
        segment_graph(found, cut(found, 8, 12)[1], infer_shapes(found, 8, 12))


@st.composite
def networks(draw) -> Network:
    """Random graphs of stock nodes and a host operation or two, all of 3 channels but for concatenations."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    nodes: list[g.Node] = []
    values = ["coding"]
    for index in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(["conv", "neuron", "add", "affine", "host", "signed"]))
        name = f"{kind}{index}"
        x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        made = {
            "conv": lambda n, x, y: g.Conv(name=n, inputs=(x,), weight=dyadic(rng, 3, 3, 1, 1) / 4),
            "neuron": lambda n, x, y: neuron(n, x),
            "signed": lambda n, x, y: neuron(n, x, gain=np.array(-1.0), fires=">"),
            "add": lambda n, x, y: g.Add(name=n, inputs=(x, y)),
            "affine": lambda n, x, y: g.Affine(name=n, inputs=(x,), scale=dyadic(rng, 3, 1, 1)),
            "host": lambda n, x, y: g.Affine(name=n, inputs=(x,), scale=dyadic(rng, 3, 1, 1)),
        }[kind](name, x, y)
        nodes.append(made)
        values.append(name)
    last = values[-1]
    for index, name in enumerate(values[1:-1]):  # so that every value is read
        if not any(name in node.inputs for node in nodes):
            nodes.append(g.Add(name=f"gather{index}", inputs=(last, name)))
            last = f"gather{index}"
    if nodes[-1].name != last:
        nodes.append(g.Affine(name="end", inputs=(last,)))
    return network("random", *nodes, steps=draw(st.integers(1, 4)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=networks())
def test_random_networks_run_as_the_simulator_runs_them(found, tmp_path_factory):
    agree(found, tmp_path_factory.mktemp("nir") / "out", 3, 4)


def test_steps_are_in_an_order_in_which_they_can_run(either_network):
    for found in [either_network, mixed_network(), *STOCK.values()]:
        known: set[str] = set()
        steps = cut(found, 16, 16)
        for step in steps:
            assert set(step.inputs) <= known
            known |= set(step.outputs)
        assert sorted(name for step in steps for name in step.nodes) == sorted(node.name for node in found.nodes)


def test_beta_other_than_a_half_still_gives_the_same_spikes(tmp_path):
    """(1 - beta) is no power of two, so sums round; away from the threshold the spikes are the same."""
    found = STOCK["chain"]
    slow = tuple(replace(n, membrane_decay=0.9) if n.kind == "neuron" else n for n in found.nodes)
    found = replace(found, nodes=slow)
    write_folder(found, 8, 12, tmp_path / "nir")
    expected = run(found, image(), precision="float64", count=False)
    spikes: dict[str, np.ndarray] = {}
    output = run_export(open_export(tmp_path / "nir"), read_network(tmp_path / "nir"), image(), spikes.__setitem__)
    assert all(np.array_equal(spikes[name], expected.spikes[name]) for name in spikes)
    assert np.array_equal(output, expected.output)


def test_ties_fire_as_the_model_fires(tmp_path):
    """Membranes that lie exactly on the threshold: '>=' fires, '>' does not, in the file as in the simulator."""
    currents = np.full((3, 8, 12), 0.5)
    for fires, count in ((">=", 1.0), (">", 0.0)):
        found = network("ties", neuron("l", "coding", threshold=np.array(0.5), fires=fires), steps=1)
        path = tmp_path / f"nir{count}"
        write_folder(found, 8, 12, path)
        spikes: dict[str, np.ndarray] = {}
        output = run_export(open_export(path), read_network(path), currents, spikes.__setitem__)
        assert torch.from_numpy(output).eq(count).all()
        assert spikes["l"].all() == bool(count)
