"""ESDNet as a torch module: rainy images (N, 3, H, W) in [0, 1] in, derained images of the same size out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from esdnet.images.cores import Halo
from esdnet.images.padding import pad_to_multiple
from esdnet.networks.esdnet.config import SIZE_MULTIPLE, ESDNetConfig
from esdnet.networks.esdnet.gate import at_all_levels, open_gate
from esdnet.networks.esdnet.halo import find_halo, image_wide
from esdnet.networks.esdnet.layers import (
    Downsample,
    FeatureRefinement,
    GatedConv,
    Layers,
    SpikingResidualBlock,
    StepConv,
    TimeWeights,
    Upsample,
    batch_norm,
    concat_channels,
    conv3x3,
    input_neurons,
)
from esdnet.networks.esdnet.pooling import mean_over_steps


class PatchEmbed(nn.Module):
    """Conv3x3 from RGB to `dim` channels, no bias, on every step."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = conv3x3(3, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class ESDNet(nn.Module):
    """The authors' network, module for module (FRB and output convolution run once, on the time mean), or one of the
    variants that the configuration names."""

    size_multiple = SIZE_MULTIPLE  # of the sides of what it computes on: other images are padded

    def __init__(self, config: ESDNetConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embed = PatchEmbed(dim)
        self.encoder_level1 = self._blocks(config.encoder_blocks[0], dim)
        self.down1_2 = Downsample(config, dim)
        self.encoder_level2 = self._blocks(config.encoder_blocks[1], 2 * dim)
        self.down2_3 = Downsample(config, 2 * dim)
        self.encoder_level3 = self._blocks(config.encoder_blocks[2], 4 * dim)
        self.decoder_level3 = self._blocks(config.decoder_blocks[2], 4 * dim)
        self.up3_2 = Upsample(config, 4 * dim)
        neurons, spiking = input_neurons(config, 4 * dim)
        self.reduce_chan_level2 = Layers(
            neurons, StepConv(spiking, 2 * dim, 1, bias=False), batch_norm(config, 2 * dim)
        )
        self.decoder_level2 = self._blocks(config.decoder_blocks[1], 2 * dim)
        self.up2_1 = Upsample(config, 2 * dim)
        self.decoder_level1 = self._blocks(config.decoder_blocks[0], 2 * dim)
        self.time_weights = TimeWeights(config.steps) if config.refinement == "time_weights" else None
        self.refinement = FeatureRefinement(2 * dim) if config.refinement == "frb" else nn.Identity()
        self.output = self._output(2 * dim)
        self.gate = open_gate(config)

    @property
    def halo(self) -> Halo | None:
        """Pixels above, left, below, right of a part that the part hangs on; None: see `without_halo`."""
        return None if self.without_halo else find_halo(self.config)

    @property
    def without_halo(self) -> str:
        """Why it has none, "" where it has."""
        wide = image_wide(self.config)
        return f"{' and '.join(wide)} {'looks' if len(wide) == 1 else 'look'} at all of it" if wide else ""

    def _output(self, channels: int) -> nn.Sequential:
        if self.config.readout == "analog":
            return Layers(GatedConv(channels, 3, 3, padding=1))
        neurons, spiking = input_neurons(self.config, channels)
        return Layers(neurons, conv3x3(spiking, 3, bias=True))

    def _blocks(self, count: int, channels: int) -> nn.Sequential:
        return Layers(*(SpikingResidualBlock(self.config, channels) for _ in range(count)))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H, W); not clipped to [0, 1]."""
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, SIZE_MULTIPLE)
        x = self._embed(padded)
        gate1, gate2, gate3 = (None, None, None) if self.gate is None else at_all_levels(self.gate(padded, x))
        skip1 = self.encoder_level1(x, gate1)  # (T, N, dim, H, W)
        skip2 = self.encoder_level2(self.down1_2(skip1, gate1), gate2)  # (T, N, 2 dim, H/2, W/2)
        x = self.encoder_level3(self.down2_3(skip2, gate2), gate3)  # (T, N, 4 dim, H/4, W/4)
        x = self.up3_2(self.decoder_level3(x, gate3), gate3)
        x = self.decoder_level2(self.reduce_chan_level2(concat_channels(x, skip2), gate2), gate2)
        x = self.decoder_level1(concat_channels(self.up2_1(x, gate2), skip1), gate1)  # (T, N, 2 dim, H, W)
        return (self._read_out(x, gate1) + padded)[..., :height, :width]

    def _read_out(self, x: Tensor, gate: Tensor | None) -> Tensor:
        """Features (T, N, C, H, W) to the light that is added to the image, (N, 3, H, W): none where a gate is shut."""
        if self.config.readout == "spikes":
            return self._merge(self.output(x), None)
        return self.output(self.refinement(self._merge(x, gate)), gate)

    def _merge(self, x: Tensor, gate: Tensor | None) -> Tensor:
        return mean_over_steps(x) if self.time_weights is None else self.time_weights(x, gate)

    def _embed(self, image: Tensor) -> Tensor:
        """Direct coding, every step sees the image: (N, 3, H, W) -> (T, N, dim, H, W).

        Channels last in memory: convolutions of 16 to 32 channels train up to four times as fast.
        """
        steps = self.config.steps
        if self.config.coding == "features":
            features = self.patch_embed(image.contiguous(memory_format=torch.channels_last).unsqueeze(0))
            return features.squeeze(0).repeat(steps, 1, 1, 1).unflatten(0, (steps, -1))
        frames = image.repeat(steps, 1, 1, 1).contiguous(memory_format=torch.channels_last)
        return self.patch_embed(frames.unflatten(0, (steps, -1)))
