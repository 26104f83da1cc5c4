"""What moves the weights of a network in training: AdamW, or Muon for the matrices and AdamW for the rest.

In: a network and its training settings. Out: optimizers whose groups say by what factor of the learning rate they move.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from esdnet.networks.esdnet.lif import LIF
from esdnet.training.config import TrainingConfig

BETAS = (0.9, 0.999)
MOMENTUM = 0.95
THRESHOLD_LR_SCALE = 0.1
MATRIX_LR_SCALE = 5.0  # a step of Muon has the size of its learning rate in every direction, not in every weight
FEWEST_CHANNELS = 8  # on both sides of a matrix that Muon moves: the first and the last convolution are AdamW's
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of the quintic that drives singular values towards 1 (Jordan et al. 2024)
ITERATIONS = 5


def open_optimizers(model: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW alone, or Muon and AdamW, as the settings say. Learnt thresholds move slowly, one number decides for a
    whole layer, and do not decay."""
    matrices = _matrices(model) if config.optimizer == "muon" else []
    thresholds = learnt_thresholds(model)
    apart = {id(parameter) for parameter in [*matrices, *thresholds]}
    others = [parameter for parameter in model.parameters() if id(parameter) not in apart]
    groups: list[dict[str, Any]] = [{"params": others, "lr_scale": 1.0}]
    if thresholds:
        groups.append({"params": thresholds, "lr_scale": THRESHOLD_LR_SCALE, "weight_decay": 0.0})
    adam = torch.optim.AdamW(groups, lr=config.lr, betas=BETAS, weight_decay=config.weight_decay)
    return [Muon(matrices, config.lr, config.weight_decay), adam] if matrices else [adam]


def learnt_thresholds(model: nn.Module) -> list[nn.Parameter]:
    """The thresholds among a network's parameters."""
    thresholds = (module.threshold for module in model.modules() if isinstance(module, LIF))
    return [threshold for threshold in thresholds if isinstance(threshold, nn.Parameter)]


def _matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weights of convolutions and linear layers between enough channels; a depthwise one is not."""
    layers = (module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear)))
    weights = (layer.get_parameter("weight") for layer in layers)
    return [weight for weight in weights if min(weight.shape[:2]) >= FEWEST_CHANNELS]


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal (Jordan et al. 2024, *Muon*): a step is as long in every direction.

    Of weights (O, I, ...), taken as matrices (O, I x ...). With G the gradient and M = 0.95 M + 0.05 G a step is
    lr sqrt(max(1, O / (I x ...))) orthogonal(0.05 G + 0.95 M). The group's lr_scale is MATRIX_LR_SCALE. torch's own
    Muon takes two axes alone, and is younger than the oldest torch supported.
    """

    def __init__(self, weights: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__([{"params": weights, "lr_scale": MATRIX_LR_SCALE}], {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the weights against their gradients. `closure` is not used."""
        for group in self.param_groups:
            for moved in _by_shape(group["params"]):
                steps = orthogonal(torch.stack([self._with_momentum(*each) for each in moved]))
                rows, columns = steps.shape[1:]
                size = group["lr"] * max(1.0, rows / columns) ** 0.5
                for (weight, _), step in zip(moved, steps, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(step.view_as(weight), alpha=-size)

    def _with_momentum(self, weight: nn.Parameter, gradient: Tensor) -> Tensor:
        """The gradient, and the momentum that it leaves: (O, I x ...)."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        return torch.lerp(gradient, momentum, MOMENTUM).flatten(1)


def _by_shape(weights: list[nn.Parameter]) -> list[list[tuple[nn.Parameter, Tensor]]]:
    """Weights and their gradients, those of one shape together: their products of matrices are one call."""
    found: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
    for weight in weights:
        if weight.grad is not None:
            found.setdefault(weight.flatten(1).shape, []).append((weight, weight.grad))
    return list(found.values())


def orthogonal(matrices: Tensor) -> Tensor:
    """U V^T of each matrix U S V^T, about: (B, M, N) -> (B, M, N), singular values from 0.7 to 1.2 where they were not
    tiny. Newton-Schulz iteration, products of matrices alone."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return x.transpose(1, 2) if tall else x
