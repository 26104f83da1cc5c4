"""Image files to arrays and back: (H, W, 3) float64 in [0, 1] in memory, 8-bit RGB PNG on disk.

Whatever cannot be read without a silent loss of meaning (real transparency, 16-bit colour, several frames, a damaged
file) is refused with a UserError of one line.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from esdnet.command.errors import UserError
from esdnet.command.writing import written_beside

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MIN_SIDE = 16  # below this the third level of the network sees fewer than 4 x 4 pixels

_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def load_image(path: str | Path, min_side: int = MIN_SIDE) -> np.ndarray:
    """Read an image file as float64 (H, W, 3) in [0, 1].

    Grey and palette images become RGB, 16-bit grey keeps its 16 bits, an opaque alpha channel is dropped and the
    camera's rotation (EXIF) is applied. Of a camera's multi-picture JPEG (MPO) the first is taken: it is the photo, the
    others are previews and gain maps made from it. UserError for all that is not a readable, opaque image of one frame
    with sides of at least `min_side` pixels.
    """
    path = Path(path)
    check_image_file(path)
    try:
        _refuse_deep_colour(path)
        with Image.open(path) as opened:
            frames = getattr(opened, "n_frames", 1)
            if frames > 1 and opened.format != "MPO":
                raise UserError(f"{path}: holds {frames} frames, expected a single image; save one of them as a file")
            opened.load()
            image = ImageOps.exif_transpose(opened) or opened
    except _DAMAGED as error:
        raise UserError(f"{path}: cannot be read as an image ({_one_line(error)})") from error
    if min(image.size) < min_side:
        raise UserError(f"{path}: {image.width}x{image.height} pixels, expected at least {min_side}x{min_side}")
    return _to_rgb(image, path)


def check_image_file(path: Path) -> None:
    """UserError unless there is a file of that name."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected an image file")


def image_size(path: Path) -> tuple[int, int] | None:
    """(height, width) as the header of an image file has them, before the camera's rotation; None if it has none."""
    try:
        with Image.open(path) as opened:
            return opened.height, opened.width
    except _DAMAGED:
        return None


def save_image(path: str | Path, array: np.ndarray) -> None:
    """Write (H, W, 3) floats as 8-bit PNG: clipped to [0, 1], rounded half up; the file appears whole or not at all."""
    path = Path(path)
    check_png_name(str(path), path)
    if not np.isfinite(array).all():
        raise UserError(f"{path}: not written, the image holds NaN or infinite values")
    with written_beside(path) as beside:
        Image.fromarray(_to_bytes(array)).save(beside, format="PNG")


def _to_bytes(array: np.ndarray) -> np.ndarray:
    """Clipped to [0, 1], rounded half up to 0..255, in as little memory as that takes."""
    values = np.clip(array, 0.0, 1.0, dtype=np.float64)
    values *= 255.0
    values += 0.5
    return np.floor(values, out=values).astype(np.uint8)


def check_png_name(named: str, path: Path) -> None:
    """UserError that begins with `named` unless the name ends in .png."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{named}: images are written as PNG, expected a name that ends in .png")


def png_names(sources: list[Path], folder: Path) -> dict[Path, Path]:
    """The PNG in `folder` that each image becomes. UserError if two became one file, or one its own input."""
    sources_of: dict[Path, Path] = {}
    inputs = {source.resolve() for source in sources}
    for source in sources:
        name = folder / f"{source.stem}.png"
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


def _refuse_deep_colour(path: Path) -> None:
    """Pillow silently reads 16-bit colour PNG as 8 bits, so the header is read here first (PNG specification, IHDR)."""
    with path.open("rb") as file:
        head = file.read(26)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR" and len(head) == 26:
        depth, colour = head[24], head[25]
        if depth == 16 and colour != 0:
            raise UserError(f"{path}: PNG with 16 bits per colour channel; convert it to 8 bits first")


def _to_rgb(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", None)):
        grey = np.asarray(image) / 65535.0
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise UserError(f"{path}: pixel mode {image.mode!r} has no defined white; convert it to 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        if rgba[..., 3].min() < 255:
            raise UserError(f"{path}: has transparent pixels, which have no colour to derain; flatten it first")
        return rgba[..., :3] / 255.0
    return np.asarray(image.convert("RGB")) / 255.0


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
