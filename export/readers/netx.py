"""Lava-DL's netx files (.net) as layer graphs: integers, bit for bit as Loihi and Lava's fixed-point models compute.

In: a .net of layers input, conv, flatten, dense, dense_rec with LOIHI or CUBA neurons. Out: a Network whose weights are
the file's integers, and whose neurons are Loihi's. As in Lava, every layer reads what the layer before sent a step ago,
biases are there from the first step on, and with a reset interval the n-th layer of neurons is reset n steps later.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np

from esdnet.command.errors import UserError
from export.graph import nodes as g
from export.graph.loihi import BIAS_LIMIT, DECAY_BITS, THRESHOLD_BITS
from export.graph.network import Network
from export.graph.nodes import Array, NetworkError

TYPES = ("input", "conv", "flatten", "dense", "dense_rec")
NEURONS = ("LOIHI", "CUBA")
DECAYS = 2**DECAY_BITS  # a decay of 4096 keeps nothing
BIASES = (-BIAS_LIMIT - 1, BIAS_LIMIT)

Layer = Mapping[str, Any]


def read_netx(path: str | Path, reset_interval: int | None = None, reset_offset: int = 0) -> Network:
    """The Network of a .net file; it takes spikes for every step, (T, C, H, W): what its input layer sends.

    reset_interval, reset_offset: as netx.Network takes them; None: states are never reset. UserError, one line: a file
    that cannot be read; NetworkError: a layer that cannot be expressed.
    """
    layers = _load(Path(path))
    builder = _Builder(Path(path).stem, reset_interval, reset_offset)
    for number, layer in enumerate(layers):
        builder.add(number, layer)
    return builder.network()


def _load(path: Path) -> list[Layer]:
    try:
        with h5py.File(path, "r") as file:
            found = _read(file)
    except OSError as error:
        raise UserError(f"{path}: not an HDF5 file ({str(error).splitlines()[0][:60]})") from error
    layers = found.get("layer")
    if not isinstance(layers, dict) or sorted(layers, key=_number) != [str(number) for number in range(len(layers))]:
        raise UserError(f"{path}: no layers 0, 1, ..., expected a .net file as lava.lib.dl writes it")
    return [layers[str(number)] for number in range(len(layers))]


def _number(name: str) -> int:
    return int(name) if name.isdigit() else -1


def _read(group: Any) -> dict[str, Any]:
    return {key: _read(item) if isinstance(item, h5py.Group) else item[()] for key, item in group.items()}


class _Builder:
    """The nodes so far, and which of them the next layer reads."""

    def __init__(self, name: str, reset_interval: int | None, reset_offset: int) -> None:
        self.name, self.reset_interval, self.reset_offset = name, reset_interval, reset_offset
        self.nodes: list[g.Node] = []
        self.last = ""
        self.shape: tuple[int, int, int] = (0, 0, 0)
        self.neurons = 0  # layers with neurons so far, the input among them

    def network(self) -> Network:
        if len(self.nodes) < 2:
            raise NetworkError(f"{self.name}: no layer with neurons, expected conv or dense layers")
        self.nodes.append(g.Output(name="output", inputs=(self.last,)))
        parameters = sum(node.source_parameters for node in self.nodes)
        return Network(name=self.name, nodes=tuple(self.nodes), steps=1, model_parameters=parameters, reader="netx")

    def add(self, number: int, layer: Layer) -> None:
        """The nodes of one layer."""
        kind = _word(layer.get("type", ""))
        name = f"{number}.{kind}"
        if kind not in TYPES:
            _refuse(name, f"a layer of type {kind!r}", ", ".join(TYPES), "netx itself runs no other")
        if "delay" in layer:
            _refuse(name, "delays of synapses", "none", "train without them")
        if number == 0 or kind == "input":
            self._add_input(name, layer, kind, number)
            if kind == "input":
                return
        if kind == "flatten":
            self.nodes.append(g.Flatten(name=name, inputs=(self.last,), block=name))
            self.last, self.shape = name, (int(np.prod(self.shape)), 1, 1)
            return
        sums = self._add_conv(name, layer) if kind == "conv" else self._add_dense(name, layer, kind)
        self._add_neuron(name, layer, sums)

    def _add_input(self, name: str, layer: Layer, kind: str, number: int) -> None:
        if number:
            _refuse(name, f"an input as layer {number}", "as layer 0", "netx files begin with it")
        if kind != "input":
            _refuse(name, "no input layer", "one as layer 0, which states the shape", "write the file with one")
        self.shape = _shape(name, layer)
        channels, height, width = self.shape
        self.nodes.append(
            g.Input(name="input", channels=channels, size=(height, width), carries="spike", every_step=True)
        )
        self.last, self.neurons = "input", int("neuron" in layer)

    def _add_conv(self, name: str, layer: Layer) -> str:
        weight = _integers(name, layer, "weight")
        stride, padding, dilation = (_pair(name, layer, key) for key in ("stride", "padding", "dilation"))
        self.nodes.append(
            g.Conv(
                name=f"{name}.weight",
                inputs=(self.last,),
                late=(self.last,),
                block=name,
                weight=weight,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=int(layer.get("groups", 1)),
                source_parameters=weight.size,
            )
        )
        self.shape = _shape(name, layer)
        return f"{name}.weight"

    def _add_dense(self, name: str, layer: Layer, kind: str) -> str:
        outputs = int(np.prod(np.atleast_1d(layer["shape"])))
        if self.shape[1:] != (1, 1):
            _refuse(name, f"a matrix on {self.shape}", "a vector", "put a flatten layer before it")
        weight = _integers(name, layer, "weight").reshape(outputs, -1)
        self.nodes.append(
            g.Linear(
                name=f"{name}.weight",
                inputs=(self.last,),
                late=(self.last,),
                block=name,
                weight=weight,
                source_parameters=weight.size,
            )
        )
        self.shape = (outputs, 1, 1)
        if kind == "dense":
            return f"{name}.weight"
        again = _integers(name, layer, "weight_rec").reshape(outputs, -1)
        own = f"{name}.neuron"
        self.nodes += [
            g.Linear(
                name=f"{name}.weight_rec",
                inputs=(own,),
                late=(own,),
                block=name,
                weight=again,
                source_parameters=again.size,
            ),
            g.Add(name=f"{name}.sum", inputs=(f"{name}.weight", f"{name}.weight_rec"), block=name),
        ]
        return f"{name}.sum"

    def _add_neuron(self, name: str, layer: Layer, sums: str) -> None:
        neuron = layer.get("neuron")
        if not isinstance(neuron, dict):
            _refuse(name, "no neuron", "LOIHI or CUBA", "write the layer with its neuron")
        kind = _word(neuron["type"])
        if kind not in NEURONS:
            _refuse(name, f"{kind} neurons", " or ".join(NEURONS), "train with slayer.block.cuba")
        if neuron.get("gradedSpike", False) or "messageBits" in neuron:
            _refuse(name, "graded spikes", "0 and 1", "train without graded spikes")
        if int(neuron.get("refDelay", 1)) != 1 or int(neuron.get("wgtExp", 0)) != 0:
            _refuse(name, "a refractory delay or weight exponent", "refDelay 1 and wgtExp 0", "export it so")
        bias = _integers(name, layer, "bias") if "bias" in layer else np.zeros(1)
        if bias.min() < BIASES[0] or bias.max() > BIASES[1]:
            _refuse(name, f"biases up to {np.abs(bias).max():g}", "13 bits", "train with smaller ones")
        self.nodes.append(
            g.LoihiNeuron(
                name=f"{name}.neuron",
                inputs=(sums,),
                block=name,
                bias=bias.reshape(-1, 1, 1),
                fires=">",
                threshold=np.array(float(_number_in(name, neuron, "vThMant", 0, 2**THRESHOLD_BITS - 1))),
                current_decay=_number_in(name, neuron, "iDecay", 0, DECAYS),
                membrane_decay=_number_in(name, neuron, "vDecay", 0, DECAYS),
                reset_interval=self.reset_interval or 0,
                reset_offset=(self.reset_offset + self.neurons) % self.reset_interval if self.reset_interval else 0,
                source_parameters=bias.size if "bias" in layer else 0,
            )
        )
        self.last, self.neurons = f"{name}.neuron", self.neurons + 1


def _refuse(name: str, found: str, expected: str, remedy: str) -> NoReturn:
    raise NetworkError(f"{name}: {found}, expected {expected}; {remedy}")


def _word(value: Any) -> str:
    first = np.ravel(value)[0] if np.size(value) else ""
    return first.decode() if isinstance(first, bytes) else str(first)


def _shape(name: str, layer: Layer) -> tuple[int, int, int]:
    sides = [int(side) for side in np.atleast_1d(layer["shape"])]
    if not 1 <= len(sides) <= 3 or min(sides) < 1:
        _refuse(name, f"shape {sides}", "(C, H, W), or (N,)", "write it so")
    channels, height, width = [*sides, 1, 1][:3]
    return channels, height, width


def _pair(name: str, layer: Layer, key: str) -> tuple[int, int]:
    values = [int(value) for value in np.atleast_1d(layer[key])]
    if len(values) > 2:
        _refuse(name, f"{key} {values}", "two numbers", "write (height, width)")
    return values[0], values[-1]


def _number_in(name: str, neuron: Layer, key: str, low: int, high: int) -> int:
    value = float(neuron[key])
    if value != int(value) or not low <= value <= high:
        _refuse(name, f"{key} {value:g}", f"a whole number from {low} to {high}", "export it in Loihi's range")
    return int(value)


def _integers(name: str, layer: Layer, key: str) -> Array:
    """Whole numbers; weights as Loihi's synapses hold them: 8 bits, or twice as much where all are even."""
    if key not in layer:
        _refuse(name, f"no {key}", "one", "write the layer with it")
    values = np.array(layer[key], np.float64)
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        _refuse(name, f"a {key} that is no whole number", "integers", "quantise it as slayer's export does")
    even = not (values % 2).any()
    low, high = (-256, 254) if even else (-128, 127)
    if key.startswith("weight") and (values.min() < low or values.max() > high):
        _refuse(name, f"weights from {values.min():g} to {values.max():g}", f"{low} to {high}", "quantise to 8 bits")
    return values
