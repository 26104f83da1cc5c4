"""Which nodes Lava's own Conv and LIFReset can express. In: a node. Out: yes or no, and the node without its bias."""

from __future__ import annotations

import numpy as np

from export.graph.nodes import Affine, Conv, Neuron, Node, Shape, gate_of


def is_stock(node: Node, shapes: dict[str, Shape], steps: int) -> bool:
    """Whether Lava's own process computes this node exactly.

    A stock process runs at every step, so the value must change over time, and it has no gate. Conv: always. LIFReset:
    hard reset to zero, one threshold for all, gain 1, and decays that survive Lava's form of them, 1 - (1 - decay).
    """
    if not isinstance(node, (Conv, Neuron)) or shapes[node.inputs[0]][0] != steps or gate_of(node) is not None:
        return False
    if isinstance(node, Neuron):
        return bool(
            node.reset == "to"
            and node.reset_value == 0.0
            and node.threshold.size == 1
            and np.all(node.gain == 1.0)
            and all(1.0 - (1.0 - decay) == decay for decay in (node.membrane_decay, node.current_decay))
        )
    return True


def split_bias(node: Node) -> tuple[Conv | Neuron, Affine | None]:
    """A Conv as one without bias and, after it, the bias as a node of the Conv's name. A Neuron stays as it is."""
    if isinstance(node, Conv) and node.bias is not None:
        bare = Conv(**{**vars(node), "name": f"{node.name}.unbiased", "bias": None})
        return bare, Affine(name=node.name, inputs=(bare.name,), offset=node.bias[:, None, None])
    if isinstance(node, (Conv, Neuron)):
        return node, None
    raise TypeError(f"{node.name}: Lava has no process of its own for kind {node.kind}")
