"""Gates: what is shut does nothing and stays as it is, what is open is as in a network without one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from esdnet.command.errors import UserError
from esdnet.images.rain_streaks import rain_mask
from esdnet.networks.esdnet.config import ESDNetConfig, preset, spike_driven
from esdnet.networks.esdnet.gate import MOST, LearntGate, MorphologicalGate, at_all_levels
from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.esdnet.model import ESDNet
from tests.conftest import run_in


class Given(nn.Module):
    """A gate that is known."""

    def __init__(self, gate: Tensor) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        return self.gate


@pytest.fixture(scope="module")
def network() -> ESDNet:
    torch.manual_seed(1)
    return run_in(ESDNet(replace(preset("tiny_spike_driven"), steps=3))).double()


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 32, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def behind(network: ESDNet, gate: Tensor, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output of the network behind that gate, and the spikes of each of its neurons."""
    spikes: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda module, inputs, out, name=name: spikes.update({name: out}))
        for name, module in network.named_modules()
        if isinstance(module, LIF)
    ]
    network.gate = Given(gate)
    try:
        with torch.no_grad():
            return network(image), spikes
    finally:
        network.gate = None
        for handle in handles:
            handle.remove()


def test_an_open_gate_changes_no_bit(network, image) -> None:
    with torch.no_grad():
        expected = network(image)
    found, _ = behind(network, torch.ones(2, 1, 32, 24, dtype=torch.float64), image)
    assert torch.equal(found, expected)
    assert not torch.equal(found, image)


def test_a_shut_gate_leaves_the_image_and_no_spike(network, image) -> None:
    found, spikes = behind(network, torch.zeros(2, 1, 32, 24, dtype=torch.float64), image)
    assert torch.equal(found, image)
    assert not any(value.any() for value in spikes.values())


def test_nothing_fires_and_nothing_changes_where_it_is_shut(network, image) -> None:
    gate = torch.zeros(2, 1, 32, 24, dtype=torch.float64)
    gate[0, 0, 8:21, 3:17], gate[1, 0, 31, 23] = 1, 1
    found, spikes = behind(network, gate, image)
    assert torch.equal(found[~gate.bool().expand_as(found)], image[~gate.bool().expand_as(image)])
    assert not torch.equal(found[0], image[0])
    by_size = {tuple(level.shape[-2:]): level for level in at_all_levels(gate)}
    for name, value in spikes.items():
        shut = by_size[tuple(value.shape[-2:])] == 0
        assert not value.masked_select(shut.expand_as(value)).any(), name
    assert sum(int(value.sum()) for value in spikes.values()) > 0


def test_a_pixel_of_a_lower_level_is_open_where_one_below_it_is() -> None:
    gate = torch.zeros(1, 1, 8, 8)
    gate[0, 0, 5, 2] = 1
    level1, level2, level3 = at_all_levels(gate)
    assert torch.equal(level1, gate)
    assert level2.nonzero().tolist() == [[0, 0, 2, 1]]
    assert level3.nonzero().tolist() == [[0, 0, 1, 0]]


def test_a_morphological_gate_spreads_streaks_by_a_pixel_and_opens_in_heavy_rain() -> None:
    gate, features = MorphologicalGate(), torch.zeros(0)
    dry = torch.full((1, 3, 48, 48), 0.4)
    assert not gate(dry, features).any()
    light = dry.clone()
    light[..., 8:40, 20] += 0.1
    mask = rain_mask(light, threshold=4)
    assert mask.sum() > 20
    expected = nn.functional.max_pool2d(mask, 3, 1, 1)
    assert torch.equal(gate(light, features), expected)
    assert expected.mean() < MOST
    heavy = dry.clone()
    heavy[..., ::5] += 0.1
    assert gate(heavy, features).all()
    both = gate(torch.cat([light, heavy]), features)  # each image by itself
    assert torch.equal(both[:1], expected)


def test_a_learnt_gate_is_binary_in_blocks_of_two_and_sees_31_pixels() -> None:
    torch.manual_seed(0)
    network = ESDNet(preset("tiny_gated"))
    gate = network.gate
    assert isinstance(gate, LearntGate)
    run_in(network).double()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():  # so that about half of it is open
        membranes = gate.decide(gate.layers(network._embed(image)[:1]))
        gate.decide.get_parameter("bias").add_(gate.fires.threshold - membranes.median())
    image.requires_grad_()

    def opened(image: Tensor) -> Tensor:
        return gate(image, network._embed(image))

    found = opened(image)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(found, nn.functional.max_pool2d(found, 2).repeat_interleave(2, 2).repeat_interleave(2, 3))
    seen: dict[str, Tensor] = {}
    gate.fires.register_forward_hook(lambda module, inputs, out: seen.update(current=inputs[0]))
    opened(image)
    seen["current"][0, 0, 0, 16, 16].backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == 31


def test_gradients_of_the_image_do_not_reach_the_gate() -> None:
    torch.manual_seed(0)
    network = ESDNet(preset("tiny_gated"))
    network(torch.rand(1, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is None for parameter in network.gate.parameters())
    assert network.decoder_level1[0].shortcut[0].weight.grad.any()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"refinement": "frb"}, "refinement frb"),
        ({"coding": "image", "readout": "spikes"}, "coding image, readout spikes"),
        ({"attention": "mixed"}, "attention mixed"),
    ],
)
def test_other_networks_take_no_gate(changes, found) -> None:
    with pytest.raises(UserError, match=f"a gate is for spike-driven networks, found {found}"):
        replace(spike_driven(ESDNetConfig()), gate="learnt", **changes)


def test_an_unknown_gate_is_refused() -> None:
    with pytest.raises(UserError, match="gate must be one of none, morphological, learnt, found 'wooden'"):
        replace(preset("tiny_spike_driven"), gate="wooden")
