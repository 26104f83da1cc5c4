"""Lava's own Conv and LIFReset in the place of a node, wired as planned: the independent witness."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.process.process import AbstractProcess
from lava.proc.conv.models import PyConvModelFixed, PyConvModelFloat
from lava.proc.conv.process import Conv as LavaConv
from lava.proc.lif.models import PyLifResetModelBitAcc, PyLifResetModelFloat
from lava.proc.lif.process import LIFReset

from export.graph.loihi import CURRENT_SHIFT
from export.graph.nodes import Conv, Neuron
from export.integer.operations import IntegerConv, IntegerNeuron, Operation
from hw_sim.backends.lava.plan import StockLeaf

TO_LAVA, FROM_LAVA = (1, 2, 0), (2, 0, 1)  # (C, H, W) -> (H, W, C), which Lava's Conv reads and writes, and back


def connect_stock(leaf: StockLeaf, ports: dict[str, Any], models: dict[AbstractProcess, type]) -> AbstractProcess:
    """The process, connected to the port that offers its input, with its model chosen; its output joins the ports."""
    source = ports[leaf.source.name]
    if isinstance(leaf.node, Conv):
        process = _conv(leaf, leaf.node)
        models[process] = PyConvModelFixed if leaf.operation else PyConvModelFloat
        source.transpose(TO_LAVA).connect(process.s_in)
        ports[leaf.result.name] = process.a_out.transpose(FROM_LAVA)
    else:
        process = _fixed_neuron(leaf, leaf.operation) if leaf.operation else _neuron(leaf, leaf.node)
        models[process] = PyLifResetModelBitAcc if leaf.operation else PyLifResetModelFloat
        source.connect(process.a_in)
        ports[leaf.result.name] = process.s_out
    return process


def _conv(leaf: StockLeaf, node: Conv) -> LavaConv:
    channels, height, width = leaf.source.frame_shape
    weight = leaf.operation.weight.astype(np.int32) if isinstance(leaf.operation, IntegerConv) else node.weight
    return LavaConv(
        weight=weight[:, :, ::-1, ::-1].transpose(0, 2, 3, 1),  # Lava's is a true convolution
        input_shape=(height, width, channels),
        stride=node.stride,
        padding=node.padding,
        dilation=node.dilation,
        groups=node.groups,
        num_message_bits=24,  # the default, 0, would make every message 0 or 1
        name=leaf.name,
    )


def _fixed_neuron(leaf: StockLeaf, operation: Operation) -> LIFReset:
    assert isinstance(operation, IntegerNeuron)  # the planner has looked
    return LIFReset(
        shape=leaf.source.frame_shape,
        du=operation.current_decay,
        dv=operation.membrane_decay,
        bias_mant=np.broadcast_to(operation.bias, leaf.source.frame_shape).astype(np.int32),
        bias_exp=CURRENT_SHIFT,
        vth=int(operation.threshold.item()),
        reset_interval=leaf.steps,
        reset_offset=(1 + leaf.start) % leaf.steps,
        name=leaf.name,
    )


def _neuron(leaf: StockLeaf, node: Neuron) -> LIFReset:
    threshold = float(node.threshold.item())
    return LIFReset(
        shape=leaf.source.frame_shape,
        du=1.0 - node.current_decay,
        dv=1.0 - node.membrane_decay,
        bias_mant=np.broadcast_to(node.bias, leaf.source.frame_shape),
        vth=float(np.nextafter(threshold, -np.inf)) if node.fires == ">=" else threshold,  # Lava fires at '>'
        reset_interval=leaf.steps,
        reset_offset=(1 + leaf.start) % leaf.steps,  # Lava counts its steps from 1
        name=leaf.name,
    )
