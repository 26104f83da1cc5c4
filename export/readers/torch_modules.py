"""torch and snnTorch modules as nodes. In: the loop of a recorded run. Out: a Network, a node for each module and sum.

One rule per module; what has none is refused by name. Names of modules are names of nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import singledispatchmethod
from math import prod
from typing import Any

import numpy as np
import snntorch
import torch
from torch import Tensor, nn

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import Array, NetworkError
from export.readers.lowering import array
from export.readers.recorded_loop import Loop, Source
from export.readers.recording import PASSING
from export.readers.torch_functions import add_function

NEURONS: tuple[type[nn.Module], ...] = (
    snntorch.Leaky, snntorch.Synaptic, snntorch.Lapicque, snntorch.RLeaky, snntorch.RSynaptic,
)  # fmt: skip
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
KNOWN: tuple[type[nn.Module], ...] = (
    *NEURONS, *NORMS, nn.Linear, nn.Conv1d, nn.Conv2d, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d,
    nn.Flatten, nn.ReLU, *PASSING,
)  # fmt: skip


class Builder:
    """Grows the nodes of one network; a module is built when all that it reads has been."""

    def __init__(self, model: nn.Module, known: dict[str, nn.Module], loop: Loop) -> None:
        self.model, self.known, self.loop = model, known, loop
        self.nodes: dict[str, g.Node] = {}
        self.values: dict[Source, str] = {}  # the node that holds a value
        self.folded = self._norms_to_fold()

    def build(self, name: str, shape: tuple[int, ...], carries: Any) -> Network:
        """The network, for inputs of that shape."""
        channels, height, width = frame_shape(shape)
        self.add(
            g.Input,
            "input",
            [],
            channels=channels,
            size=(height, width),
            carries=carries,
            every_step=not self.loop.static,
        )
        self.values[Source("frame")] = "input"
        for module in self.loop.reads:
            self._build_module(module)
        for number, source in enumerate(self.loop.outputs):
            label = "output" if len(self.loop.outputs) == 1 else f"output{number}"
            self.add(g.Output, label, [self.value(source, every_step=True)])
        unused = [key for key, _ in self.model.named_parameters() if not self._is_used(key)]
        if unused:
            raise NetworkError(f"{unused[0]}: a parameter of a module that the run never called; remove it, or call it")
        nodes = tuple(self.nodes.values())
        return Network(
            name=name,
            nodes=nodes,
            steps=self.loop.steps if self.loop.static else 1,
            model_parameters=sum(node.source_parameters for node in nodes),
            reader="snntorch",
        )

    def add(
        self, kind: type[g.Node], name: str, inputs: list[str], modules: tuple[str, ...] = (), **fields: Any
    ) -> str:
        """Append a node. Its parameters are those of its modules."""
        while name in self.nodes:
            raise NetworkError(f"{name}: two nodes would have that name; rename the module")
        parameters = sum(p.numel() for key in modules for p in self.known[key].parameters()) if modules else 0
        block = modules[0].rpartition(".")[0] if modules else ""
        late = fields.pop("late", ())
        self.nodes[name] = kind(
            name=name,
            inputs=tuple(inputs),
            late=late,
            block=block,
            source_parameters=parameters,
            modules=modules,
            **fields,
        )
        return name

    def value(self, source: Source, every_step: bool) -> str:
        """The node that holds a value; one that is there once for all steps is repeated where a step reads it."""
        if source.kind == "zero":
            raise NetworkError("a module reads zeros at every step; leave it out")
        if source not in self.values:
            if source.kind == "applied":
                self.values[source] = add_function(self, source, every_step)
            elif source.port == "membrane":
                self.values[source] = self.add(g.Membrane, f"{source.name}.membrane", [source.name])
            else:
                raise NetworkError(f"{source.name}: its {source.port} is read, which the graph does not hold")
        name = self.values[source]
        if every_step and self._is_once(source):
            repeated = f"{name}.repeat"
            if repeated not in self.nodes:
                self.add(g.Repeat, repeated, [name])
            return repeated
        return name

    def before(self, source: Source) -> str:
        """The node that holds a value of the step before; it may not be there yet."""
        if source.port != "out":
            raise NetworkError(f"{source.name}: its {source.port} of the step before is read; only its spikes can be")
        conv = [conv for conv, norm in self.folded.items() if norm == source.name]
        return conv[0] if conv else source.name

    def late(self, source: Source) -> tuple[str, ...]:
        """The node's name if a value is read of the step before."""
        return (self.before(source),) if source.kind == "before" else ()

    def _is_once(self, source: Source) -> bool:
        if source.kind == "frame":
            return self.loop.static
        return source.kind == "once" or (source.kind == "applied" and all(map(self._is_once, source.inputs)))

    def _is_used(self, parameter: str) -> bool:
        return any(parameter.startswith(f"{key}.") for key in self.loop.reads)

    def _norms_to_fold(self) -> dict[str, str]:
        """Batch norms by the convolution or matrix whose only reader they are."""
        read = Counter(one for source in (*self.loop.reads.values(), *self.loop.outputs) for one in _leaves(source))
        found = {}
        for name, source in self.loop.reads.items():
            before = self.known.get(source.name) if source.kind in ("now", "once") else None
            weighted = isinstance(before, (nn.Conv1d, nn.Conv2d, nn.Linear)) and read[source.name] == 1
            if isinstance(self.known[name], NORMS) and weighted:
                found[source.name] = name
        return found

    def _build_module(self, name: str) -> None:
        source = self.loop.reads[name]
        once = name in self.loop.once
        read = self.before(source) if source.kind == "before" else self.value(source, every_step=not once)
        made = read if name in self.folded.values() else self.node_of(self.known[name], name, read, self.late(source))
        self.values[Source("once" if once else "now", name)] = made

    @singledispatchmethod
    def node_of(self, module: nn.Module, name: str, x: str, late: tuple[str, ...]) -> str:
        """Add the node of a module that reads node `x`; returns the node that holds what it gives."""
        raise NetworkError(f"{name} ({type(module).__name__}): no rule for this module; add one to export/readers")

    def _weights(self, module: Any, name: str) -> tuple[Array, Array | None, tuple[str, ...]]:
        """Weight and bias, a batch norm behind it folded in: W' = W k, b' = beta + (b - mean) k."""
        weight, bias = array(module.weight), None if module.bias is None else array(module.bias)
        norm_name = self.folded.get(name)
        if norm_name is None:
            return weight, bias, (name,)
        scale, offset = norm_constants(self.known[norm_name], norm_name)
        shifted = offset if bias is None else offset + bias * scale
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), shifted, (name, norm_name)

    @node_of.register
    def _(self, module: nn.Linear, name: str, x: str, late: tuple[str, ...]) -> str:
        weight, bias, modules = self._weights(module, name)
        return self.add(g.Linear, name, [x], modules, weight=weight, bias=bias, late=late)

    @node_of.register(nn.Conv1d)
    @node_of.register(nn.Conv2d)
    def _(self, module: Any, name: str, x: str, late: tuple[str, ...]) -> str:
        if module.padding_mode != "zeros" and any(module.padding):
            raise NetworkError(f"{name}: padding_mode {module.padding_mode!r}, expected 'zeros'")
        weight, bias, modules = self._weights(module, name)
        padding = module.padding
        if isinstance(padding, str):
            wide = [step * (size - 1) for step, size in zip(module.dilation, module.kernel_size, strict=True)]
            if padding == "same" and any(size % 2 for size in wide):
                raise NetworkError(f"{name}: padding 'same' of an even kernel is not the same on both sides")
            padding = tuple(size // 2 if padding == "same" else 0 for size in wide)
        return self.add(
            g.Conv, name, [x], modules, weight=weight[:, :, None] if weight.ndim == 3 else weight, bias=bias, late=late,
            stride=pair(module.stride, 1), padding=pair(padding, 0), dilation=pair(module.dilation, 1),
            groups=module.groups,
        )  # fmt: skip

    @node_of.register(nn.BatchNorm1d)
    @node_of.register(nn.BatchNorm2d)
    def _(self, module: Any, name: str, x: str, late: tuple[str, ...]) -> str:
        scale, offset = norm_constants(module, name)
        return self.add(g.Affine, name, [x], (name,), scale=column(scale), offset=column(offset), late=late)

    @node_of.register(nn.MaxPool1d)
    @node_of.register(nn.MaxPool2d)
    @node_of.register(nn.AvgPool1d)
    @node_of.register(nn.AvgPool2d)
    def _(self, module: Any, name: str, x: str, late: tuple[str, ...]) -> str:
        function = "max" if isinstance(module, (nn.MaxPool1d, nn.MaxPool2d)) else "mean"
        odd = {"ceil_mode": False, "divisor_override": None, "return_indices": False, "dilation": 1}
        for option, usual in odd.items():
            if getattr(module, option, usual) not in (usual, (usual, usual)):
                raise NetworkError(f"{name}: {option}={getattr(module, option)}, expected {usual}")
        padded = bool(np.any(module.padding))
        if function == "mean" and padded and not module.count_include_pad:
            raise NetworkError(f"{name}: a mean that does not count its padding; set count_include_pad=True")
        flat = isinstance(module, (nn.MaxPool1d, nn.AvgPool1d))
        kernel, stride, padding = (
            pair(value if isinstance(value, tuple) else (value,) * (1 if flat else 2), neutral)
            for value, neutral in ((module.kernel_size, 1), (module.stride, 1), (module.padding, 0))
        )
        return self.add(
            g.Pool, name, [x], (name,), function=function, kernel=kernel, stride=stride, padding=padding, late=late
        )

    @node_of.register
    def _(self, module: nn.Flatten, name: str, x: str, late: tuple[str, ...]) -> str:
        if module.start_dim != 1 or module.end_dim != -1:
            raise NetworkError(f"{name}: flattens dimensions {module.start_dim} to {module.end_dim}, expected 1 to -1")
        return self.add(g.Flatten, name, [x], (name,), late=late)

    @node_of.register
    def _(self, module: nn.ReLU, name: str, x: str, late: tuple[str, ...]) -> str:
        return self.add(g.Activation, name, [x], (name,), function="relu", late=late)

    @node_of.register(snntorch.Leaky)
    @node_of.register(snntorch.Synaptic)
    @node_of.register(snntorch.RLeaky)
    @node_of.register(snntorch.RSynaptic)
    def _(self, module: Any, name: str, x: str, late: tuple[str, ...]) -> str:
        inputs, recurrent = [x], isinstance(module, (snntorch.RLeaky, snntorch.RSynaptic))
        check_neuron(module, name)
        if recurrent:
            inputs.append(self._add_recurrent(module, name))
        if isinstance(module, snntorch.RSynaptic) and not module.reset_delay:
            raise NetworkError(f"{name}: RSynaptic with reset_delay=False does not run in snnTorch 1.0")
        current = getattr(module, "alpha", None)
        zero = "zero" if type(module) is snntorch.Leaky else "erase"
        reset = {"subtract": "subtract", "zero": zero, "none": "none"}[module.reset_mechanism]
        return self.add(
            g.Leaky, name, inputs, (name,), late=late, reset=reset, delayed=bool(module.reset_delay),
            beta=self.per_element(name, module.beta.clamp(0, 1)),
            current_decay=None if current is None else self.per_element(name, current.clamp(0, 1)),
            threshold=self.per_element(name, module.threshold),
        )  # fmt: skip

    @node_of.register
    def _(self, module: snntorch.Lapicque, name: str, x: str, late: tuple[str, ...]) -> str:
        """x R (1 / (R C)) dt + (1 - dt / (R C)) U; a factor that is not 1 and not the middle one is a node before."""
        check_neuron(module, name)
        resistance, capacity, dt = (torch.as_tensor(v).double() for v in (module.R, module.C, module.time_step))
        if float(resistance) != 1.0:
            x = self.add(g.Affine, f"{name}.R", [x], scale=array(resistance), late=late)
            late = ()
        gain, decay = 1 / (resistance * capacity), 1 - dt / (resistance * capacity)
        if float(dt) != 1.0:
            x = self.add(g.Affine, f"{name}.gain", [x], scale=array(gain), late=late)
            late, gain = (), dt
        reset = {"subtract": "subtract", "zero": "erase", "none": "none"}[module.reset_mechanism]
        return self.add(
            g.Leaky, name, [x], (name,), late=late, reset=reset, beta=self.per_element(name, decay),
            gain=self.per_element(name, gain), threshold=self.per_element(name, module.threshold),
        )  # fmt: skip

    def _add_recurrent(self, module: Any, name: str) -> str:
        """What a recurrent neuron reads of its own spikes of the step before."""
        inner, label = module.recurrent, f"{name}.recurrent"
        if isinstance(inner, nn.Linear):
            bias = None if inner.bias is None else array(inner.bias)
            return self.add(g.Linear, label, [name], late=(name,), weight=array(inner.weight), bias=bias)
        if isinstance(inner, nn.Conv2d):
            padding = inner.padding if isinstance(inner.padding, tuple) else tuple(s // 2 for s in inner.kernel_size)
            return self.add(
                g.Conv, label, [name], late=(name,), weight=array(inner.weight), padding=padding,
                bias=None if inner.bias is None else array(inner.bias),
            )  # fmt: skip
        return self.add(g.Affine, label, [name], late=(name,), scale=self.per_element(name, inner.V))

    def per_element(self, name: str, values: Tensor) -> Array:
        """A parameter of a neuron so that it broadcasts over (C, H, W): torch aligns it with the last axes."""
        shape = self.loop.shapes[name]
        found = array(values)
        if found.ndim == 0 or found.size == 1:
            return found.reshape(())
        return np.broadcast_to(found, shape).reshape(frame_shape(shape)).copy()


def check_neuron(module: Any, name: str) -> None:
    """NetworkError for what a neuron can be that the graph cannot."""
    if module.inhibition:
        raise NetworkError(f"{name}: inhibition, where one neuron silences the others, has no place in the graph")
    if module.state_quant:
        raise NetworkError(f"{name}: quantised states; read the network without state_quant, and use int8 instead")
    if float(torch.as_tensor(module.graded_spikes_factor).abs().sub(1).max()) != 0:
        raise NetworkError(
            f"{name}: graded spikes (factor {module.graded_spikes_factor}), expected 1; fold it into weights"
        )


def norm_constants(norm: Any, name: str) -> tuple[Array, Array]:
    """Scale and offset of a batch norm at inference, in float64: k = gamma / sqrt(var + eps), beta - mean k."""
    if norm.running_mean is None:
        raise NetworkError(f"{name}: no running statistics; train with track_running_stats=True")
    scale = 1 / np.sqrt(array(norm.running_var) + norm.eps)
    scale = scale if norm.weight is None else array(norm.weight) * scale
    return scale, (0.0 if norm.bias is None else array(norm.bias)) - array(norm.running_mean) * scale


def column(values: Array) -> Array:
    """One number per channel, (C, 1, 1)."""
    return values.reshape(-1, 1, 1)


def pair(values: Any, neutral: int) -> tuple[int, int]:
    """(height, width) of a 2-D or 1-D geometry."""
    numbers = tuple(int(value) for value in values)
    return (neutral, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def frame_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) of a value without batch: (N,) is (N, 1, 1), (C, L) is (C, 1, L)."""
    if not 1 <= len(shape) <= 3 or prod(shape) == 0:
        raise NetworkError(f"input: frames of shape {shape}, expected (N,), (C, L) or (C, H, W)")
    return {1: (shape[0], 1, 1), 2: (shape[0], 1, shape[-1]), 3: tuple(shape)}[len(shape)]  # type: ignore[return-value]


def _leaves(source: Source) -> Iterator[str]:
    """The modules that a value comes from."""
    if source.kind in ("now", "before", "once"):
        yield source.name
    for one in source.inputs:
        yield from _leaves(one)
