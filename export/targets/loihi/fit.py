"""Does it fit? An estimate of the neuro-cores that a network needs, from public limits of the chip.

In: a Network, the size of a tile, the limits (the .toml beside this file), firing rates. Out: per population of neurons
its synapses, weight bytes, cores and spikes per step and core; and the largest tile on a number of chips. An estimate:
no public document says how Intel's compiler places a network.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

from esdnet.command.errors import UserError
from export.graph.network import Network, infer_shapes
from export.graph.nodes import Add, Conv, Neuron, Node, Shape
from export.graph.placement import on_host

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
LARGEST_SIDE = 1024  # pixels; larger tiles are not tried


@dataclass(frozen=True)
class Limits:
    """What one neuro-core holds, and how many there are on a chip. `sources`: limit -> where the number is from."""

    title: str
    note: str
    cores_per_chip: int
    neurons_per_core: int
    memory_per_core_bytes: int
    state_bytes_per_neuron: int
    weight_bytes: int
    sources: Mapping[str, str]


@dataclass(frozen=True)
class Population:
    """Neurons that share their incoming kernels: a spiking layer, or the sums of a residual stream.

    synapses: connections if none were shared; weights: numbers in the kernels; spikes_per_step: what they emit.
    """

    name: str
    shape: tuple[int, int, int]
    synapses: int
    weights_per_channel: int
    spikes_per_step: float
    cores: int

    @property
    def neurons(self) -> int:
        """C * H * W."""
        return prod(self.shape)


def load_limits(name: str) -> Limits:
    """The limits of a target that ships; UserError lists the ones there are."""
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise UserError(f"--target {name}: unknown, expected one of {known}")
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    numbers = {key: entry for key, entry in content.items() if isinstance(entry, dict)}
    return Limits(
        title=content["title"],
        note=content["note"],
        sources={key: f"{entry['source']} ({entry['grade']})" for key, entry in numbers.items()},
        **{key: int(entry["value"]) for key, entry in numbers.items()},
    )


def place(network: Network, height: int, width: int, limits: Limits, rates: Mapping[str, float]) -> list[Population]:
    """The populations of everything that runs on neuro-cores. `rates`: spikes per neuron and step of each Neuron."""
    shapes = infer_shapes(network, height, width)
    found = []
    for node in network.nodes:
        if node.name in on_host(network) or not _has_state(network, node):
            continue
        convs = [network[name] for name in _kernels(network, node)]
        shape = shapes[node.name][1:]
        weights = sum(conv.weight[0].size for conv in convs if isinstance(conv, Conv))
        synapses = sum(_taps(conv, shapes) for conv in convs if isinstance(conv, Conv))
        spikes = rates.get(node.name, 0.0) * prod(shape)
        found.append(Population(node.name, shape, synapses, weights, spikes, _cores(shape, weights, limits)))
    return found


def _has_state(network: Network, node: Node) -> bool:
    """Neurons have; sums of a stream have, once for all branches that meet in them."""
    if isinstance(node, (Neuron, Add)):
        return True
    if not isinstance(node, Conv):
        return False
    readers = [network[name] for name in network.readers[node.name]]
    return not all(isinstance(reader, (Neuron, Add)) and reader.name not in on_host(network) for reader in readers) or (
        len(readers) > 1
    )


def _kernels(network: Network, node: Node) -> list[str]:
    """The convolutions whose sums a population receives: itself, or those before it that have no state of their own."""
    if isinstance(node, Conv):
        return [node.name]
    return [name for name in node.inputs if isinstance(network[name], Conv) and not _has_state(network, network[name])]


def _taps(conv: Conv, shapes: Mapping[str, Shape]) -> int:
    """Connections of a layer, those to padding included."""
    return prod(shapes[conv.name][1:]) * conv.weight[0].size


def _cores(shape: tuple[int, int, int], weights_per_channel: int, limits: Limits) -> int:
    """The fewest cores: each takes some channels at some pixels, with its own copy of those channels' kernels."""
    channels, pixels = shape[0], shape[1] * shape[2]
    best = 0
    for share in range(1, channels + 1):  # channels of one core
        left = limits.memory_per_core_bytes - share * weights_per_channel * limits.weight_bytes
        held = min(limits.neurons_per_core, left // limits.state_bytes_per_neuron) // share  # pixels of one core
        if held > 0:
            cores = ceil(channels / share) * ceil(pixels / held)
            best = min(best or cores, cores)
    if not best:
        raise UserError(f"{limits.title}: {weights_per_channel} weights of one output channel do not fit into a core")
    return best


def largest_tile(network: Network, limits: Limits, chips: int) -> tuple[int, int]:
    """(side, cores) of the largest square tile that fits on so many chips; (0, 0) if none does."""
    step = network.size_multiple
    fits = (0, 0)
    low, high = 1, LARGEST_SIDE // step
    while low <= high:  # more pixels never need fewer cores
        middle = (low + high) // 2
        cores = sum(population.cores for population in place(network, middle * step, middle * step, limits, {}))
        if cores <= chips * limits.cores_per_chip:
            fits, low = (middle * step, cores), middle + 1
        else:
            high = middle - 1
    return fits


def fit_table(network: Network, height: int, width: int, limits: Limits, rates: Mapping[str, float]) -> str:
    """The estimate as text: a row per population, totals, the largest tiles, and what it rests on."""
    rows = place(network, height, width, limits, rates)
    lines = [
        f"Estimate for {limits.title}, tile {height}x{width} (what the host computes is not in it)",
        f"{'population':<34}{'neurons':>10}{'synapses':>15}{'weight bytes':>14}{'cores':>7}{'spikes/step/core':>18}",
    ]
    for row in rows:
        size = row.weights_per_channel * row.shape[0] * limits.weight_bytes
        busy = f"{row.spikes_per_step / row.cores:,.0f}" if row.spikes_per_step else ""
        lines.append(f"{row.name:<34}{row.neurons:>10,}{row.synapses:>15,}{size:>14,}{row.cores:>7}{busy:>18}")
    cores, neurons = sum(row.cores for row in rows), sum(row.neurons for row in rows)
    lines.append(f"{cores} cores, {ceil(cores / limits.cores_per_chip)} chips; {neurons:,} neurons")
    for chips in (1, 8):
        side, used = largest_tile(network, limits, chips)
        label = f"{chips} chip{'s' if chips > 1 else ''}"
        lines.append(f"largest square tile on {label}: " + (f"{side}x{side} ({used} cores)" if side else "none"))
    lines.append(f"An estimate, not a placement. {limits.note}")
    return "\n".join([*lines, *(f"  {key}: {source}" for key, source in limits.sources.items())])
