"""Aids for training a spike-driven network from a released one of the same widths, as the search tries them.

In: a Trainer before its first step. An aid changes what it starts from, or what its network reads while it trains; the
network that comes out has no trace of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from esdnet.networks.esdnet.layers import SpikingResidualBlock, concat_channels
from esdnet.networks.esdnet.model import ESDNet
from esdnet.networks.esdnet.weight_copy import copy_weights
from esdnet.training.loop import Trainer, draw_batch

ANNEALED_SHARE = 1 / 3  # of the steps, after which shortcuts read nothing but spikes


def start_from(teacher: ESDNet, trainer: Trainer) -> None:
    """Give the trained network and its average the weights of `teacher`, a released network of the same widths."""
    rainy, _ = draw_batch(trainer.source, trainer.config, rank=0, step=0)
    copy_weights(teacher, trainer.model, rainy)
    trainer.average.module.load_state_dict(trainer.model.state_dict())


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
