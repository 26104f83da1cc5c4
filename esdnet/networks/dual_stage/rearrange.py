"""The order in which pixels stand when windows slide over them: features in, a permutation of their pixels out.

An order is (N, H W), or (1, H W) where it is the same for all images: at place i, the number of the pixel, counted row
by row, that stands there. In the second stage pixels of one cluster stand side by side, wherever they lie (the idea of
the paper that model names; how features are clustered is our choice).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 8  # of a square window of pixels
STEP = 0.05  # by which a centre moves towards the mean of its pixels in a training step
MEMORY = 0.99  # of the running mean of all features, and of the shares of the clusters
DEAD = 0.1  # of a fair share: a cluster with less is put elsewhere


def take(tokens: Tensor, order: Tensor) -> Tensor:
    """Tokens (N, L, C) as the order (N, L) or (1, L) has them: (N, L, C)."""
    images, length, channels = tokens.shape
    rows = order + length * torch.arange(images, device=tokens.device)[:, None]
    return tokens.reshape(images * length, channels).index_select(0, rows.flatten()).view(images, length, channels)


def inverse(order: Tensor) -> Tensor:
    """The order that undoes an order: take(take(x, order), inverse(order)) is x, bit for bit."""
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


class SquareWindows(nn.Module):
    """Window after window of 8x8 pixels: (N, C, H, W), sides multiples of 8, -> (1, H W)."""

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        pixels = torch.arange(height * width, device=features.device)
        return pixels.view(height // SIDE, SIDE, width // SIDE, SIDE).transpose(1, 2).reshape(1, -1)


class Rows(nn.Module):
    """Row after row, as the pixels are: a control. (N, C, H, W) -> (1, H W)."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.arange(features.shape[-2] * features.shape[-1], device=features.device)[None]


class Shuffled(nn.Module):
    """Any order, the same for every image of a size: a control. (N, C, H, W) -> (1, H W)."""

    def forward(self, features: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randperm(features.shape[-2] * features.shape[-1], generator=generator).to(features.device)[None]


class Largest(nn.Module):
    """The number of the largest of so many scores, of equals the first: (..., K, L) -> (..., L)."""

    def forward(self, scores: Tensor) -> Tensor:
        return scores.argmax(-2)


class Clusters(nn.Module):
    """Cluster after cluster, in each row after row: (N, C, H, W) -> (N, H W).

    A pixel belongs to the centre whose direction is nearest to that of its features, counted from their mean. Centres,
    mean and shares are not learnt by gradients but follow the features while the network is trained, and stay as they
    are at inference: a pixel's cluster depends on its features alone. Without the mean all directions are much the
    same; without a second life for clusters that lost their pixels, few are left: 93 % of the pixels were in two, as
    measured.
    """

    centres: Tensor
    mean: Tensor
    share: Tensor

    def __init__(self, clusters: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("centres", F.normalize(torch.randn(clusters, channels), dim=1))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("share", torch.full((clusters,), 1 / clusters))
        self.nearest = Largest()

    @torch.no_grad()
    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            pixels = features.flatten(2).transpose(1, 2).to(self.centres.dtype)  # (N, H W, C)
            labels = self.label(pixels)
            if self.training:
                self._follow(pixels.flatten(0, 1), labels.flatten())
            pixel = torch.arange(labels.shape[1], device=labels.device)
            return torch.argsort(labels * labels.shape[1] + pixel, dim=1)  # no two are equal: every sort is stable

    def label(self, pixels: Tensor) -> Tensor:
        """Clusters of pixels: (..., L, C) -> (..., L). The cosine's denominator is left out: it changes no maximum."""
        scores = F.linear(pixels, self.centres, -(self.centres * self.mean).sum(1))
        return self.nearest(scores.transpose(-1, -2))

    def _follow(self, pixels: Tensor, labels: Tensor) -> None:
        """Move the centres to where their pixels (P, C) are, and the deadest to the pixel worst served."""
        directions = F.normalize(pixels - self.mean, dim=1)
        members = F.one_hot(labels, len(self.centres)).to(pixels.dtype)
        means = F.normalize(members.t() @ directions, dim=1)
        found = members.amax(0).unsqueeze(1)
        self.centres.copy_(F.normalize(self.centres.lerp(means, STEP * found), dim=1))
        self.mean.lerp_(pixels.mean(0), 1 - MEMORY)
        self.share.lerp_(members.mean(0), 1 - MEMORY)
        deadest = self.share.argmin()
        if self.share[deadest] * len(self.centres) < DEAD:
            worst = (directions * self.centres[labels]).sum(1).argmin()
            self.centres[deadest] = directions[worst]
            self.share[deadest] = 1 / len(self.centres)
