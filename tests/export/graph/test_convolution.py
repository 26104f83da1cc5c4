"""Convolutions in float64 by rows, held against torch's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from export.graph import convolution
from export.graph.convolution import convolve, convolve_rows, is_slow
from export.graph.nodes import Conv

GEOMETRIES = [
    ((3, 3), (1, 1)),
    ((3, 3), (0, 0)),
    ((1, 3), (0, 2)),
    ((5, 2), (3, 0)),
    ((2, 1), (1, 0)),
    ((4, 4), (3, 3)),
]


def a_convolution(kernel: tuple[int, int], padding: tuple[int, int], channels: int = 3, bias: bool = True) -> Conv:
    """Multiples of 2^-8: their sums are exact in any order."""
    rng = np.random.default_rng(sum(kernel))
    weight = rng.integers(-256, 256, (5, channels, *kernel)) / 256
    return Conv(name="c", inputs=("x",), weight=weight, bias=weight[:, 0, 0, 0] if bias else None, padding=padding)


def by_torch(node: Conv, x: torch.Tensor) -> torch.Tensor:
    bias = None if node.bias is None else torch.tensor(node.bias)
    return F.conv2d(x.double(), torch.tensor(node.weight), bias, node.stride, node.padding, node.dilation, node.groups)


def by_rows(node: Conv, x: torch.Tensor) -> torch.Tensor:
    bias = None if node.bias is None else torch.tensor(node.bias)
    return convolve_rows(x, torch.tensor(node.weight), bias, node.padding)


@pytest.mark.parametrize("at_once", [1, 200, 1000, 2**17])  # a row; some rows; some frames; all of it
@pytest.mark.parametrize(("kernel", "padding"), GEOMETRIES)
def test_rows_are_what_torch_convolves(
    monkeypatch: pytest.MonkeyPatch, kernel: tuple[int, int], padding: tuple[int, int], at_once: int
) -> None:
    monkeypatch.setattr(convolution, "AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    for frames, height, width in ((1, 5, 4), (3, 8, 11), (4, 7, 6)):
        x = torch.tensor(rng.integers(-256, 256, (frames, 3, height, width)) / 256)
        for layout in (torch.channels_last, torch.contiguous_format):
            node = a_convolution(kernel, padding, bias=layout is torch.channels_last)
            found = by_rows(node, x.contiguous(memory_format=layout))
            assert torch.equal(found, by_torch(node, x))
            assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("at_once", [1, 2**17])
def test_spikes_and_frames_that_are_one(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(convolution, "AT_ONCE", at_once)
    node = a_convolution((3, 3), (1, 1))
    spikes = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0)) < 0.3
    for x in (spikes, spikes[:1].expand(4, -1, -1, -1)):
        assert torch.equal(by_rows(node, x), by_torch(node, x))


@pytest.mark.parametrize("at_once", [1, 2**17])
def test_what_is_not_a_number_reaches_its_neighbours_alone(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Rows run over the borders of their frame into what nobody asked for."""
    monkeypatch.setattr(convolution, "AT_ONCE", at_once)
    node = a_convolution((3, 3), (1, 1))
    for place in ((0, 0), (0, 5), (4, 0), (4, 5), (2, 3)):
        x = torch.ones(2, 3, 5, 6, dtype=torch.float64)
        x[(0, 1, *place)] = float("nan")
        assert torch.equal(by_rows(node, x).isnan(), by_torch(node, x).isnan())


def test_only_what_is_slow_comes_by_rows() -> None:
    """Strides, dilations, groups, 1x1 kernels, few channels and small images are torch's; so is float32."""
    x, weight = torch.ones(2, 16, 32, 32, dtype=torch.float64), np.ones((4, 16, 3, 3))
    whole = Conv(name="c", inputs=("x",), weight=weight)
    assert is_slow(whole, x)
    assert not is_slow(whole, x[:, :, :8])
    for node in (
        replace(whole, stride=(2, 1)),
        replace(whole, dilation=(1, 2)),
        replace(whole, groups=2, weight=weight[:, :8]),
        replace(whole, weight=weight[..., :1, :1]),
        replace(whole, weight=weight[:, :4]),
    ):
        assert not is_slow(node, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_either_way_gives_the_sums(dtype: torch.dtype) -> None:
    node = a_convolution((3, 3), (1, 1), channels=8)
    x = torch.ones(4, 8, 40, 40, dtype=dtype)
    found = convolve(node, x, torch.tensor(node.weight, dtype=dtype), torch.tensor(node.bias, dtype=dtype))
    assert found.dtype is dtype
    assert torch.equal(found.double(), by_torch(node, x))
