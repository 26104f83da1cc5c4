"""The torch model as an executor: the reference. Spikes and spike-fed operands are what the modules really saw.

In: a torch network, its lowered Network and an image. Out: a Result, counted by the same rules as every other backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graph.counting import NodeCounts, count_node, operands_of, reads_spikes
from export.graph.frames import check_image
from export.graph.network import Network, infer_shapes
from export.graph.nodes import NetworkError, Neuron, Node, gate_of
from export.graph.part import Part, PartCounter
from export.graph.words import Counts
from hw_sim.backends.result import Result, as_map


def run(
    model: nn.Module,
    network: Network,
    image: NDArray[np.floating[Any]],
    *,
    precision: str = "float32",
    device: str = "cpu",
    part: Part | None = None,
) -> Result:
    """One image (3, H, W), sides multiples of `network.size_multiple`, through the torch model in eval mode.

    The model is moved to `precision` and `device` and stays there. `part`: which part of a larger image this one is;
    its core is counted apart.
    """
    size = check_image(network, image)
    dtype = getattr(torch, precision)
    model = model.to(device, dtype).eval()
    x = torch.from_numpy(np.ascontiguousarray(image)).to(device, dtype).unsqueeze(0)
    with torch.inference_mode(), _watch(model, network) as seen:
        output = model(x)[0].cpu().numpy()
    spikes = {node.name: seen[node.name].cpu().numpy() for node in network.neurons}
    maps = {name: value.sum(1).cpu().numpy().astype(np.int64) for name, value in seen.items()}
    of_core = _count_core(network, maps, PartCounter(network, part)) if part else {}
    gates = {name: as_map(maps[name]) for name in network.gates}
    return Result(output, spikes, _count(network, maps, size), size, of_core=of_core, gates=gates)


@contextmanager
def _watch(model: nn.Module, network: Network) -> Iterator[dict[str, Tensor]]:
    """Collects, while it is open, the spikes of every neuron and of every input that the graph declares to be spikes.

    Keys are node names; values are boolean (T, C, H, W), a neuron's output, the input of a convolution or matrix, or,
    by the name of the gate, what a module was given as its gate.
    """
    seen: dict[str, Tensor] = {}
    hooks = []
    modules = dict(model.named_modules())
    for node in network.nodes:
        if isinstance(node, Neuron):
            hooks.append(_module(modules, node.name).register_forward_hook(_output_spikes(seen, node.name)))
        elif reads_spikes(network, node):
            hooks.append(_module(modules, node.name).register_forward_pre_hook(_input_spikes(seen, node.name)))
        gate = gate_of(node)
        if gate is not None:
            hooks.append(_module(modules, node.name).register_forward_pre_hook(_input_spikes(seen, gate, 1)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _module(modules: dict[str, nn.Module], name: str) -> nn.Module:
    if name not in modules:
        raise NetworkError(f"{name}: the torch model has no module of that name, so its spikes cannot be witnessed")
    return modules[name]


def _output_spikes(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    return lambda module, inputs, output: seen.__setitem__(name, _as_spikes(name, output))


def _input_spikes(seen: dict[str, Tensor], name: str, position: int = 0) -> Callable[..., None]:
    return lambda module, inputs: seen.__setitem__(name, _as_spikes(name, inputs[position]))


def _as_spikes(name: str, value: Tensor) -> Tensor:
    """(T, 1, C, H, W), or (1, C, H, W), of 0 and 1 to boolean (T or 1, C, H, W); any other value ends the run."""
    spikes = value > 0
    if not torch.equal(spikes.to(value.dtype), value):
        raise NetworkError(f"{name}: declared to carry spikes, but torch saw values other than 0 and 1")
    return spikes[:, 0] if spikes.ndim == 5 else spikes


def _count(network: Network, maps: dict[str, Counts], size: tuple[int, int]) -> dict[str, NodeCounts]:
    """Of maps of spikes, (steps, H, W): those that a neuron fired, or that another node read."""
    shapes = infer_shapes(network, *size)
    counts = {}
    for node in network.nodes:
        operands = operands_of(network, shapes, node).seeing(**_seen(network, node, maps))
        counts[node.name] = count_node(node, operands)
    return counts


def _count_core(network: Network, maps: dict[str, Counts], core: PartCounter) -> dict[str, NodeCounts]:
    return {node.name: core.count(node, **_seen(network, node, maps)) for node in network.nodes}


def _seen(network: Network, node: Node, maps: dict[str, Counts]) -> dict[str, Counts]:
    """Of all maps those that the counts of a node hang on."""
    gate = gate_of(node)
    found = {} if gate is None else {"gate": maps[gate][0]}
    if isinstance(node, Neuron):
        found["fired"] = maps[node.name]
    elif reads_spikes(network, node):
        found["spike_map"] = maps[node.name]
    return found
