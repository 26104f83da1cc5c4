"""snnTorch networks: a module as it runs becomes a layer graph, checked against that run spike for spike.

In: a torch module of snnTorch neurons and an input. It is run once, in float64, and the run is recorded; neither
torch.fx nor torch.export can trace such modules. Out: a Network that fires the same spikes, or a refusal that says why.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import snntorch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graph.frames import check_numbers
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.graph.stream import run_once
from export.readers.recorded_loop import fold
from export.readers.recording import Recording, record
from export.readers.torch_modules import KNOWN, NEURONS, Builder

Run = Callable[[nn.Module, Tensor], Any]
InputKind = Literal["analog", "spike"]


def read_snntorch(
    module: nn.Module,
    frames: NDArray[Any],
    run: Run | None = None,
    input_kind: InputKind | None = None,
    name: str = "network",
) -> Network:
    """The layer graph of a snnTorch module, as it runs on `frames`.

    `frames`: (T, *shape), a frame for every step, or one frame (*shape,) for a module that shows it to itself at every
    step. `run(module, frames)` runs the module on a tensor (T, 1, *shape) of float64, or (1, *shape), and returns what
    its last layers give, all steps of it; without it the module is called with all steps, then step by step, then with
    the one frame, and that way is taken that calls its neurons once a step. Spikes are told by their producer:
    `input_kind` says what the input is, by default spikes if its dtype is bool.

    The network is run on the same input and must fire the recorded spikes, all of them. NetworkError names what has no
    place in a graph, and where the two first differ.
    """
    kind = input_kind or ("spike" if frames.dtype == bool else "analog")
    model, known, recording, static = _run(module, frames, run, name)
    loop = fold(recording, static)
    network = Builder(model, known, loop).build(name, tuple(frames.shape[not static :]), kind)
    _check(network, frames, recording)
    return network


def recorded_spikes(module: nn.Module, run: Run | None, frames: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """What every neuron of the module fires in float64, by name: bool (T, *shape). No graph is made."""
    _, _, recording, _ = _run(module, frames, run, type(module).__name__)
    return {name: torch.cat(steps).numpy() != 0 for name, steps in recording.spikes.items()}


def _run(
    module: nn.Module, frames: NDArray[Any], run: Run | None, name: str
) -> tuple[nn.Module, dict[str, nn.Module], Recording, bool]:
    """A copy of the module in float64, the modules that are known, their run, whether it was given one frame."""
    check_numbers(frames)
    model = _copy(module).double().cpu().eval()
    known = {key: one for key, one in model.named_modules() if isinstance(one, KNOWN)}
    _check_neurons(model, name)
    given = torch.from_numpy(np.ascontiguousarray(frames)).double()
    return model, known, *_recorded(model, known, given, run, name)


def _check_neurons(model: nn.Module, name: str) -> None:
    """NetworkError where there is no neuron, or one that the graph does not have."""
    known = ", ".join(one.__name__ for one in NEURONS)
    neurons = {key: one for key, one in model.named_modules() if isinstance(one, snntorch.SpikingNeuron)}
    for key, one in neurons.items():
        if type(one) not in NEURONS:
            raise NetworkError(f"{key} ({type(one).__name__}): no rule for this neuron, expected one of {known}")
    if not neurons:
        raise NetworkError(f"{name}: holds no snnTorch neuron, expected some of {known}")


def _copy(module: nn.Module) -> nn.Module:
    """A copy that shares nothing. What a training run left in the neurons hangs on its gradients, and is copied without
    them: torch refuses to copy such tensors."""
    held = [*module.buffers(), *(value for part in module.modules() for value in vars(part).values())]
    left = {id(one): one.detach().clone() for one in held if isinstance(one, Tensor) and not one.is_leaf}
    return copy.deepcopy(module, left)


def _recorded(
    model: nn.Module, known: dict[str, nn.Module], given: Tensor, run: Run | None, name: str
) -> tuple[Recording, bool]:
    """The run, and whether it was given one frame for all steps."""
    if run is not None:
        _rest(known)
        recording = record(lambda x: run(model, x), given[:, None], known, NEURONS)
        return recording, not _calls_neurons(recording, known, len(given))
    ways: list[tuple[str, Callable[[Tensor], Any], Tensor, bool]] = [
        ("all steps at once", model, given[:, None], False),
        ("step by step", lambda x: [model(frame) for frame in x], given[:, None], False),
        ("one frame", model, given[None], True),
    ]
    why = []
    for way, call, x, static in ways:
        _rest(known)
        try:
            recording = record(call, x, known, NEURONS)
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            why.append(f"{way}: {str(error).splitlines()[0][:80]}")
            continue
        if _calls_neurons(recording, known, None if static else len(given)):
            return recording, static
        if not static and _calls_neurons(recording, known, 2 * len(given)):
            raise NetworkError(f"{name}: its neurons are called twice a step, expected once; give each use its own")
        why.append(f"{way}: neurons are not called once a step")
    raise NetworkError(
        f"{name}: cannot be run on an input of shape {tuple(given.shape)} ({'; '.join(why)}); give a function that"
        " runs it"
    )


def _calls_neurons(recording: Recording, known: dict[str, nn.Module], steps: int | None) -> bool:
    """Whether all neurons were called equally often: `steps` times, or where that is None at least twice."""
    numbers = {len(recording.calls.get(key, ())) for key, one in known.items() if isinstance(one, NEURONS)}
    return len(numbers) == 1 and (numbers == {steps} if steps is not None else min(numbers) > 1)


def _rest(known: dict[str, nn.Module]) -> None:
    """States as they are before the first step."""
    for module in known.values():
        if isinstance(module, snntorch.SpikingNeuron):
            module.reset_mem()


def _check(network: Network, frames: NDArray[Any], recording: Recording) -> None:
    """NetworkError unless the graph fires what the module fired."""
    _, found = run_once(network, frames)
    for name, expected in recording.spikes.items():
        for step, (mine, theirs) in enumerate(zip(found[name], expected, strict=True)):
            differ = int((mine.reshape(-1) != (theirs.numpy().reshape(-1) != 0)).sum())
            if differ:
                raise NetworkError(
                    f"{name}: {differ} spikes of step {step} differ between the module and its graph; a membrane may"
                    " lie within rounding of its threshold (a folded batch norm moves it by an ulp); try another input"
                )
