"""What the commands that train small networks are tried on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Three pairs of 72x68 pixels, input/ and target/."""
    root = tmp_path / "pairs"
    rng = np.random.default_rng(0)
    for index in range(3):
        clean = np.kron(rng.integers(0, 200, (17, 18, 3)), np.ones((4, 4, 1))).astype(np.uint8)
        for folder, image in (("target", clean), ("input", clean + rng.integers(0, 50, (68, 72, 1), dtype=np.uint8))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / folder / f"{index}.png")
    return root
