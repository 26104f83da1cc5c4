"""The dual-stage network as a torch module: rainy images (N, 3, H, W) in [0, 1] in, derained ones of the same size out.

After Hou et al. 2026 (Dual-stage deraining network based on mask and non-local attention), of which the abstract is
public: a first stage whose attention passes over pixels that a rain mask names, a second whose attention slides over
pixels rearranged by clusters of their features. All else is our choice (docs/dual_stage.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esdnet.images.cores import Halo
from esdnet.images.rain_streaks import rain_mask
from esdnet.networks.dual_stage.attention import WindowAttention
from esdnet.networks.dual_stage.config import DualStageConfig
from esdnet.networks.dual_stage.rearrange import SIDE, Clusters, Rows, Shuffled, SquareWindows

SCALE = 4  # of the image's sides to those of the last level
SIZE_MULTIPLE = SCALE * SIDE  # whole windows on the last level
RAINY = 0.5  # of a last-level pixel's image pixels: from there on its key is shut
OVERLAP = 32  # places on either side of a window that it looks at too, in the second stage


class ResidualBlock(nn.Module):
    """x + Conv3x3(relu(Conv3x3(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(x)))


def blocks(count: int, channels: int) -> nn.Sequential:
    """So many residual blocks, one after the other."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class Upsample(nn.Module):
    """Conv1x1 to four times the channels, which become 2x2 pixels: (N, C, H, W) -> (N, C', 2 H, 2 W)."""

    def __init__(self, channels: int, fewer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * fewer, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2).contiguous(memory_format=torch.channels_last)


class Bottleneck(nn.Module):
    """The last level: residual blocks, and window attention between them, all in the order that `arrange` finds."""

    def __init__(self, config: DualStageConfig, arrange: nn.Module, overlap: int) -> None:
        super().__init__()
        channels, count = config.channels[-1], config.attentions
        self.arrange = arrange if count else None
        self.blocks = nn.ModuleList(blocks(config.blocks[-1], channels) for _ in range(count + 1))
        self.attentions = nn.ModuleList(WindowAttention(channels, config.heads, overlap) for _ in range(count))

    def forward(self, x: Tensor, shut: Tensor | None) -> Tensor:
        first, *others = self.blocks
        x = first(x)
        if self.arrange is not None:
            order = self.arrange(x)
            for attention, block in zip(self.attentions, others, strict=True):
                x = block(attention(x, order, shut))
        return x


class UNet(nn.Module):
    """One stage: (N, C, H, W) to features of the first level and the light that is added to the image."""

    def __init__(self, channels_in: int, config: DualStageConfig, bottleneck: Bottleneck) -> None:
        super().__init__()
        level1, level2, level3 = config.channels
        self.embed = nn.Conv2d(channels_in, level1, 3, padding=1)
        self.encoder1, self.decoder1 = (blocks(config.blocks[0], level1) for _ in range(2))
        self.down1 = nn.Conv2d(level1, level2, 2, stride=2)
        self.encoder2, self.decoder2 = (blocks(config.blocks[1], level2) for _ in range(2))
        self.down2 = nn.Conv2d(level2, level3, 2, stride=2)
        self.bottleneck = bottleneck
        self.up2 = Upsample(level3, level2)
        self.up1 = Upsample(level2, level1)
        self.output = nn.Conv2d(level1, 3, 3, padding=1)

    def forward(self, x: Tensor, shut: Tensor | None, handed_on: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        skip1 = self.encoder1(self.embed(x) + handed_on)
        skip2 = self.encoder2(self.down1(skip1))
        x = self.bottleneck(self.down2(skip2), shut)
        x = self.decoder2(self.up2(x) + skip2)
        x = self.decoder1(self.up1(x) + skip1)
        return x, self.output(x)


_ORDERS = {"windows": SquareWindows, "raster": Rows, "random": Shuffled}


class DualStage(nn.Module):
    """Both stages. While it is trained it gives what each of them made, afterwards what the last one made."""

    size_multiple = SIZE_MULTIPLE
    halo: Halo | None = None

    def __init__(self, config: DualStageConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels[0]
        self.stage1 = UNet(3, config, Bottleneck(config, SquareWindows(), overlap=0))
        self.stage2 = None
        if config.stages == 2:
            clustered = config.order == "clustered"
            arrange = Clusters(config.clusters, config.channels[-1]) if clustered else _ORDERS[config.order]()
            self.hand_on = nn.Conv2d(channels, channels, 1)
            self.stage2 = UNet(9, config, Bottleneck(config, arrange, OVERLAP))

    @property
    def without_halo(self) -> str:
        """Why it has none."""
        return (
            "attention looks at all of it" if self.config.attentions else "its halo is known to the layer graph alone"
        )

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        height, width = image.shape[-2:]
        made = self.stages(pad(image).contiguous(memory_format=torch.channels_last))
        cut = tuple(each[..., :height, :width] for each in made)
        return cut if self.training else cut[-1]

    def stages(self, image: Tensor) -> list[Tensor]:
        """What each stage makes of images whose sides are multiples of 32."""
        features, light = self.stage1(image, self._shut(image))
        first = image + light
        if self.stage2 is None:
            return [first]
        seen = torch.cat([first, image, first - image], dim=1)
        _, light = self.stage2(seen, None, self.hand_on(features))
        return [first, first + light]

    def mask(self, image: Tensor) -> Tensor:
        """The rain mask of images as the first stage has it, which sees them padded: (N, 3, H, W) -> (N, 1, H, W)."""
        height, width = image.shape[-2:]
        return rain_mask(pad(image))[..., :height, :width]

    def _shut(self, image: Tensor) -> Tensor | None:
        if not self.config.has_mask:
            return None
        return (F.avg_pool2d(rain_mask(image), SCALE) >= RAINY).to(image.dtype)


def pad(image: Tensor) -> Tensor:
    """Repeat the last row and column of (N, 3, H, W) until both sides are multiples of 32."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE), mode="replicate")
