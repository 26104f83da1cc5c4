"""NIR files that others wrote: read, run, and equal in every spike, operation and output to what they must give."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import torch

from esdnet.command.errors import UserError
from export.graph import nodes as g
from export.readers.nir import read_nir
from hw_sim.backends.result import Result
from hw_sim.backends.simulator import run_sequence
from tests.export.readers import nir_steps
from tests.export.readers.public_nir import EXTERNAL, needs_external, quiet

PUBLIC = ["lif_norse", "cnn_sinabs", "scnn_mnist_old_encoding", "braille_noDelay_bias_zero"]
FIELDS = {"spikes": "spikes", "acs": "acs", "macs": "macs", "effective": "nonzero_macs"}


def run_file(path: Path, frames: np.ndarray, **choices: Any) -> Result:
    return run_sequence(read_nir(path, carries="spike" if frames.dtype == bool else "analog", **choices), frames)


# --- files of others --------------------------------------------------------------------------------------------------


@needs_external
@pytest.mark.parametrize("name", PUBLIC)
def test_public_files(name):
    """Output, spikes, ACs, MACs and MACs on numbers other than 0, node by node and in all."""
    frames, output = (np.load(EXTERNAL / f"{name}.{part}.npy") for part in ("input", "expected_output"))
    expected = json.loads((EXTERNAL / f"{name}.expected.json").read_text(encoding="utf-8"))
    found = run_file(EXTERNAL / f"{name}.nir", frames)
    assert np.array_equal(found.output.reshape(output.shape), output)
    counts = {node: counted.totals() for node, counted in found.counts.items()}
    for node, numbers in expected["layers"].items():
        assert {field: counts[node][FIELDS[field]] for field in numbers} == numbers, node
    for field, number in expected["totals"].items():
        assert sum(counted[FIELDS[field]] for counted in counts.values()) == number, field


@needs_external
@pytest.mark.parametrize("name", PUBLIC)
def test_the_interpreter_of_the_tests_gives_the_same(name):
    """So that what it says of random graphs can be believed. Old files count a batch axis when they flatten."""
    graph = nir.read(EXTERNAL / f"{name}.nir", type_check=False)
    for node in graph.nodes.values():
        if isinstance(node, nir.Flatten):
            node.start_dim = 0
    frames, output = (np.load(EXTERNAL / f"{name}.{part}.npy")[:20] for part in ("input", "expected_output"))
    found = nir_steps.run(graph, frames)
    assert np.array_equal(np.array(found["output"].value), output)
    result = run_file(EXTERNAL / f"{name}.nir", frames)
    for node, counted in found.items():
        assert result.counts[node].totals()["acs"] == counted.acs
        assert result.counts[node].totals()["macs"] == counted.macs


@needs_external
@pytest.mark.parametrize("name", PUBLIC)
def test_one_node_of_the_network_for_each_of_the_file(name):
    with h5py.File(EXTERNAL / f"{name}.nir", "r") as file:
        names = set(file["node/nodes"])
    network = read_nir(EXTERNAL / f"{name}.nir")
    assert names <= set(network.by_name)
    sums = {node.name for node in network.nodes if node.name not in names}
    assert sums == ({"lif1.lif.sum"} if "braille" in name else set())


@needs_external
def test_parameters_are_those_of_the_file():
    network = read_nir(EXTERNAL / "braille_noDelay_bias_zero.nir")
    assert network.model_parameters == 38 * 12 + 38 + 38 * 38 + 38 + 7 * 38 + 7
    assert network.reader == "nir"


@needs_external
def test_nested_graphs(tmp_path):
    """The Braille network as its authors nested it, but for the name of one node, which its edges get wrong."""
    shutil.copyfile(EXTERNAL / "braille_noDelay_bias_zero_subgraph.nir", tmp_path / "x.nir")
    with pytest.raises(
        UserError, match=r"x\.nir: lif1: edge input -> lif: there is no node lif, expected one of input"
    ):
        read_nir(tmp_path / "x.nir")
    with h5py.File(tmp_path / "x.nir", "r+") as file:
        file.move("node/nodes/lif1/nodes/lif1", "node/nodes/lif1/nodes/lif")
    name = "braille_noDelay_bias_zero"
    frames, output = (np.load(EXTERNAL / f"{name}.{part}.npy") for part in ("input", "expected_output"))
    found, flat = run_file(tmp_path / "x.nir", frames), run_file(EXTERNAL / f"{name}.nir", frames)
    assert np.array_equal(found.output.reshape(output.shape), output)
    assert found.counts["lif1.lin"].totals() == flat.counts["lif1.w_rec"].totals()
    assert found.counts["lif1.lif"].totals() == flat.counts["lif1.lif"].totals()


# --- files that tools write now ---------------------------------------------------------------------------------------

STEPS = 200


def frames() -> np.ndarray:
    return np.random.default_rng(0).random((STEPS, 6)) < 0.5


def run_torch(module: Any, step: Any) -> np.ndarray:
    with torch.no_grad():
        return np.array([step(module, torch.from_numpy(frame[None].astype(float))) for frame in frames()])


@pytest.fixture
def in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def snntorch_net(layer: Any) -> Any:
    """Two spiking layers, the first of the given kind. Parameters per neuron: snnTorch writes no others."""
    snn = pytest.importorskip("snntorch")
    last = snn.Leaky(
        beta=torch.full((3,), 0.7), threshold=torch.full((3,), 0.4), init_hidden=True, output=True,
        reset_mechanism="zero", reset_delay=False,
    )  # fmt: skip
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), layer, torch.nn.Linear(8, 3), last)
    for part in net.modules():
        if isinstance(part, torch.nn.Linear):  # snnTorch hands spikes on in float32
            part.register_forward_pre_hook(lambda part, values: (values[0].double(),))
    return net


def snntorch_layers() -> dict[str, Any]:
    snn = pytest.importorskip("snntorch")
    common = dict(init_hidden=True, reset_mechanism="zero")
    ones = torch.ones(8)
    return {
        "Leaky": snn.Leaky(beta=0.8 * ones, threshold=0.5 * ones, reset_delay=False, **common),
        "Synaptic": snn.Synaptic(
            alpha=0.5 * ones, beta=0.8 * ones, threshold=0.5 * ones, reset_delay=False, **common
        ),
        "RLeaky": snn.RLeaky(beta=0.8, threshold=0.5, linear_features=8, reset_delay=False, **common),
        "RSynaptic": snn.RSynaptic(alpha=0.5, beta=0.8, threshold=0.5, linear_features=8, **common),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "RLeaky", "RSynaptic"])
def test_files_by_snntorch(in_float64, kind, tmp_path):
    exporter = pytest.importorskip("snntorch.export_nir")
    net = snntorch_net(snntorch_layers()[kind])
    with quiet():
        graph = exporter.export_to_nir(net, torch.randn(1, 6), ignore_dims=[0])
    nir.write(tmp_path / "x.nir", graph)
    for part in net.modules():
        if hasattr(part, "reset_mem"):
            part.reset_mem()  # the export ran it
    expected = run_torch(net, lambda net, frame: net(frame)[0][0].numpy())
    found = run_file(tmp_path / "x.nir", frames(), semantics="snntorch").output
    assert expected.sum() > 20
    assert np.array_equal(found.reshape(expected.shape), expected)


def test_files_by_norse(tmp_path):
    """Its exporter writes dt tau for tau: a dt of 1 writes tau. Its sample has no batch axis, or the file has one."""
    norse = pytest.importorskip("norse.torch", reason="norse is not installed")
    torch.manual_seed(0)

    def cell(size: int) -> Any:
        zeros = torch.zeros(size)
        return norse.LIFBoxCell(norse.LIFBoxParameters(torch.full((size,), 300.0), zeros, zeros + 0.1, zeros))

    net = norse.SequentialState(torch.nn.Linear(6, 8), cell(8), torch.nn.Linear(8, 3), cell(3))
    with quiet():
        graph = norse.to_nir(net, torch.randn(6), dt=1.0)
    nir.write(tmp_path / "x.nir", graph)
    state, expected = None, []
    with torch.no_grad():
        for frame in frames():
            spikes, state = net(torch.from_numpy(frame.astype(np.float32))[None], state)
            expected.append(spikes[0].numpy())
    found = run_file(tmp_path / "x.nir", frames(), dt=1e-3).output
    assert np.sum(expected) > 20
    assert np.array_equal(found.reshape(STEPS, 3), expected)


@pytest.mark.parametrize("kind", ["IFNode", "LIFNode", "CUBALIFNode"])
def test_files_by_spikingjelly(in_float64, kind, tmp_path):
    reason = "spikingjelly < 2 has no NIR exporter; 2.0.0 needs Python 3.11"
    exporter = pytest.importorskip("spikingjelly.activation_based.nir_exchange.to_nir", reason=reason)
    from spikingjelly.activation_based import functional, neuron

    fields = {"LIFNode": {"tau": 3.3}, "CUBALIFNode": {"c_decay": 0.4, "v_decay": 0.7}, "IFNode": {}}[kind]
    parts = [getattr(neuron, kind)(v_threshold=0.1, v_reset=0.0, **fields) for _ in range(2)]
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), parts[0], torch.nn.Linear(8, 3), parts[1])
    exporter.export_to_nir(net, torch.randn(1, 6), save_path=tmp_path / "x.nir")
    functional.reset_net(net)
    expected = run_torch(net, lambda net, frame: net(frame)[0].numpy())
    assert expected.sum() > 20
    for semantics in ("spikingjelly", "nir"):
        found = run_file(tmp_path / "x.nir", frames(), semantics=semantics).output
        assert np.array_equal(found.reshape(expected.shape), expected)


# --- plain NIR: what each choice does ---------------------------------------------------------------------------------


def write(path: Path, nodes: dict[str, Any], edges: list[tuple[str, str]] | None = None) -> Path:
    names = list(nodes)
    nir.write(path, nir.NIRGraph(nodes, edges or list(itertools.pairwise(names)), type_check=False))
    return path


def ends(shape: tuple[int, ...], **between: Any) -> dict[str, Any]:
    return {"input": nir.Input(np.array(shape)), **between, "output": nir.Output(np.array(shape))}


def outputs(path: Path, values: list[float], **choices: Any) -> list[float]:
    return run_file(path, np.array(values, float)[:, None], **choices).output.ravel().tolist()


def test_reset(tmp_path):
    node = nir.IF(r=np.ones(1), v_threshold=np.ones(1), v_reset=np.full(1, -1.0))
    path = write(tmp_path / "x.nir", ends((1,), neuron=node))
    assert outputs(path, [2.5, 1, 1, 1, 1]) == [1, 0, 0, 1, 0]
    assert outputs(path, [2.5, 1, 1, 1, 1], reset="subtract") == [1, 1, 1, 1, 1]


def test_v_reset_is_zero_where_an_old_file_has_none(tmp_path):
    node = nir.IF(r=np.ones(1), v_threshold=np.ones(1), v_reset=np.full(1, -1.0))
    path = write(tmp_path / "x.nir", ends((1,), neuron=node))
    with h5py.File(path, "r+") as file:
        del file["node/nodes/neuron/v_reset"]
    assert outputs(path, [2.5, 1, 1, 1, 1]) == [1, 0, 1, 0, 1]


def test_dt(tmp_path):
    path = write(tmp_path / "x.nir", ends((1,), li=nir.LI(tau=np.full(1, 4e-4), r=np.ones(1), v_leak=np.zeros(1))))
    assert outputs(path, [1, 1]) == [0.25, 0.4375]
    assert outputs(path, [1, 1], dt=2e-4) == [0.5, 0.75]


def test_integrators_know_no_dt_unless_they_say_so(tmp_path):
    for r in (1.0, 1e4):
        path = write(tmp_path / "x.nir", ends((1,), integrator=nir.I(np.full(1, r))))
        assert outputs(path, [1, 2, 3]) == [1, 3, 6]


def test_a_delay_is_whole_steps(tmp_path):
    path = write(tmp_path / "x.nir", ends((1,), delay=nir.Delay(np.full(1, 3e-4, np.float32))))
    assert outputs(path, [1, 2, 3, 4, 5]) == [0, 0, 0, 1, 2]
    assert outputs(path, [1, 2, 3, 4, 5], dt=3e-4) == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match=r"delay \(Delay\): a delay is 1\.5 steps of 0\.0002 s, expected whole steps"):
        read_nir(path, dt=2e-4)


def test_a_cycle_through_a_delay_takes_the_time_of_the_delay(tmp_path):
    """x(t) + 2 y(t - 3): the delay closes the cycle, and no other edge is late."""
    nodes = ends((1,), sum=nir.Scale(np.ones(1)), delay=nir.Delay(np.full(1, 3e-4)), twice=nir.Scale(np.full(1, 2.0)))
    edges = [("input", "sum"), ("sum", "delay"), ("delay", "twice"), ("twice", "sum"), ("sum", "output")]
    path = write(tmp_path / "x.nir", nodes, edges)
    assert outputs(path, [1, 0, 0, 0, 0, 0, 5, 0]) == [1, 0, 0, 2, 0, 0, 9, 0]


def test_a_cycle_takes_one_step(tmp_path):
    nodes = ends((1,), sum=nir.Scale(np.ones(1)), twice=nir.Affine(np.full((1, 1), 2.0), np.full(1, 10.0)))
    edges = [("input", "sum"), ("sum", "twice"), ("twice", "sum"), ("sum", "output")]
    path = write(tmp_path / "x.nir", nodes, edges)
    assert outputs(path, [1, 0, 0]) == [1, 12, 34]  # nothing comes round before the first step, no bias either


def test_several_outputs(tmp_path):
    nodes = ends((2,), twice=nir.Scale(np.full(2, 2.0)))
    nodes["plain"] = nir.Output(np.array([2]))
    path = write(tmp_path / "x.nir", nodes, [("input", "twice"), ("twice", "output"), ("input", "plain")])
    found = run_file(path, np.array([[1.0, 3.0]])).outputs
    assert {name: value.ravel().tolist() for name, value in found.items()} == {"output": [2, 6], "plain": [1, 3]}


def test_constants_are_kept_once(tmp_path):
    """Files write a number per element; what does not vary along an axis is one number, in memory and in counts."""
    shape = (3, 4, 5)
    per_channel = np.broadcast_to(np.arange(1.0, 4)[:, None, None], shape).copy()
    node = nir.IF(r=np.ones(shape), v_threshold=per_channel)
    found = read_nir(write(tmp_path / "x.nir", ends(shape, neuron=node)))["neuron"]
    assert isinstance(found, g.EulerNeuron)
    assert found.r.shape == ()
    assert found.threshold.shape == (3, 1, 1)


def test_a_value_that_is_also_flattened_is_not_written_over(tmp_path):
    """A sum may take the memory of what it is the last to read, but not that of what an output still shows."""
    shape = (2, 1, 1)
    nodes = ends(shape, scale=nir.Scale(np.ones(shape)), flat=nir.Flatten({"input": np.array(shape)}, 0, -1))
    nodes |= {"sum": nir.Scale(np.ones(shape)), "vector": nir.Output(np.array([2]))}
    edges = [("input", "scale"), ("scale", "flat"), ("flat", "vector"), ("scale", "sum"), ("input", "sum")]
    path = write(tmp_path / "x.nir", nodes, [*edges, ("sum", "output")])
    found = run_file(path, np.ones((1, *shape))).outputs
    assert {name: value.ravel().tolist() for name, value in found.items()} == {"output": [2, 2], "vector": [1, 1]}
