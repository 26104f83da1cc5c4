"""The node of the rain mask: what it computes, what is counted of it, and what a network may do with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from esdnet.images.rain_streaks import ACROSS, ALONG, ANGLES, CLIP, THRESHOLD, line_across, line_along, rain_mask
from export.graph import nodes as g
from export.graph.counting import count_node, operands_of
from export.graph.execute import execute_node
from export.graph.network import Network, infer_shapes
from export.graph.placement import on_host
from export.graph.rounding import Rounding
from hw_sim.backends import simulator

MASK = g.RainMask(
    name="mask", inputs=("image",), angles=ANGLES, across=ACROSS, along=ALONG, clip=CLIP, threshold=THRESHOLD
)
SMALL = replace(MASK, angles=(-20, 0, 30), across=3, along=5, clip=9, threshold=4)  # every field matters


def rainy(height: int, width: int) -> np.ndarray:
    """(3, height, width): a dark ramp with bright uprights and noise."""
    rng = np.random.default_rng(height)
    image = np.linspace(0.1, 0.3, 3 * height * width).reshape(3, height, width)
    image[:, height // 8 :, width // 3 :: 4] += 0.4
    return image + 0.05 * rng.random((3, height, width))


class Counted:
    """A whole number that counts what is done with it."""

    done = 0

    def __init__(self, value: float) -> None:
        self.value = value

    @classmethod
    def least(cls, values: list[Counted], sign: int = 1) -> Counted:
        """The least of them, or with sign -1 the largest: a comparison less than there are."""
        cls.done += len(values) - 1
        return Counted(sign * min(sign * each.value for each in values))

    def minus(self, other: Counted) -> Counted:
        Counted.done += 1
        return Counted(self.value - other.value)

    def above(self, limit: float) -> bool:
        Counted.done += 1
        return self.value > limit


Field = dict[tuple[int, int], Counted]


def by_definition(image: np.ndarray, node: g.RainMask) -> np.ndarray:
    """The mask (H, W), pixel by pixel, everything that is compared, added or subtracted counted."""
    levels = {
        place: level_of([Counted(x) for x in image[(slice(None), *place)]]) for place in np.ndindex(*image.shape[1:])
    }
    found = []
    for angle in node.angles:
        opened = opening(levels, line_across(angle, node.across))
        thin = {place: levels[place].minus(opened[place]) for place in levels}
        found.append(opening(thin, line_along(angle, node.along)))
    strengths = [strength_of(each, node.clip) for each in found]
    largest = Counted.least(strengths, -1).value
    strongest = []
    for each in strengths:
        Counted.done += 1
        strongest.append(Counted(each.value == largest))
    kept = [Counted.least(strongest[max(0, index - 1) : index + 2], -1).value for index in range(len(found))]
    mask = np.empty(image.shape[1:], dtype=bool)
    for place in levels:
        responses = [Counted(each[place].value * keep) for each, keep in zip(found, kept, strict=True)]
        mask[place] = Counted.least(responses, -1).above(node.threshold - 1)
    return mask


def level_of(channels: list[Counted]) -> Counted:
    """The darkest channel in whole grey levels: scaled, rounded half up, within two limits."""
    level = np.floor(Counted.least(channels).value * 255 + 0.5)
    Counted.done += 1
    return Counted.least([Counted.least([Counted(level), Counted(255)]), Counted(0)], -1)


def opening(levels: Field, line: tuple[tuple[int, int], ...]) -> Field:
    def extreme(field: Field, sign: int) -> Field:
        near = {(row, column): [(row + down, column + right) for down, right in line] for row, column in field}
        return {place: Counted.least([field[p] for p in near[place] if p in field], sign) for place in field}

    return extreme(extreme(levels, 1), -1)


def strength_of(response: Field, clip: int) -> Counted:
    total = sum(Counted.least([each, Counted(clip)]).value for each in response.values())
    Counted.done += len(response) - 1
    return Counted(total)


def network(*more: g.Node, mask: g.RainMask = MASK) -> Network:
    last = more[-1].name if more else mask.name
    nodes = (g.Input(name="image"), mask, *more, g.Output(name="out", inputs=(last,)))
    return Network(name="masked", nodes=nodes, steps=1)


@pytest.mark.parametrize("node", [MASK, SMALL], ids=["as trained", "other fields"])
@pytest.mark.parametrize("size", [(17, 23), (6, 31), (1, 1)])
def test_mask_and_counts_are_those_of_the_definition(node: g.RainMask, size: tuple[int, int]) -> None:
    image = rainy(*size)
    Counted.done = 0
    expected = by_definition(image, node)
    found = execute_node(node, [torch.from_numpy(image)[None]], 1, torch.float64)
    assert found.dtype is torch.bool
    assert np.array_equal(found[0, 0].numpy(), expected)
    assert expected.any() == (size[0] > 1)
    small = network(mask=node)
    totals = count_node(node, operands_of(small, infer_shapes(small, *size), node)).totals()
    assert totals["adds"] == Counted.done
    assert totals["muls"] == size[0] * size[1]
    assert totals["spikes"] == totals["macs"] == totals["acs"] == totals["weight_words"] == 0


def test_it_is_the_mask_of_the_networks() -> None:
    image = torch.from_numpy(rainy(40, 50))[None]
    assert torch.equal(execute_node(MASK, [image], 1, torch.float64), rain_mask(image) == 1)
    assert torch.equal(execute_node(MASK, [image.float()], 1, torch.float32), rain_mask(image) == 1)


def test_what_reads_it_accumulates_spikes() -> None:
    """A convolution of the mask, widened by a maximum over 3x3, has an AC for each 1 and synapse; on the host."""
    wide = g.Pool(name="wide", inputs=("mask",), function="max", kernel=(3, 3), stride=(1, 1), padding=(1, 1))
    conv = g.Conv(name="conv", inputs=("wide",), weight=np.ones((2, 1, 1, 1)))
    net = network(wide, conv)
    assert net.kinds["mask"] is net.kinds["wide"] is g.ValueKind.SPIKE
    assert net.neurons == ()
    assert {"mask", "wide"} <= on_host(net)
    result = simulator.run(net, rainy(24, 24), precision="float64")
    assert result.spikes == {}
    ones = result.output[0].sum()
    assert ones > by_definition(rainy(24, 24), MASK).sum() > 0
    assert result.counts["conv"].totals()["acs"] == 2 * ones
    assert result.counts["conv"].totals()["macs"] == 0
    assert result.counts["mask"].totals()["neuron_updates"] == 0


def test_lines_without_a_middle_are_refused() -> None:
    with pytest.raises(g.NetworkError, match=r"mask \(rainmask\): lines of 7 and 12 points, expected odd ones"):
        network(mask=replace(MASK, along=12))


def test_a_mask_of_what_rounding_can_move_is_refused() -> None:
    conv = g.Conv(name="conv", inputs=("image",), weight=np.ones((3, 3, 1, 1)))
    nodes = (g.Input(name="image"), conv, replace(MASK, inputs=("conv",)), g.Output(name="out", inputs=("mask",)))
    rounding = Rounding(Network(name="n", nodes=nodes, steps=1), (8, 8), {})
    rounding.know("image", np.ones(1))
    with pytest.raises(g.NetworkError, match=r"mask \(rainmask\): reads what rounding can move, expected the image"):
        rounding.bound("out")
