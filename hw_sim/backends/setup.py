"""The same backend in every process. In: what names it. Out: a Backend, opened once in a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from esdnet.command.errors import UserError
from esdnet.command.memory import keep_freed_memory

if TYPE_CHECKING:
    from hw_sim.backends.executors import Backend


@dataclass(frozen=True)
class Setup:
    """What a process needs to open the same backend: the network and the hash of its graph, the backend's options, and
    whether to keep freed memory."""

    checkpoint: str | None
    network: Path | None
    digest: str
    backend: str
    precision: str
    device: str
    keep_maps: bool = False
    keep_memory: bool = False


_OPENED: dict[Setup, Backend] = {}  # the one of this process


@contextmanager
def opened(setup: Setup, backend: Backend) -> Iterator[None]:
    """While open, that is the backend of this process."""
    _OPENED.clear()
    _OPENED[setup] = backend
    try:
        yield
    finally:
        _OPENED.clear()


def open_backend(setup: Setup) -> Backend:
    """The backend of a setup; UserError if the network is another one here."""
    from export.graph.store import network_digest
    from hw_sim.backends.executors import Backend, load_source

    if setup.keep_memory:
        keep_freed_memory()
    setup = replace(setup, keep_memory=False)
    if setup not in _OPENED:
        source = load_source(setup.checkpoint, setup.network)
        if network_digest(source.network) != setup.digest:
            raise UserError(f"{source.label}: is another network here than where the command began")
        _OPENED.clear()
        _OPENED[setup] = Backend(setup.backend, source, setup.precision, setup.device, {}, setup.keep_maps)
    return _OPENED[setup]
