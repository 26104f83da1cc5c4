"""Where pairs come from: each benchmark's layout on small made trees, and rain drawn over photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from esdnet.command.errors import UserError
from esdnet.training import data
from esdnet.training.data import PairedFolder, PairSource, SyntheticRain, open_training_source


def write(path: Path, value: int | np.ndarray = 100, size: tuple[int, int] = (40, 32)) -> Path:
    """An image file of one grey level (or of the pixels given), `size` as (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (value,) * 3) if isinstance(value, int) else Image.fromarray(value)
    image.save(path)
    return path


def textured(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index in range(8):
        write(tmp_path / "photos" / f"{index}.png", 20 + 10 * index)
    return tmp_path / "photos"


def make_paired(root: Path) -> None:
    for name in ("a", "b"):
        write(root / "input" / f"{name}.png", 120)
        write(root / "target" / f"{name}.bmp", 100)


def make_rain12(root: Path) -> None:
    for name in ("001", "002"):
        write(root / "data" / f"{name}_in.png", 120)
        write(root / "data" / f"{name}_GT.png", 100)


def make_rain12_in_two_folders(root: Path) -> None:
    for name in ("1", "2"):
        write(root / "rainy" / f"{name}.png", 120)
        write(root / "groundtruth" / f"{name}.png", 100)


def make_rain200(root: Path) -> None:
    for number in (1, 12):
        write(root / "rain" / "X2" / f"norain-{number}x2.png", 120)
        write(root / "norain" / f"norain-{number}.png", 100)


def make_rain200_renamed(root: Path) -> None:
    for number in (1, 12):
        write(root / "rainy" / f"rain-{number}.png", 120)
        write(root / "norain" / f"norain-{number}.png", 100)


def make_rain1200(root: Path) -> None:
    for name in ("0", "1"):
        both = np.full((32, 80, 3), 120, np.uint8)
        both[:, 40:] = 100
        write(root / f"{name}.png", both)


@pytest.mark.parametrize(
    ("layout", "make", "names"),
    [
        ("paired", make_paired, ["a", "b"]),
        ("rain12", make_rain12, ["001", "002"]),
        ("rain12", make_rain12_in_two_folders, ["1", "2"]),
        ("rain200", make_rain200, ["1", "12"]),
        ("rain200", make_rain200_renamed, ["1", "12"]),
        ("rain1200", make_rain1200, ["0", "1"]),
    ],
)
def test_layouts_with_targets(
    tmp_path: Path, layout: str, make: Callable[[Path], None], names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    pairs = PairedFolder(tmp_path, layout).pairs()
    assert [pair.name for pair in pairs] == names
    for pair in pairs:
        rainy, clean = pair.load()
        assert clean is not None
        assert rainy.shape == clean.shape == (32, 40, 3)
        assert (rainy * 255 == 120).all()
        assert (clean * 255 == 100).all()
    assert capsys.readouterr().err == ""


def test_layout_without_targets(tmp_path: Path) -> None:
    write(tmp_path / "street.jpg")
    source = PairedFolder(tmp_path, "rw-data")
    rainy, clean = source.pairs()[0].load()
    assert rainy.shape == (32, 40, 3)
    assert clean is None
    with pytest.raises(UserError, match="street has no target, so it cannot be trained on"):
        source.sample(np.random.default_rng(0), 16)


def test_images_without_partner_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_paired(tmp_path)
    write(tmp_path / "input" / "lonely.png")
    write(tmp_path / "target" / "sad.png")
    assert [pair.name for pair in PairedFolder(tmp_path).pairs()] == ["a", "b"]
    warning = capsys.readouterr().err
    assert warning.endswith("2 images without partner are left out: input/lonely.png, target/sad.png\n")


def test_no_pair_at_all(tmp_path: Path) -> None:
    write(tmp_path / "input" / "a.png")
    write(tmp_path / "target" / "b.png")
    with pytest.raises(UserError, match=r"no rainy image has a target .*input/a\.png, target/b\.png"):
        PairedFolder(tmp_path)


def test_two_images_for_one_name(tmp_path: Path) -> None:
    make_paired(tmp_path)
    write(tmp_path / "input" / "a.jpg")
    with pytest.raises(UserError, match="expected one image named a"):
        PairedFolder(tmp_path)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("paired", "input: no such folder"),
        ("rain200", "expected images in one of rain/X2/"),
        ("rain1200", "holds no image"),
        ("rain12", "no rainy image has a target"),
        ("zip", "layout 'zip' is unknown: expected one of paired, rain12"),
    ],
)
def test_empty_folder(tmp_path: Path, layout: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PairedFolder(tmp_path, layout)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        PairedFolder(tmp_path / "no")


def test_sizes_that_differ(tmp_path: Path) -> None:
    write(tmp_path / "input" / "a.png")
    write(tmp_path / "target" / "a.png", size=(40, 33))
    with pytest.raises(UserError, match=r"a\.png: 40x33 pixels, but .*a\.png has 40x32"):
        PairedFolder(tmp_path).pairs()[0].load()


def test_side_by_side_needs_an_even_width(tmp_path: Path) -> None:
    write(tmp_path / "a.png", size=(41, 32))
    with pytest.raises(UserError, match="width 41 is odd"):
        PairedFolder(tmp_path, "rain1200").pairs()[0].load()


def check_sample(source: PairSource, crop: int) -> tuple[np.ndarray, np.ndarray]:
    rainy, clean = source.sample(np.random.default_rng(3), crop)
    for image in (rainy, clean):
        assert image.shape == (3, crop, crop)
        assert image.dtype == np.float32
        assert image.flags["C_CONTIGUOUS"]
        assert image.min() >= 0.0
        assert image.max() <= 1.0
    again = source.sample(np.random.default_rng(3), crop)
    assert np.array_equal(rainy, again[0])
    assert np.array_equal(clean, again[1])
    return rainy, clean


def test_paired_crops_stay_aligned_through_flips_and_turns(tmp_path: Path) -> None:
    clean = textured(0)
    write(tmp_path / "target" / "a.png", clean)
    write(tmp_path / "input" / "a.png", clean + 50)
    source = PairedFolder(tmp_path)
    check_sample(source, 16)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        rainy, target = source.sample(rng, 48)  # as high as the image: few positions, so the eight turns show
        assert np.allclose(rainy - target, 50 / 255, atol=1e-6)
        seen.add(int(np.argmax(target[0, [0, 0, -1, -1], [0, -1, 0, -1]])) * 2 + int(target[0, 0, 1] > target[0, 1, 0]))
    assert len(seen) == 8


def test_pairs_held_out_are_validated_on_and_never_trained_on(tmp_path: Path) -> None:
    for level, name in enumerate("abcd"):
        write(tmp_path / "input" / f"{name}.png", np.full((16, 16, 3), 10 * level + 5, np.uint8))
        write(tmp_path / "target" / f"{name}.png", np.full((16, 16, 3), 10 * level, np.uint8))
    source = open_training_source(str(tmp_path), None, None, None, held_out=2)
    held_out = source.validation_pairs(0)
    assert [name for name, _, _ in held_out] == ["a", "c"]
    assert held_out[1][1].dtype == np.float32
    assert np.allclose(held_out[1][1] * 255, 25)
    assert np.allclose(held_out[1][2] * 255, 20)
    rng = np.random.default_rng(0)
    assert {round(255 * float(source.sample(rng, 16)[1].mean())) for _ in range(30)} == {10, 30}


def test_crop_larger_than_the_image(tmp_path: Path, photos: Path) -> None:
    make_paired(tmp_path)
    for source in (PairedFolder(tmp_path), SyntheticRain(photos)):
        with pytest.raises(UserError, match="40x32 pixels, too small for crops of 64x64"):
            source.sample(np.random.default_rng(0), 64)


def test_synthetic_rain_only_adds_light(photos: Path) -> None:
    rainy, clean = check_sample(SyntheticRain(photos), 24)
    assert (rainy >= clean).all()
    assert (rainy > clean).any()


def test_a_twentieth_of_the_crops_has_no_rain(photos: Path) -> None:
    source = SyntheticRain(photos)
    rng = np.random.default_rng(0)
    dry = sum(np.array_equal(*source.sample(rng, 16)) for _ in range(600))
    assert 15 <= dry <= 50  # 30 expected; three deviations are 16, and drawn rain may miss so small a crop


def test_the_shares_of_dry_and_of_light_crops_can_be_chosen(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    dry = SyntheticRain(photos, dry_share=1.0)
    assert all(np.array_equal(*dry.sample(rng, 16)) for _ in range(20))
    monkeypatch.setattr(data, "heavy_rain", lambda *_: np.full((16, 16), 0.5, dtype=np.float32))
    monkeypatch.setattr(data, "light_rain", lambda *_: np.zeros((16, 16), dtype=np.float32))
    for share, expected in ((0.0, True), (1.0, False)):
        source = SyntheticRain(photos, dry_share=0.0, light_share=share)
        assert all(np.subtract(*source.sample(rng, 16)).any() == expected for _ in range(20))


@pytest.mark.parametrize(("share", "found"), [("dry_share", 1.5), ("light_share", -0.1)])
def test_a_share_that_is_none(photos: Path, share: str, found: float) -> None:
    with pytest.raises(UserError, match=rf"the share of {share[:-6]} crops must be from 0 to 1, found {found}"):
        SyntheticRain(photos, **{share: found})


def test_held_out_photos_are_never_trained_on(photos: Path) -> None:
    source = SyntheticRain(photos, held_out=3)
    pairs = source.validation_pairs(seed=0)
    assert [name for name, _, _ in pairs] == ["0_light", "3_heavy", "5_light"]
    rng = np.random.default_rng(0)
    levels = {round(float(source.sample(rng, 16)[1][0, 0, 0]) * 255) for _ in range(200)}
    assert levels == {20 + 10 * index for index in (1, 2, 4, 6, 7)}


def test_validation_pairs_depend_on_the_seed_alone(photos: Path, tmp_path: Path) -> None:
    make_paired(tmp_path)
    plain = SyntheticRain(photos, held_out=2).validation_pairs(seed=4)
    pasted = SyntheticRain(photos, pasted=tmp_path, held_out=2).validation_pairs(seed=4)
    other = SyntheticRain(photos, held_out=2).validation_pairs(seed=5)
    for one, two, three in zip(plain, pasted, other, strict=True):
        assert one[1].shape == one[2].shape == (32, 40, 3)
        assert one[1].dtype == one[2].dtype == np.float32
        assert np.array_equal(one[1], two[1])
        assert not np.array_equal(one[1], three[1])


def test_rain_of_real_pairs_is_pasted(photos: Path, tmp_path: Path) -> None:
    make_paired(tmp_path)  # its rain is 20 grey levels everywhere
    source = SyntheticRain(photos, pasted=tmp_path)
    rng = np.random.default_rng(0)
    differences = [np.subtract(*source.sample(rng, 16)) for _ in range(100)]
    pasted = sum(np.allclose(difference, 20 / 255, atol=1e-6) for difference in differences)
    assert 20 < pasted < 55


def test_rain_that_is_clipped_is_not_pasted(photos: Path, tmp_path: Path) -> None:
    write(tmp_path / "input" / "a.png", 255)
    write(tmp_path / "target" / "a.png", 100)
    source = SyntheticRain(photos, pasted=tmp_path)
    rng = np.random.default_rng(0)
    assert not any((np.subtract(*source.sample(rng, 16)) > 0.6).all() for _ in range(50))


def test_streak_patterns_are_used(photos: Path, tmp_path: Path) -> None:
    write(tmp_path / "streaks" / "one.png", 255)
    source = SyntheticRain(photos, streaks=tmp_path / "streaks")
    rng = np.random.default_rng(0)
    differences = [np.subtract(*source.sample(rng, 16)) for _ in range(60)]
    assert sum(np.ptp(difference) < 0.01 and difference.min() > 0.3 for difference in differences) > 3


@pytest.mark.parametrize("held_out", [8, 9, -1])
def test_too_many_held_out(photos: Path, held_out: int) -> None:
    with pytest.raises(UserError, match=f"8 photos, cannot hold out {held_out}"):
        SyntheticRain(photos, held_out=held_out)


def test_opening_a_source(photos: Path, tmp_path: Path) -> None:
    make_paired(tmp_path)
    assert isinstance(open_training_source("synthetic", photos, None, None, 2), SyntheticRain)
    assert isinstance(open_training_source(str(tmp_path), None, None, None, 1), PairedFolder)
    with pytest.raises(UserError, match="synthetic rain needs a folder of clean photos"):
        open_training_source("synthetic", None, None, None, 2)
    for ignored in ({"photos": photos}, {"photos": None, "dry_share": 0.2}):
        with pytest.raises(UserError, match=r"its pairs have their rain; --photos, .* are for --data synthetic"):
            open_training_source(str(tmp_path), streaks=None, pasted=None, held_out=1, **ignored)
