"""NAFNet: its parts by their equations, and what it starts as."""

from __future__ import annotations

import pytest
import torch

from esdnet.command.errors import UserError
from esdnet.networks.nafnet.config import PRESETS, NAFNetConfig
from esdnet.networks.nafnet.model import ChannelAttention, NAFNet, SimpleGate
from tests.tolerances import FLOAT64_OUTPUT

TINY = PRESETS["tiny_nafnet"]


def test_the_gate_by_hand() -> None:
    x = torch.tensor([2.0, 3.0, 5.0, 7.0]).view(1, 4, 1, 1)
    assert SimpleGate()(x).flatten().tolist() == [10.0, 21.0]


def test_channel_attention_by_its_equation() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    module = ChannelAttention(3).double()
    weight, bias = module.linear.weight[:, :, 0, 0], module.linear.bias
    expected = torch.einsum("nchw,nc->nchw", x, x.mean((2, 3)) @ weight.T + bias)
    assert torch.allclose(module(x), expected, rtol=0, atol=FLOAT64_OUTPUT)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1)])
def test_without_its_ending_it_is_the_identity_at_any_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = NAFNet(TINY)
    for parameter in network.ending.parameters():
        torch.nn.init.zeros_(parameter)
    image = torch.rand(2, 3, *size)
    assert torch.equal(network(image), image)


def test_blocks_start_as_the_identity_and_every_weight_is_trained() -> None:
    torch.manual_seed(0)
    network = NAFNet(TINY)
    features = torch.randn(1, TINY.width, 8, 8)
    assert torch.equal(network.encoders[0](features), features)
    network(torch.rand(1, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    "values", [{"width": 0}, {"middle_blocks": -1}, {"encoder_blocks": (1, 1)}, {"decoder_blocks": (1, -1, 1)}]
)
def test_a_network_that_cannot_be(values: dict) -> None:
    with pytest.raises(UserError, match="expected a width, and as many encoder as decoder levels"):
        NAFNetConfig(**values)
