"""The one window attention, one window after the other: a node and what it reads of one frame in, its value out.

Its windows are what is counted. torch serves as the array library.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from export.graph.nodes import WindowAttention

if TYPE_CHECKING:
    from torch import Tensor


def windows(places: int, window: int, overlap: int) -> Iterator[tuple[slice, slice]]:
    """The places that ask together, and those that they look at; the last window may be smaller."""
    for first in range(0, places, window):
        last = min(first + window, places)
        yield slice(first, last), slice(max(0, first - overlap), min(last + overlap, places))


def attend(node: WindowAttention, qkv: Tensor, order: Tensor, mask: Tensor | None) -> Tensor:
    """(3 C, H, W), (1, H, W), (1, H, W) or None to (C, H, W); see the node."""
    pixels = order.flatten().long()
    queries, keys, values = qkv.flatten(1)[:, pixels].view(3, node.heads, -1, len(pixels))  # (heads, d, places) each
    queries = queries * queries.shape[1] ** -0.5
    taken = None if mask is None else node.penalty * (mask.flatten()[pixels] >= node.shut_from)
    found = queries.new_empty(queries.shape)
    for asking, near in windows(len(pixels), node.window, node.overlap):
        logits = queries[..., asking].mT @ keys[..., near]
        if taken is not None:
            logits = logits - taken[near]
        found[..., asking] = values[..., near] @ logits.softmax(-1).mT
    made = queries.new_empty(qkv.shape[0] // 3, len(pixels))
    made[:, pixels] = found.flatten(0, 1)
    return made.view(-1, *qkv.shape[1:])
