"""Validation pairs as files: exactly what a run validates on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.held_out_pairs import main
from esdnet.training.data import PairedFolder, SyntheticRain


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def run(photos: Path, out: Path, *more: str) -> int:
    return main(["--photos", str(photos), "--out", str(out), "--held-out", "3", "--limit", "2", "--seed", "4", *more])


def test_the_files_hold_what_a_run_validates_on(photos: Path, tmp_path: Path) -> None:
    assert run(photos, tmp_path / "pairs") == 0
    expected = SyntheticRain(photos, held_out=3).validation_pairs(seed=4)[:2]
    written = PairedFolder(tmp_path / "pairs").pairs()
    assert [pair.name for pair in written] == [name for name, _, _ in expected] == ["0_light", "2_heavy"]
    for pair, (_, rainy, clean) in zip(written, expected, strict=True):
        for image, wanted in zip(pair.load(), (rainy, clean), strict=True):
            np.testing.assert_array_equal(image.astype(np.float32), wanted)


def test_dry_inputs_are_their_targets(photos: Path, tmp_path: Path) -> None:
    assert run(photos, tmp_path / "dry", "--dry") == 0
    for pair in PairedFolder(tmp_path / "dry").pairs():
        np.testing.assert_array_equal(*pair.load())


@pytest.mark.parametrize("limit", ["0", "4"])
def test_a_limit_that_cannot_be_met(photos: Path, tmp_path: Path, limit: str, capsys: pytest.CaptureFixture) -> None:
    assert run(photos, tmp_path / "pairs", "--limit", limit) == 2
    assert f"--limit {limit}: expected 1 to --held-out 3" in capsys.readouterr().err
    assert not (tmp_path / "pairs").exists()


def test_pairs_of_two_runs_are_not_mixed(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(photos, tmp_path / "pairs") == 0
    assert run(photos, tmp_path / "pairs") == 2
    assert "not empty; pairs of two runs in one folder" in capsys.readouterr().err


def test_no_photos_leave_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(tmp_path / "none", tmp_path / "pairs") == 2
    assert "none: no such folder" in capsys.readouterr().err
    assert not (tmp_path / "pairs").exists()
