"""The dual-stage network as a frozen value: what decides its shape, what its controls leave out, the named presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from esdnet.command.errors import UserError
from esdnet.networks.esdnet.config import NetworkConfig

Order = Literal["clustered", "windows", "raster", "random"]


@dataclass(frozen=True)
class DualStageConfig(NetworkConfig):
    """One dual-stage network. Both stages are U-Nets of three levels, finest first; attention works on the last.

    `blocks` are the residual blocks of the encoder; the decoder has as many, and the last level as many again after
    every attention.
    """

    channels: tuple[int, int, int] = (32, 40, 48)
    blocks: tuple[int, int, int] = (1, 1, 1)
    stages: int = 2
    attentions: int = 1  # of each stage; 0 leaves U-Nets without mask, clusters and windows
    heads: int = 4
    masked: bool = True  # whether the first stage's attention is shut where the mask says rain
    order: Order = "clustered"  # of the pixels that the second stage's windows slide over
    clusters: int = 16

    def __post_init__(self) -> None:
        if min(*self.channels, *self.blocks, self.heads, self.clusters) < 1 or self.attentions < 0:
            raise UserError(f"config: channels, blocks, heads and clusters must be at least 1, found {self}")
        if self.stages not in (1, 2):
            raise UserError(f"config: stages must be 1 or 2, found {self.stages}")
        if self.channels[-1] % self.heads:
            raise UserError(f"config: {self.channels[-1]} channels cannot be shared by {self.heads} heads")
        if self.order not in get_args(Order):
            raise UserError(f"config: order must be one of {', '.join(get_args(Order))}, found {self.order!r}")

    @property
    def has_mask(self) -> bool:
        """Whether the network looks for rain streaks before it begins."""
        return self.masked and self.attentions > 0


PRESETS = {
    "tiny_dual_stage": DualStageConfig(channels=(16, 16, 32)),
    "small_dual_stage": DualStageConfig(),
    "small_two_unets": DualStageConfig(attentions=0),  # the same without mask and attention: a control
}
