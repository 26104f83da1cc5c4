"""Where the photos lie that some tests look at, and pairs that every network can be trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from esdnet.images.files import save_image
from esdnet.training.rain import add_rain, heavy_rain

SHARED_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"  # beside the repository, where there is one


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs of 70x45 pixels, input/ and target/, with heavy rain."""
    root = tmp_path_factory.mktemp("pairs")
    for folder in ("input", "target"):
        (root / folder).mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        coarse = Image.fromarray(rng.integers(30, 180, (5, 7, 3), dtype=np.uint8))
        clean = np.asarray(coarse.resize((70, 45), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        save_image(root / "target" / f"{index}.png", clean)
        save_image(root / "input" / f"{index}.png", add_rain(clean, heavy_rain(rng, 45, 70, 0.5)))
    return root
