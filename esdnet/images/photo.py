"""An image file in memory, as Pillow decodes it: its pixels by parts, and what an image made of it keeps.

In: a path. Out: a Photo of 4 bytes a pixel, whatever its size; a UserError of one line for what cannot be read without
a silent loss of meaning (real transparency, 16-bit colour, several frames, a damaged file). While it is decoded it
takes that once more if the camera was turned, and up to 6 bytes a pixel if it is a progressive JPEG.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from esdnet.command.errors import UserError
from esdnet.command.memory import free_memory, in_words

Image.MAX_IMAGE_PIXELS = None  # of whatever size: what does not fit is refused by what memory there is
DECODED = 4  # bytes a pixel
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
OF_RGB = b"RGB "  # where the header of an ICC profile names the colours that it is of
MAKER_NOTE = 0x927C  # readable only where the camera put it

Pixels = NDArray[Any]  # uint8 (h, w, 3), or uint16 (h, w): grey of 16 bits


@dataclass(frozen=True)
class Metadata:
    """What goes on with the pixels: the profile of their colours, and EXIF but for the rotation, which has been
    applied, the preview, which shows the rain, and the maker's notes, which hold places in the file they came from."""

    icc_profile: bytes = b""
    exif: bytes = b""


NOTHING_KEPT = Metadata()


@dataclass(frozen=True, eq=False)
class Photo:
    """`image`: RGB, or I;16 for grey of 16 bits; upright."""

    image: Image.Image
    metadata: Metadata

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.height, self.image.width

    def part(self, rows: tuple[int, int], columns: tuple[int, int]) -> Pixels:
        """So many rows and columns, from the first to the one behind the last; beyond the lower and right border the
        last row or column is repeated."""
        height, width = self.size
        (top, bottom), (left, right) = rows, columns
        box = (left, top, min(right, width), min(bottom, height))
        missing = [(0, bottom - box[3]), (0, right - box[2])]
        pixels = np.asarray(self.image.crop(box))
        return np.pad(pixels, missing + [(0, 0)] * (pixels.ndim - 2), mode="edge")

    def array(self) -> NDArray[np.float64]:
        """All of it, (H, W, 3) in [0, 1]."""
        return as_floats(np.asarray(self.image))


def photo_of(array: NDArray[np.float64]) -> Photo:
    """The photo that an array (H, W, 3) was read from, of 8 bits or of grey of 16."""
    pixels = np.rint(array * 255.0).astype(np.uint8)
    if not np.array_equal(as_floats(pixels), array):
        pixels = np.rint(array[..., 0] * 65535.0).astype(np.uint16)
    return Photo(Image.fromarray(pixels), NOTHING_KEPT)


def as_floats(pixels: Pixels) -> NDArray[np.float64]:
    """(h, w, 3) float64 in [0, 1]; grey is the same in all three channels."""
    if pixels.ndim == 2:
        return np.repeat((pixels / 65535.0)[..., None], 3, axis=2)
    return pixels / 255.0


def open_photo(path: Path, min_side: int) -> Photo:
    """Read an image file, as `photo_from` has it."""
    check_image_file(path)
    with decoding(str(path)):
        _refuse_deep_colour(path)
        with Image.open(path) as opened:
            _check_fits(path, opened)
            return photo_from(opened, str(path), min_side)


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """While open, what Pillow raises of a damaged file is a UserError that begins with `name`."""
    try:
        yield
    except DAMAGED as error:
        raise UserError(f"{name}: cannot be read as an image ({_one_line(error)})") from error


def photo_from(image: Image.Image, name: str, min_side: int) -> Photo:
    """The photo that a PIL image holds; it may become the photo's own. Grey and palette images become RGB, 16-bit grey
    keeps its 16 bits, an opaque alpha channel is dropped and the camera's rotation (EXIF) is applied. Of a camera's
    multi-picture JPEG (MPO) the first is taken: it is the photo, the others are previews and gain maps made from it.

    UserError, which begins with `name`, for what is no opaque image of one frame with sides of at least `min_side`.
    """
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise UserError(f"{name}: holds {frames} frames, expected a single image; save one of them as a file")
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    metadata = _metadata(image)
    if min(image.size) < min_side:
        raise UserError(f"{name}: {image.width}x{image.height} pixels, expected at least {min_side}x{min_side}")
    return Photo(_to_rgb(image, name), metadata)


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
    except DAMAGED:
        return None


def _refuse_deep_colour(path: Path) -> None:
    """Pillow silently reads 16-bit colour PNG as 8 bits, so the header is read here first (PNG specification, IHDR)."""
    with path.open("rb") as file:
        head = file.read(26)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR" and len(head) == 26:
        depth, colour = head[24], head[25]
        if depth == 16 and colour != 0:
            raise UserError(f"{path}: PNG with 16 bits per colour channel; convert it to 8 bits first")


def _check_fits(path: Path, image: Image.Image) -> None:
    """A few bytes can say that they are an image of any size."""
    needed, free = 2 * DECODED * image.width * image.height, free_memory()
    if free is not None and needed > free:
        size = f"{image.width}x{image.height} pixels"
        raise UserError(f"{path}: {size} need about {in_words(needed)} to decode, {in_words(free)} are free")


def _metadata(image: Image.Image) -> Metadata:
    """Of an image that was turned upright."""
    profile = image.info.get("icc_profile") or b""
    exif = image.getexif()
    exif.pop(ExifTags.Base.Orientation, None)
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details.pop(MAKER_NOTE, None)
    for tag, pixels in ((ExifTags.Base.ExifImageWidth, image.width), (ExifTags.Base.ExifImageHeight, image.height)):
        if tag in details:
            details[tag] = pixels
    return Metadata(profile if profile[16:20] == OF_RGB else b"", exif.tobytes() if len(exif) else b"")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        return image
    if image.mode == "I" and image.format in ("PNG", None):
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F"):
        raise UserError(f"{name}: pixel mode {image.mode!r} has no defined white; convert it to 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        darkest: Any = image.getchannel("A").getextrema()[0]
        if darkest < 255:
            raise UserError(f"{name}: has transparent pixels, which have no colour to derain; flatten it first")
    return image if image.mode == "RGB" else image.convert("RGB")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
