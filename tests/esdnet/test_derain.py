"""The derain command: what it writes equals what the network says, and it refuses what it cannot do in one line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from esdnet.derain import main
from esdnet.images.cores import Cores
from esdnet.images.files import load_image, save_image
from esdnet.networks import derainer
from esdnet.networks.checkpoint import save_checkpoint
from esdnet.networks.derainer import derain
from esdnet.networks.esdnet.config import preset
from esdnet.networks.esdnet.model import ESDNet
from tests import gated

ROOT = Path(__file__).parents[2]


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


@pytest.fixture
def local(tmp_path: Path, spike_driven_model: ESDNet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose tiles are exact, run in float64: there the sums of a tile are those of the whole to 1e-15."""
    save_checkpoint(tmp_path / "local.pt", spike_driven_model)
    opened = derainer.open_network
    monkeypatch.setattr(derainer, "open_network", lambda setup: opened(setup).double())
    return tmp_path / "local.pt"


@pytest.mark.parametrize("tile", ["32", pytest.param("16", marks=pytest.mark.slow)])
def test_tiles_with_their_halo_are_the_whole_image(
    local: Path, rainy: Path, tmp_path: Path, tile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.effect_noise((70, 58), 60).convert("RGB").save(rainy / "n.png")
    flags = ("--checkpoint", local, "--json", tmp_path / "r.json")
    assert run(rainy / "n.png", "-o", tmp_path / "whole.png", *flags) == 0
    [row] = json.loads((tmp_path / "r.json").read_text())["images"]
    assert (row["tile"], row["tiles"], row["executed_size"], row["overhead"]) == (0, 1, [60, 72], 1.0)
    assert run(rainy / "n.png", "-o", tmp_path / "tiles.png", *flags, "--tile", tile) == 0
    assert (tmp_path / "tiles.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    [row] = json.loads((tmp_path / "r.json").read_text())["images"]
    assert row["tiles"] == len(Cores((58, 70), int(tile), (40, 40, 36, 36), 4))
    assert row["overhead"] > 1
    assert "tiles of " + tile + " and the 40 pixels around: the network sees" in capsys.readouterr().err


def test_tiles_of_a_gated_network_have_the_halo_of_its_gate(tmp_path: Path, monkeypatch, capsys) -> None:
    """In float64, as above. With the halo of the same network without its gate, it opens elsewhere."""
    opened = derainer.open_network
    monkeypatch.setattr(derainer, "open_network", lambda setup: opened(setup).double())
    save_checkpoint(tmp_path / "gated.pt", gated.gated_model("learnt"))
    save_image(tmp_path / "n.png", gated.rainy(132, 20).transpose(1, 2, 0))
    flags = (tmp_path / "n.png", "--checkpoint", tmp_path / "gated.pt")
    assert run(*flags, "-o", tmp_path / "whole.png", "--tile", "0") == 0
    assert run(*flags, "-o", tmp_path / "tiles.png", "--tile", "20") == 0
    assert (tmp_path / "tiles.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert "tiles of 20 and the 56 pixels around: the network sees" in capsys.readouterr().err
    monkeypatch.setattr(ESDNet, "halo", (40, 40, 36, 36))
    assert run(*flags, "-o", tmp_path / "less.png", "--tile", "20") == 0
    assert (tmp_path / "less.png").read_bytes() != (tmp_path / "whole.png").read_bytes()


def test_tiles_that_overlap_are_blended_where_that_is_asked_for(local: Path, rainy: Path, tmp_path: Path) -> None:
    flags = ("--checkpoint", local, "--tile", "16", "--overlap", "8", "--json", tmp_path / "r.json")
    assert run(rainy / "a.png", "-o", tmp_path / "a.png", *flags) == 0
    [row] = json.loads((tmp_path / "r.json").read_text())["images"]
    assert (row["overlap"], row["tiles"], row["executed_size"]) == (8, 12, [16, 16])
    assert "halo" not in row


def test_a_turned_jpeg_becomes_one_of_the_quality_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    Image.effect_noise((40, 30), 60).convert("RGB").save(tmp_path / "a.jpg", exif=exif)
    sizes = {}
    for quality in (50, 95):
        out = tmp_path / str(quality)
        assert run(tmp_path / "a.jpg", "-o", out, "--checkpoint", checkpoint, "--quality", str(quality)) == 0
        with Image.open(out / "a.jpg") as written:
            assert (written.format, written.size) == ("JPEG", (30, 40))
            assert dict(written.getexif()) == {0x010F: "A camera"}
        sizes[quality] = (out / "a.jpg").stat().st_size
    assert sizes[50] < 0.7 * sizes[95]


@pytest.mark.slow
def test_shared_among_processes_nothing_changes(
    spike_driven_model: ESDNet, rainy: Path, tmp_path: Path, capsys
) -> None:
    """The photos of a folder, and the tiles of one photo; one of them cannot be read."""
    save_checkpoint(tmp_path / "local.pt", spike_driven_model)
    Image.effect_noise((150, 140), 60).convert("RGB").save(rainy / "n.png")
    (rainy / "x.png").write_text("hello")
    flags = ("--checkpoint", tmp_path / "local.pt")
    rows = []
    for workers in ("1", "2"):
        shared = ("--workers", workers, "--json", tmp_path / "r.json")
        assert run(rainy, "-o", tmp_path / workers, *flags, *shared) == 1
        content = json.loads((tmp_path / "r.json").read_text())
        rows.append([{**row, "output": "", "seconds": 0} for row in content["images"]])
        assert [Path(failure["name"]).name for failure in content["failed"]] == ["x.png"]
        assert run(rainy / "n.png", "-o", tmp_path / f"{workers}.png", *flags, "--tile", "64", *shared) == 0
        [row] = json.loads((tmp_path / "r.json").read_text())["images"]
        rows[-1].append({**row, "output": "", "seconds": 0})
    assert rows[0] == rows[1]
    for name in ("a.png", "b.png", "n.png", ".png"):
        first, second = (tmp_path / (f"{n}{name}" if name == ".png" else f"{n}/{name}") for n in "12")
        assert first.read_bytes() == second.read_bytes()
    assert sorted(capsys.readouterr().out.split()) == sorted(
        str(tmp_path / name) for n in "12" for name in (f"{n}/a.png", f"{n}/b.png", f"{n}/n.png", f"{n}.png")
    )


def test_double_precision_stays_double() -> None:
    result = derain(ESDNet(preset("tiny")).eval().double(), np.full((16, 20, 3), 0.5), tile=16)
    assert result.output.dtype == torch.float64
    assert (result.tiles, result.executed_size) == (2, (16, 16))


def test_a_bad_file_among_others_is_named_and_the_rest_done(
    checkpoint: Path, rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (rainy / "aa.png").write_text("hello")
    out, report = tmp_path / "out", tmp_path / "r.json"
    assert run(rainy, "-o", out, "--checkpoint", checkpoint, "--json", report) == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith(f"error: {rainy / 'aa.png'}: cannot be read as an image")
    assert lines[2].startswith("2 of 3 images in ")
    assert lines[2].endswith(" s, 1 failed")
    assert len(lines) == 3  # and no bar
    content = json.loads(report.read_text())
    assert [row["output"] for row in content["images"]] == [str(out / "a.png"), str(out / "b.png")]
    assert content["failed"] == [{"name": str(rainy / "aa.png"), "error": lines[1].removeprefix("error: ")}]
    assert (content["skipped"], content["not_run"]) == ([], [])


def test_the_report_says_how_each_was_run(checkpoint: Path, rainy: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    flags = ("--checkpoint", checkpoint, "--tile", "16", "--overlap", "4", "--json", tmp_path / "r.json")
    assert run(rainy / "a.png", "-o", out, *flags) == 0
    [row] = json.loads((tmp_path / "r.json").read_text())["images"]
    assert row.pop("seconds") > 0
    assert row == {
        "input": str(rainy / "a.png"), "output": str(out), "checkpoint": str(checkpoint), "device": "cpu",
        "height": 30, "width": 37, "tile": 16, "overlap": 4, "executed_size": [16, 16], "tiles": 9,
    }  # fmt: skip


def test_what_is_there_is_skipped_if_asked(
    checkpoint: Path, rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_text("there")
    flags = ("-o", out, "--checkpoint", checkpoint, "--skip-existing", "--json", tmp_path / "r.json")
    assert run(rainy, *flags) == 0
    assert (out / "a.png").read_text() == "there"
    content = json.loads((tmp_path / "r.json").read_text())
    assert (content["skipped"], len(content["images"])) == ([str(rainy / "a.png")], 1)
    captured = capsys.readouterr()
    assert captured.out.split() == [str(out / "b.png")]
    assert "1 of 2 images are derained already and skipped" in captured.err
    assert "1 of 1 images in " in captured.err
    before = (out / "b.png").stat().st_mtime_ns
    assert run(rainy, *flags) == 0  # nothing is left to do
    assert (out / "b.png").stat().st_mtime_ns == before
    assert len(json.loads((tmp_path / "r.json").read_text())["skipped"]) == 2


def test_ctrl_c_says_how_far_it_came(
    checkpoint: Path, rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (16, 16)).save(rainy / "c.png")
    whole = derainer.derain

    def interrupted(model, image, *tiles):
        if image.shape == (21, 18, 3):  # b.bmp
            raise KeyboardInterrupt
        return whole(model, image, *tiles)

    monkeypatch.setattr(derainer, "derain", interrupted)
    out, report = tmp_path / "out", tmp_path / "r.json"
    assert run(rainy, "-o", out, "--checkpoint", checkpoint, "--json", report) == 130
    assert [path.name for path in out.iterdir()] == ["a.png"]
    assert "stopped after 1 of 3 images in " in capsys.readouterr().err
    assert json.loads(report.read_text())["not_run"] == [str(rainy / "b.bmp"), str(rainy / "c.png")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05])
def test_ctrl_c_at_any_moment_leaves_whole_files(delay: float, checkpoint: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for index in range(200):
        Image.effect_noise((64, 64), 50).convert("RGB").save(source / f"{index:03}.png")
    command = [sys.executable, "-m", "esdnet.derain", source, "-o", out, "--checkpoint", checkpoint, "--device", "cpu"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT, env=environment) as process:
        for _ in range(3):
            process.stdout.readline()
        signal.sigtimedwait([], delay)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130
    written = sorted(out.iterdir())
    done = re.match(r"stopped after (\d+) of 200 images in ", error.splitlines()[-1])
    assert done, error
    assert int(done[1]) in (len(written), len(written) - 1)  # the last one may have been written in that very moment
    assert len(error.splitlines()) == 2
    assert [path.name for path in written] == [f"{index:03}.png" for index in range(len(written))]
    for path in written:
        load_image(path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    """The one line on stderr of a run that must end with status 2."""
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_users_mistakes(checkpoint: Path, rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, one = tmp_path / "out", rainy / "a.png"
    given = ("--checkpoint", checkpoint)
    frames = [Image.new("L", (20, 20), shade) for shade in (0, 99)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    for arguments, message in [
        ((tmp_path / "no.png", "-o", out), "no such file"),
        ((tmp_path / "x.gif", "-o", out), "x.gif: holds 2 frames"),
        ((rainy, "-o", tmp_path / "x.png"), "is a folder, expected a folder to write to"),
        ((rainy, "-o", tmp_path / "x.jpg"), "is a folder, expected a folder to write to"),
        (
            (one, "-o", tmp_path / "x.tif"),
            "x.tif: images are written as PNG or JPEG, expected a name that ends in .png",
        ),
        ((one, "-o", tmp_path / "x.tar.gz"), "expected a name that ends in .png or .jpg"),
        ((one, "-o", tmp_path / "x.png", "--quality", "90"), "--quality 90: is that of a JPEG, found -o "),
        ((one, "-o", tmp_path / "x.jpg", "--quality", "0"), "--quality 0: expected 1 to 100"),
        ((rainy, "-o", out, "--quality", "101"), "--quality 101: expected 1 to 100"),
        ((one, "-o", out, "--workers", "0"), "--workers 0: expected at least 1"),
        ((one, "-o", tmp_path / "no" / "b.png"), f"b.png: there is no folder {tmp_path / 'no'}; make it first"),
        ((one, "-o", one), "would overwrite an input"),
        ((rainy, "-o", rainy), "would overwrite an input"),
        ((rainy, "-o", out, "--tile", "30"), "multiple of 4"),
        ((rainy, "-o", out, "--overlap", "4"), "--overlap 4: is that of tiles; give --tile too"),
        ((rainy, "-o", one / "x"), "the folder cannot be made"),
        ((rainy, "-o", out, "--json", tmp_path / "no" / "r.json"), "there is no folder"),
        ((one, "-o", tmp_path / "b.png", "--json", tmp_path / "b.png"), "would overwrite another output"),
        ((one, "-o", out, "--json", one), "would overwrite an input"),
        ((one, "-o", out, "--json", checkpoint), "would overwrite an input"),
    ]:
        assert message in refused(capsys, *arguments, *given)
        assert not out.exists()
        assert not (tmp_path / "x.jpg").exists()
    assert run(one, "-o", out, "--workers", "2", *given) == 2
    assert (
        "has none (mixed attention and the refinement block look at all of it)"
        in capsys.readouterr().err.splitlines()[-1]
    )
    assert "expected a checkpoint file" in refused(capsys, rainy, "-o", out, "--checkpoint", tmp_path / "no.pt")
    assert "by name: small_dual_stage, small" in refused(capsys, rainy, "-o", out, "--checkpoint", "large")


def test_two_images_of_one_name(
    checkpoint: Path, rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (16, 16)).save(rainy / "a.bmp")
    line = refused(capsys, rainy, "-o", tmp_path / "out", "--checkpoint", checkpoint)
    assert "a.bmp would be written to" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["new", "new/b.png"])
def test_what_is_missing_is_said_before_torch_is_loaded(out: str, tmp_path: Path) -> None:
    code = "import sys\nfrom esdnet.derain import main\nstatus = main(sys.argv[1:])\nassert 'torch' not in sys.modules"
    arguments = ["nowhere.png" if out == "new" else "docs/sample/rainy_64.png", "-o", str(tmp_path / out)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="the message is for machines without a GPU")
def test_no_gpu(rainy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(rainy), "-o", str(tmp_path / "out"), "--device", "cuda"]) == 2
    assert capsys.readouterr().err == "error: --device cuda: no CUDA device is available; use --device cpu or auto\n"
