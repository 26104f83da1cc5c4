"""NAFNet (Chen et al., ECCV 2022) as layers, from its published architecture: a reference that multiplies.

Width 32, blocks 2-2-4-8, 12, 2-2-2-2 (megvii-research/NAFNet, NAFNet_arch.py) is the network of the ESDNet paper's
Table 1: its convolutions have 16.045 GMACs at 256x256 with padding taps; the paper's 2.008e5 uJ are 16.064 G.
"""

from __future__ import annotations

from math import prod

from hw_sim.pricing.layer_facts import LayerFacts

Size = tuple[int, int, int]  # channels, height, width


def nafnet_layers(
    height: int,
    width: int,
    channels: int = 32,
    encoder: tuple[int, ...] = (2, 2, 4, 8),
    middle: int = 12,
    decoder: tuple[int, ...] = (2, 2, 2, 2),
) -> list[LayerFacts]:
    """Its layers for one image whose sides 2 to the number of levels divides."""
    value: Size = (channels, height, width)
    layers = [_conv("intro", (3, height, width), channels, 3)]
    for level, blocks in enumerate(encoder):
        for block in range(blocks):
            layers += _block(f"encoders.{level}.{block}", value)
        layers.append(_conv(f"downs.{level}", value, 2 * value[0], 2, stride=2))
        value = layers[-1].output_shape[0], layers[-1].output_shape[1], layers[-1].output_shape[2]
    for block in range(middle):
        layers += _block(f"middle.{block}", value)
    for level, blocks in enumerate(decoder):
        layers.append(_conv(f"ups.{level}", value, 2 * value[0], 1, bias=False))  # pixel shuffle follows
        value = (value[0] // 2, 2 * value[1], 2 * value[2])
        layers.append(_other(f"ups.{level}.sum", value, adds=prod(value), operands=3))
        for block in range(blocks):
            layers += _block(f"decoders.{level}.{block}", value)
    return [
        *layers,
        _conv("ending", value, 3, 3),
        _other("ending.sum", (3, height, width), adds=3 * height * width, operands=3),
    ]


def _block(name: str, value: Size) -> list[LayerFacts]:
    """Norm, 1x1, depthwise 3x3, gate, channel attention, 1x1, sum; norm, 1x1, gate, 1x1, sum."""
    channels, height, width = value
    twice, pooled, size = (2 * channels, height, width), (channels, 1, 1), prod(value)
    return [
        _norm(f"{name}.norm1", value),
        _conv(f"{name}.conv1", value, 2 * channels, 1),
        _conv(f"{name}.conv2", twice, 2 * channels, 3, groups=2 * channels),
        _other(f"{name}.gate1", value, muls=size, operands=3),
        _other(f"{name}.pool", value, adds=size - channels, muls=channels),
        _conv(f"{name}.sca", pooled, channels, 1),
        _other(f"{name}.scale", value, muls=size),
        _conv(f"{name}.conv3", value, channels, 1),
        _other(f"{name}.sum1", value, adds=size, muls=size, operands=3),
        _norm(f"{name}.norm2", value),
        _conv(f"{name}.conv4", value, 2 * channels, 1),
        _other(f"{name}.gate2", value, muls=size, operands=3),
        _conv(f"{name}.conv5", value, channels, 1),
        _other(f"{name}.sum2", value, adds=size, muls=size, operands=3),
    ]


def _conv(
    name: str, value: Size, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = True
) -> LayerFacts:
    """A convolution with padding (kernel - 1) / 2, or none where it has a stride; taps on padding are no work."""
    channels, *sides = value
    out = (outputs, *(side // stride for side in sides))
    along = [side * kernel // stride - 2 * (kernel // 2) * (stride == 1) for side in sides]  # valid taps of an axis
    weights = outputs * (channels // groups) * kernel * kernel
    taps = prod(along) * outputs * (channels // groups)
    return LayerFacts(
        name, "conv", input_shape=value, output_shape=out, kernel=(kernel, kernel), stride=(stride, stride),
        groups=groups, weight_words=weights, bias_words=outputs if bias else 0, macs=taps, taps=taps,
        adds=prod(out) if bias else 0, activation_words=prod(value) + prod(out),
    )  # fmt: skip


def _norm(name: str, value: Size) -> LayerFacts:
    """Layer norm over C channels: mean, centre, square, mean, scale, gain and offset; the root is not counted."""
    channels, pixels = value[0], value[1] * value[2]
    return _other(name, value, adds=(4 * channels - 2) * pixels, muls=(3 * channels + 2) * pixels)


def _other(name: str, value: Size, adds: int = 0, muls: int = 0, operands: int = 2) -> LayerFacts:
    """Element-wise work on values of that size: `operands` of them move."""
    return LayerFacts(
        name, "other", input_shape=value, output_shape=value, adds=adds, muls=muls,
        activation_words=operands * prod(value),
    )  # fmt: skip
