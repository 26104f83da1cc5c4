"""Integer networks as data: JSON records and named arrays, and back, equal to the last bit.

In and out: an IntegerNetwork; {"network": ..., "operations": [...]} and arrays "<node>/<field>" of their own dtypes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet.command.errors import UserError
from export.graph.network import Network
from export.graph.nodes import Node
from export.graph.store import decode_node, encode_network, encode_node
from export.integer.network import IntegerNetwork
from export.integer.operations import Format, Operation, Rescale

Record = dict[str, Any]
Arrays = dict[str, NDArray[Any]]


def encode_integer(integer: IntegerNetwork) -> tuple[Record, Arrays]:
    """What an integer network holds. A weight is stored once, as int8 with its steps."""
    records, arrays = [], Arrays()
    for operation in integer.operations:
        node, node_arrays = encode_node(operation.node)
        arrays.update({f"{operation.name}/{key}": value for key, value in node_arrays.items() if key != "weight"})
        record: Record = {"operation": type(operation).__name__, "node": node}
        for item in fields(operation):
            value = getattr(operation, item.name)
            if isinstance(value, Rescale):
                record[item.name] = {"shift": value.shift}
                arrays[f"{operation.name}/{item.name}.multiplier"] = value.multiplier
            elif isinstance(value, Format):
                record[item.name] = asdict(value)
            elif isinstance(value, np.ndarray):
                record[item.name] = {"array": list(value.shape)}
                arrays[f"{operation.name}/integer.{item.name}"] = value
            elif item.name != "node":
                record[item.name] = list(value) if isinstance(value, tuple) else value
        records.append(record)
    return {"network": encode_network(integer.network), "operations": records}, arrays


def decode_integer(record: Record, arrays: Mapping[str, NDArray[Any]]) -> IntegerNetwork:
    """The inverse of encode_integer; KeyError, TypeError or ValueError where the data contradict themselves."""
    operations = tuple(_decode_operation(entry, arrays) for entry in record["operations"])
    nodes = tuple(operation.node for operation in operations)
    return IntegerNetwork(Network(nodes=nodes, **record["network"]), operations)


def _decode_operation(record: Record, arrays: Mapping[str, NDArray[Any]]) -> Operation:
    kinds = {kind.__name__: kind for kind in Operation.__subclasses__()}
    name = record["node"]["name"]
    if record["operation"] not in kinds:
        raise UserError(
            f"{name}: unknown operation {record['operation']!r}; a newer program wrote this export: use that"
        )
    values: Record = {}
    for key, value in record.items():
        if key == "output":
            values[key] = Format(**value)
        elif isinstance(value, dict) and "shift" in value:
            values[key] = Rescale(arrays[f"{name}/{key}.multiplier"], value["shift"])
        elif isinstance(value, dict) and "array" in value:
            values[key] = arrays[f"{name}/integer.{key}"]
        elif key not in ("operation", "node"):
            values[key] = tuple(value) if isinstance(value, list) else value
    return kinds[record["operation"]](node=_decode_node(record["node"], values, arrays), **values)


def _decode_node(record: Record, values: Record, arrays: Mapping[str, NDArray[Any]]) -> Node:
    def load(key: str) -> NDArray[np.float64]:
        if key == "weight":
            weight, steps = values["weight"], values["weight_step"]
            return np.asarray(weight * steps.reshape(-1, *[1] * (weight.ndim - 1)))
        return np.asarray(arrays[f"{record['name']}/{key}"])

    return decode_node(record, load)


def integer_digest(integer: IntegerNetwork) -> str:
    """SHA-256 over everything an integer network holds: equal digests mean networks equal to the last bit."""
    record, arrays = encode_integer(integer)
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for key, value in arrays.items():
        digest.update(f"{key} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
