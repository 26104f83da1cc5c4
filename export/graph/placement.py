"""Where nodes run: on neuro-cores or on the host processor beside them.

In: a Network, and what a target expresses beyond the rule for all of them. Out: the nodes on the host. Cores hold
synapses and neurons and sum in dendrites: products of two values, means, norms, matrices, attention, sorting,
morphology, sigmoids and interpolation have no place in them. Reports and Loihi go by that alone; NIR has less
(export/targets/nir/segments.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from export.graph import nodes as g
from export.graph.network import Network
from export.graph.nodes import NetworkError

ON_VALUES_AS_THEY_COME = (  # work that is not worth a way to the cores and back
    g.Activation, g.Add, g.Sub, g.Affine, g.Concat, g.Chunk, g.DepthToSpace,
)  # fmt: skip


ALWAYS = (
    g.Input, g.Repeat, g.Conv, g.Spiking, g.Euler, g.Membrane, g.Threshold, g.Delay, g.Flatten, g.Add, g.Sub, g.Affine,
    g.Concat, g.Chunk, g.DepthToSpace,
)  # fmt: skip
NEVER = (
    g.Mul, g.Reduce, g.LayerNorm, g.RainMask, g.Flood, g.ArgMax, g.WindowOrder, g.SortOrder, g.WindowAttention,
    g.Output,
)  # fmt: skip


def cores_express(node: g.Node) -> bool:
    """True if neuro-cores can run the node."""
    if isinstance(node, g.Activation):
        return node.function == "relu"
    if isinstance(node, g.Resize):
        return node.mode == "nearest"
    if isinstance(node, g.Linear):  # synapses; along the steps it waits for all of them
        return node.axis == "C" and node.weight.ndim == 2
    if isinstance(node, g.Pool):  # a sum or mean is synapses of one weight; a maximum is none
        return node.function != "max"
    if not isinstance(node, ALWAYS + NEVER):
        raise NetworkError(
            f"{node.name}: no rule for where kind {node.kind} runs; add one to export/graph/placement.py"
        )
    return isinstance(node, ALWAYS)


@lru_cache(maxsize=8)
def on_host(network: Network) -> frozenset[str]:
    """The names of the nodes that the host computes.

    Those that no core expresses; those that run once an image, after something has waited for all of its steps; and
    element-wise work whose inputs are all on the host.
    """
    streams: set[str] = set()  # values with a frame for every step
    once: set[str] = set()  # values that are there when all steps have been
    host: set[str] = set()
    for node in network.nodes:
        starts = isinstance(node, (g.Repeat, g.Spiking)) or (isinstance(node, g.Input) and node.every_step)
        if starts or (not streams.isdisjoint(node.inputs) and not _merges_steps(node)):
            streams.add(node.name)
        elif not (streams | once).isdisjoint(node.inputs):
            once.add(node.name)
        beside = isinstance(node, ON_VALUES_AS_THEY_COME) and host.issuperset(node.inputs)
        if not cores_express(node) or node.name in once or beside:
            host.add(node.name)
    return frozenset(host)


def on_cores(network: Network, expresses: Callable[[g.Node], bool]) -> frozenset[str]:
    """The names of the nodes that run on the cores of a target which expresses these of what cores do."""
    host = on_host(network)
    return frozenset(node.name for node in network.nodes if node.name not in host and expresses(node))


def place_of(network: Network, node: g.Node) -> str:
    """In a word, as reports say it: 'host' or 'neurocore'. Cores have no part in a network without neurons."""
    return "neurocore" if network.has_neurons and node.name not in on_host(network) else "host"


def _merges_steps(node: g.Node) -> bool:
    """Whether one frame comes of all: a mean or maximum over the steps, a matrix along them to a single one."""
    if isinstance(node, g.Reduce):
        return "T" in node.axes
    return isinstance(node, g.Linear) and node.axis == "T" and len(node.weight) == 1
