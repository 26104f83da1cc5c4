"""Are the graphs of a NIR export those of its manifest? Compared node by node and edge by edge; hashes are not trusted.

In: a Network decoded from an export, and the export's HDF5 groups. Out: nothing, or a UserError that names the node and
what differs: a node or an edge that is missing or too many, a type, a stride, a parameter of a LIF.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from esdnet.command.errors import UserError
from export.graph.network import Network, infer_shapes
from export.targets.nir.graph import DT_S, Filled, NIRSpec, segment_graph
from export.targets.nir.segments import Step


def segment_spec(network: Network, manifest: dict[str, Any], step: dict[str, Any]) -> NIRSpec:
    """The graph that one step of a folder's manifest stands for."""
    shapes = infer_shapes(network, *manifest["input_shape"][2:])
    nodes, inputs, outputs = (tuple(step[key]) for key in ("nodes", "inputs", "outputs"))
    return segment_graph(network, Step(True, nodes, inputs, outputs), shapes)


def check_manifest(network: Network, manifest: dict[str, Any]) -> None:
    """What the manifest says twice must be the same: time step, shapes, and each node in one step."""
    if manifest["dt"] != DT_S:
        raise UserError(f"manifest: dt {manifest['dt']}, expected {DT_S:g} s")
    shapes = infer_shapes(network, *manifest["input_shape"][2:])
    wrong = [name for name, shape in shapes.items() if manifest["shapes"].get(name) != list(shape)]
    if wrong:
        found = manifest["shapes"].get(wrong[0])
        raise UserError(f"{wrong[0]}: shape {found} in the manifest, its inputs make {list(shapes[wrong[0]])}")
    placed = sorted(name for step in manifest["steps"] for name in step["nodes"])
    if placed != sorted(shapes):
        raise UserError("manifest: its steps do not hold every node once")


def check_graph(top: Any, spec: NIRSpec) -> None:
    """The graph in HDF5 group `top` must be `spec`, number for number; LIF parameters are read channel by channel."""
    groups = top["nodes"]
    odd = sorted(set(groups) ^ set(spec.nodes))
    if odd:
        where = "the graph, but not of the manifest" if odd[0] in groups else "the manifest, but not of the graph"
        raise UserError(f"{odd[0]}: a node of {where}")
    for name, node in spec.nodes.items():
        stored = groups[name]
        if stored["type"][()].decode() != node.type:
            raise UserError(f"{name}: type {stored['type'][()].decode()} in the graph, {node.type} in the manifest")
        for key, expected in node.fields.items():
            if not _equal(stored[key], expected):
                what = (
                    "of its LIF is not that of the neuron in" if node.type == "LIF" else "in the graph is not that of"
                )
                raise UserError(f"{name}: {key} {what} the manifest")
    edges = {(source.decode(), reader.decode()) for source, reader in top["edges"][()]}
    for source, reader in sorted(edges ^ set(spec.edges)):
        where = (
            "the graph, but not in the manifest" if (source, reader) in edges else "the manifest, but not in the graph"
        )
        raise UserError(f"{reader}: reads {source} in {where}")
    if len(top["edges"]) != len(spec.edges):
        raise UserError("an edge that is there twice")
    if "dt" not in top["metadata"] or top["metadata"]["dt"][()] != DT_S:
        raise UserError(f"the graph's dt is not {DT_S:g} s")


def _equal(stored: Any, expected: Any) -> bool:
    if isinstance(expected, Filled):
        values = np.broadcast_to(expected.values, expected.shape)
        same = stored.shape == expected.shape
        return same and all(np.array_equal(stored[channel], values[channel]) for channel in range(len(values)))
    found = stored[()]
    if isinstance(expected, list):
        return [item.decode() for item in found] == expected
    return bool(np.array_equal(found, expected))
