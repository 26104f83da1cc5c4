"""What lives at once is added up rightly, and is what a process then takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from esdnet.command.footprint import SIDE, bytes_per_pixel

ROOT = Path(__file__).parents[3]
LARGE = [(1000, 1000)]


def test_what_lives_at_once_is_added_up() -> None:
    kept = []

    def run(height: int, width: int) -> None:
        kept.clear()
        first = torch.zeros(10, height, width)  # 40 bytes a pixel
        second = first + 1  # 80
        del first
        third = second.double()  # 40 + 80
        second.add_(1)  # in place: nothing new
        view = third[:5].flatten()  # nor here
        del third  # its storage lives on in the view
        kept.append((second, view, torch.ones(1, height, width)))  # 40 + 80 + 4

    assert bytes_per_pixel(run, LARGE, "cpu") == 124


@pytest.mark.parametrize(("dtype", "expected"), [(torch.float32, 12 + 12 + 8), (torch.float64, 24 + 24 + 16 + 27 * 8)])
def test_convolutions_are_taken_to_copy_and_in_float64_to_unfold(dtype: torch.dtype, expected: int) -> None:
    weight = torch.zeros(2, 3, 3, 3, dtype=dtype)

    def run(height: int, width: int) -> None:
        F.conv2d(torch.zeros(1, 3, height, width, dtype=dtype), weight, padding=1)

    assert bytes_per_pixel(run, LARGE, "cpu") == expected  # x, its copy, the result, the columns


@pytest.mark.parametrize(("sizes", "device"), [([(64, 64), (30, 50)], "cpu"), (LARGE, "cuda")])
def test_small_images_and_gpus_are_not_tried(sizes: list[tuple[int, int]], device: str) -> None:
    assert bytes_per_pixel(lambda height, width: pytest.fail("was run"), sizes, device) == 0


def test_weights_that_are_converted_once_do_not_count() -> None:
    cache: dict[str, torch.Tensor] = {}

    def run(height: int, width: int) -> None:
        if not cache:
            cache["weight"] = torch.zeros(100, SIDE, SIDE)
        cache["image"] = torch.zeros(1, height, width)

    assert bytes_per_pixel(run, LARGE, "cpu") == 4


RESIDENT = """
import sys
import torch
from esdnet.networks.esdnet.config import preset
from esdnet.command.footprint import bytes_per_pixel
from esdnet.networks.esdnet.model import ESDNet

torch.set_num_threads(1)
torch.manual_seed(0)
model = ESDNet(preset(sys.argv[1])).eval()

def megabytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1000

@torch.inference_mode()
def run(height, width):
    model(torch.rand(1, 3, height, width))

estimate = bytes_per_pixel(run, [(1024, 1024)], "cpu")
before = megabytes("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
run(1024, 1024)
print(estimate, (megabytes("VmHWM") - before) * 1000 * 1024 / 1024**2)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("preset", ["tiny", "tiny_spike_driven"])
def test_a_large_image_takes_what_the_small_one_says(preset: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, preset], capture_output=True, text=True, check=True, cwd=ROOT
    )
    estimate, resident = map(float, done.stdout.split())
    assert 0.9 * estimate < resident < 1.3 * estimate  # 1.3: SCATTERED
