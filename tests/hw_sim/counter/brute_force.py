"""A count of a network of modules by the tests' own rules: hooks, unfolded convolutions, no code of the counter."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Brute:
    """acs, macs by layer with weights, for those that are said to read spikes; spikes by neuron layer."""

    acs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    macs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    nonzero: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    spikes: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def taps(layer: nn.Module, read: torch.Tensor) -> torch.Tensor:
    """How many synapses each element of the input has, by the gradient of the sum of outputs over weights of 1."""
    ones = torch.ones_like(read, dtype=torch.float64, requires_grad=True)
    weight = torch.ones_like(layer.weight, dtype=torch.float64)
    with torch.enable_grad():
        if isinstance(layer, nn.Linear):
            made = F.linear(ones, weight)
        elif isinstance(layer, nn.ConvTranspose2d):
            made = F.conv_transpose2d(
                ones, weight, None, layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
            )
        else:
            run = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}[type(layer)]
            made = run(ones, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        (gradient,) = torch.autograd.grad(made.sum(), ones)
    return gradient


def count_by_hand(model: nn.Module, inputs: tuple, reads_spikes: set[str], neurons: set[str]) -> Brute:
    """Run it with hooks. reads_spikes: names of layers with weights that accumulate; neurons: of those that fire."""
    found, hooks = Brute(), []

    def watch_layer(name):
        def hook(module, read, out):
            many = taps(module, read[0])
            value = read[0].double()
            if name in reads_spikes:
                assert set(value.unique().tolist()) <= {0.0, 1.0}
                found.acs[name] += int((value * many).sum())
            else:
                found.macs[name] += int(many.sum())
                found.nonzero[name] += int(((value != 0) * many).sum())

        return hook

    def watch_neuron(name):
        def hook(module, read, out):
            spikes = out[0] if isinstance(out, tuple) else out
            found.spikes[name] += int(spikes.sum())

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)):
            hooks.append(module.register_forward_hook(watch_layer(name)))
        elif name in neurons:
            hooks.append(module.register_forward_hook(watch_neuron(name)))
    with torch.no_grad():
        model(*inputs)
    for hook in hooks:
        hook.remove()
    return found


def counted(report) -> Brute:
    """The same of a report."""
    found = Brute()
    for layer in report.layers:
        for table, count in (
            (found.acs, "acs"),
            (found.macs, "macs"),
            (found.nonzero, "nonzero_macs"),
            (found.spikes, "spikes"),
        ):
            if layer.counts[count]:
                table[layer.name] += layer.counts[count]
    return found


def same(report, expected: Brute) -> None:
    """Every count of every layer, and none beside."""
    found = counted(report)
    for kind in ("acs", "macs", "nonzero", "spikes"):
        wanted = {name: number for name, number in getattr(expected, kind).items() if number}
        assert dict(getattr(found, kind)) == wanted, kind
