"""A photo of 12 megapixels in less memory than it takes at once: in tiles that were chosen, or refused in one line.

Every command runs in a process of its own, which may take so many bytes more than it has once torch is loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from esdnet.networks.checkpoint import save_checkpoint
from esdnet.networks.esdnet.config import ESDNetConfig, spike_driven
from esdnet.networks.esdnet.model import ESDNet

ROOT = Path(__file__).parents[2]
SIZE = (4000, 3000)  # width, height: 12 megapixels
LEFT = {"esdnet.derain": 3e9, "esdnet.evaluate": 5e9, "hw_sim.energy": 3e9}  # bytes: less than it takes at once

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="limits are looked up in Linux's /proc"),
]

LIMITED = """
import importlib, resource, sys
import torch, export.readers.esdnet, hw_sim.backends.tiled  # noqa: what takes address space
from esdnet.images.tile_choice import TileChoice

torch.set_num_threads(1)
module, left, blind, *arguments = sys.argv[1:]
if blind == "blind":
    TileChoice.tile = lambda self, name, size: 0
command = importlib.import_module(module)
size = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + int(left), size + int(left)))
status = command.main(arguments)
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photo, as a folder of pairs too, and two networks of two channels and one step: fast, and small beside it."""
    folder = tmp_path_factory.mktemp("photos")
    ramps = np.add.outer(np.arange(SIZE[1]) // 12, np.arange(SIZE[0]) // 16).astype(np.uint8)
    photo = Image.fromarray(np.dstack([ramps, ramps[::-1], ramps[:, ::-1]]))
    for name in ("photo.jpg", "pairs/input/photo.jpg", "pairs/target/photo.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo.save(folder / name)
    torch.manual_seed(0)
    released = ESDNetConfig(dim=2, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1), steps=1)
    save_checkpoint(folder / "released.pt", ESDNet(released))
    save_checkpoint(folder / "spike_driven.pt", ESDNet(spike_driven(released)))
    return folder


def run(
    files: Path, command: str, *flags: str, left: float | None = None, blind: bool = False,
    photo: str = "photo.jpg", out: str = "out.png", checkpoint: str = "released.pt",
) -> tuple[int, list[str]]:  # fmt: skip
    """Exit status and the lines on stderr of a command, with the released network unless told."""
    inputs = {
        "esdnet.derain": [photo, "-o", out],
        "esdnet.evaluate": ["--data", "pairs"],
        "hw_sim.energy": ["--image", photo, "--save-image", out],
    }[command]
    for name in (out, "r.json"):
        (files / name).unlink(missing_ok=True)
    arguments = [*inputs, "--checkpoint", checkpoint, "--device", "cpu", "--json", "r.json", *flags]
    program = [
        sys.executable,
        "-c",
        LIMITED,
        command,
        str(int(left or LEFT[command])),
        "blind" if blind else "",
        *arguments,
    ]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(program, cwd=files, capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stderr.splitlines()


COMMANDS = ["esdnet.derain", "esdnet.evaluate", "hw_sim.energy"]


@pytest.mark.parametrize("command", COMMANDS)
def test_it_goes_in_tiles_that_fit(command: str, files: Path) -> None:
    status, error = run(files, command)
    assert status == 0, error
    [line] = [line for line in error if "pixels at once need about" in line]
    assert line.startswith("4000x3000 pixels at once need about ")
    content = json.loads((files / "r.json").read_text())
    row = content["images"][0] if "images" in content else content
    assert f": in tiles of {row['tile']}, as with --tile {row['tile']}" in line
    assert row["tile"] in (512, 1024, 2048)
    assert row["tiles"] > 1
    if command != "esdnet.evaluate":
        with Image.open(files / "out.png") as written:
            assert written.size == SIZE


@pytest.mark.parametrize("command", COMMANDS)
def test_the_whole_of_it_is_refused(command: str, files: Path) -> None:
    status, error = run(files, command, "--tile", "0")
    assert status == (1 if command == "esdnet.evaluate" else 2)  # a folder
    [line] = [line for line in error if line.startswith("error: ")]
    assert "4000x3000 pixels at once need about " in line
    assert line.endswith(" are free; leave out --tile, or give a smaller one")
    assert not (files / "out.png").exists()
    assert not any("Traceback" in line for line in error)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_choice_it_would_not_fit_and_even_then_that_is_one_line(command: str, files: Path) -> None:
    status, error = run(files, command, blind=True, left=2e9)
    assert status == (1 if command == "esdnet.evaluate" else 2)
    assert [line for line in error if line.startswith("error: ")] == [
        f"error: {'photo' if command == 'esdnet.evaluate' else 'photo.jpg'}: not enough memory; give a smaller --tile"
    ]
    assert not any("Traceback" in line for line in error)


def test_a_tile_by_hand_gives_what_the_choice_gave(files: Path) -> None:
    assert run(files, "esdnet.derain")[0] == 0
    chosen, tile = (files / "out.png").read_bytes(), json.loads((files / "r.json").read_text())["images"][0]["tile"]
    assert run(files, "esdnet.derain", "--tile", str(tile))[0] == 0
    assert (files / "out.png").read_bytes() == chosen


@pytest.fixture(scope="module")
def large(files: Path) -> Path:
    """100 megapixels, as a camera that was held sideways writes them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(files / "photo.jpg") as photo:
        photo.resize((11548, 8660)).save(files / "large.jpg", exif=exif)
    return files / "large.jpg"


@pytest.mark.parametrize("out", ["out.png", "out.jpg"])
def test_exact_tiles_take_2_gb_whatever_the_size(
    files: Path, large: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 88 megapixels more, what Pillow decodes: 4 bytes a pixel, twice while they are turned upright."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    peaks = {}
    for photo, size in (("photo.jpg", SIZE), ("large.jpg", (8660, 11548))):
        status, error = run(files, "esdnet.derain", photo=photo, out=out, checkpoint="spike_driven.pt", left=20e9)
        assert status == 0, error
        row = json.loads((files / "r.json").read_text())["images"][0]
        assert row["tiles"] > 1
        assert row["tile"] >= 512
        with Image.open(files / out) as written:
            assert written.size == size
        peaks[photo] = int(next(line for line in error if line.startswith("peak ")).split()[1])
    assert peaks["large.jpg"] < 2e9
    assert peaks["large.jpg"] - peaks["photo.jpg"] < 8 * 88e6
