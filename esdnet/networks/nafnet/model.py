"""NAFNet, a rival without spikes or attention between pixels, from its published description.

Chen, Chu, Zhang, Sun: Simple Baselines for Image Restoration, ECCV 2022, Figures 2 to 4 and Equations 1 to 6.
In: rainy images (N, 3, H, W) in [0, 1]. Out: derained images of the same size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esdnet.images.cores import Halo
from esdnet.networks.dual_stage.attention import PixelNorm
from esdnet.networks.nafnet.config import NAFNetConfig


class SimpleGate(nn.Module):
    """The product of the first half of the channels and the second (Eq. 5): (N, 2 C, H, W) -> (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return first * second


class ChannelAttention(nn.Module):
    """x times a linear map of its mean over all pixels (SCA, Eq. 6)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.linear(F.adaptive_avg_pool2d(x, 1))


class NAFBlock(nn.Module):
    """Two residual branches (Figure 3): one mixes pixels, the other channels; each starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.spatial = nn.Sequential(
            PixelNorm(channels), nn.Conv2d(channels, wide, 1), nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
            SimpleGate(), ChannelAttention(channels), nn.Conv2d(channels, channels, 1),
        )  # fmt: skip
        self.feed_forward = nn.Sequential(
            PixelNorm(channels), nn.Conv2d(channels, wide, 1), SimpleGate(), nn.Conv2d(channels, channels, 1)
        )
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.beta * self.spatial(x)
        return x + self.gamma * self.feed_forward(x)


class NAFNet(nn.Module):
    """The U-Net of Figure 2 (c)."""

    halo: Halo | None = None
    without_halo = "channel attention looks at all of it"

    def __init__(self, config: NAFNetConfig) -> None:
        super().__init__()
        self.config = config
        self.size_multiple = 2 ** len(config.encoder_blocks)
        widths = [config.width << level for level in range(len(config.encoder_blocks))]
        self.intro = nn.Conv2d(3, config.width, 3, padding=1)
        self.encoders = nn.ModuleList(map(_blocks, config.encoder_blocks, widths))
        self.downs = nn.ModuleList(nn.Conv2d(width, 2 * width, 2, stride=2) for width in widths)
        self.middle = _blocks(config.middle_blocks, 2 * widths[-1])
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * width, 4 * width, 1, bias=False), nn.PixelShuffle(2)) for width in widths
        )
        self.decoders = nn.ModuleList(map(_blocks, config.decoder_blocks, widths))
        self.ending = nn.Conv2d(config.width, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        padding = (0, -width % self.size_multiple, 0, -height % self.size_multiple)
        padded = F.pad(image, padding, mode="replicate").contiguous(memory_format=torch.channels_last)
        x, skips = self.intro(padded), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])
        x = self.middle(x)
        for up, decoder, skip in zip(*(reversed(part) for part in (self.ups, self.decoders, skips)), strict=True):
            x = decoder(up(x) + skip)
        return (padded + self.ending(x))[..., :height, :width]


def _blocks(count: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))
