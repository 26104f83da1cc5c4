"""A spike-driven network that starts from the weights of a trained one of the same widths and blocks: of a released
one, or of one with other steps or another gate."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.config import spike_driven
from esdnet.networks.esdnet.layers import MixedAttention
from esdnet.networks.esdnet.model import ESDNet
from esdnet.networks.watching import watching


def copy_weights(released: ESDNet, network: ESDNet, rainy: Tensor) -> None:
    """Set the weights of `network`, the spike-driven counterpart of `released`, from it.

    A convolution that reads ON and OFF spikes takes W and -W where the released one reads real values (the shortcut),
    W and 0 where it reads LIF(X). Gains start as the released network's mean attention on `rainy` (N, 3, H, W).
    Thresholds and weights over time, which it has not, stay. UserError if `network` is not its counterpart.
    """
    if network.config != spike_driven(released.config):
        raise UserError(f"weights of {released.config} can be copied to {spike_driven(released.config)}, not to others")
    ours, theirs = network.state_dict(), released.state_dict()
    for name, value in ours.items():
        if name in theirs:
            weight = theirs[name]
            if value.shape != weight.shape:
                off = -weight if ".shortcut." in name else torch.zeros_like(weight)
                weight = torch.cat([weight, off], dim=1)
            value.copy_(weight)
    for name, gain in mean_attention(released, rainy).items():
        ours[f"{name}.gain"].copy_(gain)


def change_steps(trained: ESDNet, network: ESDNet) -> None:
    """Set the weights of `network`, spike-driven, from one that differs in its steps T and its gate alone.

    More steps: each step's gains are repeated, its weight over time is divided. Fewer: the first ones stay as they
    were, and the last that is left takes the weights over time of those that are gone. A gate that `trained` has not
    stays as it is.
    UserError for other differences.
    """
    ours, theirs = trained.config, network.config
    if replace(ours, steps=theirs.steps, gate=theirs.gate) != theirs or theirs.refinement != "time_weights":
        raise UserError(f"weights of {ours} fit networks with other steps or another gate, not {theirs}")
    read = [step * ours.steps // theirs.steps if theirs.steps > ours.steps else step for step in range(theirs.steps)]
    state = trained.state_dict()
    for name, value in network.state_dict().items():
        if name == "time_weights.weight":
            spread = state[name][:, read] / torch.tensor([read.count(step) for step in read])
            spread[:, -1] += state[name][:, theirs.steps :].sum(1)
            value.copy_(spread)
        elif name in state:
            value.copy_(state[name][read] if name.endswith(".gain") else state[name])


def mean_attention(network: ESDNet, rainy: Tensor) -> dict[str, Tensor]:
    """What each MAU multiplies relu(x) by, the mean per step and channel weighted by relu(x): (T, 1, C, 1, 1).

    MAU(x) + skip is g relu(x) + skip with gates g, so that the sum of what it adds over that of relu(x) is the mean.
    """
    gains: dict[str, Tensor] = {}

    def keep(name: str, inputs: tuple[Tensor, Tensor], out: Tensor) -> None:
        x, skip = inputs
        added, passed = (value.sum((1, 3, 4), keepdim=True) for value in (out - skip, torch.relu(x)))
        gains[name] = added / passed.clamp(min=1e-6)

    attentions = {name: module for name, module in network.named_modules() if isinstance(module, MixedAttention)}
    was_training = network.training
    try:
        with torch.no_grad(), watching(attentions, keep):
            network.eval()(rainy)
    finally:
        network.train(was_training)
    return gains
