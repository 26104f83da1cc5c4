"""Writing a NIR export: a folder of stock graphs with a manifest.

In: a Network, the size of its images, a path that does not exist yet. Out: the files, written graph by graph; the large
LIF parameters are never expanded in memory, and stored as HDF5 fill values or compressed channels.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from export.graph.folder import MANIFEST, file_digest, manifest_digest
from export.graph.network import Network, infer_shapes
from export.graph.nodes import Array, Shape
from export.graph.store import Record, encode_network, encode_node
from export.targets.nir.graph import DT_S, Filled, NIRSpec, segment_graph
from export.targets.nir.read import ARRAYS, FORMAT
from export.targets.nir.segments import Step, cut

PACKAGES = ("h5py", "nir", "numpy", "snntorch", "torch")
FIRING_RULE = (
    "A LIF fires where v > v_threshold, as NIR defines it. For a neuron that fires at H >= threshold, v_threshold is "
    "the float64 just below (1 - membrane_decay) threshold. In another dtype take that dtype's number just below."
)


def write_folder(network: Network, height: int, width: int, path: Path) -> Record:
    """One stock .nir per segment, the arrays of the host operations, the manifest. Returns the manifest."""
    shapes = infer_shapes(network, height, width)
    path.mkdir(parents=True)
    written: list[Record] = []
    in_graphs: set[str] = set()
    for step in cut(network, height, width):
        record: Record = {"inputs": list(step.inputs), "outputs": list(step.outputs), "nodes": list(step.nodes)}
        if step.segment:
            graph = segment_graph(network, step, shapes)
            record["segment"] = _file_name(network, step, sum("segment" in other for other in written))
            record["input_shape"], record["output_shape"] = (
                [int(side) for side in graph.nodes[end].fields["shape"]] for end in ("input", "output")
            )
            write_graph(path / record["segment"], graph, {"dt": DT_S})
            in_graphs |= {f"{name}/{key}" for name, node in graph.nodes.items() for key in node.fields}
        written.append(record)
    arrays: dict[str, Any] = {key: value for key, value in _arrays(network).items() if key not in in_graphs}
    np.savez(path / ARRAYS, **arrays)
    manifest = _manifest(network, shapes)
    manifest["steps"] = written
    names = sorted(file.name for file in path.iterdir())
    manifest["files"] = {name: file_digest(path / name) for name in names}
    manifest["sha256"] = manifest_digest(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def _file_name(network: Network, step: Step, index: int) -> str:
    first = network[step.nodes[0]]
    return f"{index:02d}_{(first.block or first.name).replace('.', '_')}.nir"


def _arrays(network: Network) -> dict[str, Array]:
    """Every array of the network by node/field."""
    return {f"{node.name}/{key}": value for node in network.nodes for key, value in encode_node(node)[1].items()}


def _manifest(network: Network, shapes: dict[str, Shape]) -> Record:
    return {
        "format": FORMAT.name,
        "version": FORMAT.version,
        "network": encode_network(network),
        "dt": DT_S,
        "steps_per_image": network.steps,
        "precision": "float64",
        "firing_rule": FIRING_RULE,
        "packages": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "input_shape": list(shapes[network.input.name]),
        "output_shape": list(shapes[network.output.name]),
        "nodes": [encode_node(node)[0] for node in network.nodes],
        "shapes": {name: list(shape) for name, shape in shapes.items()},
    }


def write_graph(path: Path, graph: NIRSpec, metadata: Record) -> None:
    """One graph in the layout of nir.write, so that nir.read opens it; large constant arrays cost almost nothing."""
    with h5py.File(path, "w") as file:
        file.create_dataset("version", data=nir.version, dtype=h5py.string_dtype())
        top = file.create_group("node")
        nodes = top.create_group("nodes")
        for name, node in graph.nodes.items():
            group = nodes.create_group(name)
            _write(group, {"type": node.type, **node.fields})
        edges = np.array(graph.edges, dtype=object)
        top.create_dataset("edges", data=edges, dtype=h5py.string_dtype())
        _write(top, {"type": "NIRGraph", "metadata": metadata})


def _write(group: Any, values: Record) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _write(group.create_group(key), value)
        elif isinstance(value, Filled):
            _write_filled(group, key, value)
        elif isinstance(value, str):
            group.create_dataset(key, data=value, dtype=h5py.string_dtype())
        elif isinstance(value, list):
            group.create_dataset(key, data=np.array(value, dtype=object), dtype=h5py.string_dtype())
        elif isinstance(value, np.ndarray) and value.nbytes > 1024:
            group.create_dataset(key, data=value, compression="gzip", shuffle=True)
        else:
            group.create_dataset(key, data=value)


def _write_filled(group: Any, key: str, value: Filled) -> None:
    """(C, H, W), one compressed chunk per channel; a constant array is a fill value, no chunk at all."""
    storage: dict[str, Any] = {"shape": value.shape, "dtype": "f8", "chunks": (1, *value.shape[1:])}
    storage.update(compression="gzip", shuffle=True)
    if value.values.size == 1:
        group.create_dataset(key, fillvalue=value.values.item(), **storage)
        return
    dataset = group.create_dataset(key, **storage)
    channels = np.broadcast_to(value.values, value.shape)
    for channel in range(value.shape[0]):
        dataset[channel] = channels[channel]
