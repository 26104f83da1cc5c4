"""One stock file of a network of a user's: other projects' importers run it in float64 and fire every spike that the
network fires. docs/nir.md tabulates who reads what; each line of it is a test here."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.graph.stream import run_once
from export.readers.nir import read_nir
from export.readers.snntorch import read_snntorch
from export.targets.nir.stock_file import _time_constant, write_file
from tests.export.importers import double_inputs
from tests.export.readers.public_nir import quiet
from tests.tolerances import FLOAT64_OUTPUT

READERS = ("norse", "snntorch", "spikingjelly")
NEURONS = (nir.LIF, nir.IF, nir.CubaLIF)
STEPS = 40
AT_ONCE = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}


def leaky(beta: Any = 0.9, threshold: Any = 0.3) -> snn.Leaky:
    return snn.Leaky(beta=beta, threshold=threshold, **AT_ONCE)


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


def feed_forward(first: nn.Module) -> nn.Module:
    return chain(nn.Flatten(), nn.Linear(64, 12), first, nn.Linear(12, 10, bias=False), leaky(0.5, 0.2))


def convolutional(pool: nn.Module, features: int) -> nn.Module:
    synaptic = snn.Synaptic(alpha=0.75, beta=0.5, threshold=0.3, **AT_ONCE)
    return chain(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), leaky(), pool, nn.Conv2d(4, 6, 3),
        leaky(0.8, 0.2), nn.Flatten(), nn.Linear(features, 10), synaptic,
    )  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.fc2 = nn.Linear(64, 12), nn.Linear(12, 10)
        self.lif = snn.RLeaky(beta=0.9, linear_features=12, threshold=0.3, **AT_ONCE)
        self.lif.recurrent.bias.data.zero_()
        self.out = leaky(0.8, 0.2)

    def forward(self, x):
        return self.out(self.fc2(self.lif(self.fc(x.flatten(1)))))


class Block(nn.Module):
    """Two layers and a third that reads what `join` makes of their spikes."""

    def __init__(self, join: Any, third: bool = True, shortcut: bool = False) -> None:
        super().__init__()
        self.join = join
        self.conv1, self.lif1 = nn.Conv2d(1, 4, 3, padding=1), leaky()
        self.conv2, self.lif2 = nn.Conv2d(4, 4, 3, padding=1), leaky(0.8)
        if third:
            self.conv3, self.lif3 = nn.Conv2d(4, 4, 3, padding=1), leaky(0.75)
        if shortcut:
            self.short = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        first = self.lif1(self.conv1(x))
        return self.join(self, first, self.lif2(self.conv2(first)))


BETAS = torch.linspace(0.5, 0.9, 12)
NETWORKS = {
    "feed-forward": lambda: feed_forward(leaky()),
    "convolutional": lambda: convolutional(nn.Identity(), 216),
    "pooled": lambda: convolutional(nn.AvgPool2d(2), 24),
    "recurrent": Recurrent,
    "sum of spikes": lambda: Block(lambda net, a, b: net.lif3(net.conv3(a + b))),
    "spikes added to a current": lambda: Block(lambda net, a, b: net.lif3(net.conv3(b) + a)),
    "two branches": lambda: Block(lambda net, a, b: net.lif3(net.conv3(b) + net.short(a)), shortcut=True),
    "sum at the output": lambda: Block(lambda net, a, b: a + b, third=False),
    "factor": lambda: Block(lambda net, a, b: net.lif3(net.conv3(0.5 * b))),
    "at the threshold": lambda: chain(nn.Flatten(), leaky(0.9, 1.0), nn.Linear(64, 10), leaky(0.5, 0.2)),
    "no leak": lambda: feed_forward(leaky(1.0)),
    "a decay per neuron": lambda: feed_forward(leaky(BETAS)),
    "a threshold per neuron": lambda: feed_forward(leaky(0.9, BETAS / 3)),
}
REFUSED = {  # what an importer cannot read, and what it says
    ("norse", "pooled"): "to have 4 channels|never ran",
    ("snntorch", "no leak"): "r != 1 not supported",
    ("snntorch", "a decay per neuron"): "v_threshold must be same",
    ("snntorch", "a threshold per neuron"): "v_threshold must be same",
    ("spikingjelly", "a decay per neuron"): "tau must be uniform",
    ("spikingjelly", "a threshold per neuron"): "v_threshold must be uniform",
}
OTHERWISE = {  # what it runs otherwise, without a word: the neurons where it shows
    ("norse", "two branches"): {"lif3"},
    ("spikingjelly", "at the threshold"): {"1", "3"},
}


def frames() -> np.ndarray:
    return np.random.default_rng(0).random((STEPS, 1, 8, 8)) < 0.4


def written(name: str, path: Any) -> tuple[nir.NIRGraph, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The file of a network as nir reads it, and the outputs and spikes of the network, as its module fired them."""
    torch.manual_seed(1)
    module = NETWORKS[name]().eval()
    network = read_snntorch(module, frames(), name=name)
    write_file(network, path)
    outputs, spikes = run_once(network, frames())
    assert all(fired.sum() > 50 for fired in spikes.values())
    return nir.read(path), outputs, spikes


def run_reader(load: Any, graph: nir.NIRGraph, stream: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What an importer's module gives for (T, batch, *shape), and the spikes of each of its neurons, seen by hooks."""
    spikes: dict[str, list[np.ndarray]] = {}

    def record(name: str) -> Any:
        def hook(part: Any, inputs: Any, output: Any) -> None:
            fired = output[0] if isinstance(output, tuple) else output
            spikes.setdefault(name, []).append(fired.numpy() != 0)

        return hook

    state, outputs = None, []
    with torch.no_grad(), quiet():
        module = double_inputs(load(graph))
        for name, node in graph.nodes.items():
            if isinstance(node, NEURONS):
                module.get_submodule(name.replace(".", "_")).register_forward_hook(record(name))
        for frame in stream:
            output, state = module(torch.from_numpy(frame.astype(float)), state)
            outputs.append(output.numpy())
    if unseen := [name for name, node in graph.nodes.items() if isinstance(node, NEURONS) and name not in spikes]:
        raise RuntimeError(f"never ran {unseen}")
    return np.array(outputs), {name: np.array(fired) for name, fired in spikes.items()}


@pytest.fixture(params=READERS)
def reader(request) -> Any:
    return request.param


def loader(request: pytest.FixtureRequest, reader: str) -> Any:
    """An importer, made when the network is written: in float64, it changes torch's default dtype."""
    found = request.getfixturevalue(reader)
    return found.import_from_nir if reader == "snntorch" else found


@pytest.mark.parametrize("name", NETWORKS)
def test_importers_fire_every_spike_of_the_network(request, reader, name, tmp_path):
    graph, expected, spikes = written(name, tmp_path / "x.nir")
    load = loader(request, reader)
    if (reader, name) in REFUSED:
        with pytest.raises((AssertionError, ValueError, RuntimeError), match=REFUSED[reader, name]):
            run_reader(load, graph, frames()[:, None])
        return
    outputs, found = run_reader(load, graph, frames()[:, None])
    assert found.keys() == spikes.keys()
    differ = {key for key, fired in spikes.items() if not np.array_equal(found[key].reshape(fired.shape), fired)}
    assert differ == OTHERWISE.get((reader, name), set())
    if not differ:
        (output,) = expected.values()
        assert np.array_equal(outputs.reshape(output.shape), output)


def test_importers_run_batches(request, reader, tmp_path):
    """Two inputs at once, each as it is alone: a Flatten leaves the axis of the batch alone."""
    graph, _, spikes = written("convolutional", tmp_path / "x.nir")
    load = loader(request, reader)
    _, found = run_reader(load, graph, np.stack([0 * frames(), frames()], axis=1))
    for name, fired in spikes.items():
        assert np.array_equal(found[name][:, 1].reshape(fired.shape), fired), name


def recurrent_file(kind: str, path: Any) -> nir.NIRGraph:
    """A layer that reads itself, and another, of a .nir file that has been read and written again."""
    rng = np.random.default_rng(0)
    one, tau = np.ones(8), np.full(8, 3e-4)
    neurons = {
        "LIF": nir.LIF(tau=tau, r=one, v_leak=0 * one, v_threshold=0.4 * one),
        "IF": nir.IF(r=one, v_threshold=0.9 * one),
        "CubaLIF": nir.CubaLIF(
            tau_mem=tau, tau_syn=2 * tau / 3, r=tau / 1e-4, w_in=2 * tau / 3e-4, v_leak=0 * one, v_threshold=1.4 * one
        ),
    }
    nodes = {
        "input": nir.Input(np.array([6])), "fc1": nir.Affine(rng.normal(0, 1, (8, 6)), rng.normal(0, 0.3, 8)),
        "lif1": neurons[kind], "w_rec": nir.Linear(rng.normal(0, 0.5, (8, 8))),
        "fc2": nir.Linear(rng.normal(0, 1, (8, 8))), "lif2": neurons["LIF"], "output": nir.Output(np.array([8])),
    }  # fmt: skip
    edges = [("input", "fc1"), ("fc1", "lif1"), ("lif1", "fc2"), ("fc2", "lif2"), ("lif2", "output")]
    nir.write(path, nir.NIRGraph(nodes, [*edges, ("w_rec", "lif1"), ("lif1", "w_rec")], type_check=False))
    network = read_nir(path, carries="spike")
    write_file(network, path.with_suffix(".again.nir"))
    return nir.read(path.with_suffix(".again.nir"))


@pytest.mark.parametrize("kind", ["LIF", "CubaLIF", "IF"])
def test_importers_run_loops_of_files_that_were_read(request, reader, kind, tmp_path):
    graph = recurrent_file(kind, tmp_path / "x.nir")
    x = np.random.default_rng(5).random((100, 6)) < 0.4
    _, spikes = run_once(read_nir(tmp_path / "x.nir", carries="spike"), x)
    assert all(0.01 < fired.mean() < 0.99 for fired in spikes.values())
    load = loader(request, reader)
    if (reader, kind) == ("snntorch", "IF"):
        with pytest.raises(AssertionError, match="r != 1 not supported"):
            run_reader(load, graph, x[:, None])
        return
    _, found = run_reader(load, graph, x[:, None])
    for name, fired in spikes.items():
        assert np.array_equal(found[name].reshape(fired.shape), fired), name


def subtracting(beta: float, threshold: float) -> nir.NIRGraph:
    """snnTorch's Leaky with its defaults: LI, Threshold, and the spikes back through a matrix that takes the threshold
    off a step later. r = tau / dt."""
    tau, one = np.full(8, 1e-4 / (1 - beta)), np.ones(8)
    nodes = {
        "input": nir.Input(np.array([8])), "li": nir.LI(tau=tau, r=tau / 1e-4, v_leak=0 * one),
        "fire": nir.Threshold(threshold * one), "back": nir.Linear(-threshold * np.eye(8)),
        "output": nir.Output(np.array([8])),
    }  # fmt: skip
    edges = [("input", "li"), ("li", "fire"), ("fire", "back"), ("back", "li"), ("fire", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def test_a_reset_by_subtraction_a_step_later_is_a_stock_graph(tmp_path):
    """That this project reads so, to rounding."""
    neuron = snn.Leaky(beta=0.75, threshold=0.5, init_hidden=True)
    x = np.random.default_rng(0).random((STEPS, 8))
    with torch.no_grad():
        expected = [neuron(frame).numpy() != 0 for frame in torch.from_numpy(x)]
    nir.write(tmp_path / "x.nir", subtracting(0.75, 0.5))
    outputs, _ = run_once(read_nir(tmp_path / "x.nir"), x)
    assert 0.1 < np.mean(expected) < 0.9
    assert np.array_equal(outputs["output"].reshape(STEPS, 8) != 0, expected)


def test_no_importer_reads_it(request, reader):
    load = loader(request, reader)
    found = "'li'" if reader == "norse" else "Unknown node type <class 'nir.ir.neuron.LI'>|nir.ir.*Threshold"
    with pytest.raises((KeyError, ValueError), match=found):
        run_reader(load, subtracting(0.75, 0.5), np.ones((2, 1, 8)))


@pytest.mark.parametrize("kind", ["LI", "I", "Delay", "Threshold", "Scale"])
def test_what_no_importer_knows(request, reader, kind):
    one = np.ones(3)
    node = {
        "LI": lambda: nir.LI(tau=3e-4 * one, r=one, v_leak=0 * one), "I": lambda: nir.I(r=one),
        "Delay": lambda: nir.Delay(1e-4 * one), "Threshold": lambda: nir.Threshold(one),
        "Scale": lambda: nir.Scale(one),
    }[kind]()  # fmt: skip
    nodes = {"input": nir.Input(np.array([3])), "node": node, "output": nir.Output(np.array([3]))}
    load = loader(request, reader)
    with pytest.raises(ValueError, match=r"Unknown node type|input of an empty graph"):
        run_reader(load, nir.NIRGraph(nodes, [("input", "node"), ("node", "output")]), np.ones((2, 1, 3)))


def test_importers_ignore_the_padding_of_a_sum(request, reader):
    nodes = {
        "input": nir.Input(np.array([1, 4, 4])),
        "sum": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([1, 1])),
        "output": nir.Output(np.array([1, 3, 3])),
    }
    load = loader(request, reader)
    graph = nir.NIRGraph(nodes, [("input", "sum"), ("sum", "output")])
    outputs, _ = run_reader(load, graph, np.ones((1, 1, 1, 4, 4)))
    assert outputs.shape[-2:] == (2, 2)


def conv(kernel: tuple[int, int], **fields: Any) -> Network:
    rng = np.random.default_rng(0)
    nodes = (
        g.Input(name="x", channels=2, size=(7, 8), carries="spike", every_step=True),
        g.Conv(name="conv", inputs=("x",), weight=rng.normal(size=(3, 2, *kernel)), **fields),
        g.Output(name="y", inputs=("conv",)),
    )
    return Network(name="conv", nodes=nodes, steps=1)


def test_a_kernel_that_is_not_square_is_made_so(tmp_path):
    """nir takes a kernel's height for its width: it would not open the file."""
    network = conv((1, 5), stride=(2, 1), padding=(0, 2), dilation=(3, 1))
    write_file(network, tmp_path / "x.nir")
    assert nir.read(tmp_path / "x.nir").nodes["conv"].weight.shape == (3, 2, 5, 5)
    x = np.random.default_rng(1).random((5, 2, 7, 8)) < 0.5
    (expected, _), (found, _) = run_once(network, x), run_once(read_nir(tmp_path / "x.nir", carries="spike"), x)
    assert np.abs(found["y"] - expected["y"]).max() <= FLOAT64_OUTPUT


def test_a_kernel_that_cannot_be_made_square_is_refused(tmp_path):
    message = r"conv \(conv\): a kernel of \(2, 3\), expected a square one, as nir 1.0; pad its weight"
    with pytest.raises(NetworkError, match=message):
        write_file(conv((2, 3)), tmp_path / "x.nir")
    assert not (tmp_path / "x.nir").exists()


@pytest.mark.parametrize("decay", [0.5, 0.75, 0.9, float(np.float32(0.9)), 0.95, 0.1, 1 / 3])
def test_both_quotients_that_importers_compute_are_one_number(decay):
    tau = _time_constant(np.array(decay))
    assert 1e-4 / tau == 1e-4 * (1 / tau)
    assert abs(1e-4 / tau - (1 - decay)) <= 4 * np.spacing(1 - decay)
