"""Layer graphs as data: a node as a JSON record and its arrays, and back; the digest of a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from esdnet.command.errors import UserError
from export.graph.network import Network
from export.graph.nodes import Array, NetworkError, Node

Record = dict[str, Any]


def encode_node(node: Node) -> tuple[Record, dict[str, Array]]:
    """A node as JSON values, and its arrays by field. Single numbers stay in the record: JSON keeps every bit."""
    record: Record = {"kind": type(node).__name__}
    arrays: dict[str, Array] = {}
    for item in fields(node):
        value = getattr(node, item.name)
        if isinstance(value, np.ndarray):
            record[item.name] = {"array": list(value.shape)} if value.ndim else {"number": float(value)}
            if value.ndim:
                arrays[item.name] = value
        elif isinstance(value, tuple):
            record[item.name] = list(value)
        elif value is None or isinstance(value, (str, int, float)):
            record[item.name] = value
        else:
            raise NetworkError(f"{node.name} ({node.kind}): cannot store {item.name}, a {type(value).__name__}")
    return record, arrays


def decode_node(record: Record, load: Callable[[str], Array]) -> Node:
    """The inverse of encode_node; `load` gives the array of a field."""
    kinds = _kinds(Node)
    if record["kind"] not in kinds:
        raise UserError(f"{record['name']}: unknown kind of node {record['kind']!r}: a newer program wrote this export")
    values: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict) and "number" in value:
            values[key] = np.array(value["number"], np.float64)
        elif isinstance(value, dict):
            values[key] = load(key)
            if list(values[key].shape) != value["array"]:
                found = list(values[key].shape)
                raise UserError(f"{record['name']}: {key} has shape {found}, expected {value['array']}")
        elif key != "kind":
            values[key] = tuple(value) if isinstance(value, list) else value
    return kinds[record["kind"]](**values)


def _kinds(kind: type[Node]) -> dict[str, type[Node]]:
    """All kinds of nodes below one, by name."""
    found: dict[str, type[Node]] = {}
    for below in kind.__subclasses__():
        found |= {below.__name__: below} | _kinds(below)
    return found


def network_digest(network: Network) -> str:
    """SHA-256 over everything a Network holds: equal digests mean networks equal to the last bit."""
    digest = hashlib.sha256()
    digest.update(json.dumps(encode_network(network), sort_keys=True).encode())
    for node in network.nodes:
        record, arrays = encode_node(node)
        digest.update(json.dumps(record, sort_keys=True).encode())
        for key, value in arrays.items():
            digest.update(f"{key} {value.dtype} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def encode_network(network: Network) -> Record:
    """What a Network holds besides its nodes."""
    return {item.name: getattr(network, item.name) for item in fields(network) if item.name != "nodes"}
