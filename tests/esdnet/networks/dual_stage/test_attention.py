"""Window attention equals the definition, pixel by pixel and key by key, whatever is shut and wherever windows end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from esdnet.networks.dual_stage.attention import WINDOW, WindowAttention, attend
from esdnet.networks.dual_stage.rearrange import SquareWindows
from tests.tolerances import FLOAT64_OUTPUT

HEADS = 2


def by_definition(
    qkv: np.ndarray, order: np.ndarray, shut: np.ndarray, overlap: int, window: int = WINDOW, heads: int = HEADS
) -> np.ndarray:
    """One image: qkv (3 C, pixels), order (pixels), shut (pixels) to (C, pixels), one softmax at a time.

    Shut keys are left out altogether, unless all that a query could read are shut.
    """
    queries, keys, values = np.split(qkv, 3)
    channels, pixels = queries.shape
    found = np.empty_like(queries)
    for place, asking in enumerate(order):
        start = place // window * window
        near = order[max(0, start - overlap) : min(pixels, start + window + overlap)]
        read = near[~shut[near]] if not shut[near].all() else near
        for head in np.split(np.arange(channels), heads):
            logits = queries[head, asking] @ keys[head][:, read] / np.sqrt(len(head))
            weights = np.exp(logits - logits.max())
            found[head, asking] = values[head][:, read] @ (weights / weights.sum())
    return found


@pytest.mark.parametrize("overlap", [0, 8, 32])
@pytest.mark.parametrize("share_shut", [None, 0.0, 0.6, 1.0])
def test_equals_the_definition(overlap: int, share_shut: float | None) -> None:
    rng = np.random.default_rng(0)
    images, channels, height, width = 2, 6, 16, 24
    qkv = rng.standard_normal((images, 3 * channels, height, width))
    order = np.stack([rng.permutation(height * width) for _ in range(images)])
    shut = None if share_shut is None else rng.random((images, 1, height, width)) < share_shut
    found = attend(
        torch.from_numpy(qkv),
        torch.from_numpy(order),
        None if shut is None else torch.from_numpy(shut.astype(np.float64)),
        HEADS,
        overlap,
    )
    for index in range(images):
        closed = np.zeros(height * width, dtype=bool) if shut is None else shut[index].ravel()
        expected = by_definition(qkv[index].reshape(3 * channels, -1), order[index], closed, overlap)
        np.testing.assert_allclose(found[index].flatten(1).numpy(), expected, rtol=0, atol=FLOAT64_OUTPUT)


def test_a_shut_key_is_not_read() -> None:
    qkv = torch.randn(1, 6, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shut = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    shut[..., 3, 4] = 1
    order = SquareWindows()(qkv)
    before = attend(qkv, order, shut, HEADS, overlap=0)
    qkv[0, 2:, 3, 4] += 3.0  # key and value of that pixel
    torch.testing.assert_close(attend(qkv, order, shut, HEADS, overlap=0), before, rtol=0, atol=FLOAT64_OUTPUT)
    assert not torch.allclose(attend(qkv, order, None, HEADS, overlap=0), before, rtol=0, atol=1e-3)


def test_square_windows_do_not_see_each_other() -> None:
    qkv = torch.randn(1, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    order = SquareWindows()(qkv)
    before = attend(qkv, order, None, HEADS, overlap=0)
    qkv[..., :8, 8:] = 0
    unchanged = (attend(qkv, order, None, HEADS, overlap=0) == before).all(1)[0]
    assert unchanged[:8, :8].all()
    assert unchanged[8:].all()
    assert not unchanged[:8, 8:].any()


def test_starts_as_the_identity() -> None:
    features = torch.randn(2, 8, 8, 16)
    module = WindowAttention(8, HEADS, overlap=8)
    assert torch.equal(module(features, SquareWindows()(features)), features)
