"""The dual-stage network as a whole: what it starts as, sizes, dtypes, and what its controls leave out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from esdnet.command.errors import UserError
from esdnet.networks.dual_stage.config import PRESETS, DualStageConfig
from esdnet.networks.dual_stage.model import DualStage
from tests.tolerances import FLOAT32_MEMBRANE

TINY = PRESETS["tiny_dual_stage"]


@pytest.fixture
def network(dual_stage_model: DualStage) -> DualStage:
    return dual_stage_model


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (1, 1), (50, 96)])
def test_without_output_layers_both_stages_are_the_identity(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = DualStage(TINY).train()
    for stage in (network.stage1, network.stage2):
        torch.nn.init.zeros_(stage.output.weight)
        torch.nn.init.zeros_(stage.output.bias)
    image = torch.rand(2, 3, *size)
    first, second = network(image)
    assert torch.equal(first, image)
    assert torch.equal(second, image)
    assert torch.equal(network.eval()(image), image)


def test_any_size_in_the_same_size_out(network: DualStage) -> None:
    for size in ((32, 32), (33, 64), (17, 90)):
        assert network(torch.rand(1, 3, *size)).shape == (1, 3, *size)


def test_the_second_stage_sees_what_the_first_made_of_the_image(network: DualStage) -> None:
    """Both images and their gradients, from the parts of the network put together here."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    shut = torch.zeros(1, 1, 16, 16)
    for row, column in np.ndindex(16, 16):  # at least 8 of the 16 pixels of one on the last level
        shut[0, 0, row, column] = (
            network.mask(image)[0, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].sum() >= 8
        )
    assert 0 < shut.mean() < 1
    features, light = network.stage1(image, shut)
    first = image + light
    _, light = network.stage2(torch.cat([first, image, first - image], 1), None, network.hand_on(features))
    expected = (first, first + light)
    weight = network.stage1.output.weight
    for mine, its in zip(network.stages(image), expected, strict=True):
        assert torch.equal(mine, its)
        gradients = [torch.autograd.grad(each.sum(), weight, retain_graph=True)[0] for each in (mine, its)]
        assert torch.allclose(*gradients, rtol=1e-5, atol=1e-5)


def test_windows_overlap_in_the_second_stage_alone(network: DualStage) -> None:
    """All 256 pixels of the last level are in one order. What changes in one pixel of the second window, changes that
    window alone in the first stage; in the second, so it does the first window, which looks 32 places on."""
    order = torch.arange(256)[None]
    for stage, place, changed in (
        (network.stage1, 64, {1}),
        (network.stage2, 95, {0, 1}),
        (network.stage2, 96, {1, 2}),
    ):
        attention = stage.bottleneck.attentions[0]
        features = torch.randn(1, 32, 16, 16, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            before = attention(features, order)
            features[0, :, place // 16, place % 16] += 1
            after = attention(features, order)
        places = (before != after).any(1).flatten().nonzero().flatten()
        assert set((places // 64).tolist()) == changed


def test_float32_is_float64_rounded(network: DualStage) -> None:
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    exact = DualStage(TINY).double().eval()
    exact.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.allclose(network(image).double(), exact(image.double()), rtol=0, atol=FLOAT32_MEMBRANE)


def test_the_same_each_time_and_in_a_batch(network: DualStage) -> None:
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    exact = DualStage(TINY).double().eval()
    exact.load_state_dict(network.state_dict())
    with torch.no_grad():
        together = exact(images)
        assert torch.equal(exact(images), together)
        assert torch.allclose(torch.cat([exact(image[None]) for image in images]), together, rtol=0, atol=1e-12)


def test_every_weight_is_trained() -> None:
    torch.manual_seed(0)
    network = DualStage(TINY).train()
    sum(each.square().sum() for each in network(torch.rand(1, 3, 64, 64))).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_checkpoint(name: str) -> None:
    assert DualStageConfig.from_dict(PRESETS[name].to_dict()) == PRESETS[name]


@pytest.mark.parametrize("change", [{"order": "windows"}, {"order": "raster"}, {"order": "random"}, {"masked": False}])
def test_controls_have_the_same_weights(change: dict) -> None:
    torch.manual_seed(0)
    ours = DualStage(TINY)
    torch.manual_seed(0)
    control = DualStage(replace(TINY, **change))
    named = dict(control.named_parameters())
    assert named.keys() == dict(ours.named_parameters()).keys()
    image = torch.rand(1, 3, 64, 64)
    assert control.eval()(image).shape == image.shape


def test_what_is_left_out_has_no_weights() -> None:
    plain = DualStage(replace(TINY, attentions=0))
    assert not [name for name, _ in plain.named_parameters() if "attention" in name]
    alone = DualStage(replace(TINY, stages=1))
    assert not [name for name, _ in alone.named_parameters() if "stage2" in name or "hand_on" in name]
    (only,) = alone.train()(torch.rand(1, 3, 32, 32))
    assert only.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": "sorted"}, r"order must be one of clustered, windows, raster, random, found 'sorted'"),
        ({"stages": 3}, r"stages must be 1 or 2, found 3"),
        ({"heads": 3}, r"32 channels cannot be shared by 3 heads"),
        ({"channels": (0, 8, 8)}, r"must be at least 1"),
    ],
)
def test_a_network_that_cannot_be(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(TINY, **change)


def test_an_unknown_setting() -> None:
    with pytest.raises(UserError, match="dim"):
        DualStageConfig.from_dict({"dim": 8})
