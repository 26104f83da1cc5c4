"""The layer graph of any of our networks. In: a torch network. Out: its Network, by the reader of its architecture."""

from __future__ import annotations

from functools import singledispatch

from torch import nn

from esdnet.networks.dual_stage.model import DualStage
from esdnet.networks.esdnet.model import ESDNet
from esdnet.networks.nafnet.model import NAFNet
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.readers import dual_stage, esdnet, nafnet


@singledispatch
def lower(model: nn.Module, name: str) -> Network:
    """The layer graph of a trained network as it runs at inference."""
    raise NetworkError(f"{name} ({type(model).__name__}): no reader for this network; add one to export/readers")


lower.register(ESDNet, esdnet.lower)
lower.register(DualStage, dual_stage.lower)
lower.register(NAFNet, nafnet.lower)
