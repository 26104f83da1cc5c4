"""Whose arithmetic: every semantics equals its reference, a program that runs here or the recording of one, spike for
spike."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch

from esdnet.command.errors import UserError
from export.graph.states import open_state
from export.readers.nir import read_nir
from hw_sim.backends.simulator import run_sequence
from tests.export.importers import double_inputs
from tests.export.readers.nir_steps import flatten
from tests.export.readers.public_nir import EXTERNAL, needs_external, quiet

DT = 1e-4
STEPS = 200


def recording(name: str) -> np.ndarray:
    """(1000, 3): input, voltage, spikes."""
    return np.loadtxt(EXTERNAL / f"lif_{name}.csv", delimiter=",")


@needs_external
@pytest.mark.parametrize(
    ("semantics", "reset"), [("nir", "v_reset"), ("snntorch", "v_reset"), ("spyx", "subtract")]
)  # fmt: skip
def test_recorded_voltages(semantics, reset):
    """In float32, as recorded, every bit. The spikes of all recordings: tests/docs/test_semantics_page.py."""
    recorded = recording("norse" if semantics == "nir" else semantics)
    network = read_nir(EXTERNAL / "lif_norse.nir", semantics=semantics, reset=reset)
    state = open_state(network["1"], torch.zeros(1, 1, 1))
    for x, voltage in recorded[:, :2].astype(np.float32):
        state.step(torch.full((1, 1, 1), float(x)))
        assert float(state.membrane) == voltage


def vector(rng: np.random.Generator, size: int, low: float, high: float, same: bool) -> np.ndarray:
    return np.full(size, rng.uniform(low, high)) if same else rng.uniform(low, high, size)


def chain(kind: str, seed: int = 0, same: bool = True, scaled: bool = False, bias: bool = True) -> nir.NIRGraph:
    """Two layers with weights that round. `scaled`: parameters as exporters that know no factors write them."""
    rng = np.random.default_rng(seed)

    def neuron(size: int) -> Any:
        tau, tau_syn = vector(rng, size, 3e-4, 9e-4, same), vector(rng, size, 2e-4, 6e-4, same)
        fields = dict(v_leak=np.zeros(size), v_threshold=vector(rng, size, 0.4, 0.8, same))
        if kind == "LIF":
            return nir.LIF(tau=tau, r=tau / DT if scaled else np.ones(size), **fields)
        if kind == "IF":
            return nir.IF(r=np.full(size, 1 / DT if scaled else 1.0), v_threshold=fields["v_threshold"])
        w_in = tau_syn / DT if scaled else vector(rng, size, 1.0, 2.0, same)
        return nir.CubaLIF(tau_mem=tau, tau_syn=tau_syn, r=tau / DT, w_in=w_in, **fields)

    first, second = rng.normal(0, 1, (8, 6)), rng.normal(0, 1, (5, 8))
    nodes = {
        "input": nir.Input(np.array([6])),
        "fc1": nir.Affine(first, rng.normal(0, 0.3, 8)) if bias else nir.Linear(first),
        "lif1": neuron(8), "fc2": nir.Linear(second), "lif2": neuron(5), "output": nir.Output(np.array([5])),
    }  # fmt: skip
    names = list(nodes)
    return nir.NIRGraph(nodes, list(itertools.pairwise(names)))


def recurrent(kind: str, bias: bool, seed: int = 0) -> nir.NIRGraph:
    """The first layer of a chain reads its own spikes through a matrix."""
    graph = chain(kind, seed, scaled=True, bias=bias)
    rng = np.random.default_rng(seed + 1)
    weight = rng.normal(0, 0.5, (8, 8))
    graph.nodes["w_rec"] = nir.Affine(weight, rng.normal(0, 0.5, 8)) if bias else nir.Linear(weight)
    graph.edges = [("lif1", "w_rec"), ("w_rec", "lif1"), *graph.edges]  # norse gives what it runs last
    return graph


def frames() -> np.ndarray:
    return np.random.default_rng(5).random((STEPS, 6)) < 0.4


def ours(graph: nir.NIRGraph, path: Path, semantics: str) -> dict[str, np.ndarray]:
    """Spikes by neuron, (T, N)."""
    nir.write(path, graph)
    found = run_sequence(read_nir(path, semantics=semantics, carries="spike"), frames()).spikes
    assert all(0.01 < value.mean() < 0.99 for value in found.values())
    return {name: value.reshape(STEPS, -1) for name, value in found.items()}


def run_module(module: Any, stream: np.ndarray) -> np.ndarray:
    """Output spikes of an importer's module, (T, N), float64."""
    state, out = None, []
    with torch.no_grad(), quiet():
        for frame in stream:
            value, state = module(torch.from_numpy(frame[None].astype(float)), state)
            out.append(value[0].numpy() != 0)
    return np.array(out)


# --- norse ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF", "IF"])
def test_nir_is_norse(norse, kind, same, tmp_path):
    graph = chain(kind, same=same)
    with quiet():
        module = norse(graph)
    assert np.array_equal(run_module(module, frames()), ours(graph, tmp_path / "x.nir", "nir")["lif2"])


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_nir_is_norse_in_a_cycle(norse, kind, tmp_path):
    """With a bias in the recurrent matrix, which norse adds from the second step on."""
    graph = recurrent("CubaLIF", bias=True) if kind == "CubaLIF" else recurrent("CubaLIF", bias=False, seed=3)
    with quiet():
        module = norse(graph)
    assert np.array_equal(run_module(module, frames()), ours(graph, tmp_path / "x.nir", "nir")["lif2"])


def test_the_membrane_is_norses_to_the_last_bit(tmp_path):
    """With a leak, where the order of a sum shows."""
    lif_box = pytest.importorskip("norse.torch.functional.lif_box", reason="norse is not installed")
    rng = np.random.default_rng(0)
    tau, leak, threshold = rng.uniform(3e-4, 9e-4, 50), rng.normal(0, 0.3, 50), rng.uniform(0.4, 0.8, 50)
    lif = nir.LIF(tau=tau, r=np.ones(50), v_leak=leak, v_threshold=threshold)
    nodes = {"input": nir.Input(np.array([50])), "lif": lif, "output": nir.Output(np.array([50]))}
    nir.write(tmp_path / "x.nir", nir.NIRGraph(nodes, [("input", "lif"), ("lif", "output")]))
    state = open_state(read_nir(tmp_path / "x.nir")["lif"], torch.zeros((50, 1, 1), dtype=torch.float64))
    as_tensor = [torch.from_numpy(value) for value in (1 / tau, leak, threshold)]
    parameters = lif_box.LIFBoxParameters(tau_mem_inv=as_tensor[0], v_leak=as_tensor[1], v_th=as_tensor[2])
    theirs = lif_box.LIFBoxFeedForwardState(v=as_tensor[1])
    for x in torch.from_numpy(rng.normal(0.5, 1, (STEPS, 50))):
        state.step(x.reshape(50, 1, 1))
        _, theirs = lif_box.lif_box_feed_forward_step(x, theirs, parameters, dt=DT)
        assert torch.equal(state.membrane.ravel(), theirs.v)


# --- snnTorch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_snntorch_is_snntorch(snntorch, kind, scaled, tmp_path):
    graph = chain(kind, scaled=scaled)
    expected = ours(graph, tmp_path / "x.nir", "snntorch")["lif2"]
    with quiet():
        module = double_inputs(snntorch.import_from_nir(nir.read(tmp_path / "x.nir")))
    assert np.array_equal(run_module(module, frames()), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["LIF", "CubaLIF"])
def test_snntorch_is_snntorch_in_a_cycle(snntorch, kind, bias, tmp_path):
    """Its importer makes an RLeaky or RSynaptic of a nested graph (and fails to connect it, so that is done here)."""
    graph = recurrent(kind, bias)
    expected = ours(graph, tmp_path / "x.nir", "snntorch")
    nodes = {"in": nir.Input(np.array([8])), "lif": graph.nodes["lif1"], "w": graph.nodes["w_rec"]}
    nodes["out"] = nir.Output(np.array([8]))
    edges = [("in", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "out")]
    with quiet():
        layer = snntorch._nir_to_snntorch_module(nir.NIRGraph(nodes, edges))
    double_inputs(layer)
    first = graph.nodes["fc1"]
    currents = frames() @ first.weight.T + (first.bias if bias else 0)
    states: tuple[Any, ...] = (torch.zeros(1, 8),) * (2 if kind == "LIF" else 3)
    found = []
    with torch.no_grad():
        for current in currents:
            states = layer(torch.from_numpy(current[None]), *states)
            found.append(states[0][0].numpy() != 0)
    assert np.array_equal(np.array(found), expected["lif1"])


def test_the_bias_of_a_recurrent_matrix_tells_norse_and_snntorch_apart(tmp_path):
    """snnTorch reads zero spikes through the matrix before the first step, so adds its bias; norse adds nothing."""
    graph = recurrent("LIF", bias=True)
    by_norse, by_snntorch = (ours(graph, tmp_path / "x.nir", semantics) for semantics in ("nir", "snntorch"))
    assert not np.array_equal(by_norse["lif1"], by_snntorch["lif1"])
    graph = recurrent("LIF", bias=False)
    by_norse, by_snntorch = (ours(graph, tmp_path / "x.nir", semantics) for semantics in ("nir", "snntorch"))
    assert np.array_equal(by_norse["lif1"], by_snntorch["lif1"])


# --- spikingjelly -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["IF", "LIF", "CubaLIF"])
def test_spikingjelly_is_spikingjelly(spikingjelly, kind, tmp_path):
    graph = chain(kind, scaled=True)
    expected = ours(graph, tmp_path / "x.nir", "spikingjelly")["lif2"]
    with quiet():
        module = spikingjelly(nir.read(tmp_path / "x.nir"))
    assert np.array_equal(run_module(module, frames()), expected)


def test_spikingjelly_fires_at_the_threshold(tmp_path):
    """A tie: it fires, NIR does not."""
    nodes = {"input": nir.Input(np.array([1])), "if": nir.IF(r=np.ones(1) / DT, v_threshold=np.ones(1))}
    nodes["output"] = nir.Output(np.array([1]))
    nir.write(tmp_path / "x.nir", nir.NIRGraph(nodes, [("input", "if"), ("if", "output")]))
    fired = [
        run_sequence(read_nir(tmp_path / "x.nir", semantics=semantics), np.ones((2, 1))).output.ravel().tolist()
        for semantics in ("spikingjelly", "nir")
    ]
    assert fired == [[1, 1], [0, 1]]


# --- Lava -------------------------------------------------------------------------------------------------------------


LAVA = {
    f"{kind}{' with a bias' * bias}{' in a cycle' * cycle}": (kind, bias, cycle)
    for kind, bias in (("LIF", False), ("LIF", True), ("CubaLIF", False))
    for cycle in (False, True)
}


def lava_graph(kind: str, bias: bool, cycle: bool) -> nir.NIRGraph:
    graph = recurrent(kind, False) if cycle else chain(kind, scaled=True, bias=False)
    if bias:
        graph.nodes["fc1"] = chain(kind, scaled=True).nodes["fc1"]
    return graph


def as_lava_has_it(graph: nir.NIRGraph) -> dict[str, Any]:
    """The first layer: factors of the input in the weights, a bias at the neurons."""
    lif, first = graph.nodes["lif1"], graph.nodes["fc1"]
    has_current = isinstance(lif, nir.CubaLIF)
    tau = lif.tau_mem if has_current else lif.tau
    factor = lif.r * DT / tau * (lif.w_in * DT / lif.tau_syn if has_current else 1)
    case = {
        "frames": frames(), "weight": first.weight * factor[:, None], "dv": DT / tau[0],
        "du": DT / lif.tau_syn[0] if has_current else 1.0, "threshold": lif.v_threshold[0],
        "bias": first.bias * factor if isinstance(first, nir.Affine) else np.zeros(len(factor)),
    }  # fmt: skip
    return case | ({"back": graph.nodes["w_rec"].weight * factor[:, None]} if "w_rec" in graph.nodes else {})


@pytest.fixture(scope="module")
def lava_spikes(tmp_path_factory) -> dict[str, np.ndarray]:
    """All cases, in one process of Lava's own."""
    if importlib.util.find_spec("lava") is None:
        pytest.skip("Lava is not installed")
    folder = tmp_path_factory.mktemp("lava")
    cases = {name: as_lava_has_it(lava_graph(*case)) for name, case in LAVA.items()}
    np.savez(folder / "in.npz", **{f"{name}/{key}": value for name in cases for key, value in cases[name].items()})
    command = [sys.executable, "-m", "tests.export.readers.lava_lif", str(folder / "in.npz"), str(folder / "out.npz")]
    subprocess.run(command, cwd=Path(__file__).resolve().parents[3], check=True, capture_output=True, timeout=200)
    with np.load(folder / "out.npz") as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAVA)
def test_lava_is_lava(lava_spikes, name, tmp_path):
    expected = ours(lava_graph(*LAVA[name]), tmp_path / "x.nir", "lava")["lif1"]
    assert np.array_equal(lava_spikes[name], expected)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"dt": 0.0}, "dt: found 0.0, expected seconds per step above 0, as 1e-4"),
        ({"dt": float("nan")}, "dt: found nan"),
        ({"reset": "none"}, "reset: found 'none', expected 'v_reset' or 'subtract'"),
        ({"semantics": "brian"}, "semantics: found 'brian', expected one of nir, snntorch, spikingjelly, lava"),
        ({"semantics": "sinabs"}, "semantics 'sinabs': found reset 'v_reset', expected 'subtract'"),
        ({"semantics": "snntorch", "reset": "subtract"}, "semantics 'snntorch': found reset 'subtract'"),
    ],
)
def test_choices(choice, said, tmp_path):
    nir.write(tmp_path / "x.nir", chain("LIF"))
    with pytest.raises(UserError, match="^" + said.replace("(", r"\(")):
        read_nir(tmp_path / "x.nir", **choice)


def with_fields(graph: nir.NIRGraph, name: str, **fields: Any) -> nir.NIRGraph:
    for field, value in fields.items():
        setattr(graph.nodes[name], field, value)
    return graph


REFUSED = [
    ("snntorch", chain("IF"), r"lif1 \(IF\): semantics 'snntorch' has no reference for it"),
    ("lava", chain("IF"), r"lif1 \(IF\): semantics 'lava' has no reference for it"),
    ("nengo", chain("CubaLIF"), r"lif1 \(CubaLIF\): semantics 'nengo' has no reference for it"),
    ("nengo", recurrent("LIF", True), r"lif1 \(LIF\): w_rec -> lif1 closes a cycle, for which semantics 'nengo'"),
    ("snntorch", chain("LIF", same=False), r"lif1 \(LIF\): its threshold over the input's factor varies"),
    ("snntorch", with_fields(chain("LIF"), "lif1", v_leak=np.ones(8)), r"lif1 \(LIF\): v_leak is not 0"),
    ("snntorch", with_fields(chain("CubaLIF"), "lif1", r=np.ones(8)), r"lif1 \(CubaLIF\): r is not tau_mem / dt"),
    ("lava", with_fields(chain("LIF"), "lif2", v_reset=np.ones(5)), r"lif2 \(LIF\): v_reset is not 0"),
    ("lava", chain("CubaLIF"), r"fc1 \(Affine\): its bias enters lif1 through a current"),
    ("spikingjelly", with_fields(chain("LIF"), "lif1", r=np.full(8, 2.0)), r"lif1 \(LIF\): r is neither 1 nor"),
    ("spikingjelly", with_fields(chain("LIF"), "lif1", v_leak=np.ones(8)), r"lif1 \(LIF\): v_leak is not v_reset"),
    ("spikingjelly", chain("CubaLIF"), r"lif1 \(CubaLIF\): r is not tau_mem / dt, or w_in not tau_syn / dt"),
    ("nir", with_fields(chain("LIF"), "lif1", tau=np.zeros(8)), r"lif1 \(LIF\): tau has values of 0 or below"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("semantics", "graph", "said"), REFUSED, ids=[f"{row[0]}-{n}" for n, row in enumerate(REFUSED)]
)
def test_what_a_reference_does_not_run(semantics, graph, said, tmp_path):
    nir.write(tmp_path / "x.nir", graph)
    with pytest.raises(UserError, match=said):
        read_nir(tmp_path / "x.nir", semantics=semantics)


def test_two_populations_that_excite_each_other_are_no_layer_of_snntorch(tmp_path):
    graph = recurrent("LIF", False)
    graph.nodes["other"] = graph.nodes["lif1"]
    graph.edges = [edge for edge in graph.edges if edge != ("w_rec", "lif1")] + [("w_rec", "other"), ("other", "lif1")]
    nir.write(tmp_path / "x.nir", graph)
    with pytest.raises(UserError, match=r"lif1 \(LIF\): other closes a cycle, and snnTorch runs"):
        read_nir(tmp_path / "x.nir", semantics="snntorch")
    assert set(flatten(graph)[0]) == set(graph.nodes)


# --- traps, recorded so that docs/semantics.md stays true -------------------------------------------------------------


def test_snntorch_reads_an_if_as_a_leaky_neuron(snntorch):
    with quiet():
        layer = snntorch._nir_to_snntorch_module(nir.IF(r=np.ones(1), v_threshold=np.ones(1)))
    assert float(layer.beta) == 0.9


def test_rsynaptic_fails_where_a_reset_is_to_be_at_once():
    snn = pytest.importorskip("snntorch")
    layer = snn.RSynaptic(alpha=0.5, beta=0.5, linear_features=1, init_hidden=True, reset_delay=False)
    with pytest.raises(TypeError, match="unsupported operand"):
        layer(torch.ones(1, 1))


def test_norse_writes_dt_times_tau():
    norse = pytest.importorskip("norse.torch", reason="norse is not installed")
    one = torch.ones(1)
    cell = norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=100 * one, v_leak=one, v_th=one, v_reset=one))
    with quiet():
        graph = norse.to_nir(norse.SequentialState(torch.nn.Linear(1, 1), cell), torch.ones(1), dt=0.5)
    (lif,) = (node for node in graph.nodes.values() if isinstance(node, nir.LIF))
    assert float(lif.tau) == 0.5 * np.float32(0.01)
