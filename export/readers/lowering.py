"""What readers of trained networks share: nodes as they are collected, and one rule for each of torch's own modules.

In: torch modules. Out: nodes, batch norms folded into their convolutions in float64; a module without a rule is refused
by name, and every trainable parameter is counted once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import singledispatch
from typing import Any

import numpy as np
from torch import nn

from esdnet.networks.dual_stage.attention import PixelNorm
from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import Array, NetworkError


class GraphBuilder:
    """Collects the nodes of a model; knows the block in force, and which parameters have been counted."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.nodes: list[g.Node] = []
        self._names = {id(module): name for name, module in model.named_modules()}
        self._block = ""
        self._gate: str | None = None
        self._counted: set[int] = set()

    @contextmanager
    def inside(self, block: str) -> Iterator[None]:
        """Nodes added meanwhile belong to this block."""
        before, self._block = self._block, block
        yield
        self._block = before

    @contextmanager
    def behind(self, gate: str | None) -> Iterator[None]:
        """What reads `gated` meanwhile has this gate."""
        before, self._gate = self._gate, gate
        yield
        self._gate = before

    def gated(self, x: str) -> list[str]:
        """What a node behind the gate in force reads: its input, and the gate if there is one."""
        return [x] if self._gate is None else [x, self._gate]

    def add(
        self, kind: type[g.Node], name: str, inputs: list[str], modules: list[nn.Module] | None = None, **fields: Any
    ) -> str:
        """Append a node; the parameters of `modules` that no node has counted yet become its source_parameters."""
        parameters = [
            p for module in modules or [] for p in module.parameters(recurse=False) if id(p) not in self._counted
        ]
        self._counted.update(id(parameter) for parameter in parameters)
        self.nodes.append(
            kind(
                name=name,
                inputs=tuple(inputs),
                block=self._block,
                source_parameters=sum(parameter.numel() for parameter in parameters),
                modules=tuple(self._names[id(module)] for module in modules or []),
                **fields,
            )
        )
        return name

    def name_of(self, module: nn.Module) -> str:
        """A module's name in the model."""
        return self._names[id(module)]

    def finish(self, name: str, reader: str, size_multiple: int, steps: int = 1) -> Network:
        """The network of all nodes."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return Network(
            name=name, nodes=tuple(self.nodes), steps=steps, size_multiple=size_multiple, model_parameters=parameters,
            reader=reader,
        )  # fmt: skip


def array(tensor: Any) -> Array:
    """A parameter as float64."""
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float64)


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Array, Array]:
    """Weight and bias of the convolution that computes norm(conv(x)) at inference, in float64.

    k = gamma / sqrt(var + eps); W' = W k; b' = beta + (b - mean) k.
    """
    scale = array(norm.weight) / np.sqrt(array(norm.running_var) + norm.eps)
    bias = array(conv.bias) if conv.bias is not None else np.zeros(conv.out_channels)
    return array(conv.weight) * scale[:, None, None, None], array(norm.bias) + (bias - array(norm.running_mean)) * scale


def add_conv(
    graph: GraphBuilder, name: str, x: str, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None, gated: bool = False
) -> str:
    """One Conv node, with its batch norm folded in where it has one; if it is `gated`, behind the gate in force."""
    weight, bias = array(conv.weight), None if conv.bias is None else array(conv.bias)
    if norm is not None:
        weight, bias = fold_batch_norm(conv, norm)
    stride, padding, dilation = ((int(pair[0]), int(pair[1])) for pair in (conv.stride, conv.padding, conv.dilation))
    modules: list[nn.Module] = [conv] if norm is None else [conv, norm]
    return graph.add(
        g.Conv, name, graph.gated(x) if gated else [x], modules,
        weight=weight, bias=bias, stride=stride, padding=padding, dilation=dilation, groups=conv.groups,
    )  # fmt: skip


@singledispatch
def lower_module(module: nn.Module, graph: GraphBuilder, name: str, x: str) -> str:
    """Add the nodes of one torch module that reads node `x`; returns the name of the node that holds its result."""
    raise NetworkError(f"{name} ({type(module).__name__}): no lowering rule for this module; add one to export/readers")


@lower_module.register
def _(module: nn.Sequential, graph: GraphBuilder, name: str, x: str) -> str:
    """Children in order; a batch norm is folded into the convolution before it."""
    children = list(module.named_children())
    for index, (key, child) in enumerate(children):
        follower = children[index + 1][1] if index + 1 < len(children) else None
        if isinstance(child, nn.BatchNorm2d):
            if index == 0 or not isinstance(children[index - 1][1], nn.Conv2d):
                raise NetworkError(f"{name}.{key}: batch norm without a convolution before it cannot be folded")
        elif isinstance(child, nn.Conv2d) and isinstance(follower, nn.BatchNorm2d):
            x = add_conv(graph, f"{name}.{key}", x, child, follower)
        else:
            x = lower_module(child, graph, f"{name}.{key}", x)
    return x


@lower_module.register
def _(module: nn.Conv2d, graph: GraphBuilder, name: str, x: str) -> str:
    return add_conv(graph, name, x, module)


@lower_module.register
def _(module: nn.Identity, graph: GraphBuilder, name: str, x: str) -> str:
    return x


@lower_module.register
def _(module: nn.ReLU, graph: GraphBuilder, name: str, x: str) -> str:
    return graph.add(g.Activation, name, [x], function="relu")


@lower_module.register
def _(module: nn.Sigmoid, graph: GraphBuilder, name: str, x: str) -> str:
    return graph.add(g.Activation, name, [x], function="sigmoid")


@lower_module.register
def _(module: nn.AdaptiveAvgPool2d, graph: GraphBuilder, name: str, x: str) -> str:
    if module.output_size != 1:
        raise NetworkError(f"{name}: adaptive pooling to {module.output_size} has no primitive; only to 1 pixel")
    return graph.add(g.Reduce, name, [x], function="mean", axes="HW")


@lower_module.register
def _(module: nn.PixelShuffle, graph: GraphBuilder, name: str, x: str) -> str:
    return graph.add(g.DepthToSpace, name, [x], factor=module.upscale_factor)


@lower_module.register
def _(module: PixelNorm, graph: GraphBuilder, name: str, x: str) -> str:
    weight, bias = array(module.weight), array(module.bias)
    return graph.add(g.LayerNorm, name, [x], [module], weight=weight, bias=bias, epsilon=module.eps)
