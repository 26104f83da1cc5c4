"""Where neurons fired: every executor hands over the same maps, tiles make the map of the whole, counts are kept."""

from __future__ import annotations

import numpy as np
import pytest

from esdnet.images.tiling import Grid
from export.graph import nodes as g
from export.graph.network import Network
from export.integer.run import to_pixels
from export.targets.loihi.rules import quantize_for_loihi
from hw_sim.backends import integer_simulator, simulator, torch_model
from hw_sim.backends.executor import Executor
from hw_sim.backends.result import Result, as_map
from hw_sim.backends.spike_maps import SpikeMaps
from hw_sim.backends.tiled import run_image


def whole(height: int, width: int) -> tuple[slice, slice]:
    return slice(0, height), slice(0, width)


def test_maps_are_the_spikes_summed_over_channels(spike_driven_network, photo):
    full = simulator.run(spike_driven_network, photo, precision="float64")
    mapped = simulator.run(spike_driven_network, photo, precision="float64", keep_spikes=False, keep_maps=True)
    assert mapped.spikes == {}
    assert mapped.spike_maps().keys() == full.spikes.keys()
    assert full.kept_maps == {}
    for name, spikes in full.spikes.items():
        expected = spikes.sum(1)
        for result in (full, mapped):
            assert np.array_equal(result.spike_maps()[name], expected)
        assert mapped.spike_maps()[name].dtype == np.uint8
        assert np.array_equal(expected.sum((1, 2)), full.counts[name].spikes)
    assert simulator.run(spike_driven_network, photo, keep_spikes=False).spike_maps() == {}


def test_torch_and_the_simulator_hand_over_the_same_maps(spike_driven_model, spike_driven_network, photo):
    seen = torch_model.run(spike_driven_model.double(), spike_driven_network, photo, precision="float64").spike_maps()
    spike_driven_model.float()
    mine = simulator.run(spike_driven_network, photo, precision="float64", keep_maps=True).spike_maps()
    assert all(np.array_equal(seen[name], mine[name]) for name in mine)


def test_integers_hand_over_their_maps(spike_driven_network, photo):
    integer = quantize_for_loihi(spike_driven_network, [to_pixels(photo)])
    full = integer_simulator.run(integer, photo)
    mapped = integer_simulator.run(integer, photo, keep_spikes=False, keep_maps=True).kept_maps
    assert mapped.keys() == full.spikes.keys()
    assert all(np.array_equal(mapped[name], spikes.sum(1)) for name, spikes in full.spikes.items())


def test_maps_of_a_cycle_have_all_steps_and_a_rain_mask_is_one():
    nodes = (
        g.Input(name="x"),
        g.RainMask(name="mask", inputs=("x",), angles=(0, 9), across=7, along=13, clip=38, threshold=8),
        g.Repeat(name="coding", inputs=("x",)),
        g.Add(name="sum", inputs=("coding", "lif"), late=("lif",)),
        g.Neuron(name="lif", inputs=("sum",), threshold=np.array(1.0), membrane_decay=0.5),
        g.Output(name="y", inputs=("lif",)),
    )
    network = Network(name="cycle", nodes=nodes, steps=3)
    result = simulator.run(network, np.random.default_rng(3).random((3, 16, 16)), keep_maps=True)
    maps = result.spike_maps()
    assert {name: fired.shape for name, fired in maps.items()} == {"mask": (1, 16, 16), "lif": (3, 16, 16)}
    assert np.array_equal(maps["lif"], result.spikes["lif"].sum(1))
    assert len({fired.tobytes() for fired in maps["lif"]}) > 1


def test_more_than_a_byte_holds():
    assert as_map(np.array([255])).dtype == np.uint8
    assert as_map(np.array([256])).dtype == np.uint16
    assert as_map(np.zeros((4, 0, 0), np.int64)).dtype == np.uint8


def test_one_tile_is_the_map_itself():
    rng = np.random.default_rng(0)
    fired = {"fine": rng.integers(0, 9, (2, 12, 20)), "coarse": rng.integers(0, 9, (2, 3, 5))}
    maps = SpikeMaps((12, 20))
    maps.add(fired, whole(12, 20))
    for name, mean in maps.means().items():
        assert np.array_equal(mean, fired[name])


def test_cells_are_means_and_the_last_takes_the_rest():
    fired = np.arange(2 * 5 * 7).reshape(2, 5, 7)
    maps = SpikeMaps((5, 7), most=4)
    maps.add({"a": fired}, whole(5, 7))
    found = maps.means()["a"]
    assert found.shape == (2, 2, 3)  # cells of 2x2; 5 rows are 2 and 3, 7 columns 2, 2 and 3
    assert found[1, 0, 0] == fired[1, :2, :2].mean()
    assert found[1, 1, 2] == np.float32(fired[1, 2:, 4:].mean())


@pytest.mark.parametrize("size", [(16, 40), (33, 27), (8, 8)])
def test_no_spike_is_lost_in_cells_whatever_the_sizes(size):
    """A layer of any size against the image, larger than it too."""
    rng = np.random.default_rng(1)
    for shape in ((3, 1, 1), (3, 5, 9), (3, *size), (3, 70, 11)):
        fired = rng.integers(0, 5, shape)
        maps = SpikeMaps(size, most=16)
        maps.add({"a": fired}, whole(*size))
        layer = maps._layers["a"]
        assert np.array_equal(layer.total.sum((1, 2)), fired.sum((1, 2)))
        assert layer.pixels.sum() == fired[0].size
        assert layer.pixels.min() > 0


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_tiles_of_a_map_put_together_are_the_map(stride):
    """An executor that fires where its image is bright: overlaps are executed twice and say the same."""
    image = np.random.default_rng(2).random((52, 44, 3))
    grid = Grid((52, 44), 16, 4, 4)

    def run(tile):
        fired = (tile[0] > 0.5)[None, None, ::stride, ::stride]
        return Result(tile, {"a": fired})

    maps = SpikeMaps(grid.padded)
    run_image(Executor(run), image, "float64", grid, maps)
    assert len(grid) > 9
    assert np.array_equal(maps.means()["a"][0], (image[::stride, ::stride, 0] > 0.5))


def test_the_share_of_a_mask_in_each_cell():
    mask = np.zeros((8, 8), bool)
    mask[:4, :3] = True
    maps = SpikeMaps((8, 8))
    maps.add({"fine": np.ones((1, 8, 8), int), "coarse": np.ones((1, 2, 2), int)}, whole(8, 8))
    shares = maps.shares(mask)
    assert np.array_equal(shares["fine"], mask)
    assert np.array_equal(shares["coarse"], [[0.75, 0], [0, 0]])
