"""Gated ESDNets, lowered: the simulator equals torch, spike for spike and count for count, whatever the gate."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from esdnet.networks.esdnet.gate import MorphologicalGate
from esdnet.networks.esdnet.model import ESDNet
from export.graph import nodes as g
from export.graph.agreement import check_layers
from export.graph.near_ties import find_near_ties, membranes
from export.graph.network import Network
from export.graph.nodes import gate_of
from export.graph.witness import on_given_inputs, witness
from export.readers.esdnet import lower
from hw_sim.agreement.candidates import float_candidates
from hw_sim.agreement.judge import Reference, Subject, judge, make_reference, simulate_layers
from hw_sim.backends import simulator, torch_model
from hw_sim.backends.result import compare
from tests.gated import KINDS, gated_model, rainy
from tests.tolerances import FLOAT64_OUTPUT


class Constant(nn.Module):
    """A gate that is 1 or 0 everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        return torch.full_like(image[:, :1], self.value)


@pytest.fixture(scope="module", params=KINDS)
def subject(request) -> Subject:
    model = gated_model(request.param)
    return Subject(model, lower(model, request.param), rainy())


def test_the_simulator_equals_torch(subject) -> None:
    reference = torch_model.run(copy.deepcopy(subject.model), subject.network, subject.image, precision="float64")
    result = simulator.run(subject.network, subject.image, precision="float64")
    difference = compare(reference, result)
    assert difference.equal_spikes, difference.first or difference.count_mismatches
    assert difference.max_difference < FLOAT64_OUTPUT
    assert reference.gates.keys() == result.gates.keys() == set(subject.network.gates)
    for name, gate in result.gates.items():
        assert np.array_equal(gate, reference.gates[name])
        assert 0.05 < gate.mean() < 0.95
    assert sum(spikes.any() for spikes in result.spikes.values()) == len(result.spikes)


def test_shut_pixels_stay_as_they_are_and_cost_nothing(subject) -> None:
    """Behind the gate neurons are updated, and the last convolution multiplies, at open pixels alone."""
    result = simulator.run(subject.network, subject.image, precision="float64")
    shut = result.gates["gate.level1"][0] == 0
    assert np.array_equal(result.output[:, shut], subject.image[:, shut])
    assert not np.array_equal(result.output, subject.image)
    for node in subject.network.of(g.Neuron):
        gate, totals = gate_of(node), result.counts[node.name].totals()
        steps, channels = result.spikes[node.name].shape[:2]
        pixels = result.spikes[node.name][0, 0].size if gate is None else int(result.gates[gate].sum())
        assert totals["neuron_updates"] == steps * channels * pixels, node.name
        assert totals["membrane_words"] == 2 * steps * channels * pixels, node.name
    rows, columns = (np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in shut.shape)
    taps = np.outer(np.where(rows == 0, 2, 3), np.where(columns == 0, 2, 3))
    assert result.counts["output.0"].totals()["macs"] == 3 * 16 * int(taps[~shut].sum())
    assert result.counts["time_weights"].totals()["macs"] == 3 * 16 * int((~shut).sum())


@pytest.mark.parametrize("open_", [True, False])
def test_of_a_gate_that_is_open_or_shut_everywhere(subject, open_: bool) -> None:
    model = copy.deepcopy(subject.model)
    model.gate = Constant(float(open_))
    with torch.no_grad():
        expected = model(torch.from_numpy(subject.image)[None])[0].numpy()
    network = with_constant(subject.network, open_)
    result = simulator.run(network, subject.image, precision="float64")
    behind = [
        node.name for node in network.nodes if isinstance(node, g.Conv) and node.block not in ("gate", "patch_embed")
    ]
    assert len(behind) > 15
    if open_:
        free = simulator.run(ungated(network), subject.image, precision="float64")
        assert np.array_equal(result.output, free.output)
        assert all(np.array_equal(result.spikes[name], free.spikes[name]) for name in free.spikes)
        assert np.abs(result.output - expected).max() < FLOAT64_OUTPUT
    else:
        assert np.array_equal(result.output, subject.image)
        assert np.array_equal(expected, subject.image)
        assert not any(result.counts[name].acs.any() or result.counts[name].macs.any() for name in behind)


def with_constant(network: Network, open_: bool) -> Network:
    """The gate of the first level replaced."""
    low = g.Reduce(name="darkest", inputs=("input",), function="max", axes="C")
    gate = g.Threshold(name="gate.level1", inputs=("darkest",), threshold=np.array(-1.0 if open_ else 2.0))
    nodes = [node for node in network.nodes if node.block != "gate" or node.name in ("gate.level2", "gate.level3")]
    nodes[1:1] = [low, gate]
    parameters = sum(node.source_parameters for node in nodes)
    return replace(network, nodes=tuple(nodes), model_parameters=parameters)


def ungated(network: Network) -> Network:
    return replace(network, nodes=tuple(replace(node, inputs=node.inputs[:1]) if gate_of(node) else node
                                        for node in network.nodes))  # fmt: skip


def test_layer_by_layer_on_torchs_inputs(subject) -> None:
    """Gates are given like every other value: what a module reads is replaced, its gate too."""
    reference = witness(subject.model, subject.network, subject.image)
    assert set(subject.network.gates) <= reference.values.keys()
    exact = check_layers(
        subject.network, reference, simulate_layers(subject.network, reference.values, "float64"), "float64"
    )
    assert exact.failures == ()
    assert exact.layers > 60
    rounded = on_given_inputs(copy.deepcopy(subject.model).float(), subject.network, reference.values)
    assert check_layers(subject.network, reference, rounded, "float32").failures == ()


def test_torch_on_given_inputs_takes_the_gate_that_is_given(subject) -> None:
    reference = witness(subject.model, subject.network, subject.image)
    given = dict(reference.values) | {name: np.ones_like(reference.values[name]) for name in subject.network.gates}
    found = on_given_inputs(copy.deepcopy(subject.model), subject.network, given)
    node = subject.network["encoder_level1.0.residual.0.on"]
    free = simulate_layers(ungated(subject.network), given, "float64")
    assert np.array_equal(found[node.name], free[node.name])
    assert not np.array_equal(found[node.name], reference.values[node.name])


def test_a_near_tie_of_the_gate_itself_is_named() -> None:
    """Its last neuron's threshold put where one membrane lies: a bit above, by rounding alone."""
    model, image = gated_model("learnt"), rainy()
    seen: list[Tensor] = []
    model.gate.fires.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(torch.from_numpy(image)[None])
        model.gate.fires.threshold.copy_(seen[0].flatten()[77])
    ties = witness(model, lower(model), image).near_ties
    assert "gate.fires" in {tie.neuron for tie in ties}


def test_a_membrane_at_the_threshold_behind_a_shut_gate_is_no_near_tie() -> None:
    model, image = gated_model("morphological"), rainy()
    name = "encoder_level1.0.residual.3"
    neuron, seen = model.get_submodule(name), list[tuple[Tensor, Tensor]]()
    neuron.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    with torch.no_grad():
        model(torch.from_numpy(image)[None])
        current, gate = seen[0]
        shut, others = (current[0, 0][:, gate[0, 0] == is_open].flatten() for is_open in (0, 1))
        lonely = (shut[:, None] - others).abs().amin(1).argmax()
        neuron.threshold.copy_(shut[lonely])
    network = lower(model)
    found = witness(model, network, image)
    assert name not in {tie.neuron for tie in found.near_ties}
    node = network[name]
    there = membranes(node, found.values[node.inputs[0]], found.values[name])
    assert find_near_ties(node, there, found.bounds[name]) is not None
    assert find_near_ties(node, there, found.bounds[name], found.values[node.inputs[1]]) is None


# --- faults -----------------------------------------------------------------------------------------------------------

CANDIDATES = {
    f"{one.name}, {one.precision}": one
    for one in float_candidates("cpu")
    if one.name.startswith(("simulator", "ONNX", "NIR"))
}
SIMULATOR = CANDIDATES["simulator on cpu, float64"]


def changed(subject: Subject, change) -> Subject:
    return replace(subject, network=replace(subject.network, nodes=tuple(map(change, subject.network.nodes))))


def one_level_off(node: g.Node) -> g.Node:
    """Level 3 open where one pixel of level 2 is, instead of where one of four is."""
    return replace(node, kernel=(1, 1)) if node.name == "gate.level3" else node


def narrower(node: g.Node) -> g.Node:
    return replace(node, kernel=(1, 1), padding=(0, 0)) if node.name == "gate.spread" else node


def never_flooded(node: g.Node) -> g.Node:
    return replace(node, most=1.0) if isinstance(node, g.Flood) else node


def forgotten(node: g.Node) -> g.Node:
    gated = node.name == "encoder_level2.0.residual.3"
    return replace(node, inputs=node.inputs[:1]) if gated else node


@pytest.fixture(scope="module")
def reference(subject) -> Reference:
    return make_reference(subject)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name.startswith("NIR") else ()) for name in CANDIDATES]
)
def test_every_row_holds(reference, name) -> None:
    row = judge(reference, CANDIDATES[name], reference.subject)
    assert row.status == "holds", row
    assert row.mismatches == 0


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name.startswith("NIR") else ()) for name in CANDIDATES]
)
@pytest.mark.parametrize(
    ("fault", "named"), [(one_level_off, "gate.level3"), (forgotten, "encoder_level2.0.residual.3")]
)
def test_a_fault_in_a_gate_is_found(reference, name, fault, named) -> None:
    row = judge(reference, CANDIDATES[name], changed(reference.subject, fault))
    assert row.status == "FAILED"
    assert named in row.note


@pytest.mark.parametrize(("fault", "image"), [(narrower, rainy()), (never_flooded, None)])
def test_a_fault_in_morphology_is_found(fault, image) -> None:
    model = gated_model("morphological")
    assert isinstance(model.gate, MorphologicalGate)
    if image is None:  # heavy rain
        image = rainy()
        image[:, :, ::4] = np.round(255 * np.clip(image[:, :, ::4] + 0.2, 0, 1)) / 255
    subject = Subject(model, lower(model), image)
    reference = make_reference(subject)
    assert judge(reference, SIMULATOR, subject).status == "holds"
    row = judge(reference, SIMULATOR, changed(subject, fault))
    assert (row.status, row.note.split(", step")[0]) == ("FAILED", "gate.level1: gate.level1")


def test_a_gate_that_is_applied_but_not_counted_is_found(reference, monkeypatch) -> None:
    """The simulator counts as if it were open everywhere: spikes and output are right, counts are not."""
    before = simulator._Run._maps_of

    def everywhere(self, node):
        seen = before(self, node)
        return seen | ({"gate": np.ones_like(seen["gate"])} if "gate" in seen else {})

    monkeypatch.setattr(simulator._Run, "_maps_of", everywhere)
    row = judge(reference, SIMULATOR, reference.subject)
    assert (row.status, row.mismatches) == ("FAILED", 0)
    assert "its counts differ, promised equal" in row.note


def test_every_architecture_takes_its_gate_from_its_configuration() -> None:
    model = gated_model("learnt")
    again = ESDNet(model.config).double().eval()
    again.load_state_dict(model.state_dict())
    assert [node.name for node in lower(again).nodes] == [node.name for node in lower(model).nodes]
