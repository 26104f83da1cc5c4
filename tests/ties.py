"""A network with a tie: its threshold is exactly what torch's batch norm gives one channel of a black image.

The folded bias of that channel is a last bit lower, so torch fires there and the layer graph does not.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from export.readers.lowering import fold_batch_norm

LAYER = "encoder_level1.0.residual"  # .1 convolves, .2 normalises, .3 fires
NEURON = f"{LAYER}.3"


def tied_model(decay: float = 0.5) -> ESDNet:
    """Dim 8, random statistics, float64, eval mode."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    config = dataclasses.replace(preset("tiny"), membrane_decay=decay)
    model = ESDNet(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.1, 1, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    model = model.double().eval()
    conv, norm = model.get_submodule(f"{LAYER}.1"), model.get_submodule(f"{LAYER}.2")
    with torch.no_grad():
        unfolded = norm(torch.zeros(4, 1, config.dim, 8, 8, dtype=torch.float64))[0, 0, :, 0, 0].tolist()
    folded = fold_batch_norm(conv, norm)[1].tolist()
    threshold = next(a for a, b in zip(unfolded, folded, strict=True) if a > 0 and b < a)
    tied = ESDNet(dataclasses.replace(config, threshold=threshold))
    tied.load_state_dict(model.state_dict())
    return tied.double().eval()
