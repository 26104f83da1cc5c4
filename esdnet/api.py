"""`esdnet.derain`: an image in memory, or a file, through a network, in tiles where it is large.

In: a path, a PIL image or a NumPy array. Out: the same kind of image, the rain taken out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from esdnet.command.errors import UserError
from esdnet.command.memory import out_of_memory
from esdnet.images.files import MIN_SIDE
from esdnet.images.photo import Photo, decoding, open_photo, photo_from
from esdnet.networks.bundled import DEFAULT, find_checkpoint
from esdnet.networks.derainer import Opened, choose_tiles, derain_array, derain_photo, open_checkpoint

if TYPE_CHECKING:
    from esdnet.networks.architectures import Network

Kind = TypeVar("Kind", bound=np.generic)
IMAGE_BYTES = 150  # a pixel of an image that runs whole or in tiles that are blended
GREY = np.array([299, 587, 114]) / 1000  # brightness of red, green, blue: ITU-R BT.601, as Pillow converts to "L"
WANTED = "expected a path, a PIL image, or an array (height, width, 3) or (height, width)"


@overload
def derain(
    image: str | Path | Image.Image, network: str | Path | Network = ..., *, tile: int | None = ...
) -> Image.Image: ...
@overload
def derain(image: NDArray[Kind], network: str | Path | Network = ..., *, tile: int | None = ...) -> NDArray[Kind]: ...


def derain(image: Any, network: str | Path | Network = DEFAULT, *, tile: int | None = None) -> Any:
    """The image without its rain, of the same size and kind.

    image: a path gives the PIL image whose pixels `python -m esdnet.derain` would write; a PIL image gives one in RGB,
        or in "L" if it is in "L"; an array (height, width, 3) of uint8, or of floats in [0, 1], gives an array of its
        dtype, floats clipped to [0, 1]. Grey, (height, width), is shown to the network in all three channels, and is
        the brightness of what comes back. What was given is left as it was. Sides are at least 16 pixels.
    network: the name of a bundled checkpoint, a checkpoint file, or what `load` returned, in eval mode, which then
        runs where it is and in its own dtype. Of names and files the last one is kept; they use a GPU if there is one.
    tile: side of the tiles in pixels, a multiple of what the network's images are; 0: the whole image; None: whole, or
        in the largest tiles that fit into the memory that is free, said on stderr. Where nothing in the network looks
        at the whole image tiles have a halo and change nothing; else they overlap by 8 pixels and are blended.

    UserError, in one line, for what is no such image, network or tile, and for what does not fit into memory.

    >>> import esdnet, numpy as np
    >>> rainy = np.full((64, 48, 3), 128, np.uint8)
    >>> derained = esdnet.derain(rainy, "small_spike_driven")
    >>> derained.shape, derained.dtype
    ((64, 48, 3), dtype('uint8'))
    """
    if isinstance(image, (str, Path)):
        return _photo(open_photo(Path(image), MIN_SIDE), str(image), network, tile)
    if isinstance(image, Image.Image):
        with decoding("image"):
            photo = photo_from(image.copy(), "image", MIN_SIDE)
        result = _photo(photo, "image", network, tile)
        return result.convert("L") if image.mode == "L" else result
    if not isinstance(image, np.ndarray):
        raise UserError(f"derain: found a {type(image).__name__}, {WANTED}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise UserError(f"derain: found an array of shape {image.shape}, {WANTED}")
    if image.dtype == np.uint8:
        return np.array(derain(Image.fromarray(image), network, tile=tile))
    colours = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    derained = _floats(_checked(colours), network, tile)
    return (derained if image.ndim == 3 else derained @ GREY).astype(image.dtype)


def _photo(photo: Photo, name: str, network: str | Path | Network, tile: int | None) -> Image.Image:
    opened, side = _prepared(network, name, photo.size, tile)
    return derain_photo(opened, name, photo, side).image


def _floats(image: NDArray[np.floating[Any]], network: str | Path | Network, tile: int | None) -> NDArray[np.float64]:
    opened, side = _prepared(network, "image", (image.shape[0], image.shape[1]), tile)
    with out_of_memory("image", "give a smaller tile"):
        return np.clip(derain_array(opened, image, side), 0.0, 1.0)


def _prepared(network: str | Path | Network, name: str, size: tuple[int, int], tile: int | None) -> tuple[Opened, int]:
    """The network, and the side of the tiles for an image of (height, width)."""
    model = open_checkpoint(find_checkpoint(network)) if isinstance(network, (str, Path)) else _own(network)
    choice, overlap = choose_tiles(model, tile, None, [size], IMAGE_BYTES)
    return Opened(model, overlap), choice.tile(name, size)


def _own(network: Any) -> Network:
    from esdnet.networks.architectures import is_network

    if not is_network(network):
        raise UserError(
            f"derain: network is a {type(network).__name__}, expected a checkpoint, by name or file, or what"
            " esdnet.load returns"
        )
    if network.training:
        raise UserError("derain: the network is in training mode, in which it would change; call .eval() first")
    return network


def _checked(image: NDArray[Any]) -> NDArray[np.floating[Any]]:
    if image.dtype.kind != "f":
        raise UserError(f"derain: found an array of {image.dtype}, expected uint8, or floats in [0, 1]")
    if min(image.shape[:2]) < MIN_SIDE:
        raise UserError(f"image: {image.shape[1]}x{image.shape[0]} pixels, expected at least {MIN_SIDE}x{MIN_SIDE}")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise UserError(f"derain: found values from {low:g} to {high:g}, expected floats in [0, 1]; scale them")
    return image
