"""Every ablated network, lowered and simulated: in float64 it equals torch, spike for spike and count for count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from esdnet.networks.esdnet.ablations import TABLES
from esdnet.networks.esdnet.config import ESDNetConfig
from esdnet.networks.esdnet.model import ESDNet
from export.graph.nodes import Conv, ValueKind
from export.readers.esdnet import lower
from hw_sim.backends import simulator, torch_model
from hw_sim.backends.result import compare
from tests.conftest import run_in
from tests.tolerances import FLOAT64_OUTPUT

CONFIGS = list({row.config: row.name for table in TABLES.values() for row in table.rows}.items())


@pytest.mark.parametrize(("config", "name"), CONFIGS, ids=[name for _, name in CONFIGS])
def test_the_simulator_equals_torch(config: ESDNetConfig, name: str) -> None:
    torch.manual_seed(0)
    model = run_in(ESDNet(config))
    network = lower(model, name)
    assert sum(node.source_parameters for node in network.nodes) == sum(p.numel() for p in model.parameters())
    image = np.random.default_rng(0).random((3, 24, 16))
    reference = torch_model.run(model, network, image, precision="float64")
    result = simulator.run(network, image, precision="float64")
    difference = compare(reference, result)
    assert difference.equal_spikes, difference.first
    assert difference.max_difference < FLOAT64_OUTPUT
    assert (len(reference.spikes) == 0) == (config.block == "ann_resnet")
    assert config.block == "ann_resnet" or sum(int(spikes.sum()) for spikes in reference.spikes.values()) > 100


def test_what_convolutions_of_a_block_read() -> None:
    """SRB: two read spikes, the shortcut real values. MS: both spikes. SEW: the first reads X. ANN: none spikes."""
    reads_spikes = {}
    for table_row in TABLES[3].rows:
        network = lower(ESDNet(table_row.config))
        convs = [
            n
            for n in network.nodes
            if isinstance(n, Conv) and n.name.startswith("encoder_level2.0.") and "attn" not in n.name
        ]
        reads_spikes[table_row.config.block] = [network.kinds[conv.inputs[0]] is ValueKind.SPIKE for conv in convs]
    assert reads_spikes == {
        "srb": [True, True, False],
        "ms_resnet": [True, True],
        "sew_resnet": [False, True],
        "ann_resnet": [False, False],
    }
