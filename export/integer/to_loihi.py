"""Any network of spikes in Loihi's integers: 8-bit weights, and neurons that decay in 4096ths.

In: a Network of convolutions, matrices, sums, sum and mean pools, and neurons that reset to zero at once. Out: the same
graph with whole numbers for weights and a LoihiNeuron for every neuron. Weights into one neuron share one step, the
largest of them 127; thresholds and biases are rounded to that step, decays to 1/4096. Nothing is calibrated: spikes
have no scale. What Loihi has no form for is refused: node, found, expected, remedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import singledispatch
from math import prod
from typing import NoReturn

import numpy as np

from export.graph import loihi
from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import Array, NetworkError, ValueKind
from export.graph.rules import refuse_gates

THRESHOLD, DECAYS = 2**loihi.THRESHOLD_BITS - 1, 2**loihi.DECAY_BITS


@dataclass(frozen=True)
class Dynamics:
    """A neuron as Loihi knows it: I = alpha I + x, U = beta U + gain I + bias; above the threshold a spike, then 0."""

    beta: float
    threshold: float
    gain: float = 1.0
    bias: float = 0.0
    alpha: float = 0.0


@dataclass(frozen=True)
class Term:
    """Weights on the way into a neuron: behind mean pools a whole sum counts `share`, behind any a bias `spread`."""

    synapse: g.Conv | g.Linear
    share: float = 1.0
    spread: float = 1.0


def loihi_network(network: Network) -> Network:
    """The network in integers; it runs in float64, which holds them exactly. NetworkError names the first node that
    cannot be one of Loihi's."""
    refuse_gates(network, "int8")
    if network.input.carries != "spike":
        refuse(network.input, "an input of numbers", "spikes", "encode it outside, and give booleans")
    made: dict[str, list[g.Node]] = {}
    for neuron in network.neurons:
        made |= _in_one_step(network, neuron, made)
    nodes = [one for node in network.nodes for one in made.get(node.name) or [_moved(node, network)]]
    return replace(network, nodes=tuple(nodes), reader="loihi")


def refuse(node: g.Node, found: str, expected: str, remedy: str) -> NoReturn:
    """One line: node, found, expected, remedy."""
    raise NetworkError(f"int8: {node.name} ({node.kind}): {found}, expected {expected}; {remedy}")


def _moved(node: g.Node, network: Network) -> g.Node:
    """What moves spikes or sums and has no numbers of its own. A mean becomes a sum: its share is in the weights."""
    if isinstance(node, g.Pool):
        if node.function == "max" and network.kinds[node.inputs[0]] is not ValueKind.SPIKE:
            refuse(node, "a maximum of sums", "of spikes, or a mean", "pool behind the neuron")
        return replace(node, function="sum") if node.function == "mean" else node
    whole = all(network.kinds[name] is not ValueKind.ANALOG for name in node.inputs)
    if isinstance(node, (g.Input, g.Output, g.Add)) or (isinstance(node, (g.Flatten, g.Concat, g.Delay)) and whole):
        return node
    if isinstance(node, (g.Conv, g.Linear)):
        refuse(
            node, f"read by {', '.join(network.readers[node.name]) or 'nothing'}", "by a neuron", "end with a neuron"
        )
    refuse(node, "no integers for this kind", "synapses, sums, pools, neurons", "leave it out, or run it in float64")


def _in_one_step(network: Network, neuron: g.Spiking, known: dict[str, list[g.Node]]) -> dict[str, list[g.Node]]:
    """A neuron and all weights into it, in whole numbers of one step."""
    dynamics = dynamics_of(neuron)
    terms = [term for name in neuron.inputs for term in _terms(network, name, 1.0, 1.0, neuron)]
    largest = max(float(np.abs(term.synapse.weight).max()) * term.share for term in terms)
    level = dynamics.threshold / dynamics.gain if dynamics.gain > 0 else -1.0
    if not largest or level < 0:
        refuse(neuron, "no weight, no gain or a negative threshold", "all of them positive", "train on")
    step = max(largest / loihi.WEIGHT_LIMIT, level / THRESHOLD)
    biases: Array = np.array(dynamics.bias / dynamics.gain)
    made: dict[str, list[g.Node]] = {}
    for term in terms:
        synapse = term.synapse
        if synapse.name in known:
            refuse(synapse, "weights that two neurons read", "one reader", "give each neuron its own")
        if synapse.bias is not None:
            if synapse.late and np.any(synapse.bias != 0):
                refuse(synapse, "a bias on what it reads a step late", "none", "add it before the neuron")
            biases = biases + (synapse.bias * term.spread)[:, None, None]
        made[synapse.name] = [replace(synapse, weight=np.rint(synapse.weight * term.share / step), bias=None)]
    bias = np.rint(biases / step)
    if np.abs(bias).max() > loihi.BIAS_LIMIT:
        refuse(
            neuron,
            f"biases up to {np.abs(bias).max():.0f} steps",
            f"at most {loihi.BIAS_LIMIT}",
            "train with smaller biases",
        )
    return made | {neuron.name: _neuron(neuron, dynamics, np.rint(np.array(level / step)), bias)}


def _neuron(neuron: g.Spiking, dynamics: Dynamics, threshold: Array, bias: Array) -> list[g.Node]:
    """The neuron, behind the sum of its inputs if it has two."""
    inputs, late, before = neuron.inputs, neuron.late, list[g.Node]()
    if len(inputs) == 2:
        before = [g.Add(name=f"{neuron.name}.sum", inputs=inputs, late=late, block=neuron.block)]
        inputs, late = (f"{neuron.name}.sum",), ()
    made = g.LoihiNeuron(
        name=neuron.name, inputs=inputs, late=late, block=neuron.block, modules=neuron.modules, fires=">",
        source_parameters=neuron.source_parameters, threshold=threshold, bias=bias,
        current_decay=round((1 - dynamics.alpha) * DECAYS), membrane_decay=round((1 - dynamics.beta) * DECAYS),
    )  # fmt: skip
    return [*before, made]


def _terms(network: Network, name: str, share: float, spread: float, neuron: g.Spiking) -> Iterator[Term]:
    """The weights whose sum a neuron reads, through sums and pools."""
    node = network[name]
    if isinstance(node, g.Add):
        for one in node.inputs:
            yield from _terms(network, one, share, spread, neuron)
    elif isinstance(node, g.Pool) and node.function != "max":
        window = prod(node.kernel)
        if any(node.padding):
            refuse(node, "padding", "none: a bias counts less at its border", "pool without padding")
        shares = (share / window, spread) if node.function == "mean" else (share, spread * window)
        yield from _terms(network, node.inputs[0], *shares, neuron)
    elif isinstance(node, g.Conv) or (isinstance(node, g.Linear) and node.axis == "C"):
        if network.kinds[node.inputs[0]] is ValueKind.ANALOG:
            refuse(node, f"reads the numbers of {node.inputs[0]}", "spikes", "put a neuron between")
        yield Term(node, share, spread)
    else:
        refuse(neuron, f"reads {name}, a {node.kind}", "weights, sums and pools", "put weights before the neuron")


@singledispatch
def dynamics_of(node: g.Node) -> Dynamics:
    """A neuron's numbers, the same for all its elements. What Loihi's neuron cannot be is refused."""
    refuse(node, "no such neuron on Loihi", "a LIF that resets to 0 at once", "train with one")


@dynamics_of.register
def _(node: g.Neuron) -> Dynamics:
    if node.reset != "to" or node.reset_value:
        refuse(node, "a reset by subtraction, or to another value", "to 0", "train with a reset to zero")
    threshold = _one(node, "threshold", node.threshold)
    fires_at = np.nextafter(threshold, -np.inf) if node.fires == ">=" else threshold
    gain, bias = _one(node, "gain", node.gain), _one(node, "bias", node.bias)
    return Dynamics(node.membrane_decay, float(fires_at), gain, bias, node.current_decay)


@dynamics_of.register
def _(node: g.Leaky) -> Dynamics:
    if node.delayed or node.reset not in ("zero", "erase"):
        how = f"reset {node.reset!r}{', a step later' if node.delayed else ''}"
        refuse(node, how, "to zero at once", "train with reset_mechanism='zero', reset_delay=False")
    alpha = 0.0 if node.current_decay is None else _one(node, "alpha", node.current_decay)
    beta, threshold = _one(node, "beta", node.beta), _one(node, "threshold", node.threshold)
    return Dynamics(beta, threshold, _one(node, "gain", node.gain), 0.0, alpha)


@dynamics_of.register
def _(node: g.EulerNeuron) -> Dynamics:
    if node.reset != "to" or np.any(node.v_reset != 0):
        refuse(node, "a reset by subtraction, or to another value", "to 0", "set v_reset to 0")
    gain, beta, bias, alpha = _one(node, "r", node.r), 1.0, 0.0, 0.0
    if node.tau is not None:
        rate = node.dt / _one(node, "tau", node.tau)
        beta, gain, bias = 1 - rate, rate * gain, rate * _one(node, "v_leak", node.v_leak)
    if node.tau_syn is not None:
        rate = node.dt / _one(node, "tau_syn", node.tau_syn)
        alpha, gain = 1 - rate, gain * rate * _one(node, "w_in", node.w_in)
    if not (0 <= beta <= 1 and 0 <= alpha <= 1):
        refuse(node, f"decays {beta:g} and {alpha:g}", "from 0 to 1", "read it with a smaller --dt")
    return Dynamics(beta, _one(node, "threshold", node.threshold), gain, bias, alpha)


def _one(node: g.Node, name: str, values: Array) -> float:
    """The one number of a parameter."""
    if values.size > 1 and not (values == values.flat[0]).all():
        refuse(node, f"a {name} for every neuron", "one for the layer", "train one for the layer")
    return float(values.flat[0])
