"""What to_lava_dl measures on one image and prints: spikes of every segment, accumulations, losses per layer.

In: the float network, its integer network, an 8-bit image. Out: a Recording, and tables as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.graph.counting import count_node, operands_of
from export.graph.network import Network, infer_shapes
from export.integer.losses import layer_losses
from export.integer.network import IntegerNetwork
from export.integer.operations import IntegerConv, IntegerLinear, Operation
from export.integer.run import run_integer
from export.targets.loihi.check import Comparison
from export.targets.loihi.netx import Segment, find_segments

WORST = 8  # layers that the loss table shows


@dataclass(frozen=True, eq=False)
class Recording:
    """One image through the integer network: spikes bool (T, C, H, W) of every neuron, ACs of every weighted layer that
    reads spikes, the signal-to-noise ratio in dB of every weighted layer, and which convolutions netx holds."""

    spikes: Mapping[str, NDArray[np.bool_]]
    acs: Mapping[str, int]
    losses: Mapping[str, float]
    in_netx: frozenset[str]

    @property
    def rates(self) -> dict[str, float]:
        """Spikes per neuron and step."""
        return {name: float(spikes.mean()) for name, spikes in self.spikes.items()}

    @property
    def acs_in_netx(self) -> int:
        """Accumulations of the convolutions that are in netx segments."""
        return sum(count for name, count in self.acs.items() if name in self.in_netx)


def record(network: Network, integer: IntegerNetwork, pixels: NDArray[np.uint8]) -> Recording:
    """Run the image (C, H, W) once for spikes and accumulations, once for the losses."""
    spikes: dict[str, NDArray[np.bool_]] = {}
    acs: dict[str, int] = {}
    shapes = infer_shapes(network, pixels.shape[1], pixels.shape[2])

    def observe(operation: Operation, inputs: Sequence[Tensor], value: Tensor) -> None:
        if value.dtype is torch.bool:
            spikes[operation.name] = value.numpy()
        if isinstance(operation, (IntegerConv, IntegerLinear)) and inputs[0].dtype is torch.bool:
            operands = operands_of(network, shapes, network[operation.name])
            counted = replace(operands, spike_map=inputs[0].sum(1, dtype=torch.int64).numpy())
            acs[operation.name] = count_node(network[operation.name], counted).totals()["acs"]

    run_integer(integer, pixels, observe)
    inside = frozenset(layer.conv.name for segment in find_segments(integer) for layer in segment.layers)
    return Recording(spikes, acs, layer_losses(network, integer, pixels), inside)


def spikes_of(integer: IntegerNetwork, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
    """The spikes (T, C, H, W) of every value that carries spikes, for one image."""
    found: dict[str, NDArray[np.bool_]] = {}

    def observe(operation: Operation, inputs: Sequence[Tensor], value: Tensor) -> None:
        if value.dtype is torch.bool:
            found[operation.name] = value.numpy()

    run_integer(integer, pixels, observe)
    return found


def facts(recording: Recording, calibration: str) -> dict[str, object]:
    """What the manifest keeps of it."""
    losses = {name: round(loss, 2) if np.isfinite(loss) else None for name, loss in recording.losses.items()}
    acs = {"total": sum(recording.acs.values()), "in_netx": recording.acs_in_netx}
    return {"calibration": calibration, "acs": acs, "signal_to_noise_db": losses}


def check_table(segments: Mapping[str, Segment], rows: Mapping[str, Comparison]) -> str:
    """A line per netx file: its layers, the spikes that came out, how many differ from the integer network's."""
    lines = [f"{'netx file':<44}{'layers':>7}{'spikes out':>12}{'mismatches':>12}"]
    lines += [
        f"{name:<44}{len(segment.layers):>7}{rows[name].spikes:>12,}{rows[name].mismatches:>12,}"
        for name, segment in segments.items()
    ]
    return "\n".join(lines)


def acs_line(recording: Recording) -> str:
    """The share of the network's accumulations that runs inside netx."""
    total, inside = sum(recording.acs.values()), recording.acs_in_netx
    share = 100 * inside / total if total else 0.0
    return f"ACs inside netx: {inside:,} of {total:,} ({share:.1f} %)"


def loss_table(recording: Recording) -> str:
    """The layers that lose most to 8-bit weights; the manifest has all."""
    ranked = sorted(recording.losses.items(), key=lambda item: item[1])
    lines = [f"{'8-bit weights: signal to noise of the layers that lose most':<64}{'dB':>6}"]
    return "\n".join([*lines, *(f"  {name:<62}{loss:>6.1f}" for name, loss in ranked[:WORST])])
