"""Whose arithmetic: every semantics equals its reference, a program that runs here or the recording of one, spike for
spike. Recordings: the same file and input in eleven simulators and chips (NIR's paper, figure on LIF)."""

from __future__ import annotations

import itertools
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
from tests.export.readers.nir_steps import flatten
from tests.export.readers.public_nir import EXTERNAL, needs_external, quiet

DT = 1e-4
STEPS = 200


def recording(name: str) -> np.ndarray:
    """(1000, 3): input, voltage, spikes."""
    return np.loadtxt(EXTERNAL / f"lif_{name}.csv", delimiter=",")


RECORDED = [
    ("nir", "v_reset", "norse"), ("nir", "v_reset", "spinnaker2"), ("snntorch", "v_reset", "snntorch"),
    ("nengo", "v_reset", "nengo"), ("nengo", "v_reset", "exact"), ("sinabs", "subtract", "sinabs"),
    ("sinabs", "subtract", "rockpool"), ("spyx", "subtract", "spyx"), ("lava", "v_reset", "lava_cpu_float"),
    ("lava", "v_reset", "lava_cpu_fixed"), ("lava", "v_reset", "lava_loihi_fixed"),
]  # fmt: skip


@needs_external
@pytest.mark.parametrize(("semantics", "reset", "name"), RECORDED)
def test_recorded_spikes(semantics, reset, name):
    """1,000 steps; sinabs's input is recorded after its factor of 0.04."""
    recorded = recording(name)
    network = read_nir(EXTERNAL / "lif_norse.nir", semantics=semantics, reset=reset)
    output = run_sequence(network, (recorded[:, :1] > 0).astype(float)).output
    assert recorded[:, 2].sum() == 4
    assert np.array_equal(output.ravel(), recorded[:, 2])


@needs_external
def test_recordings_tell_semantics_apart():
    """Otherwise the test above would pass for any: three groups of spike trains."""
    trains = {name: tuple(np.flatnonzero(recording(name)[:, 2])) for *_, name in RECORDED}
    assert len(set(trains.values())) == 3
    assert trains["norse"] == (460, 510, 710, 760)
    assert trains["sinabs"] == (450, 500, 710, 760)
    assert trains["spyx"] == trains["lava_cpu_float"] == (461, 511, 711, 761)


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


@pytest.fixture
def norse(monkeypatch) -> Any:
    """norse's importer, its arithmetic in float64 (it casts what it reads to float32)."""
    module = pytest.importorskip("norse.torch.utils.import_nir", reason="norse is not installed")
    monkeypatch.setattr(module, "_to_tensor", lambda value: torch.as_tensor(value, dtype=torch.float64))
    return lambda graph: module.from_nir(graph, dt=DT)


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


def double_inputs(module: Any) -> Any:
    """snnTorch hands spikes on in float32: its matrices take them in float64 again."""
    for part in module.modules():
        if isinstance(part, torch.nn.Linear):
            part.register_forward_pre_hook(lambda part, values: (values[0].double(),))
    return module


@pytest.fixture
def snntorch(monkeypatch) -> Any:
    """snnTorch's importer, in float64."""
    nirtorch = pytest.importorskip("nirtorch", reason="nirtorch is not installed")
    import snntorch.import_nir as module

    load = nirtorch.nir_to_torch
    monkeypatch.setattr(module.nirtorch, "nir_to_torch", lambda graph, map: load(graph, map, dtype=torch.float64))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield module
    torch.set_default_dtype(before)


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
def test_spikingjelly_is_spikingjelly(kind, tmp_path):
    reason = "spikingjelly < 2 has no NIR importer; 2.0.0 needs Python 3.11"
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange.from_nir", reason=reason)
    graph = chain(kind, scaled=True)
    expected = ours(graph, tmp_path / "x.nir", "spikingjelly")["lif2"]
    with quiet():
        module = exchange.import_from_nir(nir.read(tmp_path / "x.nir"), dt=DT, dtype=torch.float64)
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


def run_lava(graph: nir.NIRGraph) -> np.ndarray:
    """The first neuron layer of a chain as Lava's own Dense and LIF, floating point, on its CPU backend."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.dense.process import Dense
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source
    from lava.proc.lif.process import LIF

    lif, affine = graph.nodes["lif1"], graph.nodes["fc1"]
    size = len(lif.r)
    has_current = isinstance(lif, nir.CubaLIF)
    tau = lif.tau_mem if has_current else lif.tau
    factor = lif.r * DT / tau * (lif.w_in * DT / lif.tau_syn if has_current else 1)
    bias = affine.bias * factor if isinstance(affine, nir.Affine) else 0.0
    du = float(DT / lif.tau_syn[0]) if has_current else 1.0
    neurons = LIF(
        shape=(size,), du=du, dv=float(DT / tau[0]), vth=float(lif.v_threshold[0]), bias_mant=bias
    )  # fmt: skip
    source, sink = Source(data=frames().T.astype(float)), Sink(shape=(size,), buffer=STEPS)
    dense = Dense(weights=affine.weight * factor[:, None])
    source.s_out.connect(dense.s_in)
    dense.a_out.connect(neurons.a_in)
    neurons.s_out.connect(sink.a_in)
    if "w_rec" in graph.nodes:
        back = Dense(weights=graph.nodes["w_rec"].weight * factor[:, None])
        neurons.s_out.connect(back.s_in)
        back.a_out.connect(neurons.a_in)
    try:
        with quiet():  # networkx looks for pandas, and warns
            neurons.run(condition=RunSteps(STEPS), run_cfg=Loihi2SimCfg(select_tag="floating_pt"))
        return sink.data.get().T != 0
    finally:
        neurons.stop()


@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize(("kind", "bias"), [("LIF", False), ("LIF", True), ("CubaLIF", False)])
def test_lava_is_lava(kind, bias, cycle, tmp_path):
    pytest.importorskip("lava.proc.lif.process", reason="Lava is not installed")
    if cycle:
        graph = recurrent(kind, False)
        if bias:
            graph.nodes["fc1"] = chain(kind, scaled=True).nodes["fc1"]
    else:
        graph = chain(kind, scaled=True, bias=bias)
    expected = ours(graph, tmp_path / "x.nir", "lava")["lif1"]
    assert np.array_equal(run_lava(graph), expected)


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
