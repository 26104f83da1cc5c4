"""Faults planted in a backend, or in the graph that it is given: each must fail its row, and name the layer."""

from __future__ import annotations

import dataclasses

import onnx
import pytest
import torch

from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from export.graph import stream
from export.graph.execute import execute_node
from export.graph.nodes import Affine, Conv, Neuron
from export.readers.esdnet import lower
from export.targets.nir import graph as nir_graph
from export.targets.nir import write as nir_write
from export.targets.onnx import write as onnx_format
from hw_sim.agreement import judge as verification
from hw_sim.agreement.candidates import float_candidates
from hw_sim.agreement.judge import Subject, judge, make_reference
from tests.conftest import run_in

CANDIDATES = {
    f"{one.name}, {one.precision}": one
    for one in float_candidates("cpu")
    if one.name.startswith(("simulator", "NIR", "ONNX"))
}
NIR = "NIR, written and read back, float64"
LOW = 0.02  # a threshold that many membranes of a random network reach
ANALOG, SPIKE_FED, NEURON = "encoder_level1.0.shortcut.0", "encoder_level2.0.residual.1", "encoder_level2.0.residual.3"


@pytest.fixture(scope="module")
def reference(photo):
    """The layers that are damaged fire: a fault in a silent one would not show."""
    torch.manual_seed(1)
    model = run_in(ESDNet(dataclasses.replace(preset("tiny"), threshold=LOW)))
    network = lower(model, "lively")
    reference = make_reference(Subject(model, network, photo))
    assert not {NEURON, network[SPIKE_FED].inputs[0]} & set(reference.silent)
    return reference


def failed(reference, name: str, subject: Subject | None = None) -> str:
    """The note of a row that must have failed."""
    row = judge(reference, CANDIDATES[name], subject or reference.subject)
    assert row.status == "FAILED", row
    return row.note


def with_node(subject: Subject, name: str, change) -> Subject:
    network = subject.network
    nodes = tuple(change(node) if node.name == name else node for node in network.nodes)
    parameters = sum(node.source_parameters for node in nodes)
    return dataclasses.replace(subject, network=dataclasses.replace(network, nodes=nodes, model_parameters=parameters))


def one_weight(node: Conv) -> Conv:
    weight = node.weight.copy()
    weight.flat[0] += 1e-3
    return dataclasses.replace(node, weight=weight)


def other_sign(node: Conv) -> Conv:
    return dataclasses.replace(node, bias=-node.bias)


def other_threshold(node: Neuron) -> Neuron:
    return dataclasses.replace(node, threshold=node.threshold * 1.01)


def every_weight(node: Conv) -> Conv:
    return dataclasses.replace(node, weight=node.weight * 1.001)


GRAPH = {
    "a weight by a thousandth": (ANALOG, one_weight),
    "weights that meet spikes, by a thousandth": (SPIKE_FED, every_weight),
    "the sign of a bias": (SPIKE_FED, other_sign),
}


@pytest.mark.parametrize("name", CANDIDATES)
@pytest.mark.parametrize("fault", GRAPH)
def test_a_number_of_the_graph(reference, name, fault):
    layer, change = GRAPH[fault]
    named = failed(reference, name, with_node(reference.subject, layer, change)).split(": ")[0].split(", ")
    assert named == [layer]


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_threshold(reference, name):
    assert NEURON in failed(reference, name, with_node(reference.subject, NEURON, other_threshold))


@pytest.mark.parametrize("name", CANDIDATES)
def test_an_edge_that_is_cut(reference, name):
    """The sum of residual and shortcut passes on the residual alone."""

    def cut(node):
        return Affine(name=node.name, inputs=node.inputs[:1], block=node.block)

    note = failed(reference, name, with_node(reference.subject, "encoder_level2.0.sum", cut))
    if name == NIR:  # what nothing reads is found before it runs
        assert "NIR: no node reads output, encoder_level2.0.shortcut.0, expected one such node" in note
    else:
        assert all(one.startswith("encoder_level2.0.") for one in note.split(": ")[0].split(", ")), note


@pytest.mark.parametrize("name", ["simulator on cpu, float64", "simulator on cpu, float32"])
@pytest.mark.parametrize(
    ("node", "damage", "message"),
    [
        (SPIKE_FED, lambda value: value[:, :, :-1], "value has shape (4, 16, 15, 12), declared (4, 16, 16, 12)"),
        (SPIKE_FED, lambda value: value * (value.new_ones(16, 1).cumsum(0) < 16), "deviates by"),
        (NEURON, lambda value: value * 0.7, "declared spike, found torch.float"),
        (NEURON, lambda value: value & False, "a spike differs where the membrane is off the threshold"),
    ],
    ids=["loses a row", "a row of zeros", "floats for spikes", "a layer that never fires"],
)
def test_a_rule_of_the_simulator(reference, monkeypatch, name, node, damage, message):
    rule = execute_node

    def broken(one, inputs, steps, dtype):
        value = rule(one, inputs, steps, dtype)
        return damage(value) if one.name == node else value

    monkeypatch.setattr(stream, "execute_node", broken)
    monkeypatch.setattr(stream, "advance", lambda node, state, inputs, dtype, *rest: broken(node, inputs, 1, dtype))
    monkeypatch.setattr(verification, "execute_node", broken)
    note = failed(reference, name)
    assert node in note
    assert message in note


def test_the_writer_of_nir_and_what_its_reader_expects(reference, monkeypatch):
    """A threshold 1 % higher in both: only a run shows it."""
    encode = nir_graph.encode_lif

    def higher(node):
        fields = encode(node)
        return {**fields, "v_threshold": fields["v_threshold"] * 1.01}

    monkeypatch.setattr(nir_graph, "encode_lif", higher)
    assert failed(reference, NIR).startswith("encoder_level1.0.residual.0: encoder_level1.0.residual.0, step ")


def test_the_writer_of_nir_alone(reference, monkeypatch):
    """The same in the files only: reading them back finds it."""
    make = nir_write.segment_graph

    def higher(network, step, shapes):
        graph = make(network, step, shapes)
        for node in graph.nodes.values():
            if node.type == "LIF":
                filled = node.fields["v_threshold"]
                node.fields["v_threshold"] = dataclasses.replace(filled, values=filled.values * 1.01)
        return graph

    monkeypatch.setattr(nir_write, "segment_graph", higher)
    expected = "encoder_level1.0.residual.0: v_threshold of its LIF is not that of the neuron in the manifest"
    assert expected in failed(reference, NIR)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_constant_of_the_onnx_file(reference, monkeypatch, precision):
    write = onnx_format.to_model

    def damaged(network, precision):
        model = write(network, precision)
        (constant,) = (one for one in model.graph.initializer if one.name == f"{SPIKE_FED}/bias")
        values = -onnx.numpy_helper.to_array(constant)
        constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
        return model

    monkeypatch.setattr(onnx_format, "to_model", damaged)
    assert failed(reference, f"ONNX Runtime, {precision}").startswith(f"{SPIKE_FED}: ")
