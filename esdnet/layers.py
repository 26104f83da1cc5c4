"""The parts of ESDNet: residual blocks, attention, down- and upsampling, refinement. Features are (T, N, C, H, W).

Module names are the authors' own, so that their checkpoints load without a map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esdnet.config import ESDNetConfig
from esdnet.lif import LIF
from esdnet.pooling import gate_and_pool, gate_relu_add, pool_pixels


class StepConv(nn.Conv2d):
    """A 2-D convolution applied to every step: (T, N, C, H, W) -> (T, N, C', H', W').

    Under autocast it computes in the lower precision, but gives back the weights' own: all else runs in that.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).to(self.weight.dtype).unflatten(0, x.shape[:2])


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
    return LIF(config.membrane_decay, config.threshold, config.surrogate_slope)


def _conv3(channels_in: int, channels_out: int, stride: int = 1, bias: bool = False) -> StepConv:
    return StepConv(channels_in, channels_out, 3, stride, padding=1, bias=bias)


def _norm(config: ESDNetConfig, channels: int, scale: float = 1.0) -> TdBatchNorm:
    return TdBatchNorm(channels, ALPHA * config.threshold * scale if config.norm == "tdbn" else 1.0)


class PooledAttention(nn.Module):
    """The gates sigmoid(MLP(mean) + MLP(max)) of time or channel attention, from both pooled to (N, size)."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.sharedMLP = nn.Sequential(
            nn.Conv3d(size, hidden, 1, bias=False), nn.ReLU(), nn.Conv3d(hidden, size, 1, bias=False)
        )

    def forward(self, mean: Tensor, peak: Tensor) -> Tensor:
        squeeze, relu, expand = self.sharedMLP
        pooled = torch.stack([mean, peak])  # the 1x1x1 convolutions as products of matrices: the same, and faster
        return torch.sigmoid(
            F.linear(relu(F.linear(pooled, squeeze.weight.flatten(1))), expand.weight.flatten(1)).sum(0)
        )


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


class SpikingResidualBlock(nn.Module):
    """MAU(residual(X) + shortcut(X)) + X; without MAU its argument is added to X as it is.

    srb         residual [LIF-Conv-tdBN]x2, shortcut tdBN(Conv(X)), which reads real values (paper, Eq. 1)
    ms_resnet   residual [LIF-Conv-BN]x2, no shortcut but X (Hu et al. 2021)
    sew_resnet  residual [Conv-BN-LIF]x2, no shortcut but X (Fang et al. 2021, ADD)
    ann_resnet  residual [ReLU-Conv-BN]x2, no shortcut but X
    """

    def __init__(self, config: ESDNetConfig, channels: int) -> None:
        super().__init__()
        first, second = (
            [_neuron(config), _conv3(channels, channels), _norm(config, channels, scale)] for scale in (1.0, 0.2)
        )
        if config.block == "sew_resnet":
            first, second = ([*unit[1:], unit[0]] for unit in (first, second))
        self.residual = nn.Sequential(*first, *second)
        self.shortcut = (
            nn.Sequential(_conv3(channels, channels), _norm(config, channels)) if config.block == "srb" else None
        )
        self.attn = MixedAttention(config.steps, channels) if config.attention else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.residual(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return y + x if self.attn is None else self.attn(y, x)


class Downsample(nn.Module):
    """LIF (ReLU in an ANN) - Conv3x3, stride 2, C -> 2C - tdBN."""

    def __init__(self, config: ESDNetConfig, channels: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(
            _neuron(config), _conv3(channels, 2 * channels, stride=2), _norm(config, 2 * channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class Upsample(nn.Module):
    """Bilinear x2 (align_corners off) - LIF - Conv3x3, C -> C/2 - tdBN."""

    def __init__(self, config: ESDNetConfig, channels: int) -> None:
        super().__init__()
        self.up = nn.Sequential(_neuron(config), _conv3(channels, channels // 2), _norm(config, channels // 2))

    def forward(self, x: Tensor) -> Tensor:
        frames = F.interpolate(x.flatten(0, 1), scale_factor=2, mode="bilinear", align_corners=False)
        return self.up(frames.unflatten(0, x.shape[:2]))


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
