"""What only a GPU has: kernels to wait for, memory of its own, graphs of kernels. In: 'cuda' or 'cpu'.

Everything else of benchmarks/gpu.py runs on a CPU as it does on a GPU; this file is what does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from esdnet.command.errors import UserError
from esdnet.command.memory import out_of_memory


def wait(device: str) -> None:
    """Until everything that was asked of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def forget_peak(device: str) -> None:
    """The peak of memory begins anew, and what was cached is given back."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> int | None:
    """The most that tensors took since then; None on a CPU, whose tensors nobody adds up."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def as_cuda_graph(model: nn.Module, example: Tensor) -> Callable[[Tensor], Any]:
    """The model's forward and backward as graphs of kernels, recorded once for inputs like the example; UserError on a
    CPU, which has none. The model itself is used up."""
    if example.device.type != "cuda":
        raise UserError("CUDA graphs: a CPU has none")
    graphed: Callable[[Tensor], Any] = torch.cuda.make_graphed_callables(model, (example,))
    return graphed


def fits(attempt: Callable[[], Any]) -> bool:
    """Whether there is memory for it."""
    try:
        with out_of_memory("a step", "take a smaller batch"):
            attempt()
    except UserError:
        return False
    return True
