"""The witness: what torch computes inside, value by value, by the names of the layer graph.

In: a torch model, its Network and an image, or values that each layer is to start from. Out: the values seen in
float64, how far rounding can move each of them, and the near-ties among the membranes.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graph.near_ties import NearTies, find_near_choices, find_near_ties, membranes
from export.graph.network import Network, infer_shapes
from export.graph.nodes import ArgMax, Array, Conv, LayerNorm, Linear, Neuron, Node, gate_of
from export.graph.rounding import Rounding

Values = Mapping[str, NDArray[np.floating[Any]]]
Keep = Callable[[str, Array], object]


@dataclass(frozen=True, eq=False)
class Witness:
    """What torch computed in float64 from one image.

    values: (T or 1, C, H, W) by node name, in the network's order. bounds: how far rounding can move each of them from
    the values before it; of a neuron, its membrane. near_ties: the membranes that lie so near to their threshold.
    """

    values: Values
    bounds: Mapping[str, float]
    near_ties: tuple[NearTies, ...]


class Watch:
    """Follows a float64 run of torch, value after value, and finds the near-ties."""

    def __init__(self, model: nn.Module, network: Network, size: tuple[int, int]) -> None:
        self.network = network
        self.rounding = Rounding(network, size, _bias_terms(model, network))
        self.near_ties: list[NearTies] = []
        self._last: Array = np.zeros(0)
        self._gates: dict[str, Array] = {}

    def see(self, name: str, value: Array) -> bool:
        """The next value, True if it is new. Spikes and choices first come right after what they are made of."""
        node, current = self.network[name], self._last
        self._last = value
        if self.rounding.knows(name):
            return False
        if isinstance(node, Neuron):
            gate = self._gates.get(gate_of(node) or "")
            found = find_near_ties(node, membranes(node, current, value), self.rounding.bound(name), gate)
            self.near_ties += [found] if found else []
        elif isinstance(node, ArgMax):
            found = find_near_choices(node, current, 2 * self.rounding.bound(node.inputs[0]))
            self.near_ties += [found] if found else []
        if name in self.network.gates:
            self._gates[name] = value
        self.rounding.know(name, value)
        return True


def follow(
    model: nn.Module, network: Network, image: NDArray[np.floating[Any]], keep: Keep, device: str = "cpu"
) -> Watch:
    """Run torch in float64 on an image (3, H, W) of sides that the network takes. The model is left as it is.

    `keep(name, value)` gets every value that can be seen, (T or 1, C, H, W), once, in the order of the run: what a
    convolution or a neuron reads, its gate first, what these give (convolutions with their batch norm), and the output.
    """
    double = copy.deepcopy(model).double().to(device).eval()
    x = torch.from_numpy(np.array(image, np.float64)).to(device)[None]
    watch = Watch(double, network, (image.shape[1], image.shape[2]))

    def see(name: str, value: Tensor) -> None:
        array = value.cpu().numpy().reshape(watch.rounding.shapes[name])
        if watch.see(name, array):
            keep(name, array)

    see(network.input.name, x)
    with torch.inference_mode(), _hooks(double, network, see, {}):
        see(network.output.name, double(x))
    return watch


def witness(model: nn.Module, network: Network, image: NDArray[np.floating[Any]], device: str = "cpu") -> Witness:
    """All that `follow` sees, kept."""
    seen: dict[str, Array] = {}
    watch = follow(model, network, image, seen.__setitem__, device)
    values = {node.name: seen[node.name] for node in network.nodes if node.name in seen}
    return Witness(values, {name: watch.rounding.bound(name) for name in values}, tuple(watch.near_ties))


def on_given_inputs(model: nn.Module, network: Network, given: Values) -> dict[str, NDArray[np.floating[Any]]]:
    """The same values as `witness` sees, in the model's own precision, each layer run on the inputs given."""
    parameter = next(model.parameters())
    dtype, device = parameter.dtype, parameter.device
    inputs = {name: torch.from_numpy(np.ascontiguousarray(value)).to(device, dtype) for name, value in given.items()}
    found: dict[str, NDArray[np.floating[Any]]] = {}
    shapes = infer_shapes(network, *given[network.input.name].shape[2:])

    def keep(name: str, value: Tensor) -> None:
        found.setdefault(name, value.cpu().numpy().reshape(shapes[name]))

    with torch.inference_mode(), _hooks(model, network, keep, inputs):
        keep(network.output.name, model(inputs[network.input.name]))
    return found


@contextmanager
def _hooks(
    model: nn.Module, network: Network, keep: Callable[[str, Tensor], None], given: Mapping[str, Tensor]
) -> Iterator[None]:
    """While open: `keep(node, value)` for every value that can be seen, before a value given takes its place: in front
    of whoever reads it, and a choice at once, since what follows from it is no module. Modules see (T, 1, C, H, W), or
    pixels in one axis.
    """
    modules = dict(model.named_modules())

    def reads(names: tuple[str, ...]) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            read = list(zip(names, inputs, strict=False))  # a module may be told that it has no gate
            for name, x in reversed(read):
                keep(name, x)
            replaced = [given[name].reshape(x.shape) if name in given else x for name, x in read]
            return (*replaced, *inputs[len(names) :])

        return hook

    def gives(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
            keep(name, output)
            if not isinstance(network[name], ArgMax) or name not in given:
                return None
            return given[name].reshape(output.shape).to(output.dtype)

        return hook

    handles = []
    for node in _alone(network):
        handles.append(modules[node.modules[0]].register_forward_pre_hook(reads(node.inputs)))
        handles.append(modules[node.modules[-1]].register_forward_hook(gives(node.name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _alone(network: Network) -> list[Node]:
    """Nodes of these kinds whose modules run for them alone: a module that two nodes share runs twice."""
    users = Counter(name for node in network.nodes for name in node.modules)
    kinds = (Conv, Linear, LayerNorm, ArgMax, Neuron)
    return [
        node
        for node in network.nodes
        if isinstance(node, kinds) and node.modules and all(users[name] == 1 for name in node.modules)
    ]


def _bias_terms(model: nn.Module, network: Network) -> dict[str, float]:
    """By convolution with a batch norm, the largest sum of the magnitudes that its folded bias adds up: they may cancel
    there, while torch rounds them one by one."""
    modules: dict[str, Any] = dict(model.named_modules())
    terms = {}
    for node in network.nodes:
        if isinstance(node, Conv) and len(node.modules) == 2:
            conv, norm = (modules[name] for name in node.modules)
            mean, variance, gamma, beta = (
                value.detach().abs() for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            )
            shift = mean if conv.bias is None else mean + conv.bias.detach().abs()
            terms[node.name] = float((beta + shift * gamma / (variance + norm.eps).sqrt()).max())
    return terms
