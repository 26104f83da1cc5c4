"""How far an ESDNet looks: the pixels around a part of an image that the part hangs on, or what looks at all of them.

In: a configuration. Out: a halo. `export/graph/receptive_field.py` finds the same in the layer graph, kind by kind; a
test holds the two together for every configuration that there is.
"""

from __future__ import annotations

from collections.abc import Callable

from esdnet.images.cores import Halo
from esdnet.networks.esdnet.config import SIZE_MULTIPLE, ESDNetConfig
from esdnet.networks.esdnet.gate import LAYERS


def image_wide(config: ESDNetConfig) -> tuple[str, ...]:
    """What in it looks at the whole image."""
    wide = {
        "mixed attention": config.attention == "mixed",
        "the refinement block": config.refinement == "frb",
        "the rain mask": config.gate == "morphological",
    }
    return tuple(name for name, there in wide.items() if there)


def find_halo(config: ESDNetConfig) -> Halo:
    """Pixels above, left, below, right of a core, multiples of SIZE_MULTIPLE. Of a configuration without `image_wide`.

    Where the core begins at row 0, or ends at row -1: a convolution of 3x3 reads one further, a block has two.
    """
    first = _furthest(config, 0, -1, min)
    last = _furthest(config, -1, 1, max)
    above, below = (-(-pixels // SIZE_MULTIPLE) * SIZE_MULTIPLE for pixels in (-first, last + 1))
    return above, above, below, below


def _furthest(config: ESDNetConfig, row: int, step: int, choose: Callable[[int, int], int]) -> int:
    """The row of the image furthest from `row` of the output; step: -1 upwards, 1 downwards."""

    def blocks(row: int, count: int) -> int:
        return row + 2 * step * count

    def enlarged(row: int) -> int:
        """From a row after an upsampling's convolution to what it enlarges: the pixel itself, or the further of two."""
        row += step
        return row // 2 if config.upsampling == "nearest" else (2 * row + (3 if step > 0 else -1)) // 4

    def halved(row: int) -> int:
        """From a row after a downsampling to what it reads, with a stride of 2."""
        return 2 * row + step

    def gate(row: int) -> int:
        """From the first neurons to what a learnt gate reads to open them; those deeper lie nearer to the core."""
        row //= 2
        for _, stride, reach in reversed(LAYERS):
            row = row * stride + step * reach
        return row

    fine = blocks(row + step, config.decoder_blocks[0])
    middle = blocks(enlarged(fine), config.decoder_blocks[1])
    deep = blocks(enlarged(middle), config.decoder_blocks[2] + config.encoder_blocks[2])
    middle = blocks(choose(halved(deep), middle), config.encoder_blocks[1])
    embedded = blocks(choose(halved(middle), fine), config.encoder_blocks[0])
    return (gate(embedded) if config.gate == "learnt" else embedded) + step
