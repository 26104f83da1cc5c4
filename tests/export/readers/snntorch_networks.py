"""Five snnTorch networks as its tutorials write them, and a plain run of each: no code of the reader's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import snntorch as snn
import torch
import torch.nn.functional as F
from torch import nn


class FeedForward(nn.Module):
    """Tutorial 5: the same image at every step, states passed by hand, spikes and membranes returned."""

    def __init__(self, steps: int = 25) -> None:
        super().__init__()
        self.steps = steps
        self.fc1 = nn.Linear(64, 40)
        self.lif1 = snn.Leaky(beta=0.95)
        self.fc2 = nn.Linear(40, 10)
        self.lif2 = snn.Leaky(beta=0.95)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, membranes = [], []
        for _ in range(self.steps):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes, dim=0), torch.stack(membranes, dim=0)


def convolutional() -> nn.Module:
    """Tutorial 7: a Sequential with hidden states, one step per call; a batch norm besides."""
    return nn.Sequential(
        nn.Conv2d(2, 12, 5), nn.MaxPool2d(2), snn.Leaky(beta=0.5, init_hidden=True, threshold=0.3),
        nn.Conv2d(12, 16, 5), nn.BatchNorm2d(16), nn.MaxPool2d(2), snn.Leaky(beta=0.5, init_hidden=True, threshold=0.2),
        nn.Flatten(), nn.Linear(64, 10), snn.Leaky(beta=0.5, init_hidden=True, threshold=0.1, output=True),
    )  # fmt: skip


class Recurrent(nn.Module):
    """RLeaky and RSynaptic, a frame for every step."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(20, 30)
        self.lif1 = snn.RLeaky(beta=0.9, linear_features=30)
        self.fc2 = nn.Linear(30, 5)
        self.lif2 = snn.RSynaptic(alpha=0.8, beta=0.7, linear_features=5, threshold=0.5)

    def forward(self, x):
        spk1, mem1 = self.lif1.init_rleaky()
        spk2, syn2, mem2 = self.lif2.init_rsynaptic()
        out = []
        for step in range(x.size(0)):
            spk1, mem1 = self.lif1(self.fc1(x[step]), spk1, mem1)
            spk2, syn2, mem2 = self.lif2(self.fc2(spk1), spk2, syn2, mem2)
            out.append(spk2)
        return torch.stack(out)


class Residual(nn.Module):
    """Sums of spikes and of currents, concatenation, learnt parameters, a neuron that resets at once."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.lif1 = snn.Leaky(
            beta=0.9, init_hidden=True, reset_delay=False, learn_beta=True, learn_threshold=True, threshold=0.6
        )
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False, groups=2)
        self.lif2 = snn.Synaptic(alpha=0.6, beta=torch.linspace(0.5, 0.9, 8).reshape(8, 1, 1), init_hidden=True)
        self.conv3 = nn.Conv2d(16, 4, 3, stride=2)
        self.lif3 = snn.Lapicque(
            R=2.0, C=3.0, time_step=0.5, threshold=0.1, init_hidden=True, reset_mechanism="subtract"
        )

    def forward(self, x):
        first = self.lif1(self.norm1(self.conv1(x)))
        second = self.lif2(self.conv2(first) + first)
        return self.lif3(F.avg_pool2d(self.conv3(torch.cat([first, second], dim=1)), 2))


class Autoencoder(nn.Module):
    """A spiking autoencoder whose last membrane is the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), snn.Leaky(beta=0.8, init_hidden=True, reset_mechanism="zero"),
            nn.Dropout(0.5), nn.Linear(32, 8), snn.Leaky(beta=0.8, init_hidden=True, threshold=0.3),
        )  # fmt: skip
        self.decoder = nn.Sequential(nn.Linear(8, 32), snn.Leaky(beta=0.8, init_hidden=True, threshold=0.2))
        self.out = nn.Linear(32, 64)
        self.last = snn.Leaky(beta=0.8, threshold=1e9, reset_mechanism="none")

    def forward(self, x):
        mem = self.last.init_leaky()
        pictures = []
        for frame in x:
            _, mem = self.last(self.out(self.decoder(self.encoder(frame))), mem)
            pictures.append(mem)
        return torch.stack(pictures)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], bool]] = {  # made, shape of its input, of spikes
    "feed-forward": (FeedForward, (64,), False),
    "convolutional": (convolutional, (20, 2, 20, 20), True),
    "recurrent": (Recurrent, (40, 20), True),
    "residual": (Residual, (20, 2, 12, 12), True),
    "autoencoder": (Autoencoder, (20, 1, 8, 8), False),
}


def make(name: str) -> tuple[nn.Module, np.ndarray]:
    """A network with weights of its own, its norms too, and an input for it."""
    made, shape, spikes = NETWORKS[name]
    torch.manual_seed(sum(map(ord, name)))
    module = made().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    values = np.random.default_rng(1).random(shape)
    return module, values < 0.3 if spikes else values


def run_plainly(module: nn.Module, x: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """Spikes (T, ...) of every neuron in float64, watched by hooks, module by module as snnTorch runs them."""
    seen: dict[str, list[np.ndarray]] = {}
    module = module.double()

    def watch(key: str) -> Callable[..., Any]:
        def hook(part: nn.Module, inputs: Any, output: Any) -> None:
            spikes = output[0] if isinstance(output, tuple) else output
            seen.setdefault(key, []).append(spikes[0].numpy() != 0)

        return hook

    def widen(part: nn.Module, inputs: Any) -> Any:
        return tuple(one.double() for one in inputs)  # snnTorch's spikes are float32

    for key, part in module.named_modules():
        if isinstance(part, snn.SpikingNeuron):
            part.reset_mem()
            part.register_forward_hook(watch(key))
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            part.register_forward_pre_hook(widen)
    values = torch.from_numpy(x).double()
    with torch.no_grad():
        if name == "feed-forward":
            module(values[None])
        elif name in ("convolutional", "residual"):
            for frame in values:
                module(frame[None])
        else:
            module(values[:, None])
    return {key: np.stack(steps) for key, steps in seen.items()}
