"""Orders are permutations, undone bit for bit; clusters group what is alike, and none takes everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from esdnet.networks.dual_stage.config import PRESETS
from esdnet.networks.dual_stage.model import DualStage
from esdnet.networks.dual_stage.rearrange import STEP, Clusters, Rows, Shuffled, SquareWindows, inverse, take
from esdnet.training.rain import add_rain, heavy_rain


@settings(deadline=None, max_examples=30)
@given(images=st.integers(1, 3), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_what_is_taken_apart_is_put_back(images: int, height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, 5, height, width, generator=generator)
    torch.manual_seed(seed)
    order = Clusters(4, 5)(features)
    assert torch.equal(order.sort().values, torch.arange(height * width).expand(images, -1))
    tokens = features.flatten(2).transpose(1, 2)
    assert torch.equal(take(take(tokens, order), inverse(order)), tokens)


@pytest.mark.parametrize("arrange", [SquareWindows(), Rows(), Shuffled()])
def test_fixed_orders_are_permutations_and_the_same_each_time(arrange: nn.Module) -> None:
    order = arrange(torch.zeros(3, 1, 16, 24))
    assert order.shape == (1, 384)
    assert torch.equal(order.sort().values[0], torch.arange(384))
    assert torch.equal(order, arrange(torch.zeros(3, 1, 16, 24)))


def test_square_windows_by_hand() -> None:
    order = SquareWindows()(torch.zeros(1, 1, 8, 16))[0]
    assert order[:9].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 16]
    assert order[64:66].tolist() == [8, 9]


def test_pixels_of_a_cluster_stand_side_by_side_in_rows() -> None:
    clusters = Clusters(2, 2).eval()
    clusters.centres.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    pixels = torch.tensor([[1.0, 0.1], [0.0, 2.0], [1.0, 3.0], [3.0, 1.0]])  # 0 and 3 lean to the first centre
    assert clusters(pixels.T.view(1, 2, 2, 2)).tolist() == [[0, 3, 1, 2]]


def test_the_mean_does_not_count() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 6, 8, 8)
    clusters = Clusters(4, 6).eval()
    before = clusters(features)
    clusters.mean.copy_(torch.full((6,), 100.0))
    assert torch.equal(clusters(features + 100), before)


def test_inference_changes_nothing() -> None:
    clusters = Clusters(4, 6).eval()
    before = {name: value.clone() for name, value in clusters.state_dict().items()}
    clusters(torch.randn(2, 6, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in clusters.state_dict().items())


def far_from_zero(step: int) -> Tensor:
    """Features as networks have them: much in common, little of their own, of which half is of two kinds."""
    generator = torch.Generator().manual_seed(step)
    own = torch.randn(2, 12, 16, 16, generator=generator)
    own[:, :2, :8] += 4
    return 20 + own


def test_no_cluster_takes_half_of_features_that_are_much_alike() -> None:
    torch.manual_seed(0)
    clusters = Clusters(8, 12).train()
    for step in range(500):
        clusters(far_from_zero(step))
    shares = np.bincount(clusters.label(far_from_zero(500).flatten(2).mT).flatten().numpy(), minlength=8) / 512
    assert shares.max() <= 0.5
    assert shares.min() > 0  # none is dead
    assert torch.allclose(clusters.mean, far_from_zero(500).mean((0, 2, 3)), rtol=0, atol=0.5)


def test_a_step_of_training_by_hand() -> None:
    """The mean is (10, 0). Two pixels lean up from it, two to the left: to there the centres move, by STEP."""
    clusters = Clusters(3, 2).train()
    centres = torch.nn.functional.normalize(torch.tensor([[1.0, 3.0], [-2.0, 1.0], [0.0, -1.0]]), dim=1)
    clusters.centres.copy_(centres)
    clusters.mean.copy_(torch.tensor([10.0, 0.0]))
    pixels = torch.tensor([[10.0, 1.0], [10.0, 5.0], [9.0, 0.0], [7.0, 0.0]])
    clusters(pixels.T.view(1, 2, 2, 2))
    ends = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])  # nobody is with the third: it stays
    expected = torch.nn.functional.normalize(centres + STEP * (ends - centres), dim=1)
    assert torch.allclose(clusters.centres, expected, rtol=0, atol=1e-6)
    assert torch.allclose(clusters.mean, torch.tensor([10 - 0.01 * 1.0, 0.01 * 1.5]), rtol=0, atol=1e-5)
    assert torch.allclose(
        clusters.share, torch.tensor([1 / 3 + 0.01 / 6, 1 / 3 + 0.01 / 6, 0.99 / 3]), rtol=0, atol=1e-6
    )


def test_a_dead_centre_is_put_where_pixels_are_served_worst() -> None:
    torch.manual_seed(0)
    clusters = Clusters(2, 3).train()
    clusters.centres.copy_(torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]))
    clusters.share.copy_(torch.tensor([1.0, 0.0]))
    features = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).repeat(1, 1, 4, 4)
    features[0, :, 2, 1] = torch.tensor([0.6, 0.8, 0.0])
    clusters(features)
    assert torch.allclose(clusters.centres[1], torch.tensor([0.6, 0.8, 0.0]))


def rainy_pair(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Squares of one colour, and the same in heavy rain: (1, 3, 64, 64)."""
    clean = np.kron(rng.random((16, 16, 3)), np.ones((4, 4, 1))).astype(np.float32)
    rainy = add_rain(clean, heavy_rain(rng, 64, 64, 0.5))
    clean, rainy = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (clean, rainy))
    return clean, rainy


@pytest.mark.slow
def test_no_cluster_takes_half_after_500_steps_of_training() -> None:
    torch.manual_seed(0)
    network = DualStage(PRESETS["tiny_dual_stage"]).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    rng = np.random.default_rng(0)
    for _ in range(500):
        clean, rainy = rainy_pair(rng)
        loss = sum((each - clean).abs().mean() for each in network(rainy))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clusters = network.eval().stage2.bottleneck.arrange
    seen: list[Tensor] = []
    clusters.register_forward_hook(lambda module, given, order: seen.append(given[0].flatten(2).mT))
    with torch.no_grad():
        for _ in range(20):
            network(rainy_pair(rng)[1])
    shares = clusters.label(torch.cat(seen)).flatten().bincount(minlength=16) / (20 * 256)
    assert shares.max() <= 0.5
    assert (shares > 0.01).sum() >= 8
