"""Counts of the cores of tiles add up to those of the whole, field by field, whatever the tiles."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from esdnet.images.cores import Cores
from export.graph.counting import OF_VALUES, NodeCounts
from export.graph.network import Network
from export.graph.part import Part, join
from export.graph.receptive_field import find_halo
from export.integer.calibrate import quantize_on_images
from hw_sim.backends import integer_simulator, simulator
from tests.random_networks import random_local, random_spike_driven


def in_tiles(network: Network, image: np.ndarray, side: int, less: int = 0) -> dict[str, NodeCounts]:
    """Counts of all cores together; `less`: pixels of halo that are left out."""
    halo = tuple(pixels - less for pixels in find_halo(network))
    cores = Cores(image.shape[1:], side, halo, network.size_multiple)
    found = []
    for tile in cores.tiles:
        rows, columns = (slice(*span) for span in tile.tile)
        part = Part(image.shape[1:], tile.tile, tile.core)
        result = simulator.run(network, image[:, rows, columns], precision="float64", keep_spikes=False, part=part)
        assert result.executed_size == (rows.stop - rows.start, columns.stop - columns.start)
        found.append(result.of_core)
    return join(found)


def differing(network: Network, image: np.ndarray, found: dict[str, NodeCounts], but: tuple[str, ...] = ()) -> set[str]:
    """The fields in which some node's counts are not those of the whole, step by step."""
    whole = simulator.run(network, image, precision="float64", keep_spikes=False).counts
    assert list(found) == list(whole)
    names = [item.name for item in fields(NodeCounts) if item.name not in but]
    return {
        field for name in whole for field in names
        if not np.array_equal(getattr(whole[name], field), getattr(found[name], field))
    }  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 6))])
@pytest.mark.parametrize("side", [1, 3])
def test_all_kinds_of_nodes(seed: int, side: int) -> None:
    """Dyadic networks: strides, pools, both enlargements, values that are shorter than the image."""
    network = random_local(seed)
    shape = (3, 13 * network.size_multiple, 9 * network.size_multiple)
    image = np.random.default_rng(seed).integers(0, 17, shape) / 16.0
    assert differing(network, image, in_tiles(network, image, side * network.size_multiple)) == set()


@pytest.mark.parametrize("seed", range(4))
def test_spike_driven(seed: int) -> None:
    """Whether a sum is exactly 0 hangs on its order, so that values that are not 0 are left out."""
    network, image = random_spike_driven(seed), np.random.default_rng(seed).random((3, 40, 30))
    assert differing(network, image, in_tiles(network, image, 12), OF_VALUES) == set()


@pytest.mark.parametrize("seed", range(3))
def test_integers_are_the_same_to_the_last_bit(seed: int) -> None:
    """Pixels and every count that integers have, of all tiles against the whole."""
    network, rng = random_spike_driven(seed, size=0.5), np.random.default_rng(seed)
    image = rng.integers(0, 256, (3, 36, 26)) / 255.0
    integer = quantize_on_images(network, [np.uint8(image * 255)])
    whole = integer_simulator.run(integer, image)
    assert sum(int(spikes.sum()) for spikes in whole.spikes.values()) > 1000
    cores = Cores((36, 26), 8, find_halo(network), 2)
    output, found = np.zeros_like(whole.output), []
    for tile in cores.tiles:
        rows, columns = (slice(*span) for span in tile.tile)
        result = integer_simulator.run(integer, image[:, rows, columns], part=Part((36, 26), tile.tile, tile.core))
        inside = [slice(core[0] - at[0], core[1] - at[0]) for core, at in zip(tile.core, tile.tile, strict=True)]
        output[:, slice(*tile.core[0]), slice(*tile.core[1])] = result.output[:, inside[0], inside[1]]
        found.append(result.of_core)
    assert np.array_equal(output, whole.output)
    assert {name: counts.totals() for name, counts in join(found).items()} == {
        name: counts.totals() for name, counts in whole.counts.items()
    }


def test_too_small_a_halo_is_noticed(spike_driven_network: Network) -> None:
    image = np.random.default_rng(0).random((3, 96, 32))
    assert differing(spike_driven_network, image, in_tiles(spike_driven_network, image, 32), OF_VALUES) == set()
    assert {"spikes", "acs"} <= differing(spike_driven_network, image, in_tiles(spike_driven_network, image, 32, 16))


def test_fan_out_is_that_of_the_whole() -> None:
    """A spike at the border of a core in the middle reaches 9 outputs of a 3x3 convolution, in the corner of the image
    4: with an input that is 1 everywhere, 4 + 2 * 6 + ... = 9 n - 12 sqrt(n) + 4 of n pixels."""
    network = random_spike_driven(0)
    fires = network.nodes[2:4]
    assert [node.kind for node in fires] == ["repeat", "neuron"]
    always = tuple(
        replace(node, threshold=np.array(-1e9)) if node.kind == "neuron" and node.inputs == ("repeat2",) else node
        for node in network.nodes
    )
    network = replace(network, nodes=always)
    found = in_tiles(network, np.full((3, 32, 32), 0.5), 8)
    reader = next(node for node in network.nodes if node.kind == "conv" and node.inputs == ("concat5",))
    on = 2 * 4  # both of each pair fire: channels
    per_channel = 9 * 32**2 - 12 * 32 + 4
    assert found[reader.name].acs.tolist() == [on * per_channel * len(reader.weight)] * network.steps
