"""NAFNet as a frozen value: what decides its shape, and the named presets."""

from __future__ import annotations

from dataclasses import dataclass

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.config import NetworkConfig


@dataclass(frozen=True)
class NAFNetConfig(NetworkConfig):
    """Blocks are given per level, finest first; each level has twice the channels of the one before."""

    width: int = 16
    encoder_blocks: tuple[int, ...] = (2, 3, 5)
    middle_blocks: int = 1
    decoder_blocks: tuple[int, ...] = (1, 1, 1)

    def __post_init__(self) -> None:
        blocks = (self.middle_blocks, *self.encoder_blocks, *self.decoder_blocks)
        if self.width < 1 or min(blocks) < 0 or len(self.encoder_blocks) != len(self.decoder_blocks):
            raise UserError(f"config: expected a width, and as many encoder as decoder levels, found {self}")


PRESETS = {
    "tiny_nafnet": NAFNetConfig(width=8, encoder_blocks=(1, 1, 1)),
    "small_nafnet": NAFNetConfig(),  # of as many parameters as small_dual_stage, within 1 %
}
