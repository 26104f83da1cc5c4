"""Lowering: a torch ESDNet becomes a Network of primitives, batch norm folded into its convolution in float64.

One rule per torch module; a module without a rule is refused by name. Every trainable parameter is counted once.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from esdnet.images.rain_streaks import ACROSS, ALONG, ANGLES, CLIP
from esdnet.networks.esdnet import layers
from esdnet.networks.esdnet.config import SIZE_MULTIPLE
from esdnet.networks.esdnet.gate import MOST, SPREAD, THRESHOLD, LearntGate, MorphologicalGate
from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.esdnet.model import ESDNet, PatchEmbed
from export.graph import nodes as g
from export.graph.network import Network
from export.readers.lowering import GraphBuilder, add_conv, array, lower_module


def lower(model: ESDNet, name: str = "ESDNet") -> Network:
    """The layer graph of a trained network as it runs at inference (running statistics of the batch norms)."""
    graph = GraphBuilder(model)
    lower_module(model, graph, "", graph.add(g.Input, "input", []))
    return graph.finish(name, "esdnet", SIZE_MULTIPLE, model.config.steps)


@lower_module.register
def _(module: LIF, graph: GraphBuilder, name: str, x: str) -> str:
    return graph.add(
        g.Neuron, name, graph.gated(x), [module],
        threshold=np.array(module.exact_threshold), membrane_decay=module.exact_beta, fires=module.fires,
        gain=np.array(float(module.gain)),
    )  # fmt: skip


@lower_module.register
def _(module: layers.OnOff, graph: GraphBuilder, name: str, x: str) -> str:
    pair = [lower_module(getattr(module, half), graph, f"{name}.{half}", x) for half in ("on", "off")]
    return graph.add(g.Concat, f"{name}.pair", pair)


@lower_module.register
def _(module: PatchEmbed, graph: GraphBuilder, name: str, x: str) -> str:
    with graph.inside(name):
        return add_conv(graph, f"{name}.proj", x, module.proj)


@lower_module.register
def _(module: layers.SpikingResidualBlock, graph: GraphBuilder, name: str, x: str) -> str:
    with graph.inside(name):
        source = x
        residual: nn.Module = module.residual
        if module.shortcut_reads_spikes:
            source = lower_module(module.residual[0], graph, f"{name}.residual.0", x)
            residual = module.residual[1:]
        y = lower_module(residual, graph, f"{name}.residual", source)
        if module.shortcut is not None:
            y = graph.add(g.Add, f"{name}.sum", [y, lower_module(module.shortcut, graph, f"{name}.shortcut", source)])
        if module.attn is not None:
            y = lower_module(module.attn, graph, f"{name}.attn", y)
        return graph.add(g.Add, f"{name}.out", [y, x])


@lower_module.register
def _(module: layers.MixedAttention, graph: GraphBuilder, name: str, x: str) -> str:
    with graph.inside(name):
        x = _lower_pooled_attention(module.ta, graph, f"{name}.ta", x, "T")
        x = _lower_pooled_attention(module.ca, graph, f"{name}.ca", x, "C")
        x = lower_module(module.sa, graph, f"{name}.sa", x)
        return graph.add(g.Activation, f"{name}.relu", [x], function="relu")


@lower_module.register
def _(module: layers.StaticGains, graph: GraphBuilder, name: str, x: str) -> str:
    with graph.inside(name):
        scaled = graph.add(g.Affine, f"{name}.gain", [x], [module], scale=array(module.gain)[:, 0])
        return graph.add(g.Activation, f"{name}.relu", [scaled], function="relu")


def _lower_pooled_attention(module: layers.PooledAttention, graph: GraphBuilder, name: str, x: str, axis: str) -> str:
    """x * sigmoid(MLP(mean) + MLP(max)): the MLP runs twice, so its operations count twice, its parameters once."""
    squeeze, _, expand = module.sharedMLP
    branches = []
    for function in ("mean", "max"):
        pooled = graph.add(g.Reduce, f"{name}.{function}", [x], function=function, axes="TCHW".replace(axis, ""))
        for index, layer in ((0, squeeze), (1, None), (2, expand)):
            node = f"{name}.{function}.sharedMLP.{index}"
            if layer is None:
                pooled = graph.add(g.Activation, node, [pooled], function="relu")
            else:
                weight = array(layer.weight)[:, :, 0, 0, 0]
                pooled = graph.add(g.Linear, node, [pooled], [layer], weight=weight, axis=axis)
        branches.append(pooled)
    total = graph.add(g.Add, f"{name}.sum", branches)
    gate = graph.add(g.Activation, f"{name}.sigmoid", [total], function="sigmoid")
    return graph.add(g.Mul, f"{name}.out", [x, gate])


@lower_module.register
def _(module: layers.SpatialAttention, graph: GraphBuilder, name: str, x: str) -> str:
    pooled = [
        graph.add(g.Reduce, f"{name}.{function}", [x], function=function, axes="TC") for function in ("mean", "max")
    ]
    both = graph.add(g.Concat, f"{name}.concat", pooled)
    gate = graph.add(
        g.Activation, f"{name}.sigmoid", [add_conv(graph, f"{name}.conv", both, module.conv)], function="sigmoid"
    )
    return graph.add(g.Mul, f"{name}.out", [x, gate])


@lower_module.register
def _(module: layers.Downsample, graph: GraphBuilder, name: str, x: str) -> str:
    with graph.inside(name):
        return lower_module(module.maxpool_conv, graph, f"{name}.maxpool_conv", x)


@lower_module.register
def _(module: layers.Upsample, graph: GraphBuilder, name: str, x: str) -> str:
    """Spikes are enlarged where they are; real values on the host, by interpolation."""
    up, resize = module.up, f"{name}.resize"
    with graph.inside(name):
        if module.resizes_spikes:
            x = lower_module(up[0], graph, f"{name}.up.0", x)
            x = graph.add(g.Resize, resize, [x], factor=2, mode="nearest")
            return lower_module(up[1:], graph, f"{name}.up", x)
        with graph.inside(name):
            x = graph.add(g.Resize, resize, [x], factor=2, mode="bilinear")
        return lower_module(up, graph, f"{name}.up", x)


@lower_module.register
def _(module: layers.GatedConv, graph: GraphBuilder, name: str, x: str) -> str:
    return add_conv(graph, name, x, module, gated=True)


@lower_module.register
def _(module: layers.TimeWeights, graph: GraphBuilder, name: str, x: str) -> str:
    return graph.add(g.Linear, name, graph.gated(x), [module], weight=array(module.weight), axis="T")


@lower_module.register
def _(module: layers.FeatureRefinement, graph: GraphBuilder, name: str, x: str) -> str:
    with graph.inside(name):
        channel = lower_module(module.ca, graph, f"{name}.ca", x)
        mask = lower_module(module.sa, graph, f"{name}.sa", x)
        rest = graph.add(g.Affine, f"{name}.rest", [mask], scale=np.array(-1.0), offset=np.array(1.0))
        left = graph.add(g.Mul, f"{name}.left", [rest, channel])
        right = graph.add(g.Mul, f"{name}.right", [mask, x])
        return graph.add(g.Add, f"{name}.out", [left, right])


@lower_module.register
def _(module: ESDNet, graph: GraphBuilder, name: str, x: str) -> str:
    def part(key: str, node: str, gate: str | None = None) -> str:
        with graph.inside(key), graph.behind(gate):
            return lower_module(getattr(module, key), graph, key, node)

    features = module.config.coding == "features"
    embedded = part("patch_embed", x if features else graph.add(g.Repeat, "coding", [x]))
    level1, level2, level3 = _lower_gate(module.gate, graph, x, embedded)
    if features:
        embedded = graph.add(g.Repeat, "coding", [embedded])
    skip1 = part("encoder_level1", embedded, level1)
    skip2 = part("encoder_level2", part("down1_2", skip1, level1), level2)
    deep = part("decoder_level3", part("encoder_level3", part("down2_3", skip2, level2), level3), level3)
    joined = graph.add(g.Concat, "concat2", [part("up3_2", deep, level3), skip2])
    fine = part("decoder_level2", part("reduce_chan_level2", joined, level2), level2)
    fine = part("decoder_level1", graph.add(g.Concat, "concat1", [part("up2_1", fine, level2), skip1]), level1)
    with graph.behind(level1):
        if module.config.readout == "spikes":
            residual = _merge_steps(module, graph, part("output", fine))
        else:
            residual = part("output", part("refinement", _merge_steps(module, graph, fine)), level1)
    with graph.inside("output"):
        image = graph.add(g.Add, "restored", [residual, x])
        return graph.add(g.Output, "derained", [image])


def _lower_gate(module: nn.Module | None, graph: GraphBuilder, image: str, features: str) -> list[str | None]:
    """The gate at each level, finest first; None where there is none."""
    if module is None:
        return [None, None, None]
    with graph.inside("gate"):
        levels = [lower_module(module, graph, "gate", image if isinstance(module, MorphologicalGate) else features)]
        for level in ("gate.level2", "gate.level3"):
            levels.append(graph.add(g.Pool, level, levels[-1:], function="max", kernel=(2, 2), stride=(2, 2)))
        return [*levels]


@lower_module.register
def _(module: MorphologicalGate, graph: GraphBuilder, name: str, x: str) -> str:
    mask = graph.add(
        g.RainMask, f"{name}.mask", [x], angles=ANGLES, across=ACROSS, along=ALONG, clip=CLIP, threshold=THRESHOLD
    )
    padding = (SPREAD // 2, SPREAD // 2)
    wide = graph.add(
        g.Pool, f"{name}.spread", [mask], function="max", kernel=(SPREAD, SPREAD), stride=(1, 1), padding=padding
    )
    return graph.add(g.Flood, f"{name}.level1", [wide], most=MOST)


@lower_module.register
def _(module: LearntGate, graph: GraphBuilder, name: str, x: str) -> str:
    decided = add_conv(graph, f"{name}.decide", lower_module(module.layers, graph, f"{name}.layers", x), module.decide)
    fires = lower_module(module.fires, graph, f"{name}.fires", decided)
    return graph.add(g.Resize, f"{name}.level1", [fires], factor=2, mode="nearest")


def _merge_steps(module: ESDNet, graph: GraphBuilder, x: str) -> str:
    """The mean over the steps, or their weighted sum, on the host."""
    with graph.inside("refinement"):
        if module.time_weights is None:
            return graph.add(g.Reduce, "time_mean", [x], function="mean", axes="T")
        return lower_module(module.time_weights, graph, "time_weights", x)
