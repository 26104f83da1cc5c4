"""The graph of a NAFNet computes what torch does, and counts the layers of its published description."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from esdnet.networks.nafnet.config import PRESETS, NAFNetConfig
from esdnet.networks.nafnet.model import NAFNet
from export.graph.check_images import plain_images, sample_image
from export.graph.counting import count_node, operands_of
from export.graph.network import infer_shapes
from export.readers.nafnet import lower
from hw_sim.backends import simulator
from hw_sim.pricing.layer_facts import total
from hw_sim.pricing.nafnet import nafnet_layers
from tests.conftest import as_if_learnt
from tests.tolerances import FLOAT64_OUTPUT

CONFIGS = {
    "tiny": PRESETS["tiny_nafnet"],
    "uneven": NAFNetConfig(width=4, encoder_blocks=(1, 2), middle_blocks=2, decoder_blocks=(0, 1)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_float64_is_torch(name):
    model = as_if_learnt(CONFIGS[name])
    network = lower(model)
    assert network.size_multiple == model.size_multiple
    assert network.model_parameters == sum(p.numel() for p in model.parameters())
    model = model.double()
    for label, image in {"sample": sample_image(32, 24), **plain_images(16, 16)}.items():
        with torch.inference_mode():
            expected = model(torch.from_numpy(image)[None])[0].numpy()
        assert np.abs(expected - image).max() > 1e-3
        found = simulator.run(network, image, precision="float64").output
        assert np.abs(found - expected).max() <= FLOAT64_OUTPUT, label


def test_counts_are_those_of_the_published_description():
    network = lower(NAFNet(NAFNetConfig(32, (2, 2, 4, 8), 12, (2, 2, 2, 2))))
    shapes = infer_shapes(network, 64, 32)
    found: Counter = Counter()
    for node in network.nodes:
        found.update(count_node(node, operands_of(network, shapes, node)).totals())
    layers = nafnet_layers(64, 32)
    assert {count: found[count] for count in ("macs", "adds", "muls")} == {
        count: total(layers, count) for count in ("macs", "adds", "muls")
    }
