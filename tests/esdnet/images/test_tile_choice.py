"""Which tiles are chosen for how much memory, what is said of it, and what is refused."""

from __future__ import annotations

import argparse

import pytest

from esdnet.command.errors import UserError
from esdnet.images import tile_choice
from esdnet.images.tile_choice import KEPT, SCATTERED, SHARE, SIDES, TileChoice, add_tile_flags, check_tile_flags

PIXEL, IMAGE = 1000.0, 100.0  # bytes
PHOTO = (3000, 4000)  # height, width


def enough(size: tuple[int, int], tile: int, factor: float) -> int:
    """The free memory that just suffices, by the definition in TileChoice."""
    height, width = (min(tile, side) if tile else side for side in size)
    needed = factor * height * width * PIXEL + size[0] * size[1] * IMAGE
    return int(needed / SHARE) + 1


def choice(free: int | None, given: int | None = None, kept: bool = False) -> TileChoice:
    return TileChoice(given, PIXEL, IMAGE, kept, free, without_halo="attention looks at all of it")


def test_whole_where_it_fits_or_nothing_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert choice(enough(PHOTO, 0, SCATTERED)).tile("x", PHOTO) == 0
    assert choice(None).tile("x", PHOTO) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("side", SIDES)
def test_the_largest_tiles_that_fit_are_chosen_and_said_once(side: int, capsys: pytest.CaptureFixture[str]) -> None:
    chooser = choice(enough(PHOTO, side, KEPT))
    assert chooser.tile("a", PHOTO) == chooser.tile("b", PHOTO) == side
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("4000x3000 pixels at once need about 16.8 GB, ")
    end = "; the result is not that of the whole image (attention looks at all of it)\n"
    assert line.endswith(f" are free: in tiles of {side}, as with --tile {side}{end}")


def test_one_byte_less_and_the_next_smaller_ones_are() -> None:
    assert choice(enough(PHOTO, 0, SCATTERED) - 2).tile("x", PHOTO) == 2048
    assert choice(enough(PHOTO, 512, KEPT) - 2).tile("x", PHOTO) == 256


def test_no_tile_is_chosen_that_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is already larger than AT_MOST gains nothing by one."""
    monkeypatch.setattr(tile_choice, "resident_memory", lambda: 3 * tile_choice.AT_MOST)
    exact = TileChoice(None, PIXEL, IMAGE, free=int(1e12), halo=(4, 4, 4, 4))
    assert [exact.tile("x", size) for size in ((44, 64), (128, 100), (128, 132))] == [0, 0, 128]


def test_the_whole_may_take_more_than_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_choice, "resident_memory", lambda: 0)
    exact = TileChoice(None, PIXEL, 0.0, free=int(1e12), halo=(64, 64, 64, 64))
    height = int(tile_choice.AT_MOST * tile_choice.WHOLE / tile_choice.KEPT_BY_TILES / PIXEL / 1000)
    assert exact.tile("x", (height, 1000)) == 0
    assert exact.tile("x", (height + 1, 1000)) == 960  # with its halo 1088 by 1000: 1.74 GB


def test_not_even_the_smallest() -> None:
    with pytest.raises(
        UserError, match=r"^x: 4000x3000 pixels in tiles of 64 need about .*, 500 MB are free; free some"
    ):
        choice(500_000_000).tile("x", PHOTO)


@pytest.mark.parametrize(("given", "words"), [(0, "at once"), (1024, "in tiles of 1024")])
def test_what_is_given_decides_and_is_refused_where_it_cannot_fit(given: int, words: str) -> None:
    enough_for_it = enough(PHOTO, given, SCATTERED)
    assert choice(enough_for_it, given).tile("x", PHOTO) == given
    with pytest.raises(UserError, match=rf"^x: 4000x3000 pixels {words} need about .* are free; leave out --tile"):
        choice(enough_for_it - 2, given).tile("x", PHOTO)


def test_memory_that_is_kept_takes_more() -> None:
    free = enough(PHOTO, 0, SCATTERED)
    assert choice(free).tile("x", PHOTO) == 0
    assert choice(free, kept=True).tile("x", PHOTO) == 2048


SMALL, LARGE = (300, 400), (3000, 4000)


@pytest.mark.parametrize(
    ("sizes", "given", "free", "kept"),
    [
        ([SMALL, LARGE], None, enough(LARGE, 0, KEPT), True),
        ([SMALL, LARGE], None, enough(LARGE, 0, KEPT) - 2, False),  # the large one fits, but only without
        ([SMALL], None, enough(LARGE, 0, KEPT) - 2, True),
        ([SMALL, LARGE], None, enough(LARGE, 0, SCATTERED) - 2, True),  # it goes in tiles, which fit even so
        ([LARGE], 1024, enough(LARGE, 1024, KEPT) - 2, False),
        ([LARGE], 512, enough(LARGE, 1024, KEPT) - 2, True),
    ],
)
def test_freed_memory_is_kept_where_there_is_room_for_that(sizes, given, free, kept, monkeypatch) -> None:
    called = []
    monkeypatch.setattr(tile_choice, "keep_freed_memory", lambda: called.append(True))
    choice(free, given).keep_memory(sizes)
    assert bool(called) == kept


def flags(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_tile_flags(parser)
    arguments = parser.parse_args(given)
    check_tile_flags(arguments, 4)
    return arguments


def test_flags() -> None:
    assert vars(flags()) == {"tile": None, "overlap": None}
    assert vars(flags("--tile", "0")) == {"tile": 0, "overlap": None}
    assert vars(flags("--tile", "64", "--overlap", "16")) == {"tile": 64, "overlap": 16}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--overlap", "16"], "--overlap 16: is that of tiles; give --tile too"),
        (["--tile", "0", "--overlap", "16"], "--overlap 16: is that of tiles"),
        (["--tile", "30"], "tile size 30: expected 0 .* multiple of 4, such as 28"),
        (["--tile", "-4"], "tile size -4: expected 0 .* such as 4"),
        (["--tile", "64", "--overlap", "33"], "overlap 33: expected 0 to 32, half of the tile size 64"),
    ],
)
def test_flags_that_cannot_be(given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        flags(*given)
