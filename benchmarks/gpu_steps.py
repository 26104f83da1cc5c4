"""Training steps on a device: plain, in bfloat16, compiled, as CUDA graphs; and the largest batch that fits.

In: a preset, a device, a batch. Out: seconds and memory of each, and how far its loss is from the plain one's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu_device import as_cuda_graph, fits, forget_peak, peak_bytes, wait
from esdnet.command.errors import UserError
from esdnet.networks.architectures import build, preset
from esdnet.networks.esdnet.lif import LIF
from esdnet.training.config import TrainingConfig
from esdnet.training.losses import RestorationLoss
from esdnet.training.optimizers import open_optimizers


@dataclass(frozen=True)
class Measured:
    """One way to take steps. `loss`: after all of them; `note`: why there are no numbers."""

    way: str
    seconds: float | None = None
    images_per_second: float | None = None
    peak_mb: float | None = None
    loss: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class Steps:
    """Steps of a network on the same random batch, as esdnet.train takes them: forward, loss, backward, clip, move."""

    def __init__(self, name: str, device: str, batch: int, crop: int) -> None:
        torch.manual_seed(0)
        self.device, self.config = device, TrainingConfig(batch=batch, crop=crop)
        self.model = build(preset(name)).to(device).train()
        self.optimizers = open_optimizers(self.model, self.config)
        self.loss = RestorationLoss(self.config.l1_weight, self.config.ssim_on_luma, self.config.log_weight)
        rainy, clean = torch.rand(2, batch, 3, crop, crop)
        self.rainy, self.clean = rainy.to(device), clean.to(device)
        self.network: Callable[[Tensor], Any] = self.model
        self.bf16 = False

    def step(self) -> Tensor:
        """One; the loss before it."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            restored = self.network(self.rainy)
        loss: Tensor = self.loss(restored, self.clean)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()


def plain(steps: Steps, backend: str) -> None:
    """As it is."""


def in_bf16(steps: Steps, backend: str) -> None:
    """Convolutions and matrices in bfloat16 (--precision bf16 of the trainer)."""
    steps.bf16 = True


def compiled(steps: Steps, backend: str) -> None:
    """torch.compile; the loop of the neurons over time stays as it is, a function with a gradient of its own."""
    for module in steps.model.modules():
        if isinstance(module, LIF):
            module._fire = torch.compiler.disable(module._fire)  # type: ignore[method-assign]
    steps.network = torch.compile(steps.model, backend=backend)


def graphed(steps: Steps, backend: str) -> None:
    """Forward and backward recorded as CUDA graphs."""
    steps.network = as_cuda_graph(steps.model, steps.rainy)


WAYS: dict[str, Callable[[Steps, str], None]] = {
    "plain": plain, "bf16": in_bf16, "torch.compile": compiled, "CUDA graphs": graphed,
}  # fmt: skip


def measure(name: str, way: str, device: str, batch: int, crop: int, count: int, backend: str) -> Measured:
    """The median of so many steps after two that warm up. What cannot run says why, in one line."""
    forget_peak(device)
    try:
        steps = Steps(name, device, batch, crop)
        WAYS[way](steps, backend)
        seconds = []
        for number in range(count + 2):
            started = time.perf_counter()
            loss = steps.step()
            wait(device)
            if number >= 2:
                seconds.append(time.perf_counter() - started)
    except UserError as error:
        return Measured(way, note=f"not run: {error}")
    except Exception as error:  # whatever a compiler says: the other rows are worth having
        return Measured(way, note=f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    median, peak = statistics.median(seconds), peak_bytes(device)
    return Measured(way, median, batch / median, None if peak is None else peak / 1e6, float(loss))


def largest_batch(name: str, device: str, crop: int, most: int) -> int:
    """The largest power of two, up to `most`, of which a step fits into the device's memory."""
    batch = 0
    while 2 * (batch or 0.5) <= most:
        larger = int(2 * (batch or 0.5))
        forget_peak(device)
        if not fits(lambda larger=larger: Steps(name, device, larger, crop).step()):  # type: ignore[misc]
            break
        batch = larger
    return batch


def all_ways(name: str, device: str, batch: int, crop: int, count: int, backend: str) -> list[Measured]:
    """Every way, of the same network, batch and number of steps; the model of each begins with the same weights."""
    return [measure(name, way, device, batch, crop, count, backend) for way in WAYS]
