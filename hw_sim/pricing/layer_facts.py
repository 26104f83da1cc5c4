"""What one layer is and did in one run, as every energy model reads it: geometry, sizes, counts. No torch, no graph.

In: the fields themselves, or a layer of a saved report. Out: LayerFacts, checked, and a few sums over a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import prod
from typing import Any

from esdnet.command.errors import UserError

KINDS = ("conv", "linear", "neuron", "other")  # other: sums, gates, pooling, interpolation, wiring
VALUES = ("spike", "graded", "analog")
COUNTS = (  # sums over all executions
    "events_in", "events_out", "acs", "macs", "nonzero_macs", "neuron_updates", "active_updates", "adds", "muls",
    "activation_words", "spike_bits",
)  # fmt: skip
_SHAPES = {"input_shape": 3, "output_shape": 3, "kernel": 2, "stride": 2}
_WORDS = ("name", "kind", "reads")


@dataclass(frozen=True)
class LayerFacts:
    """One layer of one run. Shapes and sizes are those of one execution; counts are sums over all executions.

    name: unique in its network.  kind: one of KINDS.  reads: what its (first) input is, one of VALUES.
    steps: executions per image, T or 1.  runs: images or tiles that the counts add up.
    input_shape, output_shape: (channels, height, width) of one step; a vector is (n, 1, 1).
    kernel, stride: (height, width).  groups: of a convolution.
    weight_words, bias_words: parameters held, biases apart.  state_words: membranes and currents held.
    leaky: a neuron whose membrane decays (LIF, not IF).
    events_in, events_out: ones that it read, ones that it emitted.  acs: accumulations, one per spike and synapse
    that exists; each reads and writes an accumulator.  macs: multiplications on analog or graded input, dense;
    nonzero_macs: those on values that are not 0 (None: not counted).
    taps: operations of one execution if all input is analog; taps on zero padding are no work.
    neuron_updates: neurons times steps, but for those behind a shut gate; active_updates: those whose input, bias
    included, was not 0, or that fired (None: not counted).
    adds, muls: element-wise work.  activation_words, spike_bits: values moved if every operand moves once.
    """

    name: str
    kind: str
    steps: int = 1
    runs: int = 1
    reads: str = "analog"
    input_shape: tuple[int, ...] = (0, 0, 0)
    output_shape: tuple[int, ...] = (0, 0, 0)
    kernel: tuple[int, ...] = (1, 1)
    stride: tuple[int, ...] = (1, 1)
    groups: int = 1
    weight_words: int = 0
    bias_words: int = 0
    state_words: int = 0
    leaky: bool = False
    events_in: int = 0
    events_out: int = 0
    acs: int = 0
    macs: int = 0
    nonzero_macs: int | None = None
    taps: int = 0
    neuron_updates: int = 0
    active_updates: int | None = None
    adds: int = 0
    muls: int = 0
    activation_words: int = 0
    spike_bits: int = 0

    def __post_init__(self) -> None:
        self._check_values()
        if self.kind not in KINDS:
            raise UserError(f"layer {self.name}: kind {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.reads not in VALUES:
            raise UserError(f"layer {self.name}: reads {self.reads!r}, expected one of {', '.join(VALUES)}")
        if self.reads == "spike" and self.macs:
            raise UserError(f"layer {self.name}: {self.macs} MACs, but it reads spikes; expected ACs")
        if self.reads != "spike" and self.acs:
            raise UserError(f"layer {self.name}: {self.acs} ACs, but it reads {self.reads} values; expected MACs")
        for part, whole in (("active_updates", "neuron_updates"), ("nonzero_macs", "macs")):
            if (getattr(self, part) or 0) > getattr(self, whole):
                raise UserError(
                    f"layer {self.name}: {part} {getattr(self, part)} exceed {whole} {getattr(self, whole)}"
                )

    def _check_values(self) -> None:
        for name, optional in _NUMBERS.items():
            value = getattr(self, name)
            if (isinstance(value, int) and value >= 0) or (value is None and optional):
                continue
            raise UserError(f"layer {self.name}: {name} is {value!r}, expected whole numbers of at least 0")
        for name, length in _SHAPES.items():
            value = getattr(self, name)
            if not isinstance(value, tuple) or any(not isinstance(n, int) or n < 0 for n in value):
                raise UserError(f"layer {self.name}: {name} is {value!r}, expected whole numbers of at least 0")
            if len(value) != length:
                raise UserError(f"layer {self.name}: {name} is {value!r}, expected {length} numbers")

    @property
    def executions(self) -> int:
        """How often the layer ran: its steps, in every run."""
        return self.steps * self.runs

    @property
    def inputs(self) -> int:
        """Elements of its input in one execution."""
        return prod(self.input_shape)

    @property
    def outputs(self) -> int:
        """Elements of its output in one execution."""
        return prod(self.output_shape)

    @property
    def state_accesses(self) -> int:
        """Reads of membranes and currents, and as many writes: one each per update of a neuron that has them."""
        return self.state_words * self.neuron_updates // self.outputs if self.outputs else 0

    @property
    def accumulator_accesses(self) -> int:
        """Reads of accumulators, and as many writes: one each per AC. Sums of MACs stay in a register."""
        return self.acs

    def to_record(self) -> dict[str, Any]:
        """The fields by name, as JSON holds them, and what follows from them."""
        return asdict(self) | {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "parameters": self.weight_words + self.bias_words,
            "accumulator_reads": self.accumulator_accesses,
            "accumulator_writes": self.accumulator_accesses,
        }

    def repeated(self, runs: int) -> LayerFacts:
        """The same layer run on so many images or tiles of its size, each doing the same."""
        counts = {name: getattr(self, name) for name in COUNTS}
        more: dict[str, Any] = {name: None if count is None else count * runs for name, count in counts.items()}
        return replace(self, runs=self.runs * runs, **more)


_NUMBERS = {  # fields that hold one, and whether None is one of them
    item.name: "None" in str(item.type) for item in fields(LayerFacts) if item.name not in (*_WORDS, *_SHAPES)
}


def read_layers(records: Iterable[Mapping[str, Any]]) -> list[LayerFacts]:
    """The layers of a saved report; other keys of a record are ignored.

    Every field must be there: a count that was not made must not become 0. UserError names what is missing.
    """
    names = [item.name for item in fields(LayerFacts)]
    layers = []
    for record in records:
        _check_table(record)
        missing = [name for name in names if name not in record]
        if missing:
            raise UserError(
                f"layer {record.get('name', '?')}: the report lacks {', '.join(missing)};"
                " it was written by a version that did not count them: run energy.py again"
            )
        layers.append(make_layer({name: record[name] for name in names}))
    return layers


def make_layer(record: Mapping[str, Any]) -> LayerFacts:
    """One layer from fields by name (lists become tuples); a field that is not given has its default."""
    _check_table(record)
    known = {item.name for item in fields(LayerFacts)}
    odd = sorted(set(record) - known)
    if odd or not {"name", "kind"} <= set(record):
        raise UserError(f"layer {record.get('name', '?')}: needs name and kind, unknown fields {odd}")
    given: dict[str, Any] = {
        key: tuple(value) if key in _SHAPES and isinstance(value, list) else value for key, value in record.items()
    }
    return LayerFacts(**given)


def _check_table(record: object) -> None:
    if not isinstance(record, Mapping):
        raise UserError(f"a layer is {record!r}, expected its fields by name")


def total(layers: Iterable[LayerFacts], field: str) -> int:
    """A count summed over layers; a count that was not made (None) is a UserError."""
    value = 0
    for layer in layers:
        count = getattr(layer, field)
        if count is None:
            raise UserError(f"layer {layer.name}: {field} was not counted")
        value += count
    return value
