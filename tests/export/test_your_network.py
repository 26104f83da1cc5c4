"""to_nir.py, to_onnx.py and to_lava_dl.py for networks of a user's: each file is run before it appears."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from esdnet.command.errors import UserError
from export.graph.stream import run_once
from export.integer.to_loihi import loihi_network
from export.open_network import Reading, open_network
from export.readers.netx import read_netx
from export.readers.nir import read_nir
from export.targets.loihi.check import check_available
from export.targets.nir import stock_file
from export.to_lava_dl import main as to_lava_dl
from export.to_nir import main as to_nir
from export.to_onnx import main as to_onnx

MODULE = """
import snntorch as snn
import torch
from torch import nn

AT_ONCE = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}

def chain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), snn.Leaky(beta=0.9, threshold=0.4, **AT_ONCE), nn.Flatten(),
        nn.Linear(72, 10), snn.Synaptic(alpha=0.75, beta=0.5, threshold=0.3, **AT_ONCE))

def pooled():
    return nn.Sequential(
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 4), snn.Leaky(beta=0.5, threshold=0.1, **AT_ONCE))

def as_tutorials_write_it():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), snn.Leaky(beta=0.5, init_hidden=True, threshold=0.1))

class Recurrent(nn.Module):
    def __init__(self, bias):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(64, 12)
        self.lif = snn.RLeaky(beta=0.9, linear_features=12, threshold=0.3, **AT_ONCE)
        if not bias:
            self.lif.recurrent.bias.data.zero_()

    def forward(self, x):
        return self.lif(self.fc(x.flatten(1)))

def recurrent():
    return Recurrent(False)

def biased():
    return Recurrent(True)
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODULE)
    np.save("x.npy", np.random.default_rng(0).random((25, 1, 8, 8)) < 0.4)
    return tmp_path


@pytest.mark.parametrize("name", ["chain", "recurrent"])
def test_nir_files_are_read_back_and_run(files, capsys, name):
    assert to_nir([f"net.py:{name}", "--input", "x.npy"]) == 0
    assert "read back, 0 of " in capsys.readouterr().out
    _, spikes = run_once(read_nir(files / f"{name}.nir", carries="spike"), np.load("x.npy"))
    assert all(fired.any() for fired in spikes.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("as_tutorials_write_it", "2 (leaky): reset 'subtract', a step later, expected to zero at once, as NIR has it"),
        ("biased", "lif.recurrent (linear): a bias on what it reads of lif a step before, expected none"),
    ],
)
def test_what_nir_cannot_say_exactly_is_refused(files, capsys, name, message):
    assert to_nir([f"net.py:{name}", "--input", "x.npy"]) == 2
    assert message in capsys.readouterr().err
    assert not list(files.glob("*.nir"))


def test_a_file_that_fires_otherwise_is_not_left_behind(files, capsys, monkeypatch):
    rule = stock_file.DT_S
    monkeypatch.setattr(stock_file, "DT_S", rule * 1.1)
    assert to_nir(["net.py:chain", "--input", "x.npy"]) != 0
    assert not list(files.glob("*.nir"))


@pytest.mark.parametrize("name", ["chain", "recurrent", "biased", "as_tutorials_write_it", "pooled"])
def test_onnx_files_of_one_step(files, capsys, name):
    assert to_onnx([f"net.py:{name}", "--input", "x.npy", "--precision", "float64"]) == 0
    assert "ONNX Runtime ran it, float64: 0 of " in capsys.readouterr().out
    onnx.checker.check_model(onnx.load(files / f"{name}.onnx"), full_check=True)


def test_net_files(files, capsys):
    assert to_lava_dl(["net.py:chain", "--input", "x.npy", "--no-check"]) == 0
    assert "spikes in float64" in capsys.readouterr().out
    network = read_netx(files / "chain.net", 40, 1)
    quiet = np.zeros((2, 1, 8, 8), bool)  # a layer sends a step later
    _, spikes = run_once(network, np.concatenate([np.load("x.npy"), quiet]))

    integer = loihi_network(open_network("net.py:chain", np.load("x.npy"), "spike", Reading()))
    _, expected = run_once(integer, np.load("x.npy"))
    found = list(spikes.values())
    assert np.array_equal(found[0][1:-1], expected["2"])
    assert np.array_equal(found[1][2:], expected["5"])
    assert expected["5"].any()


@pytest.mark.slow  # Lava-DL takes ten seconds to import
@pytest.mark.parametrize("name", ["chain", "recurrent"])
def test_lava_dl_runs_them(files, capsys, name):
    try:
        check_available()
    except UserError as error:
        pytest.skip(str(error))
    assert to_lava_dl([f"net.py:{name}", "--input", "x.npy"]) == 0
    assert "Lava-DL's loader ran it: 0 of " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("as_tutorials_write_it", "int8: 2 (leaky): reset 'subtract', a step later"),
        ("pooled", "int8: 2 (linear): reads the numbers of 1, expected spikes"),
    ],
)
def test_what_netx_has_no_layer_for_is_refused(files, capsys, name, message):
    assert to_lava_dl([f"net.py:{name}", "--input", "x.npy", "--no-check"]) == 2
    assert message in capsys.readouterr().err
    assert not list(files.glob("*.net"))
