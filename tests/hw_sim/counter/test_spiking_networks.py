"""Networks of snnTorch, spikingjelly and norse: the counter against a count by hand, to the last operation."""

from __future__ import annotations

import warnings

import pytest
import snntorch
import torch
import torch.nn.functional as F
from torch import nn

import hw_sim
from tests.hw_sim.counter.brute_force import count_by_hand, same

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import norse.torch as norse
    from spikingjelly.activation_based import layer as jelly
    from spikingjelly.activation_based import neuron, surrogate


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class FeedForward(nn.Module):
    def __init__(self, **how) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(20, 30), snntorch.Leaky(beta=0.9, **how)
        self.fc2, self.lif2 = nn.Linear(30, 10), snntorch.Leaky(beta=0.8, **how)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        out = []
        for current in x:
            spikes, mem1 = self.lif1(self.fc1(current), mem1)
            spikes, mem2 = self.lif2(self.fc2(spikes), mem2)
            out.append(spikes)
        return torch.stack(out)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(2, 6, 5, padding=2), snntorch.Leaky(beta=0.9)
        self.conv2, self.lif2 = nn.Conv2d(6, 8, 3, stride=2, groups=2), snntorch.Synaptic(alpha=0.8, beta=0.9)
        self.fc, self.lif3 = nn.Linear(8 * 9, 5), snntorch.Lapicque(beta=0.7)

    def forward(self, x):
        mem1, (syn, mem2), mem3 = self.lif1.init_leaky(), self.lif2.init_synaptic(), self.lif3.init_lapicque()
        out = []
        for frame in x:
            spikes, mem1 = self.lif1(self.conv1(frame), mem1)
            spikes, syn, mem2 = self.lif2(self.conv2(F.max_pool2d(spikes, 2)), syn, mem2)
            spikes, mem3 = self.lif3(self.fc(spikes.flatten(1)), mem3)
            out.append(spikes)
        return torch.stack(out)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(12, 16), snntorch.RLeaky(beta=0.9, linear_features=16)
        self.fc2, self.lif2 = nn.Linear(16, 4), snntorch.Leaky(beta=0.9)

    def forward(self, x):
        (spikes, mem1), mem2 = self.lif1.init_rleaky(), self.lif2.init_leaky()
        out = []
        for current in x:
            spikes, mem1 = self.lif1(self.fc1(current), spikes, mem1)
            last, mem2 = self.lif2(self.fc2(spikes), mem2)
            out.append(last)
        return torch.stack(out)


class StepByHand(nn.Module):
    """Spikes fed back through a layer, the state starts as zeros; written without any library's neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.back, self.leave = nn.Linear(8, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 3)

    def forward(self, x):
        spikes = membrane = x.new_zeros(x.shape[1], 16)
        out = []
        for current in x:
            membrane = 0.9 * membrane * (1 - spikes) + self.enter(current) + self.back(spikes)
            spikes = (membrane > 0.3).float()
            out.append(self.leave(spikes))
        return torch.stack(out)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"reset_mechanism": "zero"},
        {"reset_mechanism": "none"},
        {"spike_grad": snntorch.surrogate.fast_sigmoid()},
        {"spike_grad": snntorch.surrogate.heaviside()},
        {"learn_threshold": True, "learn_beta": True},
        {"reset_delay": False},
        {"inhibition": False, "threshold": 0.2},
    ],
    ids=lambda how: " ".join(how) or "defaults",
)
def test_snntorch_feed_forward(how):
    model, x = FeedForward(**how), 2 * torch.rand(6, 3, 20)
    expected = count_by_hand(model, (x,), {"fc2"}, {"lif1", "lif2"})
    assert expected.acs["fc2"] > 0
    report = hw_sim.count(model, x, strict=True)
    same(report, expected)
    with torch.no_grad():
        assert torch.equal(model(x), report.output)


def test_snntorch_convolutional():
    model, x = Convolutional(), 2 * torch.rand(5, 2, 2, 15, 15)
    expected = count_by_hand(model, (x,), {"conv2", "fc"}, {"lif1", "lif2", "lif3"})
    assert expected.acs["conv2"] > 0
    assert expected.acs["fc"] > 0
    same(hw_sim.count(model, x, strict=True), expected)


def test_snntorch_recurrent():
    model, x = Recurrent(), 3 * torch.rand(7, 2, 12)
    expected = count_by_hand(model, (x,), {"lif1.recurrent", "fc2"}, {"lif1", "lif2"})
    assert expected.acs["lif1.recurrent"] > 0
    report = hw_sim.count(model, x, strict=True)
    same(report, expected)
    assert report.parameters == report.counted_parameters == sum(p.numel() for p in model.parameters())


def test_a_spike_input_is_accumulated_from_the_first_layer_on():
    model, x = FeedForward(), (torch.rand(6, 3, 20) > 0.6).float()
    same(hw_sim.count(model, x, input_kinds=["spike"]), count_by_hand(model, (x,), {"fc1", "fc2"}, {"lif1", "lif2"}))
    same(hw_sim.count(model, x), count_by_hand(model, (x,), {"fc2"}, {"lif1", "lif2"}))


def test_spikes_fed_back_are_accumulated_from_their_zero_state_on():
    model, x = StepByHand(), 2 * torch.rand(5, 2, 8)
    expected = count_by_hand(model, (x,), {"back", "leave"}, set())
    report = hw_sim.count(model, x, strict=True)
    spikes = report.totals["spikes"]
    expected.spikes["StepByHand"] = spikes
    same(report, expected)
    assert spikes * 3 == expected.acs["leave"]  # each reaches the three outputs
    assert next(layer for layer in report.layers if layer.name == "back").facts.steps == 5 * 2  # the zero state too


def test_numbers_fed_back_are_multiplied_from_their_zero_state_on():
    """A plain recurrent layer: its first, empty state is multiplied as every other is."""

    class Elman(StepByHand):
        def forward(self, x):
            state = x.new_zeros(x.shape[1], 16)
            for current in x:
                state = torch.tanh(self.enter(current) + self.back(state))
            return self.leave(state)

    model, x = Elman(), torch.rand(5, 2, 8)
    same(hw_sim.count(model, x), count_by_hand(model, (x,), set(), set()))


@pytest.mark.parametrize("backend", ["training", "inference"])
@pytest.mark.parametrize(
    "node",
    [
        lambda: neuron.LIFNode(step_mode="m"),
        lambda: neuron.LIFNode(tau=3.0, decay_input=False, v_reset=None, step_mode="m"),
        lambda: neuron.IFNode(surrogate_function=surrogate.ATan(), step_mode="m"),
        lambda: neuron.ParametricLIFNode(step_mode="m"),
        lambda: neuron.QIFNode(step_mode="m"),
    ],
)
def test_spikingjelly(node, backend):
    model = nn.Sequential(
        jelly.Conv2d(1, 4, 3, padding=1, step_mode="m"), node(), jelly.MaxPool2d(2, step_mode="m"),
        jelly.Conv2d(4, 4, 3, padding=1, groups=2, step_mode="m"), node(), nn.Flatten(2),
        jelly.Linear(64, 5, step_mode="m"),
    ).train(backend == "training")  # fmt: skip
    with torch.no_grad():
        model[3].weight.abs_().mul_(4)
    x = 4 * torch.rand(3, 2, 1, 8, 8)
    report = hw_sim.count(model, x, strict=True)
    for module in model:
        getattr(module, "reset", lambda: None)()
    seen = {}
    hooks = [
        module.register_forward_pre_hook(lambda module, read, key=str(index): seen.__setitem__(key, read[0].clone()))
        for index, module in enumerate(model)
    ]
    with torch.no_grad():
        assert torch.equal(model(x), report.output)
    for hook in hooks:
        hook.remove()
    flat = seen["3"].flatten(0, 1).double()
    ones = torch.ones_like(flat, requires_grad=True)
    (taps,) = torch.autograd.grad(
        F.conv2d(ones, torch.ones_like(model[3].weight).double(), padding=1, groups=2).sum(), ones
    )
    acs = {layer.name: layer.counts["acs"] for layer in report.layers if layer.counts["acs"]}
    assert int(seen["6"].sum()) > 0
    assert acs == {"3": int((flat * taps).sum()), "6": 5 * int(seen["6"].sum())}
    assert report.totals["spikes"] == int(seen["2"].sum()) + int(seen["5"].sum()) > 0
    assert {layer.name for layer in report.layers if layer.counts["spikes"]} == {"1", "4"}


class Steps(nn.Module):
    """A network of norse, step by step."""

    def __init__(self, *layers) -> None:
        super().__init__()
        self.net = norse.SequentialState(*layers)

    def forward(self, x):
        state, out = None, []
        for step in x:
            made, state = self.net(step, state)
            out.append(made)
        return torch.stack(out)


@pytest.mark.parametrize(
    "cell", [norse.LIFCell, norse.LIFBoxCell, norse.LIFAdExCell, norse.LIFRefracCell, norse.LSNNCell]
)
def test_norse(cell):
    net, x = Steps(nn.Linear(6, 9), cell(dt=0.1), nn.Linear(9, 4)), 30 * torch.rand(6, 2, 6)
    expected = count_by_hand(net, (x,), {"net.2"}, {"net.1"})
    assert expected.acs["net.2"] > 0
    same(hw_sim.count(net, x, strict=True), expected)


def test_norse_recurrent():
    """Its cell holds both matrices itself, and its first state is zeros."""
    net, x = Steps(norse.LIFRecurrentCell(6, 9, dt=0.1), nn.Linear(9, 4)), 30 * torch.rand(6, 2, 6)
    with torch.no_grad():
        net.net[0].input_weights.abs_()
    report = hw_sim.count(net, x, strict=True)
    spikes = report.totals["spikes"]
    acs = {layer.name: layer.counts["acs"] for layer in report.layers if layer.counts["acs"]}
    state, fed_back = None, 0
    with torch.no_grad():
        for step in x:
            fed_back += 0 if state is None else int(state[0].z.sum())
            _, state = net.net(step, state)
    assert acs == {"net.0.recurrent_weights": 9 * fed_back, "net.1": 4 * spikes}
    assert spikes > 0
    assert report.totals["macs"] == 6 * 2 * 6 * 9


def test_spiking_attention_counts_the_pairs_where_both_fire():
    class Attention(nn.Module):
        """Spikformer's: spikes of queries, keys and values, no softmax."""

        def forward(self, q, k, v):
            return ((q > 0.5).float() @ (k > 0.5).float().transpose(-2, -1)) @ (v > 0.5).float()

    q, k, v = (torch.rand(2, 3, 5, 7) for _ in range(3))
    report = hw_sim.count(Attention(), q, k, v)
    spikes = [(each > 0.5).long() for each in (q, k, v)]
    scores = torch.einsum("bhid,bhjd->bhij", spikes[0], spikes[1])
    first, second = report.layers[-2:]
    assert first.counts["acs"] == int(scores.sum())
    assert first.facts.reads == "spike"
    assert second.counts["acs"] == int(spikes[2].sum()) * 5  # a value's spike reaches every query
    assert report.totals["macs"] == 0
    assert report.totals["spikes"] == sum(int(each.sum()) for each in spikes)
