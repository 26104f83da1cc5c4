"""A Lava-DL export on disk: netx files, the integer constants of all nodes, a manifest that puts them in order.

In: an integer network and the size of its images. Out: a folder; and back: the same integer network, to the last bit,
or a UserError in one line for a file that is missing, changed or from another export.
"""

from __future__ import annotations

import json
import platform
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from esdnet.command.errors import UserError
from export.graph.folder import MANIFEST, FolderFormat, file_digest, manifest_digest
from export.graph.network import infer_shapes
from export.graph.store import Record
from export.integer.network import IntegerNetwork
from export.integer.store import decode_integer, encode_integer
from export.targets.loihi.netx import Segment, find_segments, on_off_pairs, why_not, write_segment

FORMAT = FolderFormat("esdnet-lava-dl", 2, "a Lava-DL export of ESDNet", "export/to_lava_dl.py")
CONSTANTS = "constants.npz"
PACKAGES = ("h5py", "numpy", "torch")


def write_folder(path: Path, integer: IntegerNetwork, height: int, width: int, facts: Record) -> dict[str, Segment]:
    """Write everything into `path`, which does not exist yet. `facts` go into the manifest. Returns file -> segment."""
    path.mkdir(parents=True)
    shapes = infer_shapes(integer.network, height, width)
    segments = {_file_name(index, segment): segment for index, segment in enumerate(find_segments(integer))}
    for name, segment in segments.items():
        write_segment(path / name, segment, shapes)
    record, arrays = encode_integer(integer)
    reasons = {operation.name: why_not(operation, integer) for operation in integer.operations}
    constants: dict[str, Any] = dict(arrays)
    np.savez_compressed(path / CONSTANTS, **constants)
    manifest: Record = {
        "format": FORMAT.name,
        "version": FORMAT.version,
        "written_by": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "input_shape": [integer.network.input.channels, height, width],
        **facts,
        **record,
        "steps": _order(integer, segments),
        "on_off_pairs": on_off_pairs(integer.network),
        "not_in_netx": {name: reason for name, reason in reasons.items() if reason},
        "files": {file.name: file_digest(file) for file in sorted(path.iterdir())},
    }
    manifest["sha256"] = manifest_digest(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return segments


def _file_name(index: int, segment: Segment) -> str:
    return f"{index:02d}_{segment.layers[0].conv.name.replace('/', '_')}.h5"


def _order(integer: IntegerNetwork, segments: dict[str, Segment]) -> list[Record]:
    """Host nodes and segments in the order in which they can run; a segment stands where its last neuron does."""
    inside = {name for segment in segments.values() for name in segment.nodes}
    ends = {segment.target: (name, segment) for name, segment in segments.items()}
    steps: list[Record] = []
    for operation in integer.operations:
        if operation.name in ends:
            file, segment = ends[operation.name]
            gate = {} if segment.gate is None else {"gate": segment.gate}
            steps.append({"segment": file, "input": segment.source, "nodes": list(segment.nodes), **gate})
        elif operation.name not in inside:
            steps.append({"host": operation.name})
    return steps


def read_integer(path: str | Path) -> IntegerNetwork:
    """The integer network of an export, after every file has been checked against the manifest."""
    path = Path(path)
    manifest = FORMAT.read_manifest(path)
    try:
        with np.load(path / CONSTANTS, allow_pickle=False) as arrays:
            return decode_integer(manifest, arrays)
    except UserError as error:
        raise UserError(f"{error}; {FORMAT.again}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as {FORMAT.title}: {reason}; {FORMAT.again}") from error
