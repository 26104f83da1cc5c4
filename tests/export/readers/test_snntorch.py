from __future__ import annotations

import numpy as np
import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export.graph import nodes as g
from export.graph.nodes import NetworkError
from export.readers.snntorch import read_snntorch
from hw_sim.backends.simulator import run_sequence
from tests.export.readers.snntorch_networks import NETWORKS, make, run_plainly
from tests.tolerances import FLOAT64_OUTPUT


@pytest.mark.parametrize("name", NETWORKS)
def test_no_spike_differs_from_a_plain_run(name):
    module, x = make(name)
    network = read_snntorch(module, x, name=name)
    found = run_sequence(network, x).spikes
    expected = run_plainly(module, x, name)
    assert found.keys() == expected.keys()
    assert sum(int(spikes.sum()) for spikes in expected.values()) > 100
    for key, spikes in expected.items():
        assert np.array_equal(found[key].reshape(spikes.shape), spikes), key


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_counted_once(name):
    module, x = make(name)
    network = read_snntorch(module, x)
    assert network.model_parameters == sum(parameter.numel() for parameter in module.parameters())


def test_outputs_are_what_the_module_returns():
    """Spikes and membranes, all steps of both; numbers within the rounding of a sum in another order."""
    module, x = make("feed-forward")
    found = run_sequence(read_snntorch(module, x), x).outputs
    state = module.double()
    handle = state.fc2.register_forward_pre_hook(lambda part, inputs: (inputs[0].double(),))
    with torch.no_grad():
        spikes, membranes = state(torch.from_numpy(x)[None])
    handle.remove()
    assert np.array_equal(found["output0"][:, :, 0, 0], spikes[:, 0].numpy())
    assert np.abs(found["output1"][:, :, 0, 0] - membranes[:, 0].numpy()).max() <= FLOAT64_OUTPUT


def test_acs_and_macs_are_those_of_a_sum_by_hand():
    """A convolution's ACs by looking at every output and every tap of it."""
    module, x = make("convolutional")
    counts = run_sequence(read_snntorch(module, x), x).counts
    taps = 0
    for step in x:
        for row in range(16):
            for column in range(16):
                taps += int(step[:, row : row + 5, column : column + 5].sum()) * 12
    assert counts["0"].totals()["acs"] == taps
    assert counts["0"].totals()["macs"] == 0
    analog = run_sequence(read_snntorch(module, x.astype(float)), x.astype(float)).counts["0"].totals()
    assert (analog["acs"], analog["macs"], analog["nonzero_macs"]) == (0, 20 * 16 * 16 * 50 * 12, taps)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "Lapicque", "RLeaky", "RSynaptic"])
def test_every_neuron_and_reset(kind, reset, delay):
    if kind in ("Lapicque", "RSynaptic") and not delay:
        pytest.skip("snnTorch 1.0: Lapicque has no reset_delay; RSynaptic without it does not run")
    torch.manual_seed(3)
    options = {"beta": 0.83, "threshold": 0.37, "reset_mechanism": reset, "init_hidden": True}
    options |= {} if kind == "Lapicque" else {"reset_delay": delay}
    options |= {"alpha": 0.7} if "Synaptic" in kind else {}
    options |= {"linear_features": 7} if kind.startswith("R") else {}
    module = nn.Sequential(nn.Linear(5, 7), getattr(snn, kind)(**options))
    x = np.random.default_rng(0).normal(size=(60, 5))
    network = read_snntorch(module, x)  # which compares every spike with the recorded run
    assert run_sequence(network, x).spikes["1"].sum() > 5


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_chains(data):
    """Layers and neurons drawn at random; read_snntorch refuses any that fires otherwise than the module."""
    seed = data.draw(st.integers(0, 2**16))
    torch.manual_seed(seed)
    channels, side, layers = 2, 12, []
    for _ in range(data.draw(st.integers(1, 3))):
        kernel, stride = data.draw(st.sampled_from([1, 3] if side >= 3 else [1])), data.draw(st.sampled_from([1, 2]))
        padding = data.draw(st.integers(0, 1))
        groups = data.draw(st.sampled_from([1, channels]))
        layers.append(nn.Conv2d(channels, 2 * channels, kernel, stride, padding, groups=groups))
        channels, side = 2 * channels, (side + 2 * padding - kernel) // stride + 1
        if data.draw(st.booleans()):
            layers.append(nn.BatchNorm2d(channels))
        if side >= 4 and data.draw(st.booleans()):
            layers.append(data.draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))(2))
            side //= 2
        reset = data.draw(st.sampled_from(["subtract", "zero", "none"]))
        threshold = data.draw(st.sampled_from([0.05, 0.3]))
        beta, delay = data.draw(st.sampled_from([0.5, 0.9, 1.0])), data.draw(st.booleans())
        layers.append(snn.Leaky(beta, threshold, init_hidden=True, reset_mechanism=reset, reset_delay=delay))
    x = np.random.default_rng(seed).random((6, 2, 12, 12)) < 0.4
    network = read_snntorch(nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 3)), x)
    assert len(network.of(g.Leaky)) == sum(isinstance(layer, snn.Leaky) for layer in layers)


def test_a_graph_that_fires_otherwise_is_refused(monkeypatch):
    """A wrong rule is found by the run, not by the reader of its code."""
    from export.readers import torch_modules

    module, x = make("recurrent")
    monkeypatch.setattr(torch_modules, "array", lambda tensor: tensor.detach().double().numpy() * 0.9)
    with pytest.raises(NetworkError, match=r"lif1: \d+ spikes of step \d+ differ between the module and its graph"):
        read_snntorch(module, x)


class Odd(nn.Module):
    """A loop with one thing in it that a graph does not hold."""

    def __init__(self, what, neuron=None):
        super().__init__()
        self.what = what
        self.fc = nn.Linear(4, 4)
        self.lif = neuron or snn.Leaky(beta=0.5, threshold=0.1)

    def forward(self, x):
        mem = self.lif.init_leaky()
        out = []
        for step, frame in enumerate(x):
            spk, mem = self.lif(self.what(self, x, step, self.fc(frame)), mem)
            out.append(spk)
        return torch.stack(out)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda net, x, step, y: torch.tanh(y), r"tanh0: no rule for torch function tanh on \(1, 4\)"),
        (lambda net, x, step, y: y + net.fc(x[0]), "fc: called 10 times in 5 steps, expected once a step"),
        (lambda net, x, step, y: y if step < 3 else y + 1, "lif: reads other values at step 0 than at step 4"),
        (lambda net, x, step, y: y + torch.ones(1, 4), "lif: torch function add reads a tensor that no known module"),
        (lambda net, x, step, y: net.fc.weight.sum() * y, "lif: torch function mul reads a tensor that no known"),
        (lambda net, x, step, y: torch.ones(1, 4), "lif: reads a tensor that no known module made"),
        (lambda net, x, step, y: net.fc(net.lif(y, torch.zeros(1, 4))[0]), "neurons are called twice a step"),
    ],
)
def test_what_the_graph_does_not_hold_is_refused(what, message):
    with pytest.raises(NetworkError, match=message):
        read_snntorch(Odd(what), np.random.default_rng(0).random((5, 4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inhibition": True}, "lif: inhibition"),
        ({"graded_spikes_factor": 2.0}, "lif: graded spikes"),
        ({"state_quant": lambda values: values}, "lif: quantised states"),
    ],
)
@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
def test_neurons_that_the_graph_does_not_hold_are_refused(options, message):
    module = Odd(lambda net, x, step, y: y, snn.Leaky(beta=0.5, threshold=0.1, **options))
    with pytest.raises(NetworkError, match=message):
        read_snntorch(module, np.random.default_rng(0).random((5, 4)))


def test_a_network_without_neurons_and_an_input_of_the_wrong_shape_are_refused():
    with pytest.raises(NetworkError, match="holds no snnTorch neuron"):
        read_snntorch(nn.Linear(3, 3), np.zeros((4, 3)))
    with pytest.raises(NetworkError, match=r"1 \(Alpha\): no rule for this neuron, expected one of Leaky"):
        read_snntorch(nn.Sequential(nn.Linear(3, 3), snn.Alpha(0.9, 0.8, init_hidden=True)), np.zeros((4, 3)))
    module, _ = make("recurrent")
    with pytest.raises(NetworkError, match=r"cannot be run on an input of shape \(40, 21\)"):
        read_snntorch(module, np.zeros((40, 21)))


def test_a_module_that_has_just_been_trained_is_read():
    """Its hidden states hang on the gradients of the last run."""
    module, x = make("convolutional")
    for frame in torch.from_numpy(x).float():
        module(frame[None])
    states = [part.mem for part in module.modules() if isinstance(part, snn.Leaky)]
    assert not any(state.is_leaf for state in states)
    fresh, _ = make("convolutional")
    found, expected = (run_sequence(read_snntorch(one, x), x).spikes for one in (module, fresh))
    assert all(np.array_equal(found[key], expected[key]) for key in expected)
    assert all(part.mem is state for part, state in zip((module[2], module[6], module[9]), states, strict=True))


def test_the_module_is_left_as_it_was():
    module, x = make("residual")
    before = {key: value.clone() for key, value in module.state_dict().items()}
    read_snntorch(module, x)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert next(module.parameters()).dtype is torch.float32
    assert torch.get_default_dtype() is torch.float32


class FedBack(nn.Module):
    """A layer that reads its membranes of the step before: a Membrane on a cycle."""

    def __init__(self):
        super().__init__()
        self.fc, self.back = nn.Linear(5, 7), nn.Linear(7, 7, bias=False)
        self.lif = snn.Leaky(beta=0.9, threshold=0.4)

    def forward(self, x):
        mem, fed, out = torch.zeros(1, 7), torch.zeros(1, 7), []
        for frame in x:
            spk, mem = self.lif(self.fc(frame) + fed, mem)
            fed = self.back(mem)
            out.append(spk)
        return torch.stack(out)


def test_a_membrane_that_is_fed_back():
    torch.manual_seed(0)
    x = np.random.default_rng(0).random((40, 5)) < 0.4
    network = read_snntorch(FedBack(), x)  # which compares every spike with the recorded run
    assert run_sequence(network, x).spikes["lif"].sum() > 100
