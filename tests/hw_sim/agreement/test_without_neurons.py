"""A network without neurons held against torch: what holds, what is not run and why, faults planted in its kinds."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from export.graph import execute, stream
from export.graph import nodes as g
from export.graph.check_images import sample_image
from export.readers.dual_stage import lower
from hw_sim.agreement import judge as verification
from hw_sim.agreement.candidates import float_candidates
from hw_sim.agreement.judge import Subject, judge, make_reference, reference_row
from hw_sim.agreement.records import check_record, identity, make_record
from hw_sim.backends import simulator

CANDIDATES = {f"{one.name}, {one.precision}": one for one in float_candidates("cpu")}
EXACT, ROUGH = "simulator on cpu, float64", "simulator on cpu, float32"
ARRANGE, ATTENTION = "stage2.bottleneck.arrange", "stage2.bottleneck.attentions.0"


@pytest.fixture(scope="module")
def subject(dual_stage_model) -> Subject:
    return Subject(dual_stage_model, lower(dual_stage_model), sample_image(64, 96))


@pytest.fixture(scope="module")
def reference(subject):
    return make_reference(subject)


def damaged(subject: Subject, name: str, **fields) -> Subject:
    """The graph with other fields in one node."""
    nodes = tuple(replace(node, **fields) if node.name == name else node for node in subject.network.nodes)
    return replace(subject, network=replace(subject.network, nodes=nodes))


@pytest.mark.parametrize("name", CANDIDATES)
def test_torch_and_simulator_hold_and_the_others_say_why_they_are_not_run(reference, subject, name):
    row = judge(reference, CANDIDATES[name], subject)
    if name.startswith(("torch", "simulator")):
        assert row.status == "holds", row
        assert "layers on torch's inputs: each within what it may deviate by" in row.note
    else:
        assert row.status == "not run", row
        assert ("no neurons" if "ONNX" not in name else "without neurons it is traced") in row.note
    assert reference_row("torch", "float64", reference).note == ""
    assert reference.witness.near_ties == ()


def test_the_witness_sees_norms_attention_and_the_choice_of_clusters(reference, subject):
    values = reference.witness.values
    for name in (f"{ATTENTION}.norm", f"{ATTENTION}.attend", f"{ARRANGE}.centres", f"{ARRANGE}.nearest"):
        assert name in values
        assert values[name].shape[2:] == (16, 24)
    assert len(np.unique(values[f"{ARRANGE}.nearest"])) > 2


def moved(array: np.ndarray, by: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[0] += by
    return changed


FAULTS = {  # what is damaged, how, and the layer that the row must name
    "a weight of a norm": (f"{ATTENTION}.norm", lambda node: {"weight": moved(node.weight, 1e-3)}, f"{ATTENTION}.norm"),
    "the epsilon of a norm": (f"{ATTENTION}.norm", lambda node: {"epsilon": 2e-5}, f"{ATTENTION}.norm"),
    "an overlap": (f"{ATTENTION}.attend", lambda node: {"overlap": node.overlap - 1}, f"{ATTENTION}.attend"),
    "the number of heads": (f"{ATTENTION}.attend", lambda node: {"heads": node.heads // 2}, f"{ATTENTION}.attend"),
    "a window": (f"{ATTENTION}.attend", lambda node: {"window": node.window // 2}, f"{ATTENTION}.attend"),
    "a centre": (f"{ARRANGE}.centres", lambda node: {"weight": moved(node.weight, 1e-3)}, f"{ARRANGE}.centres"),
    "what shuts a key": (
        "stage1.bottleneck.attentions.0.attend", lambda node: {"penalty": 0.0}, "stage1.bottleneck.attentions.0.attend"
    ),
    "the threshold of the mask": ("mask", lambda node: {"threshold": 30}, "stage1.bottleneck.attentions.0.attend"),
    "the windows of the image": (
        "stage1.bottleneck.arrange", lambda node: {"side": 4}, "stage1.bottleneck.attentions.0.attend"
    ),
}  # fmt: skip


TOO_SMALL = {("the epsilon of a norm", ROUGH)}  # within what float32 may deviate by


@pytest.mark.parametrize(
    ("fault", "name"), [(fault, name) for fault in FAULTS for name in (EXACT, ROUGH) if (fault, name) not in TOO_SMALL]
)
def test_faults_of_the_graph_are_named(reference, subject, fault, name):
    node, change, layer = FAULTS[fault]
    row = judge(reference, CANDIDATES[name], damaged(subject, node, **change(subject.network[node])))
    assert row.status == "FAILED", row
    assert row.note.split(": ")[0] == layer


def choose(monkeypatch, choice) -> None:
    """The simulator's ArgMax chooses otherwise."""
    plain = execute.execute_node

    def run(node, inputs, steps, dtype):
        value = plain(node, inputs, steps, dtype)
        return choice(inputs[0], value) if isinstance(node, g.ArgMax) else value

    for module in (verification, stream):
        monkeypatch.setattr(module, "execute_node", run)


@pytest.mark.parametrize("name", [EXACT, ROUGH])
def test_a_pixel_in_another_cluster_than_its_own_is_named(reference, subject, monkeypatch, name):
    def second(scores, labels):
        labels = labels.clone()
        labels[0, 0, 3, 4] = scores[0, :, 3, 4].argsort()[-2]
        return labels

    choose(monkeypatch, second)
    row = judge(reference, CANDIDATES[name], subject)
    assert row.status == "FAILED", row
    assert row.note.startswith(f"{ARRANGE}.nearest: {ARRANGE}.nearest, step 0: chooses a channel that is behind")


def test_clusters_that_are_equal_are_near_ties_and_excuse_that_choice_alone(subject, monkeypatch):
    """Two centres the same: whoever is nearest to them may stand in either, and nobody else elsewhere."""
    model = copy.deepcopy(subject.model)
    clusters = model.stage2.bottleneck.arrange
    labels = judge_labels(subject)
    first, twin = np.bincount(labels.ravel(), minlength=16).argsort()[[-1, 0]]
    clusters.centres[twin] = clusters.centres[first]
    tied = Subject(model.eval(), lower(model), subject.image)
    reference = make_reference(tied)
    (ties,) = reference.witness.near_ties
    assert (ties.neuron, ties.off) == (f"{ARRANGE}.nearest", "another channel")
    assert ties.where.size >= (labels == first).sum() > 0

    def other_twin(scores, labels):
        return torch.where(labels == min(first, twin), float(max(first, twin)), labels)

    choose(monkeypatch, other_twin)
    row = judge(reference, CANDIDATES[EXACT], tied)
    assert row.status == "holds", row
    assert row.max_difference > 1e-9  # pixels stand elsewhere, so that windows hold others
    with monkeypatch.context() as more:
        choose(more, lambda scores, labels: (labels + 1) % 16)
        assert judge(reference, CANDIDATES[EXACT], tied).status == "FAILED"
    broken = damaged(tied, f"{ATTENTION}.attend", overlap=31)  # behind a near-tie, too
    assert judge(reference, CANDIDATES[EXACT], broken).note.startswith(f"{ATTENTION}.attend: ")


def judge_labels(subject: Subject) -> np.ndarray:
    found = verification.simulate_layers(subject.network, {"input": subject.image[None]}, "float64")
    return found[f"{ARRANGE}.nearest"].astype(int)


def test_the_answer_of_a_gpu_is_compared_though_nothing_fires(subject):
    result = simulator.run(subject.network, subject.image, precision="float64")
    record = make_record({"device": "some GPU", **identity(subject.network, subject.image)}, {"float64": result})
    assert check_record(record, "float64", result).status == "holds"
    other = replace(result, output=result.output + 1e-6)
    assert check_record(record, "float64", other).status == "FAILED"
