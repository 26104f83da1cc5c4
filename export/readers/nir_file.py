"""A NIR file as it is written: a flat list of nodes with their fields, and the edges between them.

Read by h5py, not by nir: files of other versions and nested graphs are read too, and every mistake is said in one line.
Nothing here knows what a node means (export/readers/nir.py does).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from esdnet.command.errors import UserError
from export.graph.nodes import NetworkError

Edge = tuple[str, str]

# NIR's primitives (nir 1.0.8, nir/ir/*.py): the fields that each must have, and those that not every version wrote.
FIELDS: dict[str, tuple[str, str]] = {
    "Input": ("shape", ""),
    "Output": ("shape", ""),
    "Affine": ("weight bias", ""),
    "Linear": ("weight", ""),
    "Scale": ("scale", ""),
    "Conv1d": ("weight bias stride padding dilation groups", "input_shape"),
    "Conv2d": ("weight bias stride padding dilation groups", "input_shape"),
    "SumPool2d": ("kernel_size stride padding", ""),
    "AvgPool2d": ("kernel_size stride padding", ""),
    "Flatten": ("start_dim end_dim", "input_type"),
    "Delay": ("delay", ""),
    "Threshold": ("threshold", ""),
    "I": ("r", ""),
    "IF": ("r v_threshold", "v_reset"),
    "LI": ("tau r v_leak", ""),
    "LIF": ("tau r v_leak v_threshold", "v_reset"),
    "CubaLI": ("tau_syn tau_mem r v_leak", "w_in"),
    "CubaLIF": ("tau_syn tau_mem r v_leak v_threshold", "v_reset w_in"),
}
GRAPH = "NIRGraph"
REDUNDANT = {"type", "metadata", "input_type", "output_type"}  # other versions write types, which follow from the rest


@dataclass(frozen=True, eq=False)
class FileNode:
    """A node of a file: its name (of one in a nested graph: outer.inner), NIR's name of its type, and its fields:
    numbers as float64 or int64 arrays, or a word."""

    name: str
    type: str
    fields: Mapping[str, NDArray[Any] | str]

    def refuse(self, found: str) -> NoReturn:
        """The node cannot be read: what was found, what was expected, and what to do."""
        raise NetworkError(f"{self.name} ({self.type}): {found}")


@dataclass(frozen=True, eq=False)
class FileGraph:
    """Nodes by full name and edges between them; the ports of nested graphs are gone, what they joined is joined."""

    nodes: dict[str, FileNode]
    edges: list[Edge]


def read_file(path: str | os.PathLike[str]) -> FileGraph:
    """The graph in a .nir file. UserError, one line, for a file that is none; NetworkError for a node that is wrong."""
    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            root = file.get("node")
            if not isinstance(root, h5py.Group):
                raise UserError(
                    f"{path}: not a NIR file: HDF5 that holds {', '.join(file) or 'nothing'}, expected 'node'"
                )
            if _word(root.get("type")) != GRAPH:
                raise UserError(f"{path}: its root is of type {_word(root.get('type'))}, expected {GRAPH}")
            return _join(_flatten(root, ""))
    except (
        OSError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
        MemoryError,
    ) as error:  # whatever HDF5 stumbles over
        number = getattr(error, "errno", None)
        reason = "it is empty" if path.is_file() and not path.stat().st_size else "not HDF5, or damaged"
        raise UserError(
            f"{path}: cannot be read as a NIR file: {os.strerror(number) if number else reason}; write it again"
        ) from error


def _word(item: Any) -> str | None:
    """The text of a scalar dataset; None for anything else."""
    value = item[()] if isinstance(item, h5py.Dataset) and item.shape == () else None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else None


@dataclass
class _Flat:
    """Nodes and edges of a graph and of those in it, by full name. `ports`: Inputs and Outputs of nested graphs."""

    nodes: dict[str, FileNode]
    edges: list[Edge]
    ports: list[str]


def _flatten(group: h5py.Group, prefix: str) -> _Flat:
    flat = _Flat({}, _edges(group, prefix), [])
    for key, item in _members(group, prefix):
        name = prefix + key
        kind = _word(item.get("type")) if isinstance(item, h5py.Group) else None
        if kind == GRAPH:
            inner = _flatten(item, f"{name}.")
            enters, leaves = (_port(inner, name, end) for end in ("Input", "Output"))
            flat.edges = [(leaves if a == name else a, enters if b == name else b) for a, b in flat.edges]
            flat.edges += inner.edges
            flat.ports += [*inner.ports, enters, leaves]
        else:
            inner = _Flat({name: _node(name, kind, item)}, [], [])
        for taken in flat.nodes.keys() & inner.nodes.keys():
            raise NetworkError(f"{taken}: the name is used twice, by a node and by one of a nested graph; rename one")
        flat.nodes.update(inner.nodes)
    return flat


def _port(inner: _Flat, name: str, end: str) -> str:
    """The full name of a nested graph's one Input or Output."""
    ports = [key for key, node in inner.nodes.items() if node.type == end and key not in inner.ports]
    if len(ports) != 1:
        raise NetworkError(f"{name} ({GRAPH}): {len(ports)} {end} nodes, expected 1, since an edge leads to one place")
    return ports[0]


def _join(flat: _Flat) -> FileGraph:
    """Ports of nested graphs are wires: who feeds one feeds all who read it."""
    edges = flat.edges
    for port in flat.ports:
        before, after = [a for a, b in edges if b == port], [b for a, b in edges if a == port]
        edges = [edge for edge in edges if port not in edge] + [(a, b) for a in before for b in after]
    for edge, times in Counter(edges).items():
        if times > 1:
            raise NetworkError(
                f"{edge[1]}: reads {edge[0]} {times} times, expected once; put a Scale by {times} between"
            )
    return FileGraph({key: node for key, node in flat.nodes.items() if key not in flat.ports}, sorted(edges))


def _members(group: h5py.Group, prefix: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(group.get("nodes"), h5py.Group):
        raise NetworkError(f"{_graph_name(prefix)}: no group 'nodes', expected the nodes of the graph")
    yield from group["nodes"].items()


def _graph_name(prefix: str) -> str:
    return prefix.removesuffix(".") or "the graph"


def _edges(group: h5py.Group, prefix: str) -> list[Edge]:
    """Edges as they are written, but by full name."""
    found = group.get("edges")
    pairs = np.asarray(found[()]) if isinstance(found, h5py.Dataset) else np.empty(0)
    if pairs.size and (pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "OS"):
        raise NetworkError(f"{_graph_name(prefix)}: edges of shape {pairs.shape}, expected pairs of names")
    names = {key for key, _ in _members(group, prefix)}
    edges = [(_decoded(source), _decoded(reader)) for source, reader in pairs.reshape(-1, 2)]
    for source, reader in edges:
        for end in {source, reader} - names:
            raise NetworkError(
                f"{_graph_name(prefix)}: edge {source} -> {reader}: there is no node {end}, "
                f"expected one of {', '.join(sorted(names))}; rename the node or the end of the edge"
            )
    return [(prefix + source, prefix + reader) for source, reader in edges]


def _decoded(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _node(name: str, kind: str | None, item: Any) -> FileNode:
    if kind is None or not isinstance(item, h5py.Group):
        raise NetworkError(f"{name}: no text 'type', expected a node of NIR: {', '.join(FIELDS)}")
    if kind not in FIELDS:
        raise NetworkError(
            f"{name} ({kind}): NIR has no such primitive, expected one of {', '.join(FIELDS)}; replace it by those"
        )
    required, optional = (set(fields.split()) for fields in FIELDS[kind])
    known, present = required | optional, set(item) - (REDUNDANT - optional)
    for field in sorted(required - present):
        raise NetworkError(f"{name} ({kind}): no field {field!r}, expected {', '.join(sorted(required))}")
    for field in sorted(present - known):
        raise NetworkError(f"{name} ({kind}): field {field!r} is not known, expected {', '.join(sorted(known))}")
    return FileNode(name, kind, {field: _value(f"{name} ({kind})", field, item[field]) for field in sorted(present)})


def _value(node: str, field: str, item: Any) -> NDArray[Any] | str:
    """A field: a word, or numbers that are all finite, integers as int64, others as float64."""
    word = _word(item)
    if word is not None:
        return word
    numbers = np.asarray(item[()]) if isinstance(item, h5py.Dataset) else np.empty(0, object)
    if numbers.dtype.kind not in "iufb" or not numbers.size:
        raise NetworkError(f"{node}: {field} holds no numbers, expected an array of them")
    if not np.isfinite(numbers).all():
        raise NetworkError(f"{node}: {field} holds NaN or infinity, expected finite numbers; was training stable?")
    return numbers.astype(np.int64 if numbers.dtype.kind in "iub" else np.float64)
