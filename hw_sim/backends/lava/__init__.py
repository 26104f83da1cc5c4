"""The whole network on Lava's CPU simulation backend. In: a Network and images. Out: Results, as from the simulator.

See docs/lava.md. Nothing here imports Lava; the engine process does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graph.network import Network
from hw_sim.backends.lava.host import LavaError
from hw_sim.backends.lava.plan import Model
from hw_sim.backends.lava.session import TIMEOUT_S, LavaSession
from hw_sim.backends.result import Result

__all__ = ["LavaError", "LavaSession", "run"]


def run(
    network: Network,
    image: NDArray[np.floating[Any]],
    *,
    precision: str = "float64",
    model: Model = "fused",
    stock: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Result:
    """One image (channels, H, W) in [0, 1] through the network on Lava; see LavaSession for the choices and errors."""
    size = (int(image.shape[-2]), int(image.shape[-1]))
    with LavaSession(network, size, precision=precision, model=model, stock=stock, timeout_s=timeout_s) as session:
        return session.run(image)
