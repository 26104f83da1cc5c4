"""A dual-stage network as a layer graph: its convolutions, and nodes of the host for mask, clusters and attention.

In: a torch DualStage of any configuration but the control with shuffled pixels. Out: a Network, which sees images whose
sides are multiples of 32: the runner repeats their border.
"""

from __future__ import annotations

from functools import singledispatch
from math import ceil
from typing import Any

from torch import nn

from esdnet.images.rain_streaks import ACROSS, ALONG, ANGLES, CLIP, THRESHOLD
from esdnet.networks.dual_stage import model as dual_stage
from esdnet.networks.dual_stage.attention import SHUT, WINDOW
from esdnet.networks.dual_stage.model import RAINY, SCALE, SIZE_MULTIPLE, DualStage
from esdnet.networks.dual_stage.rearrange import SIDE, Clusters, Rows, SquareWindows
from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.readers.lowering import GraphBuilder, add_conv, array, lower_module

SHUT_FROM = (ceil(RAINY * SCALE**2) - 0.5) / SCALE**2  # between two shares: rounding moves none across


def lower(model: DualStage, name: str = "dual_stage") -> Network:
    """The layer graph of a trained network at inference."""
    graph = GraphBuilder(model)
    image = graph.add(g.Input, "input", [])
    features, light = _add_stage(graph, model.stage1, image, _add_mask(graph, model, image), None)
    with graph.inside("stage1"):
        made = graph.add(g.Add, "first", [image, light])
    if model.stage2 is not None:
        with graph.inside("stage2"):
            handed_on = add_conv(graph, "hand_on", features, model.hand_on)
            seen = graph.add(g.Concat, "seen", [made, image, graph.add(g.Sub, "change", [made, image])])
            _, light = _add_stage(graph, model.stage2, seen, None, handed_on)
            made = graph.add(g.Add, "second", [made, light])
    graph.add(g.Output, "derained", [made])
    return graph.finish(name, "dual_stage", SIZE_MULTIPLE)


def _add_mask(graph: GraphBuilder, model: DualStage, image: str) -> str | None:
    """The share of rain in what becomes a pixel of the last level."""
    if not model.config.has_mask:
        return None
    with graph.inside("mask"):
        mask = graph.add(
            g.RainMask, "mask", [image],
            angles=ANGLES, across=ACROSS, along=ALONG, clip=CLIP, threshold=THRESHOLD,
        )  # fmt: skip
        return graph.add(g.Pool, "mask.share", [mask], function="mean", kernel=(SCALE, SCALE), stride=(SCALE, SCALE))


def _add_stage(
    graph: GraphBuilder, stage: dual_stage.UNet, x: str, rainy: str | None, handed_on: str | None
) -> tuple[str, str]:
    """Features of the first level, and the light that is added to the image."""
    key = graph.name_of(stage)

    def part(module: nn.Module, x: str) -> str:
        return lower_module(module, graph, graph.name_of(module), x)

    def joined(name: str, x: str, y: str) -> str:
        return graph.add(g.Add, f"{key}.{name}", [x, y])

    with graph.inside(key):
        x = part(stage.embed, x)
        skip1 = part(stage.encoder1, x if handed_on is None else joined("handed_on", x, handed_on))
        skip2 = part(stage.encoder2, part(stage.down1, skip1))
        x = _add_bottleneck(graph, stage.bottleneck, part(stage.down2, skip2), rainy)
        x = part(stage.decoder2, joined("skip2", part(stage.up2, x), skip2))
        x = part(stage.decoder1, joined("skip1", part(stage.up1, x), skip1))
        return x, part(stage.output, x)


def _add_bottleneck(graph: GraphBuilder, module: dual_stage.Bottleneck, x: str, rainy: str | None) -> str:
    first, *others = module.blocks
    x = lower_module(first, graph, graph.name_of(first), x)
    if module.arrange is not None:
        order = _add_order(module.arrange, graph, graph.name_of(module.arrange), x)
        for attention, block in zip(module.attentions, others, strict=True):
            x = _add_attention(graph, attention, x, order, rainy)
            x = lower_module(block, graph, graph.name_of(block), x)
    return x


def _add_attention(graph: GraphBuilder, module: Any, x: str, order: str, rainy: str | None) -> str:
    """Of a WindowAttention module."""
    key = graph.name_of(module)
    with graph.inside(key):
        normed = lower_module(module.norm, graph, f"{key}.norm", x)
        qkv = add_conv(graph, f"{key}.qkv", normed, module.qkv)
        found = graph.add(
            g.WindowAttention, f"{key}.attend", [qkv, order, *([rainy] if rainy else [])],
            heads=module.heads, window=WINDOW, overlap=module.overlap, shut_from=SHUT_FROM, penalty=SHUT,
        )  # fmt: skip
        return graph.add(g.Add, f"{key}.sum", [x, add_conv(graph, f"{key}.out", found, module.out)])


@singledispatch
def _add_order(module: nn.Module, graph: GraphBuilder, name: str, x: str) -> str:
    found = type(module).__name__
    raise NetworkError(f"{name} ({found}): expected pixels in clusters, windows or rows; train with another order")


@_add_order.register
def _(module: SquareWindows, graph: GraphBuilder, name: str, x: str) -> str:
    return graph.add(g.WindowOrder, name, [x], side=SIDE)


@_add_order.register
def _(module: Rows, graph: GraphBuilder, name: str, x: str) -> str:
    return graph.add(g.WindowOrder, name, [x], side=1)


@_add_order.register
def _(module: Clusters, graph: GraphBuilder, name: str, x: str) -> str:
    """What a centre takes off for the mean is a number: it is made here."""
    with graph.inside(name):
        centres, mean = array(module.centres), array(module.mean)
        scores = graph.add(g.Linear, f"{name}.centres", [x], weight=centres, bias=-(centres * mean).sum(1))
        nearest = graph.add(g.ArgMax, f"{name}.nearest", [scores], [module.nearest])
        return graph.add(g.SortOrder, name, [nearest])


@lower_module.register
def _(module: dual_stage.ResidualBlock, graph: GraphBuilder, name: str, x: str) -> str:
    with graph.inside(name):
        y = graph.add(g.Activation, f"{name}.relu", [add_conv(graph, f"{name}.conv1", x, module.conv1)])
        return graph.add(g.Add, f"{name}.sum", [x, add_conv(graph, f"{name}.conv2", y, module.conv2)])


@lower_module.register
def _(module: dual_stage.Upsample, graph: GraphBuilder, name: str, x: str) -> str:
    return graph.add(g.DepthToSpace, name, [add_conv(graph, f"{name}.conv", x, module.conv)], factor=2)
