"""The graph of a dual-stage network computes what torch does: every configuration, every size, whole or in tiles."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import hw_sim
from esdnet.images.files import load_image, to_tensor
from esdnet.images.tiling import Grid
from esdnet.networks.checkpoint import load_network
from esdnet.networks.derainer import derain
from esdnet.networks.dual_stage.config import PRESETS, DualStageConfig
from esdnet.networks.dual_stage.model import DualStage
from export.graph import nodes as g
from export.graph.check_images import plain_images, sample_image
from export.graph.counting import count_node, operands_of
from export.graph.network import infer_shapes
from export.graph.placement import place_of
from export.graph.receptive_field import find_halo, image_wide
from export.readers.dual_stage import lower
from hw_sim.agreement.judge import simulate_layers
from hw_sim.backends import simulator
from hw_sim.backends.executor import Executor
from hw_sim.backends.executors import load_source
from hw_sim.backends.tiled import run_image
from tests.conftest import as_if_learnt
from tests.tolerances import FLOAT64_OUTPUT

TINY = PRESETS["tiny_dual_stage"]
SAMPLE = Path(hw_sim.__file__).parents[1] / "esdnet" / "sample" / "rainy_64.png"
CONTROLS = {
    "as trained": {},
    "no mask": {"masked": False},
    "windows": {"order": "windows"},
    "raster": {"order": "raster"},
    "one stage": {"stages": 1},
    "no attention": {"attentions": 0},
    "two attentions": {"attentions": 2},
    "other sizes": {"channels": (8, 12, 18), "blocks": (2, 1, 3), "heads": 3, "clusters": 5},
}
LABELS = "stage2.bottleneck.arrange.nearest"


def images() -> dict[str, np.ndarray]:
    return {"sample": sample_image(32, 96), **plain_images(64, 32)}


def torch_labels(model: DualStage, image: np.ndarray) -> np.ndarray:
    """The clusters that torch finds in float64, pixel by pixel of the last level."""
    seen = []
    handle = model.stage2.bottleneck.arrange.nearest.register_forward_hook(lambda _, given, found: seen.append(found))
    with torch.inference_mode():
        model(torch.from_numpy(image)[None])
    handle.remove()
    return seen[0][0].numpy()


@pytest.mark.parametrize("control", CONTROLS)
def test_float64_is_torch_and_every_parameter_is_counted_once(control):
    model = as_if_learnt(replace(TINY, **CONTROLS[control]))
    network = lower(model)
    assert network.model_parameters == sum(p.numel() for p in model.parameters())
    model = model.double()
    for name, image in images().items():
        with torch.inference_mode():
            expected = model(torch.from_numpy(image)[None])[0].numpy()
        found = simulator.run(network, image, precision="float64").output
        assert np.abs(found - expected).max() <= FLOAT64_OUTPUT, name


def test_the_shipped_network_is_torch_and_finds_the_same_clusters():
    source = load_source("small_dual_stage", None)
    model = load_network("small_dual_stage").double()
    shown = {"photo": load_image(SAMPLE).transpose(2, 0, 1), **plain_images(64, 64)}
    for label, image in shown.items():
        with torch.inference_mode():
            expected = model(torch.from_numpy(image)[None])[0].numpy()
        found = simulate_layers(source.network, {"input": image[None]}, "float64")
        assert np.abs(found["derained"][0] - expected).max() <= FLOAT64_OUTPUT, label
        assert np.array_equal(found[LABELS].ravel(), torch_labels(model, image)), label


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (64, 90)])
def test_odd_sizes_are_padded_as_torch_pads_them(dual_stage_model, size):
    image = sample_image(*size).transpose(1, 2, 0)
    network = lower(dual_stage_model)
    executor = Executor(lambda tile: simulator.run(network, tile, precision="float64", keep_spikes=False))
    done = run_image(executor, image, "float64", Grid(size, 0, 8, network.size_multiple))
    with torch.inference_mode():
        expected = deepcopy(dual_stage_model).double()(to_tensor(image, torch.float64))[0].permute(1, 2, 0).numpy()
    assert done.output.shape == image.shape
    assert np.abs(done.output - expected).max() <= FLOAT64_OUTPUT


def test_tiles_are_those_of_derain(dual_stage_model):
    """Each tile has its own mask, whoever runs it."""
    image, model = sample_image(60, 100).transpose(1, 2, 0), deepcopy(dual_stage_model).double()
    network = lower(model)
    executor = Executor(lambda tile: simulator.run(network, tile, precision="float64", keep_spikes=False))
    done = run_image(executor, image, "float64", Grid((60, 100), 32, 8, network.size_multiple))
    expected = derain(model, image, tile=32, overlap=8)
    assert done.tiles == expected.tiles > 4
    assert np.abs(done.output - expected.output.permute(1, 2, 0).numpy()).max() <= FLOAT64_OUTPUT


def test_what_the_graph_does_not_have_is_refused_by_name():
    with pytest.raises(g.NetworkError, match=r"stage2.bottleneck.arrange \(Shuffled\): expected pixels in clusters, "):
        lower(DualStage(replace(TINY, order="random")))


@pytest.mark.parametrize("preset", PRESETS)
def test_macs_at_256_pixels_follow_from_shapes(preset):
    """The shipped network's are the figure in docs/dual_stage.md; tests/hw_sim/counter holds them against counters."""
    network = lower(DualStage(PRESETS[preset]))
    shapes = infer_shapes(network, 256, 256)
    counts = [count_node(node, operands_of(network, shapes, node)).totals() for node in network.nodes]
    assert sum(count["acs"] + count["spikes"] for count in counts) == 0
    if preset == "small_dual_stage":
        assert sum(count["macs"] for count in counts) == 8_360_128_768


def test_without_neurons_everything_is_the_host_s():
    network = lower(DualStage(DualStageConfig()))
    assert {place_of(network, node) for node in network.nodes} == {"host"}
    assert network.neurons == ()
    assert network.kinds["mask"] is g.ValueKind.SPIKE  # what a comparison makes


def test_mask_orders_and_attention_look_at_the_whole_image_and_without_them_tiles_are_exact():
    wide = image_wide(lower(DualStage(TINY)))
    stages = [f"stage{stage}.bottleneck" for stage in (1, 2)]
    assert wide == ("mask", *(f"{stage}.{end}" for stage in stages for end in ("arrange", "attentions.0.attend")))
    network = lower(as_if_learnt(replace(TINY, attentions=0, stages=1)))
    halo, core = find_halo(network), slice(64, 96)
    assert set(halo) == {network.size_multiple}
    image = sample_image(160, 160)
    whole = simulator.run(network, image, precision="float64").output
    part = slice(core.start - halo.top, core.stop + halo.bottom)
    tile = simulator.run(network, image[:, part, part], precision="float64").output
    inside = slice(halo.top, halo.top + 32)
    assert np.abs(tile[:, inside, inside] - whole[:, core, core]).max() <= FLOAT64_OUTPUT
