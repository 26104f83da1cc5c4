"""One time step of any network as an ONNX model: a frame and all states in, the outputs and all states out.

In: a Network with a frame for every step, or one that shows itself the same frame at every step. Out: a ModelProto
whose values bear the names of the nodes; it runs for any number of steps, cycles included, since what is read one step
late is a state. A network that looks at all steps at once has no such model, and is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from itertools import product

import numpy as np
import onnx
from onnx import helper

from export.graph import loihi
from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import Array, NetworkError
from export.graph.rules import refuse_gates
from export.graph.schedule import needs_all_steps
from export.targets.onnx.graph import END, Graph, Precision
from export.targets.onnx.write import IR_VERSION, OPSET, emit

BEFORE, AFTER = "/before", "/after"  # behind the name of a state: as a step finds it, and as it leaves it


def to_step_model(network: Network, precision: Precision = "float32") -> onnx.ModelProto:
    """One step: frame (1, C, H, W) of `precision`, spikes as 0 and 1, and every state NAME/before in; the outputs and
    every NAME/after out. `first_states` has the states before the first step. NetworkError names a node without a rule.
    """
    refuse_gates(network, "ONNX, one step")
    for node in network.nodes:
        if needs_all_steps(node) and not isinstance(node, g.Repeat):
            raise NetworkError(f"ONNX: {node.name} ({node.kind}): looks at all steps, which one step does not have")
    graph = StepGraph(network.with_steps(1), precision)
    for name in sorted({name for node in network.nodes for name in node.late}):
        graph.state(f"{name}/value", np.zeros(graph.shapes[name][1:]))
    for node in network.nodes:
        inputs = [f"{name}/value{BEFORE}" if name in node.late else graph.values[name] for name in node.inputs]
        graph.values[node.name] = step(node, graph, inputs)
    for name in {name for node in network.nodes for name in node.late}:
        graph.keep(f"{name}/value", graph.values[name])
    return _model(network, graph)


def first_states(model: onnx.ModelProto) -> dict[str, Array]:
    """The states before the first step, by the name of the input that takes each."""
    kept = {item.key: item.value for item in model.metadata_props}
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    return {name: constants[first] for name, first in kept.items() if name.endswith(BEFORE)}


class StepGraph(Graph):
    """The graph of one step, and its states: name -> ONNX name of what the step leaves."""

    def __init__(self, network: Network, precision: Precision) -> None:
        super().__init__(network, precision)
        self.first: dict[str, str] = {}
        self.left: dict[str, str] = {}

    def state(self, name: str, first: Array) -> str:
        """A state that begins as `first`, (C, H, W) or (D, C, H, W); returns the ONNX name of what a step finds."""
        frames = first if first.ndim == 4 else first[None]
        self.first[name] = self.number(f"{name}/first", frames)
        return name + BEFORE

    def keep(self, name: str, value: str) -> None:
        """What a step leaves of a state."""
        self.left[name] = self.op("Identity", [value], name + AFTER)


def _model(network: Network, graph: StepGraph) -> onnx.ModelProto:
    def info(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, graph.element, list(shape))

    sizes = {one.name: list(one.dims) for one in graph.constants}
    inputs = [info(network.input.name, (1, *graph.shapes[network.input.name][1:]))]
    inputs += [info(name + BEFORE, sizes[first]) for name, first in graph.first.items()]
    outputs = [info(node.name, (1, *graph.shapes[node.name][1:])) for node in network.outputs]
    outputs += [info(name, sizes[graph.first[state]]) for state, name in graph.left.items()]
    made = helper.make_graph(graph.nodes, network.name, inputs, outputs, graph.constants)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION, producer_name="esdnet-deploy")
    facts = {"precision": str(graph.dtype), "parameters": str(network.model_parameters)}
    helper.set_model_props(model, facts | {name + BEFORE: first for name, first in graph.first.items()})
    return model


@singledispatch
def step(node: g.Node, graph: StepGraph, inputs: Sequence[str]) -> str:
    """Add the operators of one node for one step; what has no state is as in the model of all steps."""
    return emit(node, graph, inputs)


@step.register
def _(node: g.Input, graph: StepGraph, inputs: Sequence[str]) -> str:
    return node.name


@step.register(g.Output)
@step.register(g.Repeat)
def _(node: g.Node, graph: StepGraph, inputs: Sequence[str]) -> str:
    return graph.op("Identity", inputs, node.name)


@step.register
def _(node: g.Membrane, graph: StepGraph, inputs: Sequence[str]) -> str:
    return graph.op("Identity", [f"{node.inputs[0]}/membrane{AFTER}"], node.name)


@step.register
def _(node: g.Flatten, graph: StepGraph, inputs: Sequence[str]) -> str:
    return graph.op("Reshape", [inputs[0], graph.integers("/vector", [1, -1, 1, 1])], node.name)


@step.register
def _(node: g.Threshold, graph: StepGraph, inputs: Sequence[str]) -> str:
    return _fire(node, graph, inputs[0], node.threshold, ">", node.name)


@step.register
def _(node: g.Pool, graph: StepGraph, inputs: Sequence[str]) -> str:
    """Shifted copies, one for each place of the window, added or compared: in the order that torch adds them."""
    fill = -np.inf if node.function == "max" else 0.0
    pads = graph.integers(f"{node.name}/pads", [0, 0, *node.padding, 0, 0, *node.padding])
    padded = graph.op("Pad", [inputs[0], pads, graph.number(f"{node.name}/fill", fill)], f"{node.name}/padded")
    sizes = graph.shapes[node.name][2:]
    taps = []
    for place in product(*map(range, node.kernel)):
        spans = [
            (first, min(END, first + (size - 1) * stride + 1), stride)
            for first, size, stride in zip(place, sizes, node.stride, strict=True)
        ]
        taps.append(graph.slice(padded, f"{node.name}/tap{place[0]}.{place[1]}", [2, 3], spans))
    joined = taps[0]
    for number, tap in enumerate(taps[1:]):
        joined = graph.op("Max" if node.function == "max" else "Add", [joined, tap], f"{node.name}/joined{number}")
    if node.function != "mean":
        return graph.op("Identity", [joined], node.name)
    return graph.op("Div", [joined, graph.number(f"{node.name}/size", float(len(taps)))], node.name)


@step.register
def _(node: g.Delay, graph: StepGraph, inputs: Sequence[str]) -> str:
    """The last frames, newest first; every element takes its own."""
    shape = graph.shapes[node.name][1:]
    longest = int(node.steps.max())
    if not longest:
        return graph.op("Identity", inputs, node.name)
    before = graph.state(node.name, np.zeros((longest, *shape)))
    frames = graph.op("Concat", [inputs[0], before], f"{node.name}/frames", axis=0)
    graph.keep(node.name, graph.slice(frames, f"{node.name}/newest", [0], [(0, longest, 1)]))
    steps = np.broadcast_to(node.steps, shape).astype(np.int64)[None]
    return graph.op("GatherElements", [frames, graph.whole(f"{node.name}/steps", steps)], node.name, axis=0)


@step.register
def _(node: g.Neuron, graph: StepGraph, inputs: Sequence[str]) -> str:
    shape, name = graph.shapes[node.name][1:], node.name
    current, kept = inputs[0], graph.state(f"{name}/membrane", np.zeros(shape))
    if node.current_decay:
        before = graph.state(f"{name}/current", np.zeros(shape))
        current = _plus(graph, current, _times(graph, before, node.current_decay, f"{name}/decayed"), f"{name}/I")
        graph.keep(f"{name}/current", current)
    drive = _times(graph, current, node.gain, f"{name}/gained")
    drive = _shifted(graph, drive, node.bias, f"{name}/biased")
    membrane = _plus(graph, drive, _times(graph, kept, node.membrane_decay, f"{name}/leaked"), f"{name}/U")
    fired = _fire(node, graph, membrane, node.threshold, node.fires, name)
    reset = graph.number(f"{name}/reset", node.reset_value)
    if node.reset == "by":
        after = graph.op("Sub", [membrane, graph.op("Mul", [fired, reset], f"{name}/taken")], f"{name}/reduced")
    else:
        after = graph.op("Where", [f"{name}/fired", reset, membrane], f"{name}/reduced")
    graph.keep(f"{name}/membrane", after)
    return fired


@step.register
def _(node: g.LoihiNeuron, graph: StepGraph, inputs: Sequence[str]) -> str:
    if node.reset_interval:
        raise NetworkError(f"ONNX: {node.name} (loihineuron): a reset every {node.reset_interval} steps, expected none")
    if graph.dtype != np.float64:
        raise NetworkError(f"ONNX: {node.name} (loihineuron): integers of 36 bits, expected float64, which holds them")
    name, shape, limit = node.name, graph.shapes[node.name][1:], float(loihi.STATE_LIMIT)
    shifted = 2.0**loihi.CURRENT_SHIFT
    before = graph.state(f"{name}/current", np.zeros(shape))
    kept = _toward_zero(graph, before, 1 - node.current_decay / 2**loihi.DECAY_BITS, f"{name}/I")
    current = _plus(graph, kept, _times(graph, inputs[0], shifted, f"{name}/shifted"), f"{name}/wide")
    one, double = graph.number(f"{name}/limit", limit), graph.number(f"{name}/double", 2 * limit)
    for sign, compare, change in (("over", "Greater", "Sub"), ("under", "LessOrEqual", "Add")):
        bound = one if sign == "over" else graph.number(f"{name}/low", -limit)
        beyond = graph.op(compare, [current, bound], f"{name}/{sign}")
        moved = graph.op(change, [current, double], f"{name}/{sign}/moved")
        current = graph.op("Where", [beyond, moved, current], f"{name}/{sign}/wrapped")
    graph.keep(f"{name}/current", current)
    share = 1 - node.membrane_decay / 2**loihi.DECAY_BITS
    kept = _toward_zero(graph, graph.state(f"{name}/membrane", np.zeros(shape)), share, f"{name}/U")
    membrane = _shifted(graph, _plus(graph, kept, current, f"{name}/sum"), shifted * node.bias, f"{name}/biased")
    ends = [graph.number(f"{name}/{end}", value) for end, value in (("least", 1 - limit), ("most", limit - 1))]
    membrane = graph.op("Clip", [membrane, *ends], f"{name}/clipped")
    fired = _fire(node, graph, membrane, shifted * node.threshold, ">", name)
    zero = graph.number(f"{name}/zero", 0.0)
    graph.keep(f"{name}/membrane", graph.op("Where", [f"{name}/fired", zero, membrane], f"{name}/left"))
    return fired


def _toward_zero(graph: StepGraph, x: str, share: float, name: str) -> str:
    """A share of x, rounded toward zero."""
    scaled = graph.op("Mul", [x, graph.number(f"{name}/share", share)], f"{name}/scaled")
    size = graph.op("Floor", [graph.op("Abs", [scaled], f"{name}/size")], f"{name}/floor")
    return graph.op("Mul", [graph.op("Sign", [scaled], f"{name}/sign"), size], f"{name}/decayed")


@step.register
def _(node: g.Euler, graph: StepGraph, inputs: Sequence[str]) -> str:
    membrane = _euler(node, graph, inputs[0])
    graph.keep(f"{node.name}/membrane", membrane)
    return graph.op("Identity", [membrane], node.name)


@step.register
def _(node: g.EulerNeuron, graph: StepGraph, inputs: Sequence[str]) -> str:
    membrane, name = _euler(node, graph, inputs[0]), node.name
    fired = _fire(node, graph, membrane, node.threshold, node.fires, name)
    reset = graph.number(f"{name}/v_reset", node.v_reset)
    if node.reset == "by":
        reset = graph.op("Sub", [membrane, reset], f"{name}/reduced")
    graph.keep(f"{name}/membrane", graph.op("Where", [f"{name}/fired", reset, membrane], f"{name}/left"))
    return fired


def _euler(node: g.Euler, graph: StepGraph, x: str) -> str:
    """U by the equations of Euler, in their order."""
    shape, name = graph.shapes[node.name][1:], node.name
    before = graph.state(f"{name}/membrane", np.zeros(shape) + node.v_leak)
    if node.tau_syn is not None:
        kept = graph.state(f"{name}/current", np.zeros(shape))
        away = graph.op("Sub", [_times(graph, x, node.w_in, f"{name}/weighted"), kept], f"{name}/away")
        x = _plus(graph, kept, _times(graph, away, node.dt * (1 / node.tau_syn), f"{name}/rise"), f"{name}/I")
        graph.keep(f"{name}/current", x)
    x = _times(graph, x, node.r, f"{name}/driven")
    if node.tau is not None:
        x = graph.op("Sub", [_shifted(graph, x, node.v_leak, f"{name}/leaked"), before], f"{name}/off")
        x = _times(graph, x, node.dt * (1 / node.tau), f"{name}/change")
    return _plus(graph, before, x, f"{name}/U")


@step.register
def _(node: g.Leaky, graph: StepGraph, inputs: Sequence[str]) -> str:
    name, (x, *others) = node.name, inputs
    membrane = graph.state(f"{name}/membrane", np.zeros(graph.shapes[name][1:]))
    before = _fire(node, graph, membrane, node.threshold, node.fires, f"{name}/reset")
    if node.reset == "zero":
        rest = graph.op("Sub", [graph.number("/one", 1.0), before], f"{name}/rest")
        membrane = graph.op("Mul", [rest, membrane], f"{name}/rested")
    if node.current_decay is not None:
        kept = graph.state(f"{name}/current", np.zeros(graph.shapes[name][1:]))
        x = _plus(graph, graph.op("Mul", [kept, graph.number(f"{name}/alpha", node.current_decay)], f"{name}/faded"), x,
                  f"{name}/I0")  # fmt: skip
        for number, other in enumerate(others):
            x = _plus(graph, x, other, f"{name}/I{number + 1}")
        graph.keep(f"{name}/current", x)
        others = []
    leaked = graph.op("Mul", [membrane, graph.number(f"{name}/beta", node.beta)], f"{name}/leaked")
    updated = _plus(graph, leaked, _times(graph, x, node.gain, f"{name}/gained"), f"{name}/U0")
    for number, other in enumerate(others):
        updated = _plus(graph, updated, other, f"{name}/U{number + 1}")
    if node.reset in ("subtract", "erase"):
        updated = _less(graph, updated, before, node, f"{name}/kept")
    fired = _fire(node, graph, updated, node.threshold, node.fires, name)
    if not node.delayed and node.reset != "none":
        more = graph.op("Sub", [fired, before], f"{name}/more")
        updated = _less(graph, updated, more, node, f"{name}/left")
    graph.keep(f"{name}/membrane", updated)
    return fired


def _less(graph: StepGraph, membrane: str, fired: str, node: g.Leaky, name: str) -> str:
    """The membrane without what a reset takes off where `fired` is 1."""
    amount = graph.number(f"{node.name}/off", node.threshold) if node.reset == "subtract" else membrane
    return graph.op("Sub", [membrane, graph.op("Mul", [fired, amount], f"{name}/off")], name)


def _fire(node: g.Node, graph: StepGraph, membrane: str, threshold: Array, fires: str, name: str) -> str:
    """1 where a membrane fires, as a number; NAME/fired is the same as a truth value."""
    compare = "GreaterOrEqual" if fires == ">=" else "Greater"
    fired = graph.op(compare, [membrane, graph.number(f"{node.name}/threshold", threshold)], f"{name}/fired")
    return graph.op("Cast", [fired], name, to=graph.element)


def _plus(graph: StepGraph, x: str, y: str, name: str) -> str:
    return graph.op("Add", [x, y], name)


def _times(graph: StepGraph, x: str, factor: Array | float, name: str) -> str:
    """x times a constant; x itself for 1."""
    return x if np.all(factor == 1.0) else graph.op("Mul", [x, graph.number(f"{name}/factor", factor)], name)


def _shifted(graph: StepGraph, x: str, offset: Array, name: str) -> str:
    """x plus a constant; x itself for 0."""
    return x if np.all(offset == 0.0) else graph.op("Add", [x, graph.number(f"{name}/offset", offset)], name)
