"""What a spike-driven network computes with the weights of a released one."""

from __future__ import annotations

import pytest
import torch

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from esdnet.networks.esdnet.weight_copy import copy_weights, mean_attention


@pytest.fixture
def released() -> ESDNet:
    torch.manual_seed(1)
    return ESDNet(preset("tiny"))


@pytest.fixture
def rainy() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network(released, rainy) -> ESDNet:
    network = ESDNet(preset("tiny_spike_driven"))
    copy_weights(released, network, rainy)
    return network


def test_a_convolution_computes_what_the_released_one_does(network, released):
    """The shortcut takes X as ON less OFF; what follows LIF(X) does not see OFF."""
    x = torch.randn(4, 1, 8, 8, 8)
    both = torch.cat([x.relu(), (-x).relu()], dim=2)
    for ours, theirs in zip(network.decoder_level3, released.decoder_level3, strict=True):
        wide = x.repeat(1, 1, 4, 1, 1), both[:, :, :8].repeat(1, 1, 4, 1, 1), both[:, :, 8:].repeat(1, 1, 4, 1, 1)
        spikes = torch.cat(wide[1:], dim=2)
        torch.testing.assert_close(ours.shortcut[0](spikes), theirs.shortcut[0](wide[0]))
        torch.testing.assert_close(ours.residual[1](spikes), theirs.residual[1](wide[1]))
        assert torch.equal(ours.residual[4].weight, theirs.residual[4].weight)
    assert torch.equal(network.output[0].weight, released.output[0].weight)
    assert torch.equal(network.patch_embed.proj.weight, released.patch_embed.proj.weight)


def test_gains_are_what_the_attention_multiplies_by(released, rainy):
    """With every gate at 1/2 (weights of zero), MAU multiplies by an eighth."""
    with torch.no_grad():
        for parameter in released.encoder_level1[0].attn.parameters():
            parameter.zero_()
    gains = mean_attention(released, rainy)["encoder_level1.0.attn"]
    assert gains.shape == (4, 1, 8, 1, 1)
    used = gains[gains != 0]
    assert len(used) > 0
    torch.testing.assert_close(used, torch.full_like(used, 0.125), rtol=1e-4, atol=0)
    assert released.training  # as it was
    assert not any(module._forward_hooks for module in released.modules())
    network = ESDNet(preset("tiny_spike_driven"))
    copy_weights(released, network, rainy)
    assert torch.equal(network.encoder_level1[0].attn.gain, gains)


@pytest.mark.parametrize("name", ["tiny", "small_spike_driven"])
def test_a_network_that_is_not_its_counterpart_is_refused(name, released, rainy):
    with pytest.raises(UserError, match="can be copied to ESDNetConfig"):
        copy_weights(released, ESDNet(preset(name)), rainy)
