"""The promise of exactness as code: what torch computes in each layer, and how far another executor may be from it.

In: a torch model, its Network and an image; then the values that another executor found, layer by layer, on torch's
inputs. Out: the layers that break the promise, by name, and the largest deviations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.network import Affine, Array, Conv, Linear, Network, Neuron, Node

FLOAT64_OUTPUT = 1e-9  # float64: no spike differs, the output lies within this
FLOAT32_MEMBRANE = 1e-5  # float32, layer by layer: membranes, and how near to the threshold a spike may differ
FREE_RUN_PSNR_DB = 60.0  # float32, whole network: output against torch's, images in [0, 1]

Values = Mapping[str, NDArray[np.floating[Any]]]


def witness(
    model: nn.Module, network: Network, image: NDArray[np.floating[Any]], device: str = "cpu"
) -> dict[str, Array]:
    """What torch computes in float64, by node name: values (T or 1, C, H, W) that a convolution or a neuron reads, what
    these give (convolutions with their batch norm), and the output.

    image: (3, H, W), sides multiples of the network's. The model is left as it is.
    """
    double = copy.deepcopy(model).double().to(device).eval()
    x = torch.from_numpy(np.array(image, np.float64)).to(device)[None]
    seen: dict[str, Array] = {}

    def keep(name: str, value: Tensor) -> None:
        seen[name] = _steps_first(value).cpu().numpy()

    with torch.inference_mode(), _hooks(double, network, keep, {}):
        keep(network.output.name, double(x))
    seen[network.input.name] = x.cpu().numpy()
    return {node.name: seen[node.name] for node in network.nodes if node.name in seen}


def on_given_inputs(model: nn.Module, network: Network, given: Values) -> dict[str, NDArray[np.floating[Any]]]:
    """The same values as `witness` sees, in the model's own precision, each layer run on the inputs given."""
    parameter = next(model.parameters())
    dtype, device = parameter.dtype, parameter.device
    inputs = {name: torch.from_numpy(np.ascontiguousarray(value)).to(device, dtype) for name, value in given.items()}
    found: dict[str, NDArray[np.floating[Any]]] = {}

    def keep(name: str, value: Tensor) -> None:
        found.setdefault(name, _steps_first(value).cpu().numpy())

    with torch.inference_mode(), _hooks(model, network, keep, inputs):
        keep(network.output.name, model(inputs[network.input.name]))
    return found


def _steps_first(value: Tensor) -> Tensor:
    """(T, 1, C, H, W) as torch modules see it, or (1, C, H, W) -> (T or 1, C, H, W)."""
    return value[:, 0] if value.ndim == 5 else value


@contextmanager
def _hooks(
    model: nn.Module, network: Network, keep: Callable[[str, Tensor], None], given: Mapping[str, Tensor]
) -> Iterator[None]:
    """While open: `keep(node, value)` for every value that can be seen, before a value given takes its place."""
    modules = dict(model.named_modules())

    def reads(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> Tensor | None:
            keep(name, inputs[0])
            return given[name].reshape(inputs[0].shape) if name in given else None

        return hook

    def gives(name: str) -> Callable[..., Any]:
        return lambda module, inputs, output: keep(name, output)

    handles = []
    for node in network.nodes:
        if isinstance(node, (Conv, Neuron, Linear)) and node.name in modules:
            handles.append(modules[node.name].register_forward_pre_hook(reads(node.inputs[0])))
            handles.append(_last_module(modules, node).register_forward_hook(gives(node.name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _last_module(modules: Mapping[str, nn.Module], node: Node) -> nn.Module:
    """The module whose output is the node's value: the batch norm where one was folded in."""
    stem, _, index = node.name.rpartition(".")
    follower = modules.get(f"{stem}.{int(index) + 1}") if index.isdigit() else None
    return follower if isinstance(node, Conv) and isinstance(follower, nn.BatchNorm2d) else modules[node.name]


def membranes(neuron: Neuron, current: NDArray[np.floating[Any]], spikes: NDArray[Any]) -> Array:
    """H before the reset, (T, C, H, W) float64, of a neuron that reads `current` and was reset by these `spikes`."""
    found = np.empty(current.shape)
    synapse = kept = np.zeros(current.shape[1:])
    for step, x in enumerate(np.asarray(current, np.float64)):
        synapse = neuron.current_decay * synapse + x
        found[step] = neuron.membrane_decay * kept + neuron.gain * synapse + neuron.bias
        fired = np.asarray(spikes[step], bool)
        if neuron.reset == "to":
            kept = np.where(fired, neuron.reset_value, found[step])
        else:
            kept = found[step] - neuron.reset_value * fired
    return found


def psnr_db(reference: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    """Peak signal to noise ratio of images in [0, 1]; infinite if they are equal."""
    mse = float(np.mean((np.asarray(reference, np.float64) - other) ** 2))
    return float("inf") if mse == 0 else 10 * float(np.log10(1 / mse))


def differing_spikes(
    reference: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, int], str]:
    """Neuron -> how many of its spikes differ (if any), and the first neuron, step and number in words ("" if none).

    Both hold (T, C, H, W) for the same neurons; the order is the reference's.
    """
    counts: dict[str, int] = {}
    first = ""
    for name, expected in reference.items():
        differs = np.asarray(expected, bool) != np.asarray(found[name], bool)
        if not differs.any():
            continue
        counts[name] = int(differs.sum())
        if not first:
            step = int(np.flatnonzero(differs.reshape(len(differs), -1).any(1))[0])
            first = f"{name}, step {step}: {counts[name]} spikes differ"
    return counts, first


@dataclass(frozen=True)
class LayerCheck:
    """How one executor did layer by layer: failures in words, the network's first layer first.

    `spikes`: how many differ (allowed ones included). `membrane`: the largest deviation of a membrane; `margin`: the
    largest distance from the threshold at which a spike differs.
    """

    failures: tuple[str, ...]
    layers: int
    spikes: int
    membrane: float
    margin: float


def check_layers(network: Network, reference: Values, found: Values, tolerance: float = FLOAT32_MEMBRANE) -> LayerCheck:
    """Values that were found on the reference's inputs against the reference's own.

    A membrane may deviate by `tolerance`, a spike may differ where the membrane is that near to the threshold, and any
    other value may deviate by `tolerance` times its largest magnitude, if that is more than 1. KeyError: a value of the
    reference was not found.
    """
    failures: list[str] = []
    differing, deviation, margin = 0, 0.0, 0.0
    for name in (name for name in reference if name != network.input.name):
        node, expected = network[name], np.asarray(reference[name], np.float64)
        error = np.abs(found[name] - expected)
        if isinstance(node, Neuron):
            current = reference[node.inputs[0]]
            exact = membranes(node, current, expected)
            moved = np.abs(membranes(node, found[node.inputs[0]], expected) - exact)
            distance = np.where(error > 0, np.abs(exact - node.threshold), 0.0)
            deviation, margin = max(deviation, float(moved.max())), max(margin, float(distance.max()))
            differing += int((error > 0).sum())
            failures += _failure(network, reference, node.inputs[0], name, "a membrane deviates by", moved, tolerance)
            failures += _failure(
                network,
                reference,
                name,
                name,
                "a spike differs where the membrane is off the threshold by",
                distance,
                tolerance,
            )
        else:
            allowed = tolerance * max(1.0, float(np.abs(expected).max()))
            failures += _failure(network, reference, name, name, "deviates by", error, allowed)
    return LayerCheck(tuple(failures), len(reference) - 1, differing, deviation, margin)


def _failure(
    network: Network, given: Values, layer: str, name: str, what: str, error: Array, allowed: float
) -> list[str]:
    """One line if `error` is anywhere above what is allowed (or no number)."""
    wrong = ~(error <= allowed)
    if not wrong.any():
        return []
    step = int(np.flatnonzero(wrong.reshape(len(wrong), -1).any(1))[0])
    where = layer_names(network, layer, given)
    return [
        f"{where}: {name}, step {step}: {what} {error.max():.3g} in {int(wrong.sum())} places, allowed {allowed:.3g}"
    ]


def layer_names(network: Network, name: str, known: Values | Sequence[str]) -> str:
    """The layers with weights between a node's value and the values known before it; the node if there are none."""
    found: list[str] = []
    waiting, visited = [name], {name}
    while waiting:
        node = network[waiting.pop()]
        if isinstance(node, (Conv, Linear)) or (isinstance(node, Affine) and node.source_parameters):
            found.append(node.name)
        fresh = [source for source in node.inputs if source not in known and source not in visited]
        visited.update(fresh)
        waiting.extend(fresh)
    order = [node.name for node in network.nodes]
    return ", ".join(sorted(found, key=order.index)) or name
