from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esdnet.lif import LIF, _FusedLIF, compare_value
from tests.tolerances import FLOAT32_GRADIENT


def reference_spikes(current: np.ndarray, threshold: float, beta: float) -> np.ndarray:
    """H = beta U + X, S = [H >= threshold], U = H (1 - S), written down plainly."""
    membrane = np.zeros_like(current[0])
    spikes = []
    for step in current:
        held = beta * membrane + step
        fired = held >= current.dtype.type(threshold)
        membrane = np.where(fired, 0, held)
        spikes.append(fired)
    return np.stack(spikes)


def dyadic_currents(seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Multiples of 2^-6 around the threshold: sums are exact and ties are common."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(-16, 24, (6, 500), generator=generator) / 64).to(dtype)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spikes_are_those_of_the_definition_ties_included(fused, dtype):
    current = dyadic_currents(0, dtype)
    layer = LIF(threshold=0.125, fused=fused).to(dtype)
    expected = reference_spikes(current.numpy(), 0.125, 0.5)
    assert np.array_equal(layer(current).numpy() > 0, expected)
    assert (current[0] == 0.125).any(), "no tie at the threshold was tested"


@given(seed=st.integers(0, 10_000), steps=st.integers(1, 6), beta=st.sampled_from([0.0, 0.25, 0.5, 0.9]))
@settings(max_examples=30, deadline=None)
def test_fused_equals_snntorch_in_spikes_and_gradient(seed, steps, beta):
    torch.manual_seed(seed)
    current = torch.randn(steps, 3, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(steps, 3, 5, dtype=torch.float64)
    results = []
    for fused in (True, False):
        spikes = LIF(beta=beta, threshold=0.15, fused=fused).double()(current)
        (gradient,) = torch.autograd.grad((spikes * weights).sum(), current)
        results.append((spikes, gradient))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1], rtol=0, atol=FLOAT32_GRADIENT)


def test_unfused_is_the_plain_snntorch_neuron():
    current = torch.randn(5, 40, dtype=torch.float64)
    threshold = compare_value(0.15, torch.float64)
    plain = snntorch.Leaky(beta=0.5, threshold=threshold, reset_mechanism="zero")
    plain.beta = torch.tensor(0.5, dtype=torch.float64)
    membrane = torch.zeros(40, dtype=torch.float64)
    expected = []
    for step in current:
        spike, membrane = plain(step, membrane)
        expected.append(spike.double())
    assert torch.equal(LIF(fused=False).double()(current), torch.stack(expected))


def test_membranes_equal_snntorchs_before_the_reset():
    current = torch.randn(5, 40, dtype=torch.float64)
    layer = LIF(fused=False).double()
    kept = SimpleNamespace(save_for_backward=lambda membrane, spikes, compare: setattr(kept, "membrane", membrane))
    _FusedLIF.forward(kept, current, layer.threshold, 0.5, 4.0)
    membrane = torch.zeros(40, dtype=torch.float64)
    for step, expected in zip(current, kept.membrane, strict=True):
        _, membrane = snntorch.Leaky.forward(layer, step, membrane)
        assert torch.equal(membrane, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_compare_value_is_exact_in_the_dtype_in_use(dtype):
    layer = LIF(threshold=0.15).double().to(dtype)
    exact = np.array(0.15, dtype=str(dtype).removeprefix("torch."))
    assert layer.threshold.dtype is dtype
    assert layer.threshold.numpy() == np.nextafter(exact, -np.inf, dtype=exact.dtype)


def test_the_state_dict_is_empty_and_networks_are_not_kept_alive():
    layer = LIF()
    assert layer.state_dict() == {}
    assert all(kept is not layer for kept in snntorch.SpikingNeuron.instances)
