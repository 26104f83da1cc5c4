"""The same ESDNet as others would run it: batch norms folded and LIF fused, or plain snnTorch, step by step; uncounted.

In: a trained ESDNet. Out: a torch module of the same function, in eval mode.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.esdnet.model import ESDNet
from export.graph.nodes import Conv
from export.readers.esdnet import lower


def folded(model: ESDNet) -> ESDNet:
    """A copy without batch norms: each is folded into the convolution before it, in float64, as the graph has it."""
    bare = copy.deepcopy(model).eval()
    modules = dict(bare.named_modules())
    for node in lower(model).nodes:
        if isinstance(node, Conv) and len(node.modules) == 2 and node.bias is not None:
            conv, norm = node.modules
            modules[conv].weight.data, bias = (
                torch.tensor(array).to(modules[conv].weight) for array in (node.weight, node.bias)
            )
            modules[conv].bias = nn.Parameter(bias)
            parent, _, child = norm.rpartition(".")
            setattr(modules[parent], child, nn.Identity())
    return bare


def step_by_step(model: ESDNet) -> ESDNet:
    """A copy as snnTorch runs it: batch norms in place, snntorch.Leaky called once per step."""
    plain = copy.deepcopy(model).eval()
    for module in plain.modules():
        if isinstance(module, LIF):
            module.fused = False
    return plain
