"""The parts of ESDNet: residual blocks, attention, down- and upsampling, refinement. Features are (T, N, C, H, W).

Module names are the authors' own, so that their checkpoints load without a map.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esdnet.networks.esdnet.config import ESDNetConfig
from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.esdnet.pooling import gate_and_pool, gate_relu_add, pool_pixels


class StepConv(nn.Conv2d):
    """A 2-D convolution applied to every step: (T, N, C, H, W) -> (T, N, C', H', W').

    Under autocast it computes in the lower precision, but gives back the weights' own: all else runs in that.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).to(self.weight.dtype).unflatten(0, x.shape[:2])


class GatedConv(nn.Conv2d):
    """A convolution of (N, C, H, W) that gives nothing, not its bias either, where a gate (N, 1, H, W) is 0."""

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        y = super().forward(x)
        return y if gate is None else y * gate


class TdBatchNorm(nn.BatchNorm2d):
    """Threshold-dependent batch norm (Zheng et al., AAAI 2021): statistics over steps, batch and pixels, and a weight
    that starts at scale * threshold. At inference it is a plain batch norm and folds into the convolution before it."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__(channels)
        nn.init.constant_(self.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


ALPHA = 0.7071  # 1/sqrt(2): two branches of unit variance are added (authors' code)


def _neuron(config: ESDNetConfig) -> nn.Module:
    """LIF, or ReLU where the network is an ANN."""
    if config.block == "ann_resnet":
        return nn.ReLU()
    return lif(config)


def lif(config: ESDNetConfig, gain: Literal[1, -1] = 1) -> LIF:
    """A layer of neurons as the configuration has them."""
    return LIF(
        config.membrane_decay,
        config.threshold,
        config.surrogate_slope,
        learn_threshold=config.learn_thresholds,
        gain=gain,
    )


class OnOff(nn.Module):
    """LIF(X) and LIF(-X) side by side: (T, N, C, H, W) -> (T, N, 2C, H, W). Spikes of both signs."""

    def __init__(self, config: ESDNetConfig) -> None:
        super().__init__()
        self.on, self.off = lif(config), lif(config, gain=-1)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        return concat_channels(self.on(x, gate), self.off(x, gate))


def run_layers(modules: Iterable[nn.Module], x: Tensor, gate: Tensor | None) -> Tensor:
    """Modules one after the other; neurons, and those of blocks among them, fire where `gate` (N, 1, H, W) is 1."""
    gated = () if gate is None else (LIF, OnOff, SpikingResidualBlock, GatedConv)  # counters' hooks take one input
    for module in modules:
        x = module(x, gate) if isinstance(module, gated) else module(x)
    return x


class Layers(nn.Sequential):
    """The same as a module."""

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        return run_layers(self, x, gate)


def concat_channels(a: Tensor, b: Tensor) -> Tensor:
    """Join channels of (T, N, C, H, W); as 4-D tensors, so that torch keeps the channels last."""
    return torch.cat([a.flatten(0, 1), b.flatten(0, 1)], dim=1).unflatten(0, a.shape[:2])


def input_neurons(config: ESDNetConfig, channels: int) -> tuple[nn.Module, int]:
    """What turns real values of so many channels into spikes (ReLU in an ANN), and how many channels it gives."""
    return (OnOff(config), 2 * channels) if config.polarity == "on_off" else (_neuron(config), channels)


def conv3x3(channels_in: int, channels_out: int, stride: int = 1, bias: bool = False) -> StepConv:
    """3x3, zero padding: H and W stay, or are halved with a stride of 2."""
    return StepConv(channels_in, channels_out, 3, stride, padding=1, bias=bias)


def batch_norm(config: ESDNetConfig, channels: int, scale: float = 1.0) -> TdBatchNorm:
    """A batch norm whose weight starts where the configuration says, times `scale` for tdbn."""
    return TdBatchNorm(channels, ALPHA * config.threshold * scale if config.norm == "tdbn" else 1.0)


class PooledAttention(nn.Module):
    """The gates sigmoid(MLP(mean) + MLP(max)) of time or channel attention, from both pooled to (N, size)."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.sharedMLP = nn.Sequential(
            nn.Conv3d(size, hidden, 1, bias=False), nn.ReLU(), nn.Conv3d(hidden, size, 1, bias=False)
        )

    def forward(self, mean: Tensor, peak: Tensor) -> Tensor:
        squeeze, expand = (self.sharedMLP.get_parameter(name).flatten(1) for name in ("0.weight", "2.weight"))
        pooled = torch.stack([mean, peak])  # the 1x1x1 convolutions as products of matrices: the same, and faster
        return torch.sigmoid(F.linear(torch.relu(F.linear(pooled, squeeze)), expand).sum(0))


class SpatialAttention(nn.Module):
    """The gates sigmoid(Conv3x3(mean, max)) of maps pooled over steps and channels: one (N, H, W) for all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, mean: Tensor, peak: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(torch.stack([mean, peak], dim=1))).squeeze(1)


class MixedAttention(nn.Module):
    """MAU(x) + skip: attention over time, then channels, then space, then ReLU. It needs all T steps to emit the first.

    Channel attention pools x * time gate. A gate is positive and the same for all pixels, so that their mean and
    maximum are those of x times the gate: pixels are pooled once, and multiplied by both gates at once.
    """

    def __init__(self, steps: int, channels: int) -> None:
        super().__init__()
        self.ta = PooledAttention(steps, steps // min(4, steps))
        self.ca = PooledAttention(channels, max(1, channels // 16))
        self.sa = SpatialAttention()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # cheap, and pooled values deserve full precision
            mean, peak = pool_pixels(x)  # (T, N, C)
            time = self.ta(mean.mean(2).t(), peak.amax(2).t()).t().unsqueeze(2)  # (T, N, 1)
            channel = self.ca((mean * time).mean(0), (peak * time).amax(0))  # (N, C)
            x, mean, peak = gate_and_pool(x, time * channel)
            return gate_relu_add(x, self.sa(mean, peak), skip)


class StaticGains(nn.Module):
    """In MAU's place: ReLU(g x) + skip, both (T, N, C, H, W), with a learnt gain g per step and channel.

    No step waits for a later one, and a pixel's value depends on no other's.
    """

    def __init__(self, steps: int, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(steps, 1, channels, 1, 1))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.relu(x * self.gain) + skip


def _attention(config: ESDNetConfig, channels: int) -> nn.Module | None:
    if config.attention == "none":
        return None
    return (MixedAttention if config.attention == "mixed" else StaticGains)(config.steps, channels)


class SpikingResidualBlock(nn.Module):
    """Attention(residual(X) + shortcut) + X; without attention its argument is added to X as it is.

    srb         residual [LIF-Conv-tdBN]x2, shortcut tdBN(Conv(X)), which reads real values (paper, Eq. 1), or
                tdBN(Conv(S)) of the spikes S that the first convolution reads
    ms_resnet   residual [LIF-Conv-BN]x2, no shortcut but X (Hu et al. 2021)
    sew_resnet  residual [Conv-BN-LIF]x2, no shortcut but X (Fang et al. 2021, ADD)
    ann_resnet  residual [ReLU-Conv-BN]x2, no shortcut but X
    """

    def __init__(self, config: ESDNetConfig, channels: int) -> None:
        super().__init__()
        neurons, spiking = input_neurons(config, channels)
        first = [neurons, conv3x3(spiking, channels), batch_norm(config, channels)]
        second = [_neuron(config), conv3x3(channels, channels), batch_norm(config, channels, 0.2)]
        if config.block == "sew_resnet":
            first, second = ([*unit[1:], unit[0]] for unit in (first, second))
        self.residual = Layers(*first, *second)
        self.shortcut_reads_spikes = config.shortcut == "spikes"
        self.shortcut = None
        if config.block == "srb":
            self.shortcut = nn.Sequential(
                conv3x3(spiking if self.shortcut_reads_spikes else channels, channels), batch_norm(config, channels)
            )
        self.attn = _attention(config, channels)

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        first, *others = self.residual
        spikes = run_layers([first], x, gate)
        y = run_layers(others, spikes, gate)
        if self.shortcut is not None:
            y = y + self.shortcut(spikes if self.shortcut_reads_spikes else x)
        return y + x if self.attn is None else self.attn(y, x)


class Downsample(nn.Module):
    """LIF (ReLU in an ANN) - Conv3x3, stride 2, C -> 2C - tdBN."""

    def __init__(self, config: ESDNetConfig, channels: int) -> None:
        super().__init__()
        neurons, spiking = input_neurons(config, channels)
        self.maxpool_conv = Layers(neurons, conv3x3(spiking, 2 * channels, stride=2), batch_norm(config, 2 * channels))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        return self.maxpool_conv(x, gate)


class Upsample(nn.Module):
    """Bilinear x2 (align_corners off) - LIF - Conv3x3, C -> C/2 - tdBN; or LIF - nearest x2 - Conv3x3 - tdBN."""

    def __init__(self, config: ESDNetConfig, channels: int) -> None:
        super().__init__()
        neurons, spiking = input_neurons(config, channels)
        self.resizes_spikes = config.upsampling == "nearest"
        self.up = Layers(neurons, conv3x3(spiking, channels // 2), batch_norm(config, channels // 2))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        neurons, conv, norm = self.up
        if self.resizes_spikes:
            return norm(conv(_enlarge(run_layers([neurons], x, gate), mode="nearest")))
        return norm(conv(neurons(_enlarge(x, mode="bilinear", align_corners=False))))


def _enlarge(x: Tensor, **how: Any) -> Tensor:
    """(T, N, C, H, W) -> (T, N, C, 2H, 2W)."""
    return F.interpolate(x.flatten(0, 1), scale_factor=2, **how).unflatten(0, x.shape[:2])


class TimeWeights(nn.Module):
    """A learnt weighted sum over the steps: (T, N, C, H, W) -> (N, C, H, W), 0 where a gate (N, 1, H, W) is. Starts as
    the mean."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, steps), 1 / steps))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        y = torch.tensordot(self.weight[0], x, dims=1)
        return y if gate is None else y * gate


class FeatureRefinement(nn.Module):
    """FRB (paper, Eq. 4): y * F + (1 - F) * F^, on the time mean (N, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.ca = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )  # fmt: skip
        self.sa = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(),
            nn.Conv2d(hidden, channels, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, y: Tensor) -> Tensor:
        mask = self.sa(y)
        return (1 - mask) * self.ca(y) + mask * y
