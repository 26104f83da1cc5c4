"""Attention within windows of pixels that stand side by side in an order: features (N, C, H, W) in and out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esdnet.networks.dual_stage.rearrange import SIDE, inverse, take

WINDOW = SIDE * SIDE  # pixels that ask together
SHUT = 50.0  # taken from the logits of keys that are shut: e^-50 of the weight is left, unless all keys are shut
BEYOND = 1e4  # taken from the logits of places before the first pixel and after the last: no weight is left


def attend(qkv: Tensor, order: Tensor, shut: Tensor | None, heads: int, overlap: int) -> Tensor:
    """Softmax attention of each window of 64 places to itself and to `overlap` places, at most 64, on either side.

    `qkv` (N, 3 C, H, W) holds queries, keys and values, `order` the pixel at each place (see rearrange), `shut` (N, 1,
    H, W) is 1 where a pixel's key must not be read. Where all keys of a window are shut, all are read as if none were:
    what is taken from every logit changes no softmax. H W is a multiple of 64. Out: (N, C, H, W), each value at its
    pixel.
    """
    images, _, height, width = qkv.shape
    tokens = take(_tokens(qkv), order).unflatten(2, (3, heads, -1)).unflatten(1, (-1, WINDOW))
    queries, keys, values = tokens.permute(3, 0, 1, 4, 2, 5).unbind()  # (N, windows, heads, 64, d) each
    logits = _near(queries * queries.shape[-1] ** -0.5, keys, overlap)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if shut is not None:
        logits = logits - SHUT * _slide(take(_tokens(shut), order), overlap)
    tokens = _weighted(logits.softmax(-1).to(values.dtype), values, overlap)
    tokens = take(tokens.transpose(2, 3).reshape(images, height * width, -1), inverse(order))
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def _near(queries: Tensor, keys: Tensor, overlap: int) -> Tensor:
    """Logits of each window's queries and the keys that they look at: (..., 64, 64 + 2 overlap)."""
    own = queries @ keys.transpose(-1, -2)
    if not overlap:
        return own
    before = queries[:, 1:] @ keys[:, :-1, :, -overlap:].transpose(-1, -2)
    after = queries[:, :-1] @ keys[:, 1:, :, :overlap].transpose(-1, -2)
    return torch.cat([_window_before(before, -BEYOND), own, _window_after(after, -BEYOND)], -1)


def _weighted(weights: Tensor, values: Tensor, overlap: int) -> Tensor:
    """The values that each window looks at, summed by their weights: (N, windows, heads, 64, d)."""
    if not overlap:
        return weights @ values
    before, own, after = weights.split([overlap, WINDOW, overlap], -1)
    of_before = _window_before(before[:, 1:] @ values[:, :-1, :, -overlap:])
    return own @ values + of_before + _window_after(after[:, :-1] @ values[:, 1:, :, :overlap])


def _window_before(windows: Tensor, value: float = 0.0) -> Tensor:
    """One more window (N, windows, heads, rows, columns), the first, all of one value."""
    return F.pad(windows, (0, 0, 0, 0, 0, 0, 1, 0), value=value)


def _window_after(windows: Tensor, value: float = 0.0) -> Tensor:
    return F.pad(windows, (0, 0, 0, 0, 0, 0, 0, 1), value=value)


def _tokens(features: Tensor) -> Tensor:
    return features.flatten(2).transpose(1, 2)


def _slide(tokens: Tensor, overlap: int) -> Tensor:
    """(N, L, 1) as the windows' queries look at it: (N, L / 64, 1, 1, 64 + 2 overlap)."""
    first = torch.arange(0, tokens.shape[1], WINDOW, device=tokens.device)
    places = first[:, None] + torch.arange(WINDOW + 2 * overlap, device=tokens.device)
    windows = F.pad(tokens, (0, 0, overlap, overlap)).index_select(1, places.flatten())
    return windows.unflatten(1, (-1, WINDOW + 2 * overlap)).movedim(2, -1).unsqueeze(2)


class WindowAttention(nn.Module):
    """x + Conv1x1(attention(Conv1x1(norm(x)))), both (N, C, H, W). It starts as the identity."""

    def __init__(self, channels: int, heads: int, overlap: int) -> None:
        super().__init__()
        self.heads, self.overlap = heads, overlap
        self.norm = PixelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, order: Tensor, shut: Tensor | None = None) -> Tensor:
        return x + self.out(attend(self.qkv(self.norm(x)), order, shut, self.heads, self.overlap))


class PixelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel: (N, C, H, W) -> (N, C, H, W), channels last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
