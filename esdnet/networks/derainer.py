"""A checkpoint at work: its network over images of any size, whole or in tiles that fit into memory.

In: a checkpoint, the options of a command, images (H, W, 3) in [0, 1]. Out: derained images, and what is said of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from esdnet.command.device import DEVICES, choose_device
from esdnet.command.memory import out_of_memory
from esdnet.images.files import image_size, to_tensor
from esdnet.images.tile_choice import OVERLAP, TileChoice, add_tile_flags, check_tile
from esdnet.networks.bundled import DEFAULT, checkpoint_label

if TYPE_CHECKING:
    from torch import Tensor

    from esdnet.images.tiling import Tiled
    from esdnet.networks.architectures import Network


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which network runs, where, and on how much of an image at once."""
    parser.add_argument("--checkpoint", metavar="FILE|NAME", default=DEFAULT, help=f"default: the bundled {DEFAULT}")
    add_tile_flags(parser)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="default: a GPU if any")


def facts(image: np.ndarray, tile: int, result: Tiled) -> dict[str, Any]:
    """What a report says of an image's size and tiles."""
    return {
        "height": image.shape[0],
        "width": image.shape[1],
        "tile": tile,
        "executed_size": list(result.executed_size),
        "tiles": result.tiles,
    }


class Derainer:
    """The network of a checkpoint, said on stderr, in eval mode on the device asked for, and how it is given images.

    `sources` are the files that it will be given, `image_bytes` what the command takes for a pixel of a whole image.
    """

    def __init__(
        self, checkpoint: Path, arguments: argparse.Namespace, sources: list[Path], image_bytes: float
    ) -> None:
        from esdnet.networks.checkpoint import load_network

        self.label, self.device = checkpoint_label(checkpoint), choose_device(arguments.device)
        print(f"checkpoint: {self.label}", file=sys.stderr)
        self.model = load_network(checkpoint).to(self.device)
        check_tile(arguments.tile or 0, arguments.overlap, self.model.size_multiple)
        self.overlap = arguments.overlap
        sizes = [size for size in map(image_size, sources) if size]
        self.choice = TileChoice(arguments.tile, self._bytes_per_pixel(sizes), image_bytes)
        self.choice.keep_memory(sizes)

    def derain(self, name: str, image: np.ndarray) -> tuple[int, Tiled]:
        """The side of the tiles that an image (H, W, 3) was run in, 0 for none, and the result."""
        tile = self.choice.tile(name, (image.shape[0], image.shape[1]))
        with out_of_memory(name, "give a smaller --tile"):
            return tile, derain(self.model, image, tile, self.overlap)

    def mask(self, image: np.ndarray, tile: int) -> Tiled:
        """The rain mask of an image (H, W, 3), as a dual-stage network had it in these tiles: 0 or 1, or between the
        two where tiles share pixels and differ."""
        model: Any = self.model
        return _run(model, lambda part: model.mask(part).expand(-1, 3, -1, -1), image, tile, self.overlap)

    def _bytes_per_pixel(self, sizes: list[tuple[int, int]]) -> float:
        import torch

        from esdnet.command.footprint import bytes_per_pixel

        dtype = next(self.model.parameters()).dtype

        @torch.inference_mode()
        def run(height: int, width: int) -> None:
            self.model(torch.zeros(1, 3, height, width, dtype=dtype))

        return bytes_per_pixel(run, sizes, self.device)


def derain(model: Network, image: np.ndarray, tile: int = 0, overlap: int = OVERLAP) -> Tiled:
    """Run the network, in its own dtype, over an (H, W, 3) image in [0, 1]; the output (3, H, W) is not clipped."""
    return _run(model, model, image, tile, overlap)


def _run(model: Network, run: Callable[[Tensor], Tensor], image: np.ndarray, tile: int, overlap: int) -> Tiled:
    import torch

    from esdnet.images.tiling import run_tiled

    weight = next(model.parameters())
    with torch.inference_mode():
        planes = to_tensor(image, weight.dtype).to(weight.device)[0]
        return run_tiled(lambda part: run(part[None])[0], planes, model.size_multiple, tile, overlap)
