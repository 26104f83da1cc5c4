"""The torch counter against the graph's simulator on the shipped networks: two counts that share no code but sums."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import hw_sim
from esdnet.images.files import load_image
from esdnet.networks.nafnet.config import NAFNetConfig
from esdnet.networks.nafnet.model import NAFNet
from export.graph.nodes import Conv, Linear, Neuron, WindowAttention, gate_of
from export.readers.esdnet import lower
from hw_sim.backends import simulator
from hw_sim.backends.executors import load_source
from hw_sim.pricing.layer_facts import total
from hw_sim.pricing.nafnet import nafnet_layers
from tests.gated import every_kind, gated_model, rainy

SINABS = Path(__file__).resolve().parents[4] / "shared" / "external" / "sinabs"
SAMPLE = Path(hw_sim.__file__).parents[1] / "esdnet" / "sample" / "rainy_64.png"
SAME = ("acs", "macs", "nonzero_macs", "events", "spikes", "dense_taps", "events_in", "neuron_updates")


def by_module(network, counts) -> dict[str, Counter]:
    """What layers with weights and neurons did, by the module that they were lowered from."""
    table: dict[str, Counter] = {}
    for node in network.nodes:
        if isinstance(node, (Conv, Linear, Neuron)):
            totals = counts[node.name].totals()
            table.setdefault(node.modules[0], Counter()).update({count: totals[count] for count in SAME})
    return table


@pytest.mark.parametrize("checkpoint", ["small_released", "small_spike_driven"])
def test_every_layer_of_the_shipped_networks_to_the_last_operation(checkpoint):
    source = load_source(checkpoint, None)
    image = load_image(SAMPLE).transpose(2, 0, 1)
    simulated = simulator.run(source.network, image, precision="float64")
    model = source.model.double().eval()
    x = torch.from_numpy(np.ascontiguousarray(image)).unsqueeze(0)
    report = hw_sim.count(model, x, strict=True)
    found: dict[str, Counter] = {}
    for layer in report.layers:
        kept = Counter({count: layer.counts[count] for count in SAME})
        if any(kept.values()):
            found.setdefault(layer.name, Counter()).update(kept)
    expected = by_module(source.network, simulated.counts)
    assert {name: dict(kept) for name, kept in found.items()} == {name: dict(kept) for name, kept in expected.items()}
    assert report.totals["acs"] > 0
    assert report.totals["macs"] > 0
    assert report.parameters == report.counted_parameters == source.network.model_parameters
    with torch.no_grad():
        assert torch.equal(model(x), report.output)


@every_kind
def test_of_a_gated_network_every_spike_and_addition(kind):
    """Torch runs what is shut too, and multiplies it by the gate: it multiplies, and updates, as without one."""
    model = gated_model(kind)
    simulated = simulator.run(network := lower(model), rainy(), precision="float64")
    report = hw_sim.count(model, torch.from_numpy(rainy())[None], strict=True)
    expected = by_module(network, simulated.counts)
    found = {name: Counter() for name in expected}
    for layer in report.layers:
        if layer.name in found:
            found[layer.name].update({count: layer.counts[count] for count in SAME})
    behind = {node.modules[0]: simulated.gates[gate] for node in network.nodes if (gate := gate_of(node))}
    assert 20 < len(behind) < len(expected)
    for name, counts in expected.items():
        for count in ("acs", "spikes", "events_in", "dense_taps"):
            assert found[name][count] == counts[count], (name, count)
        if name not in behind:
            assert found[name]["macs"] == counts["macs"], name
        elif counts["neuron_updates"]:
            opened = found[name]["neuron_updates"] * float(behind[name].mean())
            assert counts["neuron_updates"] == pytest.approx(opened), name
        else:
            assert counts["macs"] < found[name]["macs"], name
    assert sum(counts["acs"] for counts in expected.values()) == report.totals["acs"] > 1_000_000


@pytest.fixture(scope="module")
def without_spikes() -> SimpleNamespace:
    """The shipped dual-stage network: what each layer with weights and each attention of its graph did, in float64."""
    source = load_source("small_dual_stage", None)
    image = np.ascontiguousarray(load_image(SAMPLE).transpose(2, 0, 1))
    simulated = simulator.run(source.network, image, precision="float64")
    expected = {}
    for node in source.network.nodes:
        if isinstance(node, (Conv, Linear, WindowAttention)):  # what has no module of its own is its block's
            totals = simulated.counts[node.name].totals()
            expected[node.modules[0] if node.modules else node.block] = {count: totals[count] for count in SAME}
    return SimpleNamespace(expected=expected, model=source.model, image=image)


def by_owner(report, expected) -> dict[str, Counter]:
    """The same counts of a report, by the nearest of the owners expected: both products of an attention together."""
    found: dict[str, Counter] = {}
    for layer in report.layers:
        kept = Counter({count: layer.counts[count] for count in SAME})
        name = layer.name.replace("/", ".")  # of nodes in ONNX files
        if any(kept.values()):
            owner = max((key for key in expected if f"{name}.".startswith(f"{key}.")), key=len, default=name)
            found.setdefault(owner, Counter()).update(kept)
    return found


def test_every_layer_of_the_network_without_spikes_to_the_last_operation(without_spikes):
    """Convolutions, the scores of the clusters, both products of each attention: as torch runs them."""
    expected, x = without_spikes.expected, torch.from_numpy(without_spikes.image)[None]
    report = hw_sim.count(deepcopy(without_spikes.model).double().eval(), x, strict=True)
    assert {name: dict(kept) for name, kept in by_owner(report, expected).items()} == expected
    assert report.totals["macs"] == sum(counts["macs"] for counts in expected.values()) == 510_898_432
    assert report.totals["acs"] == report.totals["spikes"] == 0
    assert report.parameters == report.counted_parameters == 433_046


@pytest.mark.slow  # the tracer takes its time
def test_and_of_its_onnx_file(without_spikes, tmp_path):
    """Torch's tracer wrote it, ONNX Runtime runs it in float32; which sums are exactly 0 there may differ."""
    pytest.importorskip("onnxruntime")
    from export.targets.onnx.traced import write
    from hw_sim.counter.onnx_counter import count_onnx

    write(without_spikes.model.float().eval(), tmp_path / "traced.onnx")
    image = without_spikes.image[None].astype(np.float32)
    report = count_onnx(tmp_path / "traced.onnx", [image], strict=True)
    found, counts = by_owner(report, without_spikes.expected), ("macs", "dense_taps", "acs", "spikes", "events")
    assert found.keys() == without_spikes.expected.keys()
    for name, expected in without_spikes.expected.items():
        assert {count: found[name][count] for count in counts} == {count: expected[count] for count in counts}, name


def test_nafnet_runs_what_its_published_description_says():
    """The torch module, counted as it runs, and its layers written down by hand: 16.04 G at 256 x 256, to the last."""
    config = NAFNetConfig(32, (2, 2, 4, 8), 12, (2, 2, 2, 2))
    model = NAFNet(config).eval()
    report = hw_sim.count(model, torch.rand(1, 3, 64, 32), strict=True)
    layers = nafnet_layers(64, 32)
    for count in ("macs", "adds", "muls"):
        assert report.totals[count] == total(layers, count)
    assert sorted(layer.facts.macs for layer in report.layers if layer.facts.macs) == sorted(
        layer.macs for layer in layers if layer.macs
    )
    assert report.parameters == report.counted_parameters == 29_159_715


@pytest.mark.slow
def test_nafnet_is_the_rival_of_the_papers_table():
    """16.064 G in the table; 16.045 G with the padding taps that no one multiplies; these are the others."""
    report = hw_sim.count(NAFNet(NAFNetConfig(32, (2, 2, 4, 8), 12, (2, 2, 2, 2))).eval(), torch.rand(1, 3, 256, 256))
    assert report.totals["macs"] == total(nafnet_layers(256, 256), "macs") == 16_037_447_424


def test_sinabs_counts_of_a_convolution():
    """18 recorded numbers: events (values 0, 1, 2) times fan-out, the mean over 20 frames; kernel, stride, padding."""
    if not SINABS.is_dir():
        pytest.skip(f"no {SINABS}: recordings of sinabs are not part of this repository")
    events = torch.load(SINABS / "conv_input.pth", weights_only=True)
    recorded = torch.load(SINABS / "conv_layer_synops.pth", weights_only=True)
    assert len(recorded) == 18
    for (kernel, stride, padding), expected in recorded.items():
        layer = torch.nn.Conv2d(3, 5, kernel, stride, padding)
        report = hw_sim.count(layer, events, input_kinds=["graded"])
        assert report.totals["events"] / len(events) == float(expected)
        assert report.totals["macs"] >= report.totals["nonzero_macs"] > 0
        assert report.totals["acs"] == 0
