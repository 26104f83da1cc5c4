"""Fast pooling against torch's own mean and amax, values and gradients, in both memory layouts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from esdnet.pooling import mean_over_steps, pool_pixels, pool_steps_and_channels

Pool = Callable[[Tensor], tuple[Tensor, Tensor]]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("pool", "axes"), [(pool_pixels, (3, 4)), (pool_steps_and_channels, (0, 2))])
def test_values_and_gradients_equal_torch_s(pool: Pool, axes: tuple[int, int], channels_last: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4 * 2, 5, 6, 7, generator=generator, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x = x.unflatten(0, (4, 2)).requires_grad_()
    expected = (x.mean(axes), x.amax(axes))
    found = pool(x)
    weights = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in expected]
    gradients = [
        torch.autograd.grad(sum((value * weight).sum() for value, weight in zip(values, weights, strict=True)), x)[0]
        for values in (found, expected)
    ]
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-15)
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-15)
    assert gradients[0].stride() == x.stride()


@pytest.mark.parametrize("pool", [pool_pixels, pool_steps_and_channels])
def test_equal_maxima_the_first_takes_the_gradient(pool: Pool) -> None:
    x = torch.zeros(2, 1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    _, peak = pool(x)
    (gradient,) = torch.autograd.grad(peak.sum(), x)
    assert float(gradient.sum()) == peak.numel()
    assert set(gradient.flatten().tolist()) == {0.0, 1.0}


def test_the_mean_over_steps_keeps_the_layout_both_ways() -> None:
    x = torch.randn(6, 3, 4, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    x = x.unflatten(0, (3, 2)).requires_grad_()
    mean = mean_over_steps(x)
    torch.testing.assert_close(mean, x.mean(0), rtol=0, atol=1e-15)
    assert mean.is_contiguous(memory_format=torch.channels_last)
    weights = torch.randn(mean.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((mean * weights).sum(), x)
    torch.testing.assert_close(gradient, (weights / 3).expand_as(x), rtol=0, atol=1e-15)
    assert gradient.stride() == x.stride()
