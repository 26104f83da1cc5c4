"""The parts of a spike-driven ESDNet, by hand: both signs, gains, weights over time, enlarged spikes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.layers import (
    ALPHA,
    MixedAttention,
    OnOff,
    SpikingResidualBlock,
    StaticGains,
    TimeWeights,
    Upsample,
)
from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.esdnet.model import ESDNet

SPIKE_DRIVEN = preset("tiny_spike_driven")
STEPS = SPIKE_DRIVEN.steps


def features(channels: int, side: int = 8) -> torch.Tensor:
    """(T, 1, C, side, side), the same real values at every step."""
    return torch.randn(1, 1, channels, side, side, generator=torch.Generator().manual_seed(0)).repeat(STEPS, 1, 1, 1, 1)


def inputs_of(module: nn.Module, seen: list[torch.Tensor]) -> None:
    module.register_forward_pre_hook(lambda m, arguments: seen.append(arguments[0]))


def is_binary(value: torch.Tensor) -> bool:
    return bool(((value == 0) | (value == 1)).all()) and 0 < float(value.detach().mean()) < 1


def test_on_off_gives_the_spikes_of_x_and_of_minus_x_side_by_side():
    x = features(3)
    pair = OnOff(SPIKE_DRIVEN)(x)
    assert pair.shape == (STEPS, 1, 6, 8, 8)
    plain = LIF(learn_threshold=True)
    assert torch.equal(pair[:, :, :3], plain(x))
    assert torch.equal(pair[:, :, 3:], plain(-x))
    assert not (pair[0, :, :3] * pair[0, :, 3:]).any()  # no first current is above both thresholds
    assert is_binary(pair)


def test_on_and_off_learn_thresholds_of_their_own():
    layer = OnOff(SPIKE_DRIVEN)
    with torch.no_grad():
        layer.off.threshold.fill_(100.0)
    pair = layer(features(3))
    assert pair[:, :, :3].sum() > 0
    assert pair[:, :, 3:].sum() == 0


def test_static_gains_by_hand_and_at_the_start():
    layer, x, skip = StaticGains(STEPS, 2), features(2), torch.full((STEPS, 1, 2, 8, 8), 0.25)
    assert torch.equal(layer(x, skip), torch.relu(x) + skip)
    with torch.no_grad():
        layer.gain[2, 0, 1] = -2.0
    gained = layer(x, skip)
    assert torch.equal(gained[2, :, 1], torch.relu(-2 * x[2, :, 1]) + 0.25)
    assert torch.equal(gained[:2], torch.relu(x[:2]) + 0.25)


def test_with_static_gains_a_step_sees_no_later_one_and_with_mixed_attention_it_does():
    for attention, waits in ((StaticGains(STEPS, 2), False), (MixedAttention(STEPS, 2), True)):
        torch.manual_seed(0)
        x = features(2).requires_grad_()
        attention(x.clone(), torch.zeros_like(x))[0].square().sum().backward()
        assert bool(x.grad[1:].any()) is waits


def test_weights_over_time_start_as_the_mean_and_are_a_sum():
    layer = TimeWeights(STEPS)
    x = torch.randn(STEPS, 2, 3, 4, 5)
    assert layer(x).shape == (2, 3, 4, 5)
    assert torch.allclose(layer(x), x.mean(0), atol=1e-6)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 2.0, 0.0, -1.0]]))
    assert torch.allclose(layer(x), 2 * x[1] - x[3], atol=1e-6)


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
def test_upsampling_feeds_its_convolution_spikes(upsampling):
    layer = Upsample(replace(SPIKE_DRIVEN, upsampling=upsampling), 4)
    seen: list[torch.Tensor] = []
    inputs_of(layer.up[1], seen)
    assert layer(features(4)).shape == (STEPS, 1, 2, 16, 16)
    (spikes,) = seen
    assert spikes.shape == (STEPS, 1, 8, 16, 16)
    assert is_binary(spikes)
    blocks = spikes.unflatten(-1, (8, 2)).unflatten(-3, (8, 2)).movedim(-3, -2).flatten(-2)
    copied = bool((blocks == blocks[..., :1]).all())
    assert copied is (upsampling == "nearest")  # each spike four times; bilinear, the neurons see 16x16 currents


def test_enlarged_spikes_are_those_before_the_enlargement():
    layer = Upsample(SPIKE_DRIVEN, 4)
    seen: list[torch.Tensor] = []
    inputs_of(layer.up[1], seen)
    x = features(4)
    layer(x)
    assert torch.equal(seen[0], layer.up[0](x).repeat_interleave(2, -1).repeat_interleave(2, -2))


@pytest.mark.parametrize("shortcut", ["spikes", "analog"])
def test_a_block_s_shortcut_reads_the_spikes_that_its_first_convolution_reads(shortcut):
    block = SpikingResidualBlock(replace(SPIKE_DRIVEN, shortcut=shortcut), 4).eval()
    first: list[torch.Tensor] = []
    beside: list[torch.Tensor] = []
    inputs_of(block.residual[1], first)
    inputs_of(block.shortcut[0], beside)
    x = features(4)
    block(x)
    assert is_binary(first[0])
    assert torch.equal(beside[0], first[0] if shortcut == "spikes" else x)


def test_a_block_by_hand():
    """ReLU(gain (residual + shortcut)) + X, each from its own modules."""
    torch.manual_seed(0)
    block, x = SpikingResidualBlock(SPIKE_DRIVEN, 4).eval(), features(4)
    spikes = block.residual[0](x)
    with torch.no_grad():
        block.attn.gain.uniform_(0.5, 1.5)
        expected = torch.relu((block.residual[1:](spikes) + block.shortcut(spikes)) * block.attn.gain) + x
        assert torch.equal(block(x), expected)


def test_the_patch_embedding_is_made_once_and_repeated():
    model = ESDNet(SPIKE_DRIVEN).eval()
    seen: list[torch.Tensor] = []
    inputs_of(model.patch_embed.proj, seen)
    inputs_of(model.encoder_level1[0], seen)
    with torch.no_grad():
        model(torch.rand(2, 3, 16, 16))
    assert seen[0].shape == (1, 2, 3, 16, 16)
    assert seen[1].shape == (STEPS, 2, 8, 16, 16)
    assert all(torch.equal(step, seen[1][0]) for step in seen[1])


def test_a_readout_of_spikes_merges_the_steps_after_the_last_convolution():
    model = ESDNet(replace(SPIKE_DRIVEN, readout="spikes")).eval()
    seen: list[torch.Tensor] = []
    inputs_of(model.output[1], seen)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert model(image).shape == image.shape
    assert seen[0].shape == (STEPS, 1, 32, 16, 16)
    assert bool(((seen[0] == 0) | (seen[0] == 1)).all())


def test_norms_start_at_the_threshold():
    block = SpikingResidualBlock(SPIKE_DRIVEN, 4)
    starts = [float(norm.weight[0].detach()) for norm in (block.residual[2], block.residual[5], block.shortcut[1])]
    assert starts == pytest.approx([ALPHA * 0.15, 0.2 * ALPHA * 0.15, ALPHA * 0.15])
