"""What moves which weights, and Muon's step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from esdnet.networks.architectures import build, preset
from esdnet.training.config import TrainingConfig
from esdnet.training.optimizers import MATRIX_LR_SCALE, Muon, open_optimizers, orthogonal


def groups_of(network: nn.Module, **settings) -> list[dict]:
    opened = open_optimizers(network, TrainingConfig(**settings))
    return [group for optimizer in opened for group in optimizer.param_groups]


@pytest.mark.parametrize("name", ["tiny_spike_driven", "tiny", "tiny_dual_stage", "small_nafnet"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_is_moved_by_one_optimizer(name: str, optimizer: str) -> None:
    network = build(preset(name))
    moved = [id(parameter) for group in groups_of(network, optimizer=optimizer) for parameter in group["params"]]
    assert len(moved) == len(set(moved))
    assert set(moved) == {id(parameter) for parameter in network.parameters()}


def test_muon_moves_the_matrices_but_for_those_of_three_colours() -> None:
    network = build(preset("tiny_spike_driven"))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    matrices, *others = groups_of(network, optimizer="muon", lr=2e-3)
    assert matrices["lr_scale"] == MATRIX_LR_SCALE
    moved = {names[id(parameter)] for parameter in matrices["params"]}
    assert "encoder_level1.0.residual.1.weight" in moved
    assert not moved & {"patch_embed.proj.weight", "output.0.weight", "time_weights.weight"}
    assert all(network.get_parameter(name).ndim == 4 for name in moved)
    assert not any(
        "weight" in names[id(p)] and p.ndim == 4 and min(p.shape[:2]) >= 8 for g in others for p in g["params"]
    )


def test_learnt_thresholds_are_a_group_of_their_own() -> None:
    network = build(preset("tiny_spike_driven"))
    weights, thresholds = groups_of(network, weight_decay=0.01)
    named = dict(network.named_parameters())
    assert {id(p) for p in thresholds["params"]} == {id(p) for n, p in named.items() if n.endswith(".threshold")}
    assert (weights["weight_decay"], weights["lr_scale"]) == (0.01, 1.0)
    assert (thresholds["weight_decay"], thresholds["lr_scale"]) == (0.0, 0.1)
    assert len(groups_of(build(preset("tiny")))) == 1  # none of them is learnt


@pytest.mark.parametrize("shape", [(16, 144), (96, 48), (32, 32)])
def test_orthogonal_keeps_directions_and_levels_their_sizes(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape) * torch.tensor([1e-6, 1.0, 1e3])[:, None, None]
    found = orthogonal(matrices)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inside = torch.linalg.diagonal(u.transpose(1, 2) @ found @ v.transpose(1, 2))
    assert (inside > 0.3).all()
    assert (inside < 1.3).all()
    assert torch.allclose(found, u @ torch.diag_embed(inside) @ v, atol=1e-4)  # nothing beside these directions


def test_a_step_of_muon_by_hand() -> None:
    """The first step goes along orthogonal(G), whatever the size of G; the second along both gradients."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(8, 2, 3, 3))
    muon = Muon([weight], lr=0.1, weight_decay=0.0)
    first, second = torch.randn(2, 8, 2, 3, 3)
    weight.grad = first.clone()
    muon.step()
    expected = -0.1 * orthogonal(first.flatten(1)[None])[0].view_as(weight)
    assert torch.allclose(weight, expected, atol=1e-6)
    weight.grad = second.clone()
    muon.step()
    momentum = 0.95 * 0.05 * first + 0.05 * second
    looked_at = 0.05 * second + 0.95 * momentum
    expected = expected - 0.1 * orthogonal(looked_at.flatten(1)[None])[0].view_as(weight)
    assert torch.allclose(weight, expected, atol=1e-6)


def test_a_tall_matrix_takes_longer_steps_and_weights_decay() -> None:
    weight = nn.Parameter(torch.ones(32, 8))
    muon = Muon([weight], lr=0.1, weight_decay=0.5)
    weight.grad = torch.eye(32, 8)
    muon.step()
    assert torch.allclose(weight, 0.95 - 0.2 * orthogonal(torch.eye(32, 8)[None])[0], atol=1e-6)
