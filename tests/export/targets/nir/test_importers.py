"""Independent readers: other projects' NIR importers run every kind of exported segment and agree, spike for spike.

They compute in float32 (snnTorch, norse) on dyadic weights and streams, where no sum rounds, or in float64
(spikingjelly) on any weights. norse reads chains only. docs/nir.md tabulates who reads what, and why not.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch

from export.graph.network import Network
from export.graph.nodes import Conv
from export.targets.nir.graph import DT_S
from export.targets.nir.read import open_export
from export.targets.nir.run import run_graph
from export.targets.nir.write import write_folder
from tests.export.networks import gated_network, mixed_network, stock_networks

STEPS = 4
Spikes = dict[str, np.ndarray]
Importer = Callable[[nir.NIRGraph], Any]


def dyadic_weights(network: Network) -> Network:
    """The network with weights and biases rounded to multiples of 2^-3, spread to within [-1, 1]."""

    def rounded(values: np.ndarray) -> np.ndarray:
        return np.clip(np.round(values * 8 / max(values.std(), 1e-9) / 3), -8, 8) / 8

    def changed(node: Any) -> Any:
        if not isinstance(node, Conv):
            return node
        return replace(node, weight=rounded(node.weight), bias=None if node.bias is None else rounded(node.bias))

    return replace(network, nodes=tuple(changed(node) for node in network.nodes))


def graphs(network: Network, path: Path, height: int = 8, width: int = 12) -> dict[str, nir.NIRGraph]:
    """Every graph of an export, as plain nir.read gives it."""
    write_folder(network, height, width, path)
    return {name: nir.read(path / name) for name in open_export(path).segments}


def dyadic_stream(graph: nir.NIRGraph) -> torch.Tensor:
    """Multiples of 2^-3 in [-2, 2] for the graph's Input, (T, C, H, W), float64."""
    shape = tuple(int(side) for side in graph.nodes["input"].input_type["input"])
    values = np.random.default_rng(sum(shape)).integers(-16, 17, (STEPS, *shape)) / 8
    return torch.from_numpy(values)


def run_client(load: Importer, graph: nir.NIRGraph, stream: torch.Tensor) -> tuple[torch.Tensor, Spikes]:
    """Output stream and the spikes of every LIF, seen by hooks on the importer's own modules."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # importers use deprecated functions, and print
        module = load(graph)
        spikes: dict[str, list[torch.Tensor]] = {}

        def record(name: str) -> Any:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                spikes.setdefault(name, []).append((output[0] if isinstance(output, tuple) else output)[0])

            return hook

        for name, node in graph.nodes.items():
            if isinstance(node, nir.LIF):
                module.get_submodule(name.replace(".", "_")).register_forward_hook(record(name))
        state, outputs = None, []
        with torch.no_grad():
            for frame in stream:
                output, state = module(frame[None], state)
                outputs.append(output[0])
    return torch.stack(outputs), {name: torch.stack(found).numpy() for name, found in spikes.items()}


def agrees(load: Importer, graph: nir.NIRGraph, dtype: torch.dtype) -> int:
    """Compare a client with NIR's own semantics, bit for bit; returns the number of spikes compared that are 1."""
    stream = dyadic_stream(graph)
    spikes: Spikes = {}
    expected = run_graph(graph, stream, DT_S, spikes.__setitem__)
    output, found = run_client(load, graph, stream.to(dtype))
    assert set(found) == set(spikes)
    for name, value in spikes.items():
        assert np.array_equal(found[name] != 0, value), f"{name}: {(found[name] != value).sum()} spikes differ"
    assert torch.equal(output.double(), expected)
    return sum(int(value.sum()) for value in spikes.values())


def snntorch_importer() -> Importer:
    from snntorch.import_nir import import_from_nir

    return import_from_nir


def norse_importer() -> Importer:
    norse = pytest.importorskip("norse.torch.utils.import_nir", reason="norse is not installed")
    return lambda graph: norse.from_nir(graph, dt=DT_S)


def spikingjelly_importer() -> Importer:
    reason = "spikingjelly < 2 has no NIR importer; 2.0.0 needs Python 3.11"
    pytest.importorskip("spikingjelly", reason="spikingjelly is not installed")
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange.from_nir", reason=reason)
    return lambda graph: exchange.import_from_nir(graph, dt=DT_S, dtype=torch.float64)


CLIENTS = {
    "snntorch": (snntorch_importer, torch.float32),
    "spikingjelly": (spikingjelly_importer, torch.float64),
}


@pytest.fixture(params=CLIENTS)
def client(request) -> tuple[Importer, torch.dtype]:
    find, dtype = CLIENTS[request.param]
    return find(), dtype


FORMS = {**stock_networks(), "mixed": mixed_network(), "gated": gated_network()}
PER_CHANNEL = FORMS.pop("threshold per channel")


@pytest.mark.parametrize("name", FORMS)
def test_every_stock_form(client, name, tmp_path):
    for graph in graphs(FORMS[name], tmp_path / "nir").values():
        fires = any(isinstance(node, nir.LIF) for node in graph.nodes.values())
        assert (agrees(client[0], graph, client[1]) > 0) == fires


def test_every_segment_of_both_networks(request, client, either_network, tmp_path):
    found = graphs(dyadic_weights(either_network), tmp_path / "nir", 16, 16)
    assert len(found) == {"released": 11, "spike_driven": 12}[request.node.callspec.params["either_model"]]
    spikes = {name: agrees(client[0], graph, client[1]) for name, graph in found.items()}
    with_lif = {name for name, graph in found.items() if any(isinstance(n, nir.LIF) for n in graph.nodes.values())}
    assert {name for name, count in spikes.items() if count} == with_lif


def test_trained_weights_in_float64(golden_network, tmp_path):
    """No dyadic weights needed where the importer keeps float64: sums differ in the last bits only, spikes do not."""
    load = spikingjelly_importer()
    for graph in graphs(golden_network, tmp_path / "nir", 16, 16).values():
        stream = dyadic_stream(graph)
        spikes: Spikes = {}
        expected = run_graph(graph, stream, DT_S, spikes.__setitem__)
        output, found = run_client(load, graph, stream)
        assert all(np.array_equal(found[name] != 0, value) for name, value in spikes.items())
        assert (output - expected).abs().max() < 1e-12


@pytest.mark.parametrize("network", [FORMS["chain"], PER_CHANNEL], ids=lambda network: network.name)
def test_norse_reads_chains(network, tmp_path):
    load = norse_importer()
    for graph in graphs(network, tmp_path / "nir").values():
        assert agrees(load, graph, torch.float32) > 0


def test_norse_gets_joins_wrong_without_a_word(tmp_path):
    """Recorded, so that docs/nir.md stays true: two edges into one node are not their sum there."""
    load = norse_importer()
    (graph,) = graphs(FORMS["residual block"], tmp_path / "nir").values()
    with pytest.raises(AssertionError, match=r"l3: \d+ spikes differ"):
        agrees(load, graph, torch.float32)


def test_importers_refuse_a_threshold_per_channel(client, tmp_path):
    """Both want one threshold per LIF, and say so; NIR itself and norse do not."""
    (graph,) = graphs(PER_CHANNEL, tmp_path / "nir").values()
    with pytest.raises((AssertionError, ValueError), match=r"v_threshold must be (the same|same|uniform)"):
        run_client(client[0], graph, dyadic_stream(graph).to(client[1]))


def test_the_example_in_the_documentation_runs(tiny_network, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).resolve().parents[4] / "docs" / "nir.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    write_folder(tiny_network, 16, 16, tmp_path / "ckpt_nir")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(example, "docs/nir.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed == "00_patch_embed.nir (16, 16, 16) ['patch_embed.proj', 'encoder_level1.0.sum']"
