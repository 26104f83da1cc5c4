"""Distillation: a network learns from the decoder's features of a trained one of the same widths, beside the images."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.model import ESDNet

if TYPE_CHECKING:
    from esdnet.networks.architectures import Network

DISTILLED = ("decoder_level3", "decoder_level2", "decoder_level1")


class DistillationLoss(nn.Module):
    """`loss` plus `weight` times the mean squared distance of the decoder's features, averaged over the steps, from
    the teacher's for the same images, in units of the teacher's variance.

    In: restored and clean batch (N, 3, H, W) as `loss` takes them; features (T, N, C, h, w) are seen while the student
    runs, and the teacher runs just before it, in its precision. Out: a scalar in float32. UserError if the widths of
    the two differ, or the student is none.
    """

    def __init__(self, loss: nn.Module, student: Network, teacher: ESDNet, weight: float) -> None:
        super().__init__()
        if not isinstance(student, ESDNet):
            raise UserError("distillation: an ESDNet learns from an ESDNet, found another architecture")
        if student.config.dim != teacher.config.dim:
            raise UserError(
                f"distillation: a network of dim {student.config.dim} needs a teacher of the same, "
                f"found {teacher.config.dim}"
            )
        self.loss, self.weight = loss, weight
        self.teacher = copy.deepcopy(teacher).eval().to(next(student.parameters()).device)  # the caller's stays
        self._ours: dict[str, Tensor] = {}
        self._theirs: dict[str, Tensor] = {}
        student.register_forward_pre_hook(self._run_teacher)
        for network, features in ((student, self._ours), (self.teacher, self._theirs)):
            for name in DISTILLED:
                network.get_submodule(name).register_forward_hook(
                    lambda module, inputs, out, name=name, features=features: features.update(
                        {name: out.float().mean(0)}
                    )
                )

    def _run_teacher(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        with torch.no_grad():
            self.teacher(*inputs)

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """The loss of a batch, and of its distance from the teacher."""
        distances = [F.mse_loss(self._ours[name], self._theirs[name]) / self._theirs[name].var() for name in DISTILLED]
        return self.loss(restored, clean) + self.weight * torch.stack(distances).mean()
