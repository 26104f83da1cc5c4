"""The files of a NIR export: what the manifest holds, how its contents are protected, and the way back to a Network.

In: the path of an export, a folder. Out: its manifest, or the Network that it was written from, number
for number; a UserError in one line for anything that is missing, foreign, damaged, edited or of a newer format.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from esdnet.command.errors import UserError
from export.graph.network import Network
from export.graph.nodes import Array, Node
from export.graph.store import Record, check_version, decode_node, file_digest, manifest_digest
from export.targets.nir.structure import check_graph, check_manifest, segment_spec

FORMAT = "esdnet-nir"
VERSION = 2
MANIFEST = "manifest.json"
ARRAYS = "arrays.npz"
AGAIN = "write it again with export/to_nir.py"

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


def is_export(path: Path) -> bool:
    """True if something of this format is there, in whatever state: what an export may replace."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def open_export(path: str | Path) -> Export:
    """Read the manifest of a folder and check every hash."""
    path = Path(path)
    try:
        if path.is_dir():
            return _open_folder(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as an ESDNet NIR export: {reason}; {AGAIN}") from error
    found = "a file" if path.is_file() else "nothing there"
    raise UserError(f"{path}: {found}; expected the folder that export/to_nir.py writes")


def _open_folder(path: Path) -> Export:
    file = path / MANIFEST
    if not file.is_file():
        raise UserError(f"{path}: not an ESDNet NIR export: {MANIFEST} is missing; {AGAIN}")
    manifest = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{file}: not the manifest of an ESDNet NIR export: expected format {FORMAT!r}; {AGAIN}")
    check_version(path, manifest["version"], VERSION, AGAIN)
    if manifest.get("sha256") != manifest_digest(manifest):
        raise UserError(f"{file}: was changed after it was written (its hash differs); {AGAIN}")
    for name, expected in manifest["files"].items():
        if not (path / name).is_file():
            raise UserError(f"{path / name}: missing, the export is incomplete; {AGAIN}")
        if file_digest(path / name) != expected:
            raise UserError(f"{path / name}: was changed or cut short after it was written (its hash differs); {AGAIN}")
    return Export(path, manifest)


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
        raise UserError(f"{export.path}: {error}; {AGAIN}") from error
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{export.path}: the export contradicts itself: {reason}; {AGAIN}") from error


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
