"""The derain command: what it writes equals what the network says, and it refuses what it cannot do in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from esdnet.checkpoint import save_checkpoint
from esdnet.config import preset
from esdnet.derain import derain, main
from esdnet.images import load_image
from esdnet.model import ESDNet


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(path, ESDNet(preset("tiny")))
    return path


@pytest.fixture
def rainy(tmp_path: Path) -> Path:
    """A folder of two images whose sides are no multiples of 4."""
    (tmp_path / "rainy").mkdir()
    for name, shape in (("a.png", (30, 37, 3)), ("b.bmp", (21, 18, 3))):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "rainy" / name)
    return tmp_path / "rainy"


def run(*arguments: Path | str) -> int:
    return main([str(argument) for argument in arguments] + ["--device", "cpu"])


def test_file_equals_the_network(checkpoint: Path, rainy: Path, tmp_path: Path) -> None:
    assert run(rainy / "a.png", "-o", tmp_path / "out.png", "--checkpoint", checkpoint) == 0
    model = ESDNet(preset("tiny")).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    image = load_image(rainy / "a.png")
    with torch.inference_mode():
        output = model(torch.from_numpy(image.transpose(2, 0, 1)[None]).float())[0].double().numpy()
    expected = np.floor(np.clip(output, 0, 1) * 255 + 0.5).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected)


def test_folder_to_folder(checkpoint: Path, rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(rainy, "-o", tmp_path / "new" / "out", "--checkpoint", checkpoint, "--tile", "16") == 0
    written = sorted((tmp_path / "new" / "out").iterdir())
    assert [path.name for path in written] == ["a.png", "b.png"]
    assert load_image(written[0]).shape == (30, 37, 3)
    assert capsys.readouterr().out.split() == [str(path) for path in written]


def test_a_tile_as_large_as_the_image_is_the_whole_image(checkpoint: Path, rainy: Path, tmp_path: Path) -> None:
    assert run(rainy / "a.png", "-o", tmp_path / "0.png", "--checkpoint", checkpoint) == 0
    assert run(rainy / "a.png", "-o", tmp_path / "40.png", "--checkpoint", checkpoint, "--tile", "40") == 0
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "40.png").read_bytes()


def test_double_precision_stays_double() -> None:
    result = derain(ESDNet(preset("tiny")).eval().double(), np.full((16, 20, 3), 0.5), tile=16)
    assert result.output.dtype == torch.float64
    assert (result.tiles, result.executed_size) == (2, (16, 16))


def refused(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    """The one line on stderr of a run that must end with status 2."""
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_users_mistakes(checkpoint: Path, rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    given = ("--checkpoint", checkpoint)
    assert "no such file" in refused(capsys, tmp_path / "no.png", "-o", out, *given)
    assert "expected a folder to write to" in refused(capsys, rainy, "-o", tmp_path / "x.png", *given)
    assert "would overwrite its own input" in refused(capsys, rainy / "a.png", "-o", rainy / "a.png", *given)
    assert "would overwrite its own input" in refused(capsys, rainy, "-o", rainy, *given)
    assert "multiple of 4" in refused(capsys, rainy, "-o", out, *given, "--tile", "30")
    assert "cannot be made a folder" in refused(capsys, rainy, "-o", rainy / "a.png" / "x", *given)
    assert "expected a checkpoint file" in refused(capsys, rainy, "-o", out, "--checkpoint", tmp_path / "no.pt")


def test_two_images_of_one_name(
    checkpoint: Path, rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (16, 16)).save(rainy / "a.bmp")
    line = refused(capsys, rainy, "-o", tmp_path / "out", "--checkpoint", checkpoint)
    assert "a.bmp would be written to" in line
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="the message is for machines without a GPU")
def test_no_gpu(rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(rainy), "-o", str(tmp_path / "out"), "--device", "cuda"]) == 2
    assert capsys.readouterr().err == "error: --device cuda: no CUDA device is available; use --device cpu or auto\n"
