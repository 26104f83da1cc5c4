"""Where a spike-driven network works: an image and its features in, a map of 0 and 1 for each level out.

A gate is constant over the steps. Neurons that it shuts are not updated and do not fire; the output convolution and the
weights over time run where it is open, and elsewhere the image stays as it is. Gradients of what is behind a gate do
not reach it: a learnt one learns from where the rain is (esdnet/training/losses.py).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esdnet.images.rain_streaks import rain_mask
from esdnet.networks.esdnet.config import ESDNetConfig
from esdnet.networks.esdnet.layers import Layers, StepConv, TdBatchNorm, input_neurons, lif

THRESHOLD = 4  # grey levels from which a streak opens a morphological gate: 0.015 of white
SPREAD = 3  # pixels: every pixel of a mask opens a square of that side
MOST = 0.3  # of an image's pixels: where more are open all are; heavy rain leaves no pixel dry
LAYERS = ((16, 1, 1), (32, 2, 1), (32, 1, 2), (32, 1, 4))  # of the learnt gate: channels, stride, dilation


class Gates(NamedTuple):
    """A gate (N, 1, h, w) for each level, finest first: a pixel is open where one of those that it covers is."""

    level1: Tensor
    level2: Tensor
    level3: Tensor


def at_all_levels(gate: Tensor) -> Gates:
    """A gate of the first level, (N, 1, H, W), at all of them."""
    half = F.max_pool2d(gate, 2)
    return Gates(gate, half, F.max_pool2d(half, 2))


class MorphologicalGate(nn.Module):
    """Open within a pixel of every rain streak that grey-level morphology finds, and everywhere where these cover more
    than 0.3 of the image. Nothing in it is learnt."""

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        """(N, 3, H, W), and features that are not looked at -> (N, 1, H, W)."""
        mask = F.max_pool2d(rain_mask(image, threshold=THRESHOLD), SPREAD, 1, SPREAD // 2)
        heavy = mask.sum((2, 3), keepdim=True, dtype=torch.int64) > int(MOST * mask[0].numel())  # exact in any dtype
        return ((mask > 0) | heavy).to(mask.dtype)


class LearntGate(nn.Module):
    """Spiking layers of one step on the patch embedding: open where the last neuron fires, in blocks of 2x2 pixels.

    Each decision sees 31x31 pixels of the image.
    """

    def __init__(self, config: ESDNetConfig) -> None:
        super().__init__()
        neurons, channels = input_neurons(config, config.dim)
        self.layers = Layers(neurons)
        for wider, stride, reach in LAYERS:
            conv = StepConv(channels, wider, 3, stride, reach, reach, bias=False)
            self.layers.extend([conv, TdBatchNorm(wider, 1.0), lif(config)])
            channels = wider
        self.decide = StepConv(channels, 1, 1)
        nn.init.constant_(self.decide.get_parameter("bias"), 2 * config.threshold)  # open nearly everywhere at first
        self.fires = lif(config)

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        """An image that is not looked at, and features (T, N, C, H, W), the same at all steps -> (N, 1, H, W)."""
        spikes = self.fires(self.decide(self.layers(features[:1])))[0]
        return F.interpolate(spikes, scale_factor=2, mode="nearest").detach()


def open_gate(config: ESDNetConfig) -> nn.Module | None:
    """The gate that a configuration names, or None."""
    if config.gate == "none":
        return None
    return MorphologicalGate() if config.gate == "morphological" else LearntGate(config)
