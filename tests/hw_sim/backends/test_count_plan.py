"""Counts that are made once for all images of a size: those of a second image are its own."""

from __future__ import annotations

import numpy as np
import pytest

from export.graph.network import Network
from hw_sim.backends import simulator
from hw_sim.backends.count_plan import _PLANS
from tests.random_networks import RANDOM


def counts_of(network: Network, image: np.ndarray) -> dict[str, dict[str, list[int]]]:
    found = simulator.run(network, image, precision="float64").counts
    return {name: {field: value.tolist() for field, value in vars(counts).items()} for name, counts in found.items()}


@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("seed", range(3))
def test_a_second_image_is_counted_as_if_it_were_the_first(kind: str, seed: int) -> None:
    network, rng = RANDOM[kind](seed), np.random.default_rng(seed)
    images = [rng.random((3, 16, 20)), np.zeros((3, 16, 20)), rng.random((3, 16, 20)) ** 4]
    one_after_the_other = [counts_of(network, image) for image in images]
    assert one_after_the_other[0] != one_after_the_other[1]
    for image, found in zip(images, one_after_the_other, strict=True):
        _PLANS.clear()
        assert counts_of(network, image) == found
