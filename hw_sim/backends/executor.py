"""What is run, and what runs it: a network and its source, an open backend. No torch until one is opened."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from esdnet.command.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from export.graph.network import Network
    from export.graph.part import Part
    from export.integer.network import IntegerNetwork
    from hw_sim.backends.result import Result

LAVA_LIMIT = 128  # pixels a side that Lava takes without --tile


class RunImage(Protocol):
    """Runs one (3, h, w) tile in [0, 1]."""

    def __call__(self, image: NDArray[np.floating[Any]]) -> Result:
        """Output, spikes and counts of one tile."""
        ...


@dataclass(frozen=True)
class Source:
    """A network to run: its layer graph, the torch model of a checkpoint and its file, the integers of a Lava-DL
    export."""

    label: str
    network: Network
    model: nn.Module | None
    integer: IntegerNetwork | None = None
    checkpoint: Path | None = None


@dataclass
class Executor:
    """An open backend. `facts` grows while it runs (Lava: processes, compile and run time). `run_part`: runs a tile
    that is a part of an image, and counts its core apart; not Lava, which takes fewer pixels than a halo has."""

    run: RunImage
    facts: dict[str, Any] = field(default_factory=dict)
    streams: Callable[[Iterable[NDArray[np.floating[Any]]]], Iterator[Result]] | None = None
    run_part: Callable[[NDArray[np.floating[Any]], Part], Result] | None = None

    def stream(self, images: Iterable[NDArray[np.floating[Any]]]) -> Iterator[Result]:
        """Images of one size, results in order; a backend that can have several at once under way does."""
        return self.streams(images) if self.streams else map(self.run, images)


def backend_label(args: argparse.Namespace) -> str:
    """How reports name the backend that a command runs."""
    if args.backend != "lava":
        return str(args.backend)
    return f"lava ({args.lava_model or 'fused'}{', stock' if args.lava_stock else ''})"


def check_lava_flags(args: argparse.Namespace) -> None:
    """UserError for a choice of how Lava runs without it."""
    if args.backend != "lava" and (args.lava_model or args.lava_stock):
        given = "--lava-stock" if args.lava_stock else "--lava-model"
        raise UserError(f"{given}: is for --backend lava, found --backend {args.backend}")


def check_lava_size(size: tuple[int, int]) -> None:
    """UserError for more pixels at once than Lava takes in reasonable time."""
    if max(size) > LAVA_LIMIT:
        raise UserError(
            f"--backend lava: {size[0]}x{size[1]} pixels at once, at most {LAVA_LIMIT}x{LAVA_LIMIT};"
            " add --tile 64 to run it in tiles"
        )
