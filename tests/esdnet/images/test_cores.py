"""Cores make up the image, each once; tiles have their halo or the image's border."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from esdnet.images.cores import Cores

HALOS = st.tuples(*[st.integers(0, 5).map(lambda n: 4 * n)] * 4)


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 8), HALOS)
def test_cores_make_up_the_image_and_tiles_have_their_halo(
    height: int, width: int, side: int, halo: tuple[int, int, int, int]
) -> None:
    cores = Cores((height, width), 4 * side, halo, 4)
    covered = np.zeros(cores.padded, int)
    ran = 0
    for tile in cores.tiles:
        (top, bottom), (left, right) = tile.core
        covered[top:bottom, left:right] += 1
        assert 0 < bottom - top <= 4 * side
        assert 0 < right - left <= 4 * side
        for axis in (0, 1):
            first, end = tile.core[axis]
            assert tile.tile[axis] == (
                max(0, first - halo[axis]), min(cores.padded[axis], end + halo[2 + axis])
            )  # fmt: skip
            assert first % 4 == end % 4 == tile.tile[axis][0] % 4 == tile.tile[axis][1] % 4 == 0
        ran += tile.pixels
        assert tile.pixels <= cores.largest[0] * cores.largest[1]
    assert (covered == 1).all()
    assert cores.overhead == ran / covered.size
    tops = [tile.tile[0][0] for tile in cores.tiles]
    assert tops == sorted(tops)  # row by row


def test_cores_by_hand() -> None:
    """90 columns are padded to 92, three cores of at most 40: 23 times 4 pixels in thirds: 7, 8, 8 of them."""
    cores = Cores((40, 90), 40, (8, 8, 4, 4), 4)
    assert [tile.core[1] for tile in cores.tiles] == [(0, 28), (28, 60), (60, 92)]
    assert [tile.tile[1] for tile in cores.tiles] == [(0, 32), (20, 64), (52, 92)]
    assert {tile.tile[0] for tile in cores.tiles} == {(0, 40)}
    assert cores.largest == (40, 44)
    assert cores.overhead == (32 + 44 + 40) / 92
    assert Cores((40, 90), 43, (8, 8, 4, 4), 4).tiles == cores.tiles
