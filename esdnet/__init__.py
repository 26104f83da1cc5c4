"""ESDNet: a spiking U-Net that removes rain from a single image (Song et al., IJCAI 2024), on snnTorch neurons.

Public: `load` gives the network of a checkpoint, `derain` takes the rain out of an image. Both raise `UserError`, of
one line, for what they cannot use. All else in here may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from esdnet.command.public import publish

if TYPE_CHECKING:
    from esdnet.api import derain
    from esdnet.command.errors import UserError
    from esdnet.networks.checkpoint import load_network as load

__all__ = ["UserError", "derain", "load"]

publish(
    __name__,
    {
        "UserError": "esdnet.command.errors:UserError",
        "derain": "esdnet.api:derain",
        "load": "esdnet.networks.checkpoint:load_network",
    },
)
