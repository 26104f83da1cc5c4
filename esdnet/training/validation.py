"""Scores of a network on held-out pairs while it is trained.

In: a network in eval mode and (name, rainy, clean) images. Out: mean PSNR and SSIM, firing rates per LIF, pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from esdnet.images.crops import middle
from esdnet.images.metrics import psnr_y, ssim_y
from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.watching import watching

if TYPE_CHECKING:
    from esdnet.networks.architectures import Network

Pair = tuple[str, np.ndarray, np.ndarray]  # name, rainy, clean: float32 (H, W, 3) in [0, 1]
PICTURES, PICTURE_SIDE = 4, 192


@dataclass(frozen=True)
class Validation:
    """Means over all images; `firing_rates` are spikes per neuron and step, by LIF name."""

    psnr: float
    ssim: float
    firing_rates: dict[str, float]
    pictures: dict[str, np.ndarray]  # rainy | restored | clean, float32 (H, 3 W, 3)


@torch.no_grad()
def validate(model: Network, pairs: list[Pair], device: torch.device) -> Validation:
    """Whole images through the network in float32; scores on Y."""
    scores = []
    pictures: dict[str, np.ndarray] = {}
    with _count_spikes(model) as rates:
        for name, rainy, clean in pairs:
            image = torch.from_numpy(rainy).permute(2, 0, 1).unsqueeze(0).to(device)
            restored = model(image)[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy()
            scores.append((psnr_y(restored, clean), ssim_y(restored, clean)))
            if len(pictures) < PICTURES:
                pictures[name] = np.concatenate(
                    [each[middle(each.shape[:2], (PICTURE_SIDE, PICTURE_SIDE))] for each in (rainy, restored, clean)],
                    axis=1,
                )
    psnr, similarity = np.mean(scores, axis=0)
    means = {name: float(np.mean(values)) for name, values in rates.items()}
    return Validation(float(psnr), float(similarity), means, pictures)


@contextmanager
def _count_spikes(model: Network) -> Iterator[dict[str, list[float]]]:
    """The share of ones in each LIF's output, one number per call, collected while it is open."""
    neurons = {name: module for name, module in model.named_modules() if isinstance(module, LIF)}
    rates: dict[str, list[float]] = {name: [] for name in neurons}
    with watching(neurons, lambda name, inputs, spikes: rates[name].append(float(spikes.mean()))):
        yield rates
