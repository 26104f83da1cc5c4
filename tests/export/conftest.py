"""Other projects' NIR importers, in float64: they cast what they read to float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

DT = 1e-4


@pytest.fixture
def norse(monkeypatch) -> Callable[[Any], Any]:
    """norse's importer."""
    module = pytest.importorskip("norse.torch.utils.import_nir", reason="norse is not installed")
    monkeypatch.setattr(module, "_to_tensor", lambda value: torch.as_tensor(value, dtype=torch.float64))
    return lambda graph: module.from_nir(graph, dt=DT)


@pytest.fixture
def snntorch(monkeypatch) -> Iterator[Any]:
    """The module that holds snnTorch's importer."""
    nirtorch = pytest.importorskip("nirtorch", reason="nirtorch is not installed")
    import snntorch.import_nir as module

    load = nirtorch.nir_to_torch
    monkeypatch.setattr(module.nirtorch, "nir_to_torch", lambda graph, map: load(graph, map, dtype=torch.float64))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield module
    torch.set_default_dtype(before)


@pytest.fixture
def spikingjelly() -> Callable[[Any], Any]:
    """spikingjelly's importer."""
    reason = "spikingjelly < 2 has no NIR importer; 2.0.0 needs Python 3.11"
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange.from_nir", reason=reason)
    return lambda graph: exchange.import_from_nir(graph, dt=DT, dtype=torch.float64)
