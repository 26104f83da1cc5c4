"""Bias correction: what rounded weights add to a layer on average is taken off its bias.

In: a float Network, and per channel the mean input of every convolution. Out: the Network with corrected biases, whose
quantised form has the float network's mean sums on the calibration images. After Nagel et al., "Data-free quantization
through weight equalization and bias correction", ICCV 2019, section 4.2, with means measured instead of assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from export.graph.network import Network
from export.graph.nodes import Array, Conv, Node
from export.integer.network import IntegerNetwork
from export.integer.operations import IntegerConv


def correct_biases(network: Network, integer: IntegerNetwork, input_means: Mapping[str, Array]) -> Network:
    """`integer`: the network in any integers, for its weights. `input_means`: node -> (channels,) in real units.

    Convolutions without a bias stay as they are.
    """
    return replace(network, nodes=tuple(_corrected(node, integer, input_means) for node in network.nodes))


def _corrected(node: Node, integer: IntegerNetwork, input_means: Mapping[str, Array]) -> Node:
    operation = integer.by_name[node.name]
    if not isinstance(node, Conv) or not isinstance(operation, IntegerConv) or node.bias is None:
        return node
    lost = (node.weight - operation.node.weight).sum((2, 3))  # (O, I / groups)
    means = input_means[node.name].reshape(node.groups, -1)
    group = np.arange(len(lost)) * node.groups // len(lost)  # of each output channel
    return replace(node, bias=node.bias + (lost * means[group]).sum(1))
