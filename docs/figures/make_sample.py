"""Makes the bundled sample: a public-domain photo from scikit-image, and the same photo with rain drawn over it.

python docs/figures/make_sample.py   writes rainy.png, clean.png and rainy_64.png to esdnet/sample, always the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from skimage.transform import resize

from esdnet.images.files import save_image
from esdnet.training.rain import add_rain, heavy_rain

SEED = 1
SIZE = (256, 384)
SEVERITY = 0.3
CROP = np.s_[150:214, 152:216]  # 64 x 64 around the rocket, for what is slow


def main() -> None:
    """Launch photo by SpaceX, released into the public domain (skimage.data.rocket)."""
    photo = skimage.data.rocket()[:, :, :3] / 255.0
    clean = resize(photo, SIZE, anti_aliasing=True)
    clean = np.round(clean * 255) / 255
    layer = heavy_rain(np.random.default_rng(SEED), *SIZE, SEVERITY)
    folder = Path(__file__).resolve().parents[2] / "esdnet" / "sample"
    save_image(folder / "clean.png", clean)
    rainy = add_rain(clean.astype(np.float32), layer)
    save_image(folder / "rainy.png", rainy)
    save_image(folder / "rainy_64.png", rainy[CROP])


if __name__ == "__main__":
    main()
