"""The training losses against scikit-image, by hand, and by numerical gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from esdnet.command.errors import UserError
from esdnet.images.metrics import luminance
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.esdnet.model import ESDNet
from esdnet.training.losses import FiringLoss, GateLoss, RestorationLoss, charbonnier, log_error, luma, ssim_map


def _images(size: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, size, size + 4, generator=generator, dtype=torch.float64)
    return (clean + 0.2 * torch.rand(clean.shape, generator=generator, dtype=torch.float64)).clamp(0, 1), clean


def test_ssim_equals_scikit_image_where_the_window_fits() -> None:
    """At the border the two mirror differently (with and without the edge pixel repeated), so 5 pixels are left out."""
    a, b = _images()
    ours = ssim_map(a, b).numpy()
    for image in range(2):
        _, reference = structural_similarity(
            a[image].numpy(), b[image].numpy(), channel_axis=0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, data_range=1.0, full=True,
        )  # fmt: skip
        np.testing.assert_allclose(ours[image][:, 5:-5, 5:-5], reference[:, 5:-5, 5:-5], atol=1e-12)


def test_ssim_of_constant_images_by_hand() -> None:
    """No variance: SSIM is (2ab + C1) / (a^2 + b^2 + C1) everywhere, the mirrored border included."""
    a, b = torch.full((1, 1, 16, 16), 0.5, dtype=torch.float64), torch.full((1, 1, 16, 16), 0.25, dtype=torch.float64)
    expected = (2 * 0.125 + 1e-4) / (0.25 + 0.0625 + 1e-4)
    torch.testing.assert_close(ssim_map(a, b), torch.full_like(a, expected), atol=1e-12, rtol=0)


def test_equal_images_lose_nothing_but_the_charbonnier_floor() -> None:
    image, _ = _images()
    assert float(RestorationLoss()(image, image)) == pytest.approx(0.0, abs=1e-6)
    assert float(RestorationLoss(l1_weight=2.0)(image, image)) == pytest.approx(2e-3, abs=1e-6)


def test_charbonnier_by_hand() -> None:
    a, b = torch.tensor([0.0, 3e-3, 1.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    expected = (1e-3 + math.sqrt(1e-5) + math.sqrt(1 + 1e-6)) / 3
    assert float(charbonnier(a, b)) == pytest.approx(expected, rel=1e-12)


def test_the_logarithm_of_the_error_by_hand() -> None:
    """Mean squared errors 0 and 0.01: the logarithms of 1e-5 and of 0.01001, and not that of their mean."""
    clean = torch.zeros(2, 3, 12, 12, dtype=torch.float64)
    restored = torch.stack([clean[0], clean[1] + 0.1])
    expected = (-5 + math.log10(0.01001)) / 2
    assert float(log_error(restored, clean)) == pytest.approx(expected, rel=1e-12)
    image, other = _images()
    difference = RestorationLoss(log_weight=0.5)(image, other) - RestorationLoss()(image, other)
    assert float(difference) == pytest.approx(0.5 * float(log_error(image, other)), abs=1e-6)


def test_every_stage_is_judged_and_the_last_counts_twice() -> None:
    clean, restored = _images()
    loss = RestorationLoss(l1_weight=1.0, log_weight=0.1)
    first, last = float(loss(restored, clean)), float(loss(clean + 0.1, clean))
    assert float(loss((restored, clean + 0.1), clean)) == pytest.approx(last + 0.5 * first, rel=1e-6)
    assert float(loss((restored,), clean)) == first


def test_luma_is_the_metric_s_without_offset_and_range() -> None:
    image, _ = _images()
    expected = (luminance(image[0].permute(1, 2, 0).numpy()) - 16) / 255
    np.testing.assert_allclose(luma(image)[0, 0].numpy(), expected, atol=1e-12)


def test_gradients_are_right() -> None:
    a, b = _images(12)
    a = a[:1, :, :12, :12].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ssim_map(x, b[:1, :, :12, :12]).mean(), (a,))


def test_luma_loss_ignores_a_change_of_hue_that_keeps_luma() -> None:
    image, _ = _images()
    shifted = image.clone()
    shifted[:, 0] += 0.1
    shifted[:, 1] -= 0.1 * 65.481 / 128.553
    assert float(RestorationLoss(on_luma=True)(shifted, image)) == pytest.approx(0.0, abs=1e-6)
    assert float(RestorationLoss()(shifted, image)) > 1e-3


def test_a_price_on_spikes_by_hand() -> None:
    """Currents far above the threshold of 0.15 fire at every step, others never. The first layer has 2 channels, the
    second 4: (2 x 3 + 4 x 1) of (2 x 4 + 4 x 4)."""
    neurons = nn.ModuleList([LIF(), LIF()])
    loss = FiringLoss(RestorationLoss(), neurons, price=2.0)
    image = _images()[1].float()
    for _ in range(2):  # nothing is kept from one batch to the next
        neurons[0](torch.tensor([5.0, 5.0, 0.0, 5.0]).view(2, 1, 2, 1, 1))
        neurons[1](torch.tensor([0.0, 5.0, -5.0, 0.0]).view(1, 1, 4, 1, 1))
        assert float(loss(image, image)) == pytest.approx(2 * (2 * 3 + 4 * 1) / (2 * 4 + 4 * 4), abs=1e-5)


def test_a_price_on_spikes_pushes_membranes_down() -> None:
    """The gradient of the price alone: positive at every current, so that a step against it lowers them."""
    neurons = nn.ModuleList([LIF()])
    currents = torch.full((4, 1, 1, 1, 1), 0.2, requires_grad=True)
    clean = _images()[1].float()
    loss = FiringLoss(RestorationLoss(), neurons, price=1.0)
    neurons[0](currents)
    loss(clean, clean).backward()
    assert currents.grad is not None
    assert (currents.grad > 0).all()


def test_a_price_on_spikes_needs_neurons() -> None:
    with pytest.raises(UserError, match="needs a network with LIF neurons, found one without"):
        FiringLoss(RestorationLoss(), nn.ReLU(), price=1.0)


def test_a_gate_is_judged_by_where_the_rain_is() -> None:
    """By hand: a block of 2x2 pixels is rain where one of them gained more than 0.015; a membrane below its threshold
    there costs three times what one above costs elsewhere."""
    torch.manual_seed(0)
    network = ESDNet(preset("tiny_gated")).eval()
    loss = GateLoss(RestorationLoss(), network)
    clean = torch.full((1, 3, 16, 16), 0.5)
    rainy = clean.clone()
    rainy[0, 1, 5, 8] += 0.02
    rainy[0, 2, 12, 3] += 0.01
    network(rainy)
    membranes = loss._seen["logits"].flatten()
    rain = torch.zeros(8, 8)
    rain[2, 4] = 1
    expected = torch.where(rain.flatten() > 0, 3 * F.softplus(-membranes), F.softplus(membranes)).mean()
    assert float(loss(clean, clean)) == pytest.approx(float(expected), abs=1e-5)


def test_a_gate_learns_from_its_loss_alone() -> None:
    torch.manual_seed(0)
    network = ESDNet(preset("tiny_gated"))
    loss = GateLoss(RestorationLoss(), network)
    rainy = torch.rand(1, 3, 16, 16)
    loss(network(rainy), torch.zeros_like(rainy)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.gate.decide.parameters())


def test_a_loss_on_the_gate_needs_one_that_is_learnt() -> None:
    with pytest.raises(UserError, match="needs a network that learns its gate, found one without"):
        GateLoss(RestorationLoss(), ESDNet(preset("tiny_spike_driven")))
