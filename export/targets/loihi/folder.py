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
from export.graph.network import infer_shapes
from export.graph.store import check_version, file_digest, manifest_digest
from export.integer.network import IntegerNetwork
from export.integer.store import decode_integer, encode_integer
from export.targets.loihi.netx import Segment, find_segments, on_off_pairs, why_not, write_segment

FORMAT = "esdnet-lava-dl"
VERSION = 2
MANIFEST = "manifest.json"
CONSTANTS = "constants.npz"
AGAIN = "write it again with export/to_lava_dl.py"
PACKAGES = ("h5py", "numpy", "torch")

Record = dict[str, Any]


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
        "format": FORMAT,
        "version": VERSION,
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
            steps.append({"segment": file, "input": segment.source, "nodes": list(segment.nodes)})
        elif operation.name not in inside:
            steps.append({"host": operation.name})
    return steps


def is_export(path: Path) -> bool:
    """True if a folder of this format is there, in whatever state: what an export may replace."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def read_integer(path: str | Path) -> IntegerNetwork:
    """The integer network of an export, after every file has been checked against the manifest."""
    path = Path(path)
    try:
        manifest = _checked_manifest(path)
        with np.load(path / CONSTANTS, allow_pickle=False) as arrays:
            return decode_integer(manifest, arrays)
    except UserError as error:
        raise UserError(f"{error}; {AGAIN}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as a Lava-DL export of ESDNet: {reason}; {AGAIN}") from error


def _checked_manifest(path: Path) -> Record:
    file = path / MANIFEST
    if not file.is_file():
        raise UserError(f"{path}: not a Lava-DL export of ESDNet: {MANIFEST} is missing")
    manifest: Record = json.loads(file.read_text(encoding="utf-8"))
    if manifest.get("format") != FORMAT:
        raise UserError(f"{file}: not the manifest of a Lava-DL export of ESDNet: expected format {FORMAT!r}")
    check_version(path, manifest["version"], VERSION, "it is older")
    if manifest.get("sha256") != manifest_digest(manifest):
        raise UserError(f"{file}: was changed after it was written (its hash differs)")
    for name, expected in manifest["files"].items():
        if not (path / name).is_file():
            raise UserError(f"{path / name}: missing, the export is incomplete")
        if file_digest(path / name) != expected:
            raise UserError(f"{path / name}: not the file of this export: changed, cut short, or from another one")
    return manifest
