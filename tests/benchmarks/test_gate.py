"""The comparison of gates on a few made images: what is trained, told, measured and shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gate
from benchmarks.gate import Oracle, Veto, main, measure
from esdnet.networks.checkpoint import save_checkpoint
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.gate import MorphologicalGate
from esdnet.networks.esdnet.model import ESDNet
from tests.gated import gated_model, rainy


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("gate") / "trained.pt"
    save_checkpoint(path, ESDNet(preset("tiny_spike_driven")))
    return path


def command(pairs: Path, out: Path, *more: str) -> list[str]:
    data = ["--data", str(pairs), "--held-out", "1", "--scored", f"pairs={pairs}", "--limit", "2", "--batch", "1"]
    return [*data, "--steps", "2", "--seeds", "0", "--out", str(out), *more]


@pytest.mark.slow
def test_gates_and_frontier_are_trained_once_and_shown(pairs, trained, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(gate, "FRONTIER", ((1, 0.0), (2, 0.3)))
    out = tmp_path / "gate"
    assert main(command(pairs, out, "--init", str(trained))) == 0
    text = capsys.readouterr().out
    runs = json.loads((out / "gate.json").read_text())["runs"]
    assert [(run["gate"], run["steps"]) for run in runs] == [*((name, 2) for name in gate.GATES), ("learnt", 1)]
    scores = {run["gate"]: run["scores"]["pairs"] for run in runs if run["steps"] == 2}
    assert scores["none"]["open"] == 1
    assert 0 < scores["oracle"]["open"] < 1
    assert scores["oracle"]["spikes_per_synapse"] < scores["none"]["spikes_per_synapse"]
    assert f"| oracle | {scores['oracle']['psnr']:.2f} |" in text
    assert (out / "frontier.png").stat().st_size > 5000
    first = (out / "oracle_T2_price0.3_seed0" / "last.pt").read_bytes()
    assert main(command(pairs, out, "--init", str(trained))) == 0
    assert (out / "oracle_T2_price0.3_seed0" / "last.pt").read_bytes() == first
    assert capsys.readouterr().out == text


def test_what_an_oracle_shuts_stays_as_it_is() -> None:
    torch.manual_seed(0)
    network = ESDNet(replace(preset("tiny_spike_driven"), steps=2)).eval()
    network.gate = Oracle()
    clean = np.full((16, 20, 3), 0.5)
    rainy = clean.copy()
    rainy[4:8, 10, 1] += 0.1
    found = measure(network, [(rainy, clean)])
    assert found["open"] == pytest.approx(4 / (16 * 20))
    everywhere = measure(network, [(clean + 0.1, clean)])
    assert everywhere["open"] == 1
    assert found["spikes_per_synapse"] < everywhere["spikes_per_synapse"]
    assert found["psnr"] > everywhere["psnr"]


def test_a_veto_opens_what_both_gates_open() -> None:
    network = gated_model("learnt")
    image = torch.from_numpy(rainy())[None]
    features = network._embed(image)
    learnt, morphological = (gate(image, features).bool() for gate in (network.gate, MorphologicalGate()))
    found = Veto(network.gate)(image, features)
    assert torch.equal(found.bool(), learnt & morphological)
    assert 0 < found.sum() < min(learnt.sum(), morphological.sum())


def test_a_network_that_has_a_gate_is_refused(pairs, tmp_path, capsys) -> None:
    save_checkpoint(tmp_path / "gated.pt", ESDNet(preset("tiny_gated")))
    assert main(command(pairs, tmp_path / "out", "--init", str(tmp_path / "gated.pt"))) == 2
    assert "expected a spike-driven network without a gate" in capsys.readouterr().err
