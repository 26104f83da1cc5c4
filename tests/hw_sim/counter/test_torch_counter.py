"""`hw_sim.count`: by producer and never by value, exact, nothing changed, nothing left out in silence."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hw_sim
from esdnet.command.errors import UserError
from export.graph.nodes import ValueKind
from hw_sim.counter.torch_values import TensorValues
from hw_sim.counter.values import Firing, Value
from tests.hw_sim.counter.brute_force import count_by_hand, same


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def only(report):
    (layer,) = (layer for layer in report.layers if layer.facts.kind in ("conv", "linear"))
    return layer


def test_a_binarised_image_is_multiplied():
    image = (torch.rand(1, 3, 8, 8) > 0.5).float()
    counts = hw_sim.count(nn.Conv2d(3, 4, 3), image).totals
    assert (counts["acs"], counts["macs"]) == (0, 6 * 6 * 9 * 3 * 4)
    assert 0 < counts["nonzero_macs"] < counts["macs"]
    assert hw_sim.count(nn.Conv2d(3, 4, 3), image, input_kinds=["spike"]).totals["acs"] == counts["nonzero_macs"]


def test_a_silent_relu_loses_no_mac():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    counts = hw_sim.count(model, torch.rand(2, 8)).totals
    assert counts["macs"] == 2 * (8 * 16 + 16 * 4)
    assert counts["nonzero_macs"] == 2 * 8 * 16
    assert counts["acs"] == counts["spikes"] == 0


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 5, stride=2, padding=3),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
        nn.Conv2d(4, 4, 3, padding=2, groups=4, bias=False),
        nn.Conv3d(4, 2, 3, padding=1, stride=2),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.ConvTranspose2d(4, 6, (2, 3), stride=3, dilation=2),
        nn.Linear(9, 7),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["spike", "analog"])
def test_layers_against_a_count_by_hand(layer, kind):
    shape = {nn.Conv1d: (2, 4, 9), nn.Conv3d: (2, 4, 5, 6, 7), nn.Linear: (2, 5, 9)}.get(type(layer), (2, 4, 7, 9))
    x = (torch.rand(shape) > 0.6).float()
    model = nn.Sequential(layer)
    report = hw_sim.count(model, x, input_kinds=[kind], strict=True)
    same(report, count_by_hand(model, (x,), {"0"} if kind == "spike" else set(), set()))
    assert report.totals["adds"] == (0 if layer.bias is None else report.output.numel())
    assert only(report).facts.executions == 2


@pytest.mark.parametrize(
    "layer", [nn.Conv1d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(4, 6, 3)], ids=str
)
def test_one_input_without_a_batch_is_a_batch_of_one(layer):
    x = (torch.rand((4, 7, 9)[: layer.weight.dim() - 1]) > 0.6).float()
    alone, batch = (hw_sim.count(layer, value, input_kinds=["spike"], strict=True) for value in (x, x.unsqueeze(0)))
    assert alone.layers == batch.layers
    assert torch.equal(alone.output, batch.output[0])
    assert alone.totals["acs"] > 0


def test_padding_by_name_and_other_padding_modes_are_taps_on_values():
    x = torch.rand(1, 1, 5, 5)
    assert hw_sim.count(nn.Conv2d(1, 1, 3, padding="same"), x, strict=True).totals["macs"] == 13 * 13
    assert hw_sim.count(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), x, strict=True).totals["macs"] == 9 * 25


def test_products_of_two_values():
    a, b = torch.rand(2, 3, 4), torch.rand(2, 4, 5)
    a[:, :, 0] = 0
    counts = hw_sim.count(torch.matmul, a, b).totals
    assert (counts["macs"], counts["nonzero_macs"]) == (2 * 3 * 4 * 5, 2 * 3 * 3 * 5)
    spikes = (torch.rand(2, 3, 4) > 0.5).float()
    counts = hw_sim.count(torch.matmul, spikes, b, input_kinds=["spike", None]).totals
    assert (counts["acs"], counts["macs"], counts["events_in"]) == (int(spikes.sum()) * 5, 0, int(spikes.sum()))
    counts = hw_sim.count(torch.einsum, "bij,bjk->bik", spikes, b, input_kinds=["spike", "analog"]).totals
    assert counts["acs"] == int(spikes.sum()) * 5


def test_sums_of_spikes_are_graded():
    class SumPool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x):
            spikes = (x > 0.5).float()
            return self.fc(spikes[0] + spikes[1]), self.fc(spikes.sum(0))

    x = torch.rand(2, 3, 6)
    spikes = (x > 0.5).float()
    layer = only(hw_sim.count(SumPool(), x))
    assert layer.facts.reads == "graded"
    assert layer.counts["macs"] == 2 * 3 * 6 * 4
    assert layer.counts["events"] == 2 * 4 * int(spikes.sum())
    assert layer.counts["nonzero_macs"] == 2 * 4 * int((spikes.sum(0) > 0).sum())


KEPT = {
    "reshape": lambda s: s.reshape(3, -1).t().contiguous().flatten(),
    "concatenation": lambda s: torch.cat([s, torch.zeros_like(s)]),
    "stack": lambda s: torch.stack([s, s]),
    "index": lambda s: s[torch.tensor([1, 0])],
    "maximum of a window": lambda s: F.max_pool2d(s, 2),
    "maximum over an axis": lambda s: s.amax(1),
    "zero padding": lambda s: F.pad(s, (1, 2, 0, 1)),
    "nearest enlargement": lambda s: F.interpolate(s, scale_factor=2.0),
    "gate": lambda s: s * s.flip(0),
    "times 1": lambda s: s * torch.ones(()),
    "complement": lambda s: 1 - s,
    "cast": lambda s: s.double().bool().float(),
    "where": lambda s: torch.where(s > 0.5, 1.0, 0.0),
    "heaviside": lambda s: torch.heaviside(s - 0.5, torch.zeros(())),
    "written into zeros": lambda s: torch.zeros(4, 2, 3, 4, 4)[1:2].copy_(s),
    "logic": lambda s: (s.bool() & ~s.flip(0).bool()).float(),
    "in place": lambda s: torch.zeros_like(s).add_(s),
    "unfold": lambda s: F.unfold(s, 2),
    "dropout at inference": lambda s: F.dropout(s, 0.5, training=False),
}
LOST = {
    "times 2": lambda s: s * 2,
    "minus 1": lambda s: s - 1,
    "difference": lambda s: s - s.flip(0),
    "mean": lambda s: F.avg_pool2d(s, 2),
    "padding with a half": lambda s: F.pad(s, (1, 1), value=0.5),
    "joined with numbers": lambda s: torch.cat([s, torch.rand(1, 3, 4, 4)]),
    "times numbers": lambda s: s * torch.rand(2, 3, 4, 4),
    "numbers written into spikes": lambda s: s.clone().index_put_((torch.tensor([0]),), torch.rand(())),
    "softmax": lambda s: s.softmax(1),
    "bilinear enlargement": lambda s: F.interpolate(s, scale_factor=2.0, mode="bilinear"),
    "relu": lambda s: s.relu(),
    "equality": lambda s: (s == 1).float(),
    "dropout in training": lambda s: F.dropout(s, 0.5, training=True),
    "spikes added at places": lambda s: s.flatten().index_put((torch.tensor([0, 0]),), torch.ones(2), accumulate=True),
    "scattered and added": lambda s: s.flatten().scatter_add(0, torch.tensor([0, 0]), torch.ones(2)),
}


def reader(make):
    """make(spikes) is read by a linear layer of one output; also what it read."""
    seen = []

    class Reader(nn.Module):
        def forward(self, x):
            made = make((x > 0.5).float()).flatten().unsqueeze(0)
            seen.append(made)
            return F.linear(made, torch.ones(1, made.shape[1]))

    return Reader(), seen


@pytest.mark.parametrize("name", list(KEPT))
def test_what_keeps_spikes(name):
    model, seen = reader(KEPT[name])
    layer = only(hw_sim.count(model, torch.rand(2, 3, 4, 4), strict=True))
    assert layer.facts.reads == "spike"
    assert set(seen[0].unique().tolist()) <= {0.0, 1.0}
    assert layer.counts["acs"] == int(seen[0].sum()) > 0


@pytest.mark.parametrize("name", list(LOST))
def test_what_does_not_keep_them(name):
    model, _ = reader(LOST[name])
    layer = only(hw_sim.count(model, torch.rand(2, 3, 4, 4), strict=True))
    assert layer.facts.reads == "analog"
    assert layer.counts["acs"] == 0


def scripted(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():  # torch 2.9 and later call it old
        warnings.simplefilter("ignore")
        return torch.jit.script(model)


def networks():
    """Modules of torch of every kind, in inference mode, with an input."""
    image, sequence = torch.rand(2, 3, 16, 16), torch.rand(2, 5, 8)
    block = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.SiLU(), nn.GroupNorm(2, 6), nn.AvgPool2d(2), nn.PReLU(),
        nn.LayerNorm(7), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4), nn.Softmax(-1),
    )  # fmt: skip
    return {
        "convolutional": (block.eval(), image),
        "lstm": (nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True), sequence),
        "gru": (nn.GRU(8, 6, batch_first=True), sequence),
        "rnn": (nn.RNN(8, 6, nonlinearity="relu"), sequence),
        "cells": (nn.LSTMCell(8, 6), sequence[0]),
        "gru cell": (nn.GRUCell(8, 6), sequence[0]),
        "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), sequence),
        "encoder, training": (nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), sequence),
        "upsampling": (
            nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.ConvTranspose2d(3, 2, 2, 2)), image
        ),
        "shuffle": (
            nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 1), nn.PixelShuffle(2), nn.InstanceNorm2d(1)), image
        ),
        "embedding": (nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 3)), torch.arange(6).view(2, 3)),
        "embedding bag": (nn.EmbeddingBag(10, 8), torch.arange(6).view(2, 3)),
        "scripted": (scripted(nn.Sequential(nn.Linear(8, 4), nn.ReLU())), sequence),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(networks()))
def test_outputs_are_those_of_the_plain_run_and_nothing_is_unknown(name):
    model, x = networks()[name]
    with torch.no_grad():
        expected = model(x)
    report = hw_sim.count(model, x, strict=True)
    for found, plain in zip(
        torch.utils._pytree.tree_leaves(report.output), torch.utils._pytree.tree_leaves(expected), strict=True
    ):
        assert torch.equal(found, plain)
    assert report.parameters == report.counted_parameters
    assert report.totals["spikes"] == report.totals["acs"] == 0
    assert report.unknown == {}
    assert sum(layer.counts["macs"] + layer.counts["adds"] for layer in report.layers) > 0


def test_recurrent_layers_by_hand():
    """Two layers, both directions: 4 gates of 6, inputs 8 then 12, and 6 hidden; 2 x 5 steps."""
    counts = hw_sim.count(nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True), torch.rand(2, 5, 8)).totals
    assert counts["macs"] == 2 * 5 * 2 * (24 * 8 + 24 * 6 + 24 * 12 + 24 * 6)
    spikes = (torch.rand(2, 5, 8) > 0.5).float()
    report = hw_sim.count(nn.GRU(8, 6, batch_first=True), spikes, input_kinds=["spike"])
    assert report.totals["acs"] == int(spikes.sum()) * 18
    assert report.totals["macs"] == 10 * 18 * 6
    assert report.by_shape == ("weight_hh_l0",)


@pytest.mark.parametrize("training", [False, True])
def test_attention_by_hand_however_torch_runs_it(training):
    """In, keys, values, out, and two layers behind: 5 tokens of 8, 2 heads, 16 hidden, a batch of 2."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(training)
    macs = 2 * (5 * 8 * 24 + 2 * (5 * 5 * 4) * 2 + 5 * 8 * 8 + 2 * 5 * 8 * 16)
    assert hw_sim.count(layer, torch.rand(2, 5, 8)).totals["macs"] == macs


def test_shared_weights_count_per_call_and_parameters_once():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.tied = nn.Linear(4, 4, bias=False)
            self.tied.weight = self.fc.weight

        def forward(self, x):
            return self.tied(self.fc(self.fc(x)))

    report = hw_sim.count(Twice(), torch.rand(3, 4))
    assert {layer.name: layer.counts["macs"] for layer in report.layers} == {"fc": 2 * 48, "tied": 48}
    assert report.parameters == report.counted_parameters == 20


def test_a_layer_that_is_never_called_shows_in_the_parameters():
    model = nn.Sequential(nn.Linear(4, 4))
    model.unused = nn.Linear(4, 2)
    model.forward = lambda x: model[0](x)
    report = hw_sim.count(model, torch.rand(1, 4))
    assert (report.parameters, report.counted_parameters) == (30, 20)


def test_unknown_operations_are_listed_or_refused():
    def transform(x):
        return torch.fft.fft(x).real @ torch.eye(4)

    report = hw_sim.count(transform, torch.rand(2, 4))
    assert report.unknown == {"aten::_fft_c2c": 8} or report.unknown == {"aten::_fft_r2c": 8}
    assert "NOT COUNTED, no rule: aten::_fft_" in report.table()
    with pytest.raises(UserError, match=r"no rule for aten::_fft_.* \(8 values\)"):
        hw_sim.count(transform, torch.rand(2, 4), strict=True)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ("spike", r"expected one kind for each tensor: \['spike'\]"),
        (["spike", None], "2 input_kinds, expected one for each of 1 tensors"),
        (["binary"], "'binary', expected one of analog, spike, graded"),
        (["spike"], "declared spike, but holds values other than 0 and 1"),
        (["graded"], "declared graded, but holds values other than whole numbers"),
    ],
)
def test_kinds_of_inputs_are_checked(kinds, message):
    with pytest.raises(UserError, match=message):
        hw_sim.count(nn.Linear(4, 4), torch.full((1, 4), 0.5), input_kinds=kinds)


def test_a_compiled_module_is_refused():
    with pytest.raises(UserError, match="expected the module itself"):
        hw_sim.count(torch.compile(nn.Linear(4, 4)), torch.rand(1, 4))


def test_a_module_that_raises_leaves_no_hook_behind():
    def fails(x):
        raise RuntimeError("mine")

    model = nn.Sequential(nn.Linear(4, 4))
    model.register_forward_hook(lambda *_: fails(0))
    hooks = torch.nn.modules.module
    with pytest.raises(RuntimeError, match="mine"):
        hw_sim.count(model, torch.rand(1, 4))
    assert not hooks._global_forward_hooks
    assert not hooks._global_forward_pre_hooks
    assert torch.is_grad_enabled()


def test_the_report_has_energy_a_table_and_the_keys_of_energy_py():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    report = hw_sim.count(model, torch.rand(1, 1, 4, 4))
    macs = 4 * 9 * 2 + 24
    assert report.totals["macs"] == macs
    assert report.energy("horowitz_fp32").total_j == pytest.approx(macs * 4.6e-12)
    assert report.energy("loihi1").unpriced == {"macs": macs}
    with pytest.raises(UserError, match="unknown: expected one of"):
        report.energy("free")
    content = report.to_dict()
    assert {"network", "executed_size", "tiles", "layers", "facts", "totals", "parameters"} <= content.keys()
    assert content["totals"]["macs"] == sum(layer["macs"] for layer in content["layers"]) == macs
    lines = report.table().splitlines()
    assert any(line.split()[:2] == ["0", "analog"] and "72" in line for line in lines)
    assert [layer.name for layer in report.layers] == ["0", "1", "3"]


def test_states_of_a_network_are_as_after_a_plain_run():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from spikingjelly.activation_based import neuron
    node = neuron.LIFNode()
    hw_sim.count(node, torch.rand(2, 3))
    assert not node.v.is_inference()
    node(torch.rand(2, 3, requires_grad=True)).sum().backward()


@pytest.mark.parametrize(
    ("layer", "adds", "muls"),
    [
        (nn.MaxPool2d(2), 3 * 9, 0),  # 6 x 6 in windows of 4
        (nn.MaxPool2d(3, 1, 1), 16 * 16 - 36, 0),  # windows reach over the border: 16 taps along each axis
        (nn.AvgPool2d(2), 3 * 9, 9),
        (nn.AdaptiveAvgPool2d(4), 8 * 8 - 16, 16),  # windows of 2, 2, 2, 2 that overlap
        (nn.AdaptiveAvgPool2d(1), 35, 1),
        (nn.ReLU(), 36, 0),
        (nn.Sigmoid(), 36, 36),
        (nn.Softmax(-1), 6 * (4 * 6 - 2), 6 * 12),
        (nn.LayerNorm(6), 6 * (4 * 6 - 2), 6 * (3 * 6 + 2)),
        (nn.BatchNorm2d(1).eval(), 36, 36),
        (nn.Upsample(scale_factor=2, mode="bilinear"), 3 * 144, 4 * 144),
        (nn.Identity(), 0, 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_element_wise_work_by_hand(layer, adds, muls):
    totals = hw_sim.count(layer, torch.rand(1, 1, 6, 6), strict=True).totals
    assert (totals["adds"], totals["muls"]) == (adds, muls)


@pytest.mark.filterwarnings("ignore")
def test_sparse_and_nested_tensors_are_listed():
    def sparse(x):
        return torch.sparse.mm(x.to_sparse(), torch.eye(4)) + 1

    report = hw_sim.count(sparse, torch.rand(2, 4))
    assert any("sparse or nested" in name for name in report.unknown)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    x, mask = torch.rand(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])

    def padded(x):
        return encoder(x, src_key_padding_mask=mask)

    with torch.no_grad():
        expected = padded(x)
    report = hw_sim.count(padded, x)
    assert torch.equal(report.output, expected)
    assert report.unknown


def test_comparisons_that_nobody_reads_are_let_go():
    """Each reset compares: kept until somebody reads it as spikes, not longer than its tensor lives."""
    values = TensorValues()
    for _ in range(200):
        values.write(torch.zeros(1 << 20), Value(ValueKind.SPIKE, firing=Firing(fired=1)), fresh=True)
    assert len(values._known) <= 33


def test_spikes_written_beside_numbers_are_numbers():
    """Writes into a part of what held numbers leave numbers."""
    state = torch.rand(4, 6)

    def write(x):
        state[:2] = (x > 0.5).float()
        return F.linear(state, torch.ones(3, 6))

    assert only(hw_sim.count(write, torch.rand(2, 6))).facts.reads == "analog"


def test_autocast_inside_is_as_it_is():
    """Composite operations under autocast: taken apart, or run whole."""
    linear = nn.Linear(8, 8)

    def mixed(x):
        with torch.autocast("cpu", torch.bfloat16):
            product = torch.einsum("bij,bkj->bik", x, x)
            return product, linear(x), torch.tensordot(x, x, dims=([2], [2])), F.scaled_dot_product_attention(x, x, x)

    x = torch.rand(2, 5, 8)
    with torch.no_grad():
        expected = mixed(x)
    report = hw_sim.count(mixed, x, strict=True)
    assert [value.dtype for value in report.output] == [torch.bfloat16] * 4
    assert all(map(torch.equal, report.output, expected))


def test_what_lies_where_spikes_were_is_not_taken_for_them():
    weight = torch.rand(5, 4096)

    def network(x):
        addresses = set()
        for _ in range(20):
            spikes = (x > 0.5).float()
            addresses.add(spikes.data_ptr())
            del spikes
            numbers = 0.5 * x
            addresses.add(numbers.data_ptr())
            nn.functional.linear(numbers, weight)
            del numbers
        return torch.tensor(len(addresses))

    report = hw_sim.count(network, torch.rand(1, 4096), strict=True)
    assert report.output < 40  # addresses were given again
    assert (report.totals["acs"], report.totals["macs"]) == (0, 20 * 5 * 4096)
