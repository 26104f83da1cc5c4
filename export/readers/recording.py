"""A run of a torch module, recorded: which module read what at which step, through which functions in between.

In: a module, a way to run it, and its input. Out: every call of the modules that a graph knows, in order, with where
its inputs came from. Python ran the model as it is: loops over time, states passed by hand and hidden ones alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from export.graph.nodes import NetworkError

PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)  # modules that hand on what they read, at inference
UNCHANGED = {  # functions that hand on the values they read
    "clone", "detach", "contiguous", "to", "float", "double", "requires_grad_", "dropout", "alpha_dropout", "type_as",
    "cpu",
}  # fmt: skip
ABOUT = {  # functions that ask about a tensor, or make one that holds nothing of it
    "size", "dim", "shape", "__get__", "numel", "zeros_like", "empty_like", "ones_like", "rand_like", "new_zeros",
    "is_floating_point", "__len__", "element_size", "stride", "is_contiguous", "ndimension", "get_device", "item",
    "__bool__", "new_tensor", "__format__", "__repr__", "equal", "data_ptr", "__hash__", "is_complex", "type", "tolist",
    "numpy", "storage_offset", "untyped_storage", "any",
}  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """The input: of one step, or all steps of it (None)."""

    step: int | None


@dataclass(frozen=True)
class Given:
    """A tensor that nothing recorded made: a first state. `zero`: whether it holds zeros alone."""

    zero: bool


@dataclass(frozen=True)
class Value:
    """What a call of a module gave: its spikes or numbers ('out'), or a neuron's membrane ('membrane')."""

    module: str
    call: int
    port: str = "out"


@dataclass(frozen=True)
class Applied:
    """What a function made of values; `options`: its other arguments."""

    function: str
    inputs: tuple[Origin, ...]
    options: tuple[Any, ...] = ()


Origin = Frame | Given | Value | Applied


@dataclass
class Call:
    """One call of a module: what it read, and the shape of what it gave, batch included."""

    inputs: tuple[Origin, ...]
    states: tuple[Origin, ...]
    shape: tuple[int, ...]


@dataclass
class Recording:
    """calls: by module name, in the order of the first calls. spikes: what each neuron fired, one tensor per call.
    outputs: where what the run returned came from, stream by stream: one tensor of all steps, or one per step."""

    calls: dict[str, list[Call]] = field(default_factory=dict)
    spikes: dict[str, list[Tensor]] = field(default_factory=dict)
    outputs: tuple[tuple[Origin, ...], ...] = ()


class Recorder(TorchFunctionMode):
    """While it is active, follows tensors from the input through known modules and functions."""

    def __init__(self, known: Mapping[str, nn.Module], neurons: tuple[type[nn.Module], ...], given: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known, self.neurons, self.recording = known, neurons, Recording()
        self._inside = 0
        self._alive: list[Tensor] = []  # so that no tensor gets the identity of one that is gone
        self._origins: dict[int, Origin] = {}
        self.given = given
        self._note(given, Frame(None))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "float" and isinstance(args[0], Tensor):
            return args[0].double()  # surrogates make float32 of spikes, whatever the model computes in
        result = func(*args, **(kwargs or {}))
        if not self._inside:
            self._follow(func, args, kwargs or {}, result)
        return result

    def _note(self, tensor: Tensor, origin: Origin) -> None:
        self._alive.append(tensor)
        self._origins[id(tensor)] = origin

    def origin(self, tensor: Tensor) -> Origin:
        """Where a tensor comes from."""
        found = self._origins.get(id(tensor))
        if found is None and tensor.shape == self.given.shape[1:] and tensor.stride() == self.given.stride()[1:]:
            return self._frame(tensor)
        return Given(zero=not bool(tensor.any())) if found is None else found

    def _frame(self, tensor: Tensor) -> Origin:
        """A frame of the input, by where it lies in memory: torch does not report x[step] to modes."""
        step, rest = divmod(tensor.storage_offset(), self.given.stride(0))
        if rest or tensor.untyped_storage().data_ptr() != self.given.untyped_storage().data_ptr():
            return Given(zero=not bool(tensor.any()))
        return Frame(step)

    def _follow(self, func: Any, args: Any, options: dict[str, Any], result: Any) -> None:
        name = getattr(func, "__name__", str(func))
        tensors = [one for one in _flat(args) if isinstance(one, Tensor)] + [
            one for one in _flat(list(options.values())) if isinstance(one, Tensor)
        ]
        if name in ABOUT or all(isinstance(self.origin(tensor), Given) for tensor in tensors):
            return
        if name in UNCHANGED:
            if result is not tensors[0]:
                self._note(result, self.origin(tensors[0]))
        elif name in ("unbind", "__getitem__", "split", "chunk") and self.origin(tensors[0]) == Frame(None):
            self._follow_frames(name, args, result)
        elif isinstance(result, Tensor):
            rest = tuple(_plain(one) for one in args if not _has_tensor(one)) + tuple(
                (key, _plain(value)) for key, value in sorted(options.items()) if not _has_tensor(value)
            )
            before = tuple(self.origin(tensor) for tensor in tensors)
            shapes = tuple(tuple(tensor.shape) for tensor in tensors)
            self._note(result, Applied(name, before, (rest, shapes, tuple(result.shape))))

    def _follow_frames(self, name: str, args: Any, result: Any) -> None:
        """Steps of the input, one by one."""
        if name == "unbind":
            for step, one in enumerate(result):
                self._note(one, Frame(step))
            return
        index = args[1] if name == "__getitem__" else None
        if isinstance(index, tuple) and index and all(one == slice(None) for one in index[1:]):
            index = index[0]
        if not isinstance(index, int):
            raise NetworkError(f"input: cut by {name}[{index}], expected one step after the other along the first axis")
        self._note(result, Frame(index % len(args[0])))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on the known modules."""
        handles = []
        for name, module in self.known.items():
            handles.append(module.register_forward_pre_hook(self._enters))
            handles.append(module.register_forward_hook(self._leaves(name)))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enters(self, module: nn.Module, inputs: Any) -> None:
        self._inside += 1

    def _leaves(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._inside -= 1
            if self._inside:  # part of another known module
                return
            if isinstance(module, PASSING):
                self._note(output, self.origin(inputs[0]))
                return
            calls = self.recording.calls.setdefault(name, [])
            outputs = output if isinstance(output, tuple) else (output,)
            origins = tuple(self.origin(one) for one in inputs if isinstance(one, Tensor))
            calls.append(Call(origins[:1], origins[1:], tuple(outputs[0].shape)))
            if isinstance(module, self.neurons):
                self.recording.spikes.setdefault(name, []).append(outputs[0].detach())
            ports = ("out", "current", "membrane") if len(outputs) == 3 else ("out", "membrane")
            for port, tensor in zip(ports, outputs, strict=False):
                self._note(tensor, Value(name, len(calls) - 1, port))

        return hook


def record(
    run: Callable[[Tensor], Any], given: Tensor, known: Mapping[str, nn.Module], neurons: tuple[type[nn.Module], ...]
) -> Recording:
    """Run once, without gradients. What it returns may be a tensor of all steps, a list of one tensor per step, a tuple
    of these, or a list of one tuple per step."""
    recorder = Recorder(known, neurons, given)
    with torch.no_grad(), _made_in(given.dtype), recorder.watching():
        returned = run(given)
    streams = [[recorder.origin(one) for one in stream] for stream in _streams(returned)]
    recorder.recording.outputs = tuple(map(tuple, streams))
    return recorder.recording


@contextmanager
def _made_in(dtype: torch.dtype) -> Iterator[None]:
    """First states that a model makes are of this dtype too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.set_default_dtype(before)  # type: ignore[no-untyped-call]


def _streams(returned: Any) -> list[list[Tensor]]:
    if isinstance(returned, Tensor):
        return [[returned]]
    if isinstance(returned, list) and returned and all(isinstance(one, Tensor) for one in returned):
        return [returned]
    if isinstance(returned, list) and returned and all(isinstance(one, tuple) for one in returned):
        return [stream for position in zip(*returned, strict=True) for stream in _streams(list(position))]
    if isinstance(returned, tuple):
        return [stream for one in returned for stream in _streams(one)]
    raise NetworkError(f"run: returned {type(returned).__name__}, expected tensors: what the last layers give")


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _has_tensor(value: Any) -> bool:
    return any(isinstance(one, Tensor) for one in _flat([value]))


def _plain(value: Any) -> Any:
    """A value that can be compared and hashed."""
    return tuple(_plain(one) for one in value) if isinstance(value, (list, tuple)) else value
