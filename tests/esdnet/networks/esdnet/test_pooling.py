"""Fast pooling and gating against torch's own expressions: values and gradients, in both memory layouts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from esdnet.networks.esdnet.pooling import gate_and_pool, gate_relu_add, mean_over_steps, pool_pixels

Function = Callable[..., tuple[Tensor, ...]]


def plain_pool_pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean((3, 4)), x.amax((3, 4))


def plain_gate_and_pool(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gated = x * gate[..., None, None]
    return gated, gated.mean((0, 2)), gated.amax((0, 2))


def plain_gate_relu_add(x: Tensor, gate: Tensor, skip: Tensor) -> tuple[Tensor]:
    return (torch.relu(x * gate[None, :, None]) + skip,)


CASES: dict[str, tuple[Function, Function, list[tuple[int, ...]]]] = {
    "pool_pixels": (pool_pixels, plain_pool_pixels, []),
    "gate_and_pool": (gate_and_pool, plain_gate_and_pool, [(4, 2, 5)]),
    "gate_relu_add": (lambda *x: (gate_relu_add(*x),), plain_gate_relu_add, [(2, 6, 7), (4, 2, 5, 6, 7)]),
    "mean_over_steps": (lambda x: (mean_over_steps(x),), lambda x: (x.mean(0),), []),
}


def _features(seed: int, channels_last: bool) -> Tensor:
    x = torch.randn(8, 5, 6, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x.contiguous(memory_format=torch.channels_last) if channels_last else x).unflatten(0, (4, 2))


def _gradients(outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in outputs]
    return torch.autograd.grad(sum((a * b).sum() for a, b in zip(outputs, weights, strict=True)), inputs)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_torchs(case: str, channels_last: bool) -> None:
    fast, plain, shapes = CASES[case]
    generator = torch.Generator().manual_seed(1)
    others = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    inputs = [value.requires_grad_() for value in (_features(0, channels_last), *others)]
    found, expected = fast(*inputs), plain(*inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
    gradients = _gradients(found, inputs)
    for a, b in zip(gradients, _gradients(expected, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
    assert gradients[0].stride() == inputs[0].stride()


@pytest.mark.parametrize("case", ["pool_pixels", "gate_and_pool"])
def test_equal_maxima_share_one_gradient(case: str) -> None:
    x = torch.zeros(2, 1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    gate = torch.ones(2, 1, 2, dtype=torch.float64)
    peak = pool_pixels(x)[1] if case == "pool_pixels" else gate_and_pool(x, gate)[2]
    (gradient,) = torch.autograd.grad(peak.sum(), x)
    assert float(gradient.sum()) == peak.numel()
    assert float(gradient.min()) >= 0
    if case == "gate_and_pool":
        assert torch.equal(gradient, torch.full_like(gradient, 1 / 4))  # 2 steps x 2 channels


def test_the_mean_over_steps_keeps_channels_last() -> None:
    assert mean_over_steps(_features(0, True)).is_contiguous(memory_format=torch.channels_last)
