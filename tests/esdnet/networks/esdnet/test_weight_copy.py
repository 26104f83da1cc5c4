"""What a spike-driven network computes with the weights of a released one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from esdnet.networks.esdnet.weight_copy import change_steps, copy_weights, mean_attention
from tests.conftest import run_in


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


@pytest.fixture
def trained() -> ESDNet:
    """A spike-driven network of four steps in which no two gains and weights over time are alike."""
    torch.manual_seed(2)
    network = run_in(ESDNet(preset("tiny_spike_driven")))
    with torch.no_grad():
        network.time_weights.weight.copy_(torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
        for name, parameter in network.named_parameters():
            if name.endswith(".gain"):
                parameter.uniform_(0.5, 1.5)
    return network


def with_steps(trained: ESDNet, steps: int, **changes) -> ESDNet:
    network = ESDNet(replace(trained.config, steps=steps, **changes)).eval()
    change_steps(trained, network)
    return network


def test_fewer_steps_are_the_first_ones(trained, rainy) -> None:
    """The same spikes as the first two of four; the image is theirs with the weights over time of all."""
    fewer = with_steps(trained, 2)
    seen: dict[str, torch.Tensor] = {}
    for key, network in (("four", trained), ("two", fewer)):
        network.decoder_level1.register_forward_hook(lambda module, inputs, out, key=key: seen.update({key: out}))
        network(rainy)
    assert torch.equal(seen["two"], seen["four"][:2])
    torch.testing.assert_close(fewer.time_weights.weight, torch.tensor([[0.1, 0.9]]))


def test_more_steps_share_the_weights_over_time(trained) -> None:
    more = with_steps(trained, 8)
    torch.testing.assert_close(more.time_weights.weight, torch.tensor([[0.05, 0.05, 0.1, 0.1, 0.15, 0.15, 0.2, 0.2]]))
    gains = trained.encoder_level1[0].attn.gain
    assert torch.equal(more.encoder_level1[0].attn.gain, gains.repeat_interleave(2, dim=0))
    uneven = with_steps(with_steps(trained, 2), 3)
    torch.testing.assert_close(uneven.time_weights.weight.sum(), torch.tensor(1.0))


def test_a_gate_is_put_before_a_trained_network(trained, rainy) -> None:
    gated = with_steps(trained, 4, gate="learnt")
    gated.gate = None
    assert torch.equal(gated(rainy), trained(rainy))


def test_networks_that_differ_in_more_are_refused(trained) -> None:
    for config in (replace(trained.config, dim=16), replace(preset("tiny"), steps=2)):
        with pytest.raises(UserError, match="fit networks with other steps or another gate, not"):
            change_steps(trained, ESDNet(config))
