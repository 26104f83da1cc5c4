"""Tiles: whole images come out unchanged, counts are of what ran, and no seam shows where tiles meet."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from esdnet.command.errors import UserError
from esdnet.images.tiling import run_tiled


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.sampled_from([0, 4, 16, 20, 80]),
    overlap=st.integers(0, 10),
    multiple=st.sampled_from([1, 4]),
)
def test_identity_comes_out_unchanged_and_runs_are_counted(
    height: int, width: int, tile: int, overlap: int, multiple: int
) -> None:
    overlap = min(overlap, tile // 2)
    image = torch.rand(3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen: list[tuple[int, ...]] = []

    def run(part: Tensor) -> Tensor:
        seen.append(tuple(part.shape))
        return part

    result = run_tiled(run, image, multiple, tile, overlap)
    assert result.output.shape == image.shape
    assert torch.allclose(result.output, image, rtol=0, atol=1e-15)
    assert seen == [(3, *result.executed_size)] * result.tiles
    assert all(side % multiple == 0 for side in result.executed_size)


def test_one_tile_is_returned_untouched() -> None:
    image = torch.rand(3, 30, 21, generator=torch.Generator().manual_seed(0))
    result = run_tiled(torch.sin, image, 4, tile=32)
    assert torch.equal(result.output, torch.sin(image))
    assert (result.tiles, result.executed_size) == (1, (32, 24))


def test_tiles_by_hand() -> None:
    # 100 wide: tiles of 40 with an overlap of 8 start at 0, 32 and, moved back, 60. 40 high: one row.
    starts = []
    image = torch.arange(100.0).expand(3, 40, 100)

    def run(part: Tensor) -> Tensor:
        starts.append(int(part[0, 0, 0]))
        return part

    result = run_tiled(run, image, 4, tile=40, overlap=8)
    assert starts == [0, 32, 60]
    assert (result.tiles, result.executed_size) == (3, (40, 40))


def test_padding_repeats_the_border() -> None:
    image = torch.tensor([1.0, 2.0, 3.0]).expand(3, 4, 3)
    result = run_tiled(lambda part: part.flip(-1), image, 4)  # 1 2 3 3 flipped, cut to 3 columns
    assert result.output[0, 0].tolist() == [3.0, 3.0, 2.0]


def test_no_seam_between_tiles_that_disagree() -> None:
    """Each run adds 0 or 1 by turns: the output must go from one to the other in steps of at most 1 / (overlap + 1)."""
    runs = []

    def run(part: Tensor) -> Tensor:
        runs.append(0)
        return part + len(runs) % 2

    output = run_tiled(run, torch.zeros(3, 16, 104, dtype=torch.float64), 4, tile=16, overlap=4).output
    assert len(runs) > 6
    assert output.min() == 0.0
    assert output.max() == 1.0
    assert output.diff(dim=-1).abs().max() <= 1 / 5 + 1e-12


def test_result_has_the_dtype_of_the_run() -> None:
    image = torch.rand(3, 40, 40)
    assert run_tiled(lambda part: part.double(), image, 4, tile=16).output.dtype == torch.float64
    assert run_tiled(lambda part: part, image, 4, tile=16).output.dtype == torch.float32


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (50, 8, r"tile size 50: expected 0 \(whole image\) or a multiple of 4, such as 48"),
        (-4, 0, "tile size -4: expected 0"),
        (16, 9, "overlap 9: expected 0 to 8, half of the tile size 16"),
        (16, -1, "overlap -1"),
    ],
)
def test_impossible_tiles_are_refused(tile: int, overlap: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_tiled(lambda part: part, torch.zeros(3, 32, 32), 4, tile, overlap)
