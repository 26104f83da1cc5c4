"""The files of a NIR export: what the manifest holds, how its contents are protected, and the way back to a Network.

In: the path of an export, a folder. Out: its manifest, or the Network that it was written from, number
for number; a UserError in one line for anything that is missing, foreign, damaged, edited or of a newer format.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from esdnet.command.errors import UserError
from export.graph.folder import FolderFormat
from export.graph.network import Network
from export.graph.nodes import Array, Node
from export.graph.store import Record, decode_node
from export.targets.nir.structure import check_graph, check_manifest, segment_spec

FORMAT = FolderFormat("esdnet-nir", 2, "an ESDNet NIR export", "export/to_nir.py")
ARRAYS = "arrays.npz"

# --- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Export:
    """An export whose hashes have been checked. `manifest` is described in docs/nir.md."""

    path: Path
    manifest: Record

    @property
    def segments(self) -> dict[str, tuple[str, ...]]:
        """File name -> names of the nodes in it, for the graphs of a folder."""
        return {step["segment"]: tuple(step["nodes"]) for step in self.manifest["steps"] if "segment" in step}


def open_export(path: str | Path) -> Export:
    """Read the manifest of a folder and check every hash."""
    return Export(Path(path), FORMAT.read_manifest(Path(path)))


# --- back to a Network ------------------------------------------------------------------------------------------------


def read_network(path: str | Path) -> Network:
    """The Network that an export was written from, equal to the last bit.

    Weights are the ones in the graphs; their nodes, edges, geometry and LIFs are compared with the manifest.
    """
    return decode_network(open_export(path))


def decode_network(export: Export) -> Network:
    """The Network of an opened export."""
    try:
        nodes = _nodes(export)
        ordered = tuple(nodes[record["name"]] for record in export.manifest["nodes"])
        network = Network(nodes=ordered, **export.manifest["network"])
        _check_structure(export, network)
        return network
    except UserError as error:
        raise UserError(f"{export.path}: {error}; {FORMAT.again}") from error
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{export.path}: the export contradicts itself: {reason}; {FORMAT.again}") from error


def _nodes(export: Export) -> dict[str, Node]:
    records = {record["name"]: record for record in export.manifest["nodes"]}
    nodes: dict[str, Node] = {}
    with np.load(export.path / ARRAYS, allow_pickle=False) as arrays:
        for name, members in export.segments.items():
            with h5py.File(export.path / name, "r") as file:
                groups = file["node/nodes"]
                for member in members:
                    # sums and concatenations have no node in the graph
                    nodes[member] = _node(records[member], groups.get(member, {}), arrays)
        for name in records.keys() - nodes.keys():
            nodes[name] = _node(records[name], {}, arrays)
    return nodes


def _node(record: Record, group: Any, arrays: Any) -> Node:
    """One node, its arrays taken from the graph where that has them, else from the array file."""

    def load(key: str) -> Array:
        if key in group:
            return np.asarray(group[key][()], np.float64)
        return np.asarray(arrays[f"{record['name']}/{key}"], np.float64)

    return decode_node(record, load)


def _check_structure(export: Export, network: Network) -> None:
    """Every graph must be the one that the manifest states."""
    check_manifest(network, export.manifest)
    for step in export.manifest["steps"]:
        if "segment" in step:
            with h5py.File(export.path / step["segment"], "r") as file:
                check_graph(file["node"], segment_spec(network, export.manifest, step))
