"""A NAFNet as a layer graph. In: a torch NAFNet. Out: a Network; its images have whole pixels on the last level."""

from __future__ import annotations

from torch import nn

from esdnet.networks.nafnet.model import ChannelAttention, NAFBlock, NAFNet, SimpleGate
from export.graph import nodes as g
from export.graph.network import Network
from export.readers.lowering import GraphBuilder, add_conv, array, lower_module


def lower(model: NAFNet, name: str = "nafnet") -> Network:
    """The layer graph of a trained network at inference."""
    graph = GraphBuilder(model)

    def part(module: nn.Module, x: str) -> str:
        return lower_module(module, graph, graph.name_of(module), x)

    image = graph.add(g.Input, "input", [])
    x, skips = part(model.intro, image), []
    for encoder, down in zip(model.encoders, model.downs, strict=True):
        skips.append(part(encoder, x))
        x = part(down, skips[-1])
    x = part(model.middle, x)
    for level in reversed(range(len(skips))):
        x = graph.add(g.Add, f"skips.{level}", [part(model.ups[level], x), skips[level]])
        x = part(model.decoders[level], x)
    graph.add(g.Output, "derained", [graph.add(g.Add, "restored", [image, part(model.ending, x)])])
    return graph.finish(name, "nafnet", model.size_multiple)


@lower_module.register
def _(module: NAFBlock, graph: GraphBuilder, name: str, x: str) -> str:
    """The learnt scales of both branches are the block's own parameters."""
    with graph.inside(name):
        for key, scale, branch in (
            ("beta", module.beta, module.spatial),
            ("gamma", module.gamma, module.feed_forward),
        ):
            y = lower_module(branch, graph, f"{name}.{graph.name_of(branch).rpartition('.')[2]}", x)
            scaled = graph.add(g.Affine, f"{name}.{key}", [y], [module], scale=array(scale)[0])
            x = graph.add(g.Add, f"{name}.{key}.sum", [x, scaled])
        return x


@lower_module.register
def _(module: SimpleGate, graph: GraphBuilder, name: str, x: str) -> str:
    halves = [graph.add(g.Chunk, f"{name}.{part}", [x], part=part, parts=2) for part in (0, 1)]
    return graph.add(g.Mul, name, halves)


@lower_module.register
def _(module: ChannelAttention, graph: GraphBuilder, name: str, x: str) -> str:
    mean = graph.add(g.Reduce, f"{name}.mean", [x], function="mean", axes="HW")
    return graph.add(g.Mul, name, [x, add_conv(graph, f"{name}.linear", mean, module.linear)])
