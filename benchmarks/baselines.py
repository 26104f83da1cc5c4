"""The same ESDNet as others would run it: batch norms folded and LIF fused, or plain snnTorch, step by step; uncounted.

In: a trained ESDNet. Out: a torch module of the same function, in eval mode.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn

from esdnet.lif import LIF
from esdnet.model import ESDNet
from export.lower import fold_batch_norm


def folded(model: ESDNet) -> ESDNet:
    """A copy without batch norms: each is folded into the convolution before it, in float64, as the graph has it."""
    bare = copy.deepcopy(model).eval()
    for parent in list(bare.modules()):
        if not isinstance(parent, nn.Sequential):
            continue
        for (key, conv), (norm_key, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                weight, bias = (torch.from_numpy(array).to(conv.weight) for array in fold_batch_norm(conv, norm))
                parent[int(key)].weight.data = weight
                parent[int(key)].bias = nn.Parameter(bias)
                parent[int(norm_key)] = nn.Identity()
    return bare


def step_by_step(model: ESDNet) -> ESDNet:
    """A copy as snnTorch runs it: batch norms in place, snntorch.Leaky called once per step."""
    plain = copy.deepcopy(model).eval()
    for module in plain.modules():
        if isinstance(module, LIF):
            module.fused = False
    return plain
