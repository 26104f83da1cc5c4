"""CPU time of `hw_sim.count` beside the plain run of the same module, one thread: medians of ratios within a round.

    python -m benchmarks.count_overhead [ROUNDS]

Between them a run under a dispatch mode that only calls each operation: what torch takes for telling Python of it.
ResNet-18, MobileNet v2 and ViT-B/32 need torchvision; where it is missing they are left out, and said to be.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import snntorch
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import hw_sim
from benchmarks.measure import Run, time_rounds
from hw_sim.backends.executors import load_source


class Recurrent(nn.Module):
    """100 neurons that read each other, 10 that read them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 100), snntorch.RLeaky(beta=0.9, linear_features=100)
        self.fc2, self.lif2 = nn.Linear(100, 10), snntorch.Leaky(beta=0.8)

    def forward(self, x: Tensor) -> Tensor:
        (spikes, mem1), mem2 = self.lif1.init_rleaky(), self.lif2.init_leaky()
        out = []
        for current in x:
            spikes, mem1 = self.lif1(self.fc1(current), spikes, mem1)
            last, mem2 = self.lif2(self.fc2(spikes), mem2)
            out.append(last)
        return torch.stack(out)


class Convolutional(nn.Module):
    """Two convolutions and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(2, 16, 3, padding=1), snntorch.Leaky(beta=0.9)
        self.conv2, self.lif2 = nn.Conv2d(16, 32, 3, padding=1), snntorch.Leaky(beta=0.9)
        self.fc, self.lif3 = nn.Linear(32 * 64, 10), snntorch.Leaky(beta=0.8)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
        out = []
        for frame in x:
            y, mem1 = self.lif1(self.conv1(frame), mem1)
            y, mem2 = self.lif2(self.conv2(nn.functional.max_pool2d(y, 2)), mem2)
            y, mem3 = self.lif3(self.fc(nn.functional.max_pool2d(y, 2).flatten(1)), mem3)
            out.append(y)
        return torch.stack(out)


def contestants() -> dict[str, tuple[nn.Module, Tensor]]:
    found: dict[str, tuple[nn.Module, Tensor]] = {
        "snnTorch, recurrent, batch 1": (Recurrent(), 3 * torch.rand(100, 1, 64)),
        "snnTorch, recurrent, batch 32": (Recurrent(), 3 * torch.rand(100, 32, 64)),
        "snnTorch, convolutional": (Convolutional(), 3 * torch.rand(20, 4, 2, 32, 32)),
    }
    for name in ("small_released", "small_spike_driven"):
        model = load_source(name, None).model.float().eval()
        for height, width in ((64, 48), (96, 96)):
            found[f"{name}, {height} x {width}"] = (model, torch.rand(1, 3, height, width))
    if find_spec("torchvision") is None:
        print("no torchvision: its networks are left out", file=sys.stderr)
        return found
    from torchvision import models

    for model in (models.resnet18, models.mobilenet_v2, models.vit_b_32):
        found[model.__name__] = (model().eval(), torch.rand(1, 3, 224, 224))
    return found


class Empty(TorchDispatchMode):
    """Sees every operation and counts nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def runs_of(model: nn.Module, x: Tensor) -> dict[str, Run]:
    def plain() -> None:
        with torch.no_grad():
            model(x)

    def seen() -> int:
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd(), Empty() as mode:
            model(x)
        return mode.operations

    return {"plain": plain, "seen": seen, "counted": lambda: hw_sim.count(model, x).totals}


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'':32} {'operations':>10} {'plain':>9}  {'seen by an empty mode':>21} {'counted':>18}")
    for name, (model, x) in contestants().items():
        runs = runs_of(model, x)
        times = time_rounds(runs, rounds, "plain")
        seen, counted = (
            f"{1e3 * times[run]['cpu_seconds']:.1f} ms {times[run]['cpu_ratio']:.2f}x" for run in ("seen", "counted")
        )
        print(f"{name:32} {runs['seen']():>10} {1e3 * times['plain']['cpu_seconds']:6.1f} ms  {seen:>21} {counted:>18}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
