from __future__ import annotations

import pytest
import torch

from esdnet.images.padding import pad_to_multiple
from esdnet.networks.esdnet.config import SIZE_MULTIPLE, preset
from esdnet.networks.esdnet.lif import LIF
from esdnet.networks.esdnet.model import ESDNet
from tests.tolerances import FLOAT64_OUTPUT


def test_output_and_every_spike_count_equal_the_authors(golden, golden_model):
    counts = {}
    hooks = [
        module.register_forward_hook(lambda m, i, out, name=name: counts.__setitem__(name, int(out.sum())))
        for name, module in golden_model.named_modules()
        if isinstance(module, LIF)
    ]
    with torch.no_grad():
        output = golden_model(torch.from_numpy(golden.input))
    for hook in hooks:
        hook.remove()
    assert (output - torch.from_numpy(golden.output)).abs().max() < FLOAT64_OUTPUT
    assert counts == {name: int(count) for name, count in golden.spikes.items()}


@pytest.mark.parametrize("size", [(32, 32), (17, 23), (33, 16), (18, 19)])
def test_odd_sizes_are_padded_and_cropped_back(either_model, size):
    image = torch.rand(1, 3, *size)
    with torch.no_grad():
        output = either_model(image)
        whole = either_model(pad_to_multiple(image, SIZE_MULTIPLE))
    assert output.shape == image.shape
    assert torch.equal(output, whole[..., : size[0], : size[1]])


def test_fused_and_plain_snntorch_networks_agree(either_model):
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    model = ESDNet(either_model.config)
    model.load_state_dict(either_model.state_dict())
    model.double().eval()
    with torch.no_grad():
        fused = model(image)
        for module in model.modules():
            if isinstance(module, LIF):
                module.fused = False
        plain = model(image)
    assert torch.equal(fused, plain)


def test_released_preset_has_the_parameters_of_the_authors_network():
    model = ESDNet(preset("released"))
    assert sum(p.numel() for p in model.parameters()) == 12_811_463
