"""Aids for training a spike-driven network from or beside a released one of the same widths, as the search tries them.

In: a Trainer before its first step and, where an aid needs one, a teacher: a trained released network. An aid changes
what the trainer starts from or what it minimises; the network that comes out has no trace of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esdnet.layers import SpikingResidualBlock, concat_channels
from esdnet.model import ESDNet
from esdnet.training import Trainer, draw_batch
from esdnet.weight_copy import copy_weights

DISTILLED = ("decoder_level3", "decoder_level2", "decoder_level1")
ANNEALED_SHARE = 1 / 3  # of the steps, after which shortcuts read nothing but spikes


@dataclass(frozen=True)
class Aids:
    """Which aids a run has; none by default. `distillation` is the factor of a term of the loss."""

    copies_weights: bool = False
    anneals_shortcuts: bool = False
    distillation: float = 0.0

    @property
    def need_teacher(self) -> bool:
        return self.copies_weights or self.distillation > 0

    def prepare(self, trainer: Trainer, teacher: ESDNet | None) -> None:
        """Give them to a trainer that has not begun. ValueError without the teacher that they need."""
        if self.need_teacher:
            if teacher is None:
                raise ValueError("copied weights and distillation need a teacher")
            if self.copies_weights:
                rainy, _ = draw_batch(trainer.source, trainer.config, rank=0, step=0)
                copy_weights(teacher, trainer.model, rainy)
                trainer.average.model.load_state_dict(trainer.model.state_dict())
            if self.distillation:
                trainer.loss = DistillationLoss(trainer.loss, trainer.model, teacher, self.distillation)
        if self.anneals_shortcuts:
            anneal_shortcuts(trainer)


def anneal_shortcuts(trainer: Trainer) -> None:
    """Let each shortcut read relu(X) and relu(-X), scaled to the spikes' mean, and fade that into the spikes.

    X is (T, N, C, H, W), what the shortcut reads (T, N, 2C, H, W). ValueError where a block has no shortcut.
    """

    def real_share() -> float:
        return max(0.0, 1 - trainer.step / (ANNEALED_SHARE * trainer.config.steps))

    for block in trainer.model.modules():
        if isinstance(block, SpikingResidualBlock):
            _anneal(block, real_share)


def _anneal(block: SpikingResidualBlock, real_share: Callable[[], float]) -> None:
    if block.shortcut is None:
        raise ValueError("a block without a shortcut has nothing to anneal")
    block_inputs: list[Tensor] = []

    def mix(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        (spikes,), x = inputs, block_inputs.pop()
        share = real_share()
        if share == 0:
            return None
        real = concat_channels(torch.relu(x), torch.relu(-x))
        scale = (spikes.mean() / real.mean().clamp(min=1e-6)).detach()
        return (share * scale * real + (1 - share) * spikes,)

    block.register_forward_pre_hook(lambda module, inputs: block_inputs.append(inputs[0]))
    block.shortcut.register_forward_pre_hook(mix)


class DistillationLoss(nn.Module):
    """A loss plus `weight` times the mean squared distance of the decoder's features, averaged over the steps, from
    the teacher's for the same images, in units of the teacher's variance.

    In: restored and clean batch (N, 3, H, W) as `loss` takes them; features (T, N, C, h, w) are seen while the student
    runs. Out: a scalar.
    """

    def __init__(self, loss: nn.Module, student: ESDNet, teacher: ESDNet, weight: float) -> None:
        super().__init__()
        self.loss, self.weight = loss, weight
        self.teacher = copy.deepcopy(teacher).requires_grad_(False)  # its hooks go with it
        self._ours: dict[str, Tensor] = {}
        self._theirs: dict[str, Tensor] = {}
        self._image: Tensor | None = None
        student.register_forward_pre_hook(self._keep_image)
        for network, features in ((student, self._ours), (self.teacher, self._theirs)):
            for name in DISTILLED:
                network.get_submodule(name).register_forward_hook(
                    lambda module, inputs, out, name=name, features=features: features.update({name: out.mean(0)})
                )

    def _keep_image(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        (self._image,) = inputs

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        with torch.no_grad():
            self.teacher(self._image)
        distances = [F.mse_loss(self._ours[name], self._theirs[name]) / self._theirs[name].var() for name in DISTILLED]
        return self.loss(restored, clean) + self.weight * torch.stack(distances).mean()
