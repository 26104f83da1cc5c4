"""What training is tried on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pairs of 24x20 pixels, input/ and target/."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for index in range(5):
        clean = np.kron(rng.integers(0, 200, (6, 5, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        for folder, image in (("target", clean), ("input", clean + rng.integers(0, 50, (24, 20, 1), dtype=np.uint8))):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(image).save(root / folder / f"{index}.png")
    return root
