from __future__ import annotations

import pytest

from hw_sim.pricing.layer_facts import total
from hw_sim.pricing.nafnet import nafnet_layers


def test_it_is_the_network_of_the_papers_table():
    """16.06 G is 2.008e5 uJ at 12.5 pJ; the paper's counter counts padding taps, which are no work here."""
    layers = nafnet_layers(256, 256)
    padded = sum(
        layer.outputs * (layer.input_shape[0] // layer.groups) * layer.kernel[0] * layer.kernel[1]
        for layer in layers
        if layer.kind == "conv"
    )
    assert padded == 16_045_035_520
    assert padded * 12.5e-6 == pytest.approx(2.008e5, rel=2e-3)
    assert total(layers, "macs") == 16_037_447_424


def test_valid_taps_of_its_kernels():
    layers = {layer.name: layer for layer in nafnet_layers(16, 32)}
    assert layers["intro"].taps == (3 * 16 - 2) * (3 * 32 - 2) * 32 * 3  # 3x3 with padding 1
    assert layers["encoders.0.0.conv2"].taps == (3 * 16 - 2) * (3 * 32 - 2) * 64  # depthwise
    assert layers["downs.0"].taps == 16 * 32 * 64 * 32  # 2x2 of stride 2 reads each pixel once
    assert layers["encoders.0.0.sca"].taps == 32 * 32  # on the pooled value
    assert layers["ending"].output_shape == (3, 16, 32)


def test_its_parameters():
    """Of its convolutions, as torch has them: 29.1 M of the 29.16 M that the published network holds; the rest are
    gains and offsets of its norms and sums."""
    layers = nafnet_layers(256, 256)
    weights = total(layers, "weight_words") + total(layers, "bias_words")
    channels = [layer.input_shape[0] for layer in layers if layer.name.endswith(".norm1")]
    assert weights + sum(6 * c for c in channels) == 29_159_715
