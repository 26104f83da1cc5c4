"""How far networks look, held against what they do: single pixels changed, and parts cut out, on random graphs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.graph.receptive_field import Halo, find_halo, hangs_on, image_wide, windows
from export.graph.stream import Stream
from export.readers.esdnet import lower
from tests.random_networks import RANDOM, random_local

SEEDS = range(12)


class Values(Stream):
    """Every value of a run in float64."""

    def see(self, node: g.Node, value: torch.Tensor) -> None:
        self.seen[node.name] = value.double().numpy().copy()


def values(network: Network, image: np.ndarray) -> dict[str, np.ndarray]:
    run = Values(network, (image.shape[1], image.shape[2]), torch.float64, torch.device("cpu"))
    run.seen = {}
    with torch.inference_mode():
        run.feed(torch.from_numpy(np.ascontiguousarray(image))[None])
    return run.seen


def dyadic_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Multiples of 2^-4 in [0, 1]: with dyadic weights no sum rounds."""
    return np.random.default_rng(seed).integers(0, 17, (3, height, width)) / 16.0


def side_for(network: Network) -> int:
    """A side with room for a core between two halos."""
    return max(find_halo(network)) * 2 + 4 * network.size_multiple


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("axis", [0, 1])
def test_no_pixel_outside_changes_anything_and_those_at_the_ends_do(seed: int, axis: int) -> None:
    network, rng = random_local(seed, spiking=False), np.random.default_rng(seed)
    side = side_for(network)
    image = rng.random((3, side, side))
    before = values(network, image)
    changed: dict[int, dict[str, np.ndarray]] = {}
    for place in range(side):
        other = image.copy()
        other[(slice(None), *([place, slice(None)] if axis == 0 else [slice(None), place]))] += 1.0
        after = values(network, other)
        changed[place] = {name: (after[name] != before[name]).any((0, 1, 3 - axis)) for name in before}
    for node in network.nodes:
        for index in range(before[node.name].shape[2 + axis]):
            first, last = hangs_on(network, axis, {node.name: (index, index)})[network.input.name]
            found = [place for place in range(side) if changed[place][node.name][index]]
            assert max(0, first) <= found[0] <= found[-1] <= min(side - 1, last), node.name
            if first >= 0 and last < side:  # else it also reads zeros beyond a border, of some value or other
                assert (found[0], found[-1]) == (first, last), node.name


@dataclass(frozen=True)
class Cut:
    """Along one axis: what a core keeps of a whole, and the tile around it that runs."""

    core: tuple[int, int]
    tile: tuple[int, int]

    def of_core(self, size: int, whole: int) -> tuple[slice, slice]:
        """Where the core lies in a value of the whole of so many elements, and in the same value of the tile."""
        pitch = round(whole / size)
        begin, end = (place // pitch for place in self.core)
        first = self.tile[0] // pitch
        return slice(begin, min(end, size)), slice(begin - first, min(end, size) - first)


def cut(whole: int, before: int, behind: int, multiple: int, place: str) -> Cut:
    cores = {"inside": (before, whole - behind), "first": (0, 2 * multiple), "last": (whole - multiple, whole)}
    begin, end = cores[place]
    return Cut((begin, end), (max(0, begin - before), min(whole, end + behind)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("place", ["inside", "first", "last"])
def test_a_tile_with_its_halo_holds_every_value_of_the_whole_in_its_core(seed: int, place: str) -> None:
    network = random_local(seed)
    whole, halo, multiple = side_for(network), find_halo(network), network.size_multiple
    rows = cut(whole, halo.top, halo.bottom, multiple, place)
    columns = cut(whole, halo.left, halo.right, multiple, place)
    image = dyadic_image(whole, whole, seed)
    in_whole, in_tile = values(network, image), values(network, image[:, slice(*rows.tile), slice(*columns.tile)])
    for name, value in in_whole.items():
        core_rows, tile_rows = rows.of_core(value.shape[2], whole)
        core_columns, tile_columns = columns.of_core(value.shape[3], whole)
        expected = value[:, :, core_rows, core_columns]
        assert np.array_equal(in_tile[name][:, :, tile_rows, tile_columns], expected), name


def test_a_step_less_of_halo_is_too_little() -> None:
    """Every side of it is needed: with one multiple less, some value of the core is another."""
    network = random_local(3, spiking=False)
    halo, multiple, whole = find_halo(network), network.size_multiple, side_for(network)
    image = dyadic_image(whole, whole)
    in_whole = values(network, image)
    for side in range(4):
        less = [pixels - multiple * (number == side) for number, pixels in enumerate(halo)]
        rows, columns = Cut((halo.top, whole - halo.bottom), (0, 0)), Cut((halo.left, whole - halo.right), (0, 0))
        rows = replace(rows, tile=(halo.top - less[0], whole - halo.bottom + less[2]))
        columns = replace(columns, tile=(halo.left - less[1], whole - halo.right + less[3]))
        in_tile = values(network, image[:, slice(*rows.tile), slice(*columns.tile)])
        differ = []
        for name, value in in_whole.items():
            core_rows, tile_rows = rows.of_core(value.shape[2], whole)
            core_columns, tile_columns = columns.of_core(value.shape[3], whole)
            kept = in_tile[name][:, :, tile_rows, tile_columns]
            differ.append(not np.array_equal(kept, value[:, :, core_rows, core_columns]))
        assert any(differ), halo._fields[side]


def test_esdnet_by_hand(spike_driven_network: Network) -> None:
    """tiny: one block per level and side. Up from output row 0: the last convolution reads -1, decoder 1 -3, up2_1 -4:
    row -2 of level 2, decoder 2 -4, up3_2 -5: row -3 of level 3, decoder and encoder 3 -7; down2_3 -15, encoder 2 -17,
    down1_2 -35, encoder 1 -37, the embedding -38. Down from row -1, the last of a core that ends at 0: 0, 2, 3: row 1,
    3, 4: row 2, 6; 13, 15; 31, 33, 34, which is the 35th pixel below. Both are made multiples of 4."""
    assert hangs_on(spike_driven_network, 0, {"derained": (0, 0)})["input"][0] == -38
    assert hangs_on(spike_driven_network, 0, {"derained": (-1, -1)})["input"][1] == 34
    assert find_halo(spike_driven_network) == Halo(40, 40, 36, 36)


@pytest.mark.parametrize("seed", range(4))
def test_what_looks_at_the_whole_image_is_named(seed: int) -> None:
    assert image_wide(RANDOM["spike_driven"](seed)) == ()
    network = RANDOM["released"](seed)
    wide = image_wide(network)
    assert {type(network[name]) for name in wide} == {g.Reduce}
    assert all(set("HW") & set(network[name].axes) for name in wide)
    with pytest.raises(NetworkError, match=rf"{wide[0]} \(reduce\) and {len(wide) - 1} more nodes look at the whole"):
        find_halo(network)


def one(node: g.Node, **fields) -> Network:
    given = {"steps": 1, **{key: fields.pop(key) for key in ("size_multiple",) if key in fields}}
    nodes = (g.Input(name="x", **fields), node, g.Output(name="y", inputs=("node",)))
    return Network(name="n", nodes=nodes, **given)


def test_what_has_no_halo_says_why(tiny_network: Network) -> None:
    conv = {"weight": np.ones((3, 3, 3, 3)), "name": "node", "inputs": ("x",)}
    for network, message in [
        (tiny_network, r"encoder_level1\.0\.attn\.ta\.mean \(reduce\) and 24 more nodes look at the whole image"),
        (one(g.Flatten(name="node", inputs=("x",)), size=(1, 1)), r"node \(flatten\) look"),
        (one(g.Affine(name="node", inputs=("x",), scale=np.ones((3, 8, 8)))), r"node \(affine\) look"),
        (one(g.RainMask(name="node", inputs=("x",), angles=(0,), across=7, along=13, clip=38, threshold=8)), "node "),
        (one(g.Conv(**conv)), "y: makes 6 pixels of 8, expected an image of the same size"),
        (one(g.Conv(**conv, stride=(2, 2), padding=(1, 1))), r"node \(conv\): elements every 2 pixels, .* divides 1"),
        (one(g.Conv(**conv, padding=(1, 1)), size=(8, 8)), "takes no images of any size"),
        (one(g.Conv(**conv, padding=(1, 1)), every_step=True), "takes no images of any size"),
        (one(g.Add(name="node", inputs=("x", "node"), late=("node",))), r"node \(add\): on a cycle"),
    ]:
        with pytest.raises(NetworkError, match=message):
            find_halo(network)


def test_an_unknown_kind_is_refused_by_name() -> None:
    class Wavelet(g.Node):
        """No kind that there is."""

    with pytest.raises(NetworkError, match=r"w: no rule for how far kind wavelet looks; add one to export/graph/rec"):
        windows(Wavelet(name="w", inputs=("x",)))


def test_bilinear_by_hand() -> None:
    """By 2: output j lies at (j + 1/2) / 2 - 1/2 of the input: -1/4, 1/4, 3/4, 5/4, ..; by 3: -1/3, 0, 1/3, 2/3, .."""
    rows, _ = windows(g.Resize(name="r", inputs=("x",), factor=2))
    assert [rows.read_by((j, j)) for j in range(4)] == [(-1, 0), (0, 1), (0, 1), (1, 2)]
    rows, _ = windows(g.Resize(name="r", inputs=("x",), factor=3))
    assert [rows.read_by((j, j)) for j in range(4)] == [(-1, 0), (0, 1), (0, 1), (0, 1)]
    rows, _ = windows(g.Resize(name="r", inputs=("x",), factor=2, mode="nearest"))
    assert [rows.read_by((j, j)) for j in range(-2, 4)] == [(-1, -1), (-1, -1), (0, 0), (0, 0), (1, 1), (1, 1)]


def test_depth_adds_up(spike_driven_model) -> None:
    """The halo of each more block grows by its two convolutions, four times as much on the third level."""
    config = spike_driven_model.config
    deeper = replace(config, encoder_blocks=(1, 1, 2))
    before, after = (
        hangs_on(lower(type(spike_driven_model)(one)), 1, {"derained": (0, 0)})["input"][0] for one in (config, deeper)
    )
    assert before - after == 2 * 4
