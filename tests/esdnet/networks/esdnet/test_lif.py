from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.lif import LIF, _FusedLIF, compare_value
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


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("gain", [1, -1])
def test_without_gradients_spikes_are_the_same_and_the_current_stays(steps, gain):
    current = torch.randn(steps, 2, 3, 5, 4, generator=torch.Generator().manual_seed(steps))
    current[:, 0] = 0.15 * torch.randint(-2, 3, current[:, 0].shape)  # sums that meet the threshold
    neuron, before = LIF(threshold=0.15, gain=gain), current.clone()
    with torch.no_grad():
        without = neuron(current)
    assert torch.equal(without, neuron(current.requires_grad_()))
    assert torch.equal(current, before)
    assert 0 < without.mean() < 1


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


@given(seed=st.integers(0, 10_000), steps=st.integers(1, 6), gain=st.sampled_from([1, -1]))
@settings(max_examples=30, deadline=None)
def test_a_learnt_threshold_has_snntorchs_spikes_and_gradients(seed, steps, gain):
    torch.manual_seed(seed)
    current = torch.randn(steps, 3, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(steps, 3, 5, dtype=torch.float64)
    results = []
    for fused in (True, False):
        layer = LIF(threshold=0.2, fused=fused, learn_threshold=True, gain=gain).double()
        spikes = layer(current)
        results.append((spikes, *torch.autograd.grad((spikes * weights).sum(), [current, layer.threshold])))
    assert torch.equal(results[0][0], results[1][0])
    for one, other, terms in zip(results[0][1:], results[1][1:], (1, current.numel()), strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=0, atol=FLOAT32_GRADIENT * terms)  # the threshold's is a sum over all
    assert results[0][2] != 0


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("learnt", "tie"), [(False, 1.0), (True, 0.0)])
def test_at_a_tie_a_fixed_threshold_fires_and_a_learnt_one_does_not(fused, learnt, tie):
    layer = LIF(threshold=0.125, fused=fused, learn_threshold=learnt)
    assert layer.fires == (">" if learnt else ">=")
    above = float(np.nextafter(np.float32(0.125), np.float32(1)))
    # the second step: 0.5 * 0.0625 + 0.09375 is the threshold again; after a spike the membrane begins at 0
    current = torch.tensor([[0.125, above, 0.0625], [0.0, 0.0, 0.09375]])
    with torch.no_grad():
        assert layer(current).tolist() == [[tie, 1.0, 0.0], [0.0, 0.0, tie]]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("learnt", [True, False])
def test_gain_minus_1_is_the_neuron_of_the_negative(fused, learnt):
    current = dyadic_currents(2, torch.float32)
    options = {"threshold": 0.125, "fused": fused, "learn_threshold": learnt}
    with torch.no_grad():
        off = LIF(gain=-1, **options)(current)
        assert torch.equal(off, LIF(**options)(-current))
        assert not torch.equal(off, LIF(**options)(current))
        assert off.sum() > 0


def test_a_learnt_threshold_is_all_that_the_state_dict_holds():
    layer = LIF(threshold=0.15, learn_threshold=True)
    assert list(layer.state_dict()) == ["threshold"]
    assert isinstance(layer.threshold, torch.nn.Parameter)
    other = LIF(threshold=0.3, learn_threshold=True)
    other.load_state_dict(layer.state_dict())
    assert other.exact_threshold == layer.exact_threshold


def test_a_learnt_threshold_keeps_its_float32_value_in_float64():
    """What was learnt is a float32 number; 0.15 itself is another float64."""
    layer = LIF(threshold=0.15, learn_threshold=True)
    learnt = float(np.float32(0.15))
    assert layer.exact_threshold == learnt != 0.15
    layer.double()
    assert layer.threshold.dtype is torch.float64
    assert float(layer.threshold.detach()) == layer.exact_threshold == learnt
    assert isinstance(layer.threshold, torch.nn.Parameter)


def test_a_gain_that_it_could_not_apply_is_refused():
    with pytest.raises(UserError, match="gain must be 1 or -1, found 2"):
        LIF(gain=2)  # type: ignore[arg-type]
