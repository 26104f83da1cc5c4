"""How long forward and backward take in training, beside plain snnTorch and spikingjelly's torch backend, in one run.

    python -m benchmarks.train_step [--preset small_released] [--batch 4] [--crop 64] [--rounds 9]

Subjects: one LIF layer, one residual block of 16 channels, and the preset. Versions, all with the same weights:
ours          as esdnet trains: LIF fused over time, pooling with direct gradients, channels last
leaky         ours, but every LIF calls snntorch.Leaky step by step
stepwise      plain snnTorch: convolutions and Leaky called step by step, attention with torch's own mean and amax
spikingjelly  multi-step LIFNode (torch backend), steps folded into the batch, the same plain attention
ours, bf16    ours with convolutions in bfloat16 (--precision bf16 of the trainer); less exact: no comparison
Outputs and gradients are compared in float64 first. Then every round times each version once, on one thread; printed
are medians of CPU time, so that other load on the machine matters less, and what ours is faster by. The last column is
the gain's spread over the rounds (lowest and highest).
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn

from esdnet.command.errors import report_user_errors
from esdnet.command.memory import keep_freed_memory
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.layers import MixedAttention, SpikingResidualBlock, StepConv
from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.esdnet.model import ESDNet

CHANNELS = 16
TOLERANCE = 1e-5  # relative, in float64: snnTorch hands gradients of spikes on in float32
BF16 = "ours, bf16"
Parts = dict[type, Callable[..., nn.Module]]


class PlainAttention(nn.Module):
    """MAU as it is usually written: time, channels, space, each with torch's own mean and amax, transposed."""

    def __init__(self, attention: MixedAttention) -> None:
        super().__init__()
        self.ta, self.ca, self.sa = attention.ta, attention.ca, attention.sa

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = _gate(x.transpose(0, 1), self.ta.sharedMLP).transpose(0, 1)
        x = _gate(x.permute(1, 2, 0, 3, 4), self.ca.sharedMLP).permute(2, 0, 1, 3, 4)
        maps = torch.stack([x.mean((0, 2)), x.amax((0, 2))], dim=1)
        return torch.relu(x * torch.sigmoid(self.sa.conv(maps)).unsqueeze(0)) + skip


def _gate(x: Tensor, mlp: nn.Module) -> Tensor:
    return x * torch.sigmoid(mlp(x.mean((2, 3, 4), keepdim=True)) + mlp(x.amax((2, 3, 4), keepdim=True)))


class StepwiseConv(nn.Module):
    """A convolution called once per step."""

    def __init__(self, conv: StepConv) -> None:
        super().__init__()
        self.weight, self.stride, self.padding = conv.weight, conv.stride, conv.padding

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([nn.functional.conv2d(each, self.weight, None, self.stride, self.padding) for each in x])


class Contiguous(nn.Module):
    """torch's usual memory layout for what follows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous()


def leaky_loop(lif: LIF) -> nn.Module:
    """snntorch.Leaky, called step by step."""
    return LIF(lif.exact_beta, lif.exact_threshold, lif.slope, fused=False)


def jelly_neuron(lif: LIF) -> nn.Module:
    """The authors' neuron, multi-step; its reset is detached, as snnTorch's is."""
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.LIFNode(
        tau=1 / (1 - lif.exact_beta), decay_input=False, v_threshold=lif.exact_threshold, v_reset=0.0,
        surrogate_function=surrogate.Sigmoid(alpha=lif.slope), detach_reset=True, step_mode="m", backend="torch",
    )  # fmt: skip


VERSIONS: dict[str, Parts] = {
    "ours": {},
    "leaky": {LIF: leaky_loop},
    "stepwise": {LIF: leaky_loop, MixedAttention: PlainAttention, StepConv: StepwiseConv},
    "spikingjelly": {LIF: jelly_neuron, MixedAttention: PlainAttention},
}


def make_version(name: str, module: nn.Module) -> nn.Module:
    """A copy of the module with the version's parts in place of ours; plain ones run in torch's usual memory layout."""
    parts = VERSIONS[name]
    top = nn.Sequential(copy.deepcopy(module))
    for parent in list(top.modules()):
        for key, child in list(parent.named_children()):
            if type(child) in parts:
                setattr(parent, key, parts[type(child)](child))
    if MixedAttention in parts:
        if isinstance(module, ESDNet):
            top[0].patch_embed = nn.Sequential(Contiguous(), top[0].patch_embed)
        else:
            top.insert(0, Contiguous())
    return top


def run_step(module: nn.Module, inputs: Tensor, weights: Tensor, bf16: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Forward and backward; returns the output and the gradients of inputs and parameters."""
    for part in module.modules():
        if type(part).__name__ == "LIFNode":  # spikingjelly's neurons keep their membranes between calls
            part.reset()
    module.zero_grad(set_to_none=True)
    inputs = inputs.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = module(inputs)
    (output * weights).sum().backward()
    return output.detach(), [inputs.grad, *(p.grad for p in module.parameters())]


def check_agreement(versions: dict[str, nn.Module], inputs: Tensor, weights: Tensor) -> None:
    """All versions in float64 against ours: outputs and every gradient, or RuntimeError."""
    reference = None
    for name, module in versions.items():
        output, gradients = run_step(copy.deepcopy(module).double(), inputs.double(), weights.double())
        found = [output, *gradients]
        reference = reference or found
        for ours, theirs in zip(reference, found, strict=True):
            difference = float((ours - theirs).norm() / ours.norm())
            if difference > TOLERANCE:
                raise RuntimeError(f"{name} differs from ours by {difference:.1e}: nothing can be compared")


def measure(subject: str, module: nn.Module, inputs: Tensor, rounds: int) -> None:
    """Check, time and print one subject."""
    versions = {name: make_version(name, module) for name in VERSIONS if name != "stepwise" or subject != "LIF"}
    weights = torch.randn_like(module(inputs).detach())
    check_agreement(versions, inputs, weights)
    if subject != "LIF":
        versions[BF16] = make_version("ours", module)
    seconds: dict[str, list[float]] = {name: [] for name in versions}
    for round_number in range(rounds + 1):
        for name, candidate in versions.items():
            start = time.process_time()
            run_step(candidate, inputs, weights, bf16=name == BF16)
            if round_number:  # the first warms up
                seconds[name].append(time.process_time() - start)
    ours = statistics.median(seconds["ours"])
    for name, times in seconds.items():
        gains = sorted(theirs / own for theirs, own in zip(times, seconds["ours"], strict=True))
        median = statistics.median(times)
        print(f"{subject:16} {name:13} {median * 1e3:9.1f} ms {median / ours:6.2f}x  {gains[0]:.2f} .. {gains[-1]:.2f}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="train_step.py", description="Training steps beside snnTorch and spikingjelly."
    )
    parser.add_argument("--preset", default="small_released")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args(argv)
    return report_user_errors(lambda: _measure_all(arguments))


def _measure_all(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    keep_freed_memory()  # as esdnet.train does; all versions profit
    torch.manual_seed(0)
    config = preset(arguments.preset)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "snntorch", "spikingjelly"))
    print(f"{packages}, one thread")
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start")
    print(f"{arguments.batch} crops of {arguments.crop}x{arguments.crop}, T = {config.steps}, float32\n")
    shape = (config.steps * arguments.batch, CHANNELS, arguments.crop, arguments.crop)
    features = torch.randn(shape).contiguous(memory_format=torch.channels_last).unflatten(0, (config.steps, -1))
    images = torch.rand(arguments.batch, 3, arguments.crop, arguments.crop)
    measure("LIF", LIF(config.membrane_decay, config.threshold, config.surrogate_slope), features, arguments.rounds)
    measure("block", SpikingResidualBlock(config, CHANNELS), features, arguments.rounds)
    measure(arguments.preset, ESDNet(config), images, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
