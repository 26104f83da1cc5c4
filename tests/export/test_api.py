"""`export.read`, `to_nir`, `to_onnx`, `to_lava_dl`: the graphs and files of the commands, and mistakes in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import esdnet
import export
from esdnet.command.errors import UserError
from export.graph.store import network_digest
from export.graph.stream import run_once
from export.open_network import Reading, open_network
from export.readers.dual_stage import lower as lower_dual_stage
from export.readers.esdnet import lower
from export.targets.loihi.check import check_available
from export.targets.nir import graph as nir_graph
from export.targets.nir import stock_file
from export.to_lava_dl import main as to_lava_dl
from export.to_nir import main as to_nir
from export.to_onnx import main as to_onnx
from tests.export.test_your_network import MODULE
from tests.random_networks import random_gated


@pytest.fixture
def frames(tmp_path, monkeypatch) -> np.ndarray:
    """Spikes for the networks in net.py."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(MODULE, encoding="utf-8")
    spikes = np.random.default_rng(0).random((25, 1, 8, 8)) < 0.4
    np.save("x.npy", spikes)
    return spikes


@pytest.fixture
def chain() -> nn.Module:
    """The module of net.py's `chain`."""
    names: dict = {}
    exec(MODULE, names)
    module = names["chain"]()
    assert isinstance(module, nn.Module)
    return module


def test_a_module_a_function_and_a_file_are_read_as_the_commands_read_them(frames, chain):
    expected = open_network("net.py:chain", frames, "spike", Reading())
    for source in (chain, "net.py:chain"):
        network = export.read(source, frames)
        assert isinstance(network, export.Network)
        assert [node.kind for node in network.nodes] == [node.kind for node in expected.nodes]
        assert fired(network, frames) == fired(expected, frames)
    export.to_nir(chain, "chain.nir", frames)
    for path in ("chain.nir", Path("chain.nir")):
        assert fired(export.read(path, input_kind="spike"), frames) == fired(expected, frames)
    slower = export.read("chain.nir", input_kind="spike", dt=2e-4)
    assert fired(slower, frames) != fired(expected, frames)


def fired(network: export.Network, frames: np.ndarray) -> list[int]:
    spikes = [int(spikes.sum()) for spikes in run_once(network, frames)[1].values()]
    assert all(spikes)
    return spikes


def test_networks_of_ours_are_read_without_an_input(spike_driven_model, dual_stage_model):
    for model, expected in (
        (spike_driven_model, lower(spike_driven_model, "ESDNet")),
        (dual_stage_model, lower_dual_stage(dual_stage_model, "DualStage")),
    ):
        assert network_digest(export.read(model)) == network_digest(expected)


def test_files_of_a_network_of_ones_own_are_those_of_the_commands(frames, chain, capsys):
    for source, name in ((chain, "module"), (export.read(chain, frames), "graph")):
        capsys.readouterr()
        assert to_nir(["net.py:chain", "--input", "x.npy", "-o", f"{name}.nir"]) == 0
        assert export.to_nir(source, f"{name}.nir", frames) == capsys.readouterr().out.strip()
        assert to_onnx(["net.py:chain", "--input", "x.npy", "-o", f"{name}.onnx", "--precision", "float64"]) == 0
        by_command = Path(f"{name}.onnx").read_bytes()
        said = export.to_onnx(source, f"{name}.onnx", frames, precision="float64")
        assert said == capsys.readouterr().out.strip()
        assert len(Path(f"{name}.onnx").read_bytes()) == pytest.approx(len(by_command), rel=0.02)  # names differ


@pytest.mark.slow
def test_a_folder_of_nir_is_the_commands(tmp_path, spike_driven_model, capsys):
    said = export.to_nir(spike_driven_model, tmp_path / "nir", input_size=(16, 20))
    assert capsys.readouterr().out == ""
    assert " 0 differ (promise: 0)" in said
    assert said.splitlines()[-1].endswith("for images of 16x20")
    assert network_digest(export.read(tmp_path / "nir")) == network_digest(lower(spike_driven_model))


@pytest.mark.parametrize("model", ["tiny_model", pytest.param("dual_stage_model", marks=pytest.mark.slow)])  # traced
def test_an_onnx_file_of_a_network_of_ours(request, model, tmp_path):
    said = export.to_onnx(request.getfixturevalue(model), tmp_path / "x.onnx")
    assert said.splitlines()[0].startswith("ONNX opset ")
    assert said.splitlines()[-1].endswith("for images of any height and width")


@pytest.mark.slow  # Lava-DL takes ten seconds to import
def test_net_files_are_those_of_the_command(frames, chain, capsys):
    try:
        check_available()
    except esdnet.UserError as error:
        pytest.skip(str(error))
    assert to_lava_dl(["net.py:chain", "--input", "x.npy", "-o", "x.net"]) == 0
    command = capsys.readouterr().out.strip()
    assert export.to_lava_dl(chain, "x.net", frames) == command
    assert export.read("x.net").nodes


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_folder_of_netx_runs_on_lava(tmp_path, spike_driven_model):
    try:
        check_available()
    except esdnet.UserError as error:
        pytest.skip(str(error))
    said = export.to_lava_dl(spike_driven_model, tmp_path / "netx", input_size=(16, 16))
    assert "ACs inside netx: " in said
    assert (tmp_path / "netx" / "manifest.json").is_file()


def test_what_computes_something_else_is_not_written(frames, chain, monkeypatch, tmp_path, tiny_model):
    with monkeypatch.context() as changed:
        changed.setattr(stock_file, "DT_S", stock_file.DT_S * 1.1)
        with pytest.raises(export.CheckFailed, match="in the file read back"):
            export.to_nir(chain, "chain.nir", frames)
    encode = nir_graph.encode_lif
    monkeypatch.setattr(nir_graph, "encode_lif", lambda node: encode(replace(node, threshold=node.threshold * 0.9)))
    with pytest.raises(export.CheckFailed, match="failures"):
        export.to_nir(tiny_model, "folder", input_size=(16, 16))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.py", "x.npy"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, x: export.read(net), "read: a Sequential is run once to be read; give frames"),
        (lambda net, x: export.read("net.py:chain"), "read: net.py:chain is run once to be read; give frames"),
        (lambda net, x: export.read("nowhere.nir"), "--network nowhere.nir: not found"),
        (lambda net, x: export.to_nir(net, "x.nir"), "to_nir: what is written is run before it appears; give frames"),
        (lambda net, x: export.to_nir("x.nir", "y.nir", x), "to_nir: found a str, expected a torch module, or what"),
        (lambda net, x: export.to_nir(net, "no/x.nir", x), "to_nir no/x.nir: there is no folder no; make it first"),
        (lambda net, x: export.to_nir(net, "x.nir", x[:, :, :4]), "Sequential: "),
        (lambda net, x: export.read(net, torch.from_numpy(x)), "read: frames are a Tensor, expected a NumPy array"),
        (lambda net, x: export.to_nir(net, "x.nir", x.tolist()), "to_nir: frames are a list, expected a NumPy array"),
        (lambda net, x: export.read(nn.Linear), "read: found a class, Linear, expected a torch module, a file, or"),
        (lambda net, x: export.read(None), "read: found a NoneType, expected a torch module, a file, or"),
        (lambda net, x: export.read(net, x, input_kind="spikes"), "read: input_kind is 'spikes', expected one of"),
        (lambda net, x: export.to_nir(net, "x.nir", x, input_size=64), "to_nir: input_size is 64, expected (he"),
        (lambda net, x: export.to_onnx(net, "x.onnx", x, precision="float16"), "to_onnx: precision is 'float16'"),
        (lambda net, x: export.to_onnx(net, "x.onnx"), "to_onnx: what is written is run before it appears"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(frames, chain, call, message):
    with pytest.raises(export.UserError) as error:
        call(chain, frames)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in Path().iterdir()) == ["net.py", "x.npy"]


@pytest.mark.parametrize(
    ("write", "target"),
    [(export.to_nir, "NIR, one file"), (export.to_onnx, "ONNX, one step"), (export.to_lava_dl, "int8")],
)
def test_files_that_have_no_form_for_a_gate_are_not_written(write, target, tmp_path):
    with pytest.raises(UserError, match=rf"^{target}: conv14 \(conv\): has a gate, resize11, expected none; run it in"):
        write(random_gated(0), tmp_path / "gated", np.zeros((3, 8, 8)))
    assert not list(tmp_path.iterdir())


def test_networks_of_ours_take_no_frames(tiny_model, dual_stage_model, tmp_path):
    with pytest.raises(
        export.UserError, match=r"^to_nir: this ESDNet is checked on images; frames are for other networks"
    ):
        export.to_nir(tiny_model, tmp_path / "x", np.zeros((4, 3, 16, 16)))
    with pytest.raises(export.UserError, match=r"^to_nir: found a DualStage, expected a network of neurons, an ESDNet"):
        export.to_nir(dual_stage_model, tmp_path / "x")
