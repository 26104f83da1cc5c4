"""Image files to arrays and back: (H, W, 3) float64 in [0, 1] in memory, 8-bit RGB PNG or JPEG on disk; their names.

What is read and what is refused says photo.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from esdnet.command.errors import UserError
from esdnet.command.writing import written_beside
from esdnet.images.photo import NOTHING_KEPT, Metadata, open_photo

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MIN_SIDE = 16  # below this the third level of the network sees fewer than 4 x 4 pixels
JPEG = (".jpg", ".jpeg")
QUALITY = 95  # of a JPEG, unless told
LONGEST_EXIF = 65533  # bytes that a JPEG has room for


def load_image(path: str | Path, min_side: int = MIN_SIDE) -> np.ndarray:
    """Read an image file as float64 (H, W, 3) in [0, 1]; UserError for all that is not a readable, opaque image of one
    frame with sides of at least `min_side` pixels."""
    return open_photo(Path(path), min_side).array()


def save_image(path: str | Path, array: np.ndarray) -> None:
    """Write (H, W, 3) floats as 8-bit PNG: clipped to [0, 1], rounded half up; the file appears whole or not at all."""
    path = Path(path)
    check_png_name(str(path), path)
    save_photo(path, to_photo(str(path), array))


def to_photo(name: str, array: np.ndarray) -> Image.Image:
    """(H, W, 3) floats as 8-bit RGB; UserError, which names what they are for, where they are no numbers."""
    if not np.isfinite(array).all():
        raise UserError(f"{name}: not written, the image holds NaN or infinite values")
    return Image.fromarray(to_bytes(array))


def save_photo(path: Path, image: Image.Image, metadata: Metadata = NOTHING_KEPT, quality: int = QUALITY) -> None:
    """Write an RGB image as PNG or JPEG, as the name says, row by row; the file appears whole or not at all.

    `quality`: of a JPEG, 1 to 100; its colours have as many pixels as its brightness (4:4:4).
    """
    kept = {"icc_profile": metadata.icc_profile or None, "exif": metadata.exif}
    if path.suffix.lower() not in JPEG:
        with written_beside(path) as beside:
            image.save(beside, format="PNG", **kept)
        return
    if len(metadata.exif) > LONGEST_EXIF:
        raise UserError(f"{path}: EXIF of {len(metadata.exif):,} bytes, a JPEG has room for 65,533; write a PNG")
    with written_beside(path) as beside:
        image.save(beside, format="JPEG", quality=quality, subsampling=0, **kept)


def to_bytes(array: np.ndarray) -> np.ndarray:
    """Clipped to [0, 1], rounded half up to 0..255, in as little memory as that takes."""
    values = np.clip(array, 0.0, 1.0, dtype=np.float64)
    values *= 255.0
    values += 0.5
    return np.floor(values, out=values).astype(np.uint8)


def check_png_name(named: str, path: Path) -> None:
    """UserError that begins with `named` unless the name ends in .png."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{named}: images are written as PNG, expected a name that ends in .png")


def check_quality(quality: int | None, path: Path | None) -> None:
    """UserError for a --quality that cannot be, or that the file `path` has no use for."""
    if quality is not None and not 1 <= quality <= 100:
        raise UserError(f"--quality {quality}: expected 1 to 100")
    if path is not None and path.suffix.lower() not in (".png", *JPEG):
        raise UserError(f"-o {path}: images are written as PNG or JPEG, expected a name that ends in .png or .jpg")
    if quality is not None and path is not None and path.suffix.lower() not in JPEG:
        raise UserError(f"--quality {quality}: is that of a JPEG, found -o {path}; a PNG loses nothing")


def output_names(sources: list[Path], folder: Path, suffix: str = ".png") -> dict[Path, Path]:
    """The file in `folder` that each image becomes. UserError if two became one file, or one its own input."""
    sources_of: dict[Path, Path] = {}
    inputs = {source.resolve() for source in sources}
    for source in sources:
        name = folder / f"{source.stem}{suffix}"
        if name in sources_of:
            raise UserError(f"{source}: {sources_of[name].name} would be written to {name} too; rename one")
        if name.resolve() in inputs:
            raise UserError(f"{name}: would overwrite an input; choose another folder")
        if name.is_dir():
            raise UserError(f"{name}: is a folder, {source} cannot be written there")
        sources_of[name] = source
    return {source: name for name, source in sources_of.items()}


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly inside a folder, sorted by name, hidden files left out. UserError if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise UserError(f"{folder}: holds no image (expected files ending in {', '.join(SUFFIXES)})")
    return found


def to_tensor(array: np.ndarray, dtype: Any = None) -> Tensor:
    """(H, W, 3) array to a (1, 3, H, W) torch tensor; `dtype` is a torch dtype, float32 by default."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))[None]).to(dtype or torch.float32)


def from_tensor(tensor: Tensor) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) torch tensor to a (H, W, 3) float64 array; values are not clipped."""
    if tensor.ndim == 4:
        tensor = tensor.squeeze(0)
    return tensor.detach().cpu().double().numpy().transpose(1, 2, 0)
