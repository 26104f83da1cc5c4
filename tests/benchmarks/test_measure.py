from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import baselines, run
from benchmarks.measure import BARE, COUNTED, STEPPED, contestants, crop, peak_memory, time_rounds
from benchmarks.report import page
from esdnet.networks.checkpoint import save_checkpoint
from esdnet.networks.esdnet.lif import LIF

ROOT = Path(__file__).parents[2]


def test_the_baselines_compute_the_same_function(tiny_model, photo):
    x = torch.from_numpy(photo)[None].double()
    model = type(tiny_model)(tiny_model.config)
    model.load_state_dict(tiny_model.state_dict())
    model.double().eval()
    with torch.no_grad():
        expected = model(x)
        folded, stepped = baselines.folded(model), baselines.step_by_step(model)
        assert (folded(x) - expected).abs().max() < 1e-9
        assert (stepped(x) - expected).abs().max() < 1e-9
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert not any(module.fused for module in stepped.modules() if isinstance(module, LIF))
    assert any(module.fused for module in model.modules() if isinstance(module, LIF))  # the original is as it was


def test_crops_are_of_the_photo_and_mirrored_beyond_it():
    small, large = crop(64), crop(300)
    assert small.shape == (3, 64, 64)
    assert small.dtype == np.float32
    assert np.array_equal(large[:, :64, :64], small)
    assert np.array_equal(large[:, 256:, :], large[:, 212:256, :][:, ::-1])  # 256 rows, then backwards


def test_times_are_medians_and_ratios_of_rounds():
    calls = []
    times = time_rounds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, "a")
    assert calls == ["a", "b"] * 4  # one to warm up
    assert times["a"]["ratio"] == times["a"]["cpu_ratio"] == 1.0


def test_memory_is_what_a_run_adds():
    """200 MB of float64, in a process of its own as in the benchmarks: in this one, what was freed is used first."""
    program = (
        "import numpy; from benchmarks.measure import added_memory_mb;"
        " print(added_memory_mb(lambda: numpy.ones(200 * 2**17)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 195 < float(done.stdout) < 205


def test_every_contestant_runs_the_image(tiny_model, tiny_network):
    runs = contestants(tiny_model, tiny_network, crop(16))
    assert {BARE, COUNTED, STEPPED} <= set(runs)
    for name, one in runs.items():
        assert one() is not None, name


@pytest.fixture
def checkpoint(tmp_path, tiny_model):
    save_checkpoint(tmp_path / "tiny.pt", tiny_model)
    return tmp_path / "tiny.pt"


@pytest.mark.slow
def test_the_command_writes_numbers_and_page(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "peak_memory", lambda *_: 1.0)  # a process each: test_memory_is_what_a_run_adds
    options = ["--compare", "16", "--sizes", "16", "32", "--steps", "1", "2", "--rounds", "1"]
    files = ["--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md")]
    threads = torch.get_num_threads()
    assert run.main(["--checkpoint", str(checkpoint), *options, *files]) == 0
    torch.set_num_threads(threads)
    content = json.loads((tmp_path / "b.json").read_text())
    assert set(content["sizes"]) == {"16", "32"}
    assert content["sizes"]["32"]["macs"] > content["sizes"]["16"]["macs"]
    assert content["steps"]["2"]["macs"] > content["steps"]["1"]["macs"]
    text = (tmp_path / "b.md").read_text()
    assert f"{content['sizes']['32']['spikes']:,}" in text
    assert "## Other counters" not in text  # none were asked for


def test_mistakes_are_said_in_one_line(checkpoint, tmp_path, capsys):
    arguments = ["--checkpoint", str(checkpoint), "--compare", "16", "--sizes", "16", "--steps", "1", "--rounds", "1"]
    assert run.main([*arguments, "--json", "nowhere/b.json"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err
    assert run.main([*arguments[:-1], "0", "--json", str(tmp_path / "b.json")]) == 2
    assert run.main(["--sizes", "30", "--json", str(tmp_path / "b.json")]) == 2
    assert "sizes must be multiples of 4" in capsys.readouterr().err


def test_the_page_says_which_peer_was_not_run():
    one = {"seconds": 1.0, "cpu_seconds": 1.0, "ratio": 1.0, "cpu_ratio": 1.0}
    peers = {
        "ours": {"acs": 12345, "macs": 67},
        "versions": {"torch": "2"},
        "counted": {
            "NeuroBench SynapticOperations": {"missing": "ImportError: none"},
            "spikingjelly SynOpCounter": {"SynOpCounter": 12345},
        },
        "times": {BARE: one},
    }
    where = {
        "checkpoint": "x",
        "cpu": "y",
        "cores": 2,
        "torch": "2",
        "threads": 1,
        "python": "3",
        "rounds": 1,
        "load_before": 0.0,
    }
    text = page({"where": where, "compare": {}, "sizes": {}, "steps": {}, "peers": peers})
    assert "| NeuroBench SynapticOperations | not run | ImportError: none |" in text
    assert text.count("12,345") == 2


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own_wherever_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 1 < peak_memory(STEPPED, run.CHECKPOINT, 64, 1) < 200
