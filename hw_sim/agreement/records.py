"""The answer of a GPU, kept in a small file, so that machines without one can compare with it.

In: results on that device, per precision. Out: an .npz with device, versions, network and image, the output, and for
each neuron its spikes per step and a hash of where they are; later, whether the simulator finds the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet.command.errors import UserError
from esdnet.command.writing import written_beside
from export.graph.agreement import output_within, psnr_db
from export.graph.network import Network, infer_shapes
from export.graph.store import network_digest
from hw_sim.agreement.judge import Row, Status
from hw_sim.backends.result import Result

FORMAT = "esdnet-gpu-record-1"
FOLDER = Path(__file__).parent / "gpu_records"  # those that ship
FACTS = ("device", "torch", "cuda", "network", "image", "size")


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """What was run (`facts`: device, versions, digests of network and image) and what came out, per precision."""

    facts: dict[str, str]
    outputs: dict[str, NDArray[np.floating[Any]]]
    spikes: dict[str, dict[str, tuple[list[int], str]]]  # precision -> neuron -> spikes per step, hash


def device_facts(device: str) -> dict[str, str]:
    """The device's name and the versions that computed there."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {"device": name, "torch": torch.__version__, "cuda": str(torch.version.cuda)}


def identity(network: Network, image: NDArray[np.floating[Any]]) -> dict[str, str]:
    """Digests of what is run: the graph with its weights, and the image's pixels (float64)."""
    pixels = np.ascontiguousarray(image, np.float64)
    return {
        "network": network_digest(dataclasses.replace(network, name="")),
        "image": hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest(),
        "size": f"{image.shape[1]}x{image.shape[2]}",
    }


def make_record(facts: Mapping[str, str], results: Mapping[str, Result]) -> Record:
    """Results of one device, by precision, boiled down to what is kept."""
    spikes = {
        precision: {name: (_per_step(value), _hash(value)) for name, value in result.spikes.items()}
        for precision, result in results.items()
    }
    return Record(dict(facts), {precision: result.output for precision, result in results.items()}, spikes)


def _per_step(spikes: NDArray[np.bool_]) -> list[int]:
    return [int(count) for count in spikes.sum((1, 2, 3))]


def _hash(spikes: NDArray[np.bool_]) -> str:
    return hashlib.sha256(repr(spikes.shape).encode() + np.packbits(spikes).tobytes()).hexdigest()


def write_record(path: Path, record: Record) -> None:
    """One compressed .npz; no pickles."""
    text = json.dumps({"format": FORMAT, "facts": record.facts, "spikes": record.spikes})
    outputs: dict[str, Any] = {f"output/{key}": value for key, value in record.outputs.items()}
    with written_beside(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, record=np.array(text), **outputs)


def read_record(path: Path) -> Record:
    """The record at `path`; UserError if it is none."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            content = json.loads(str(file["record"]))
            outputs = {key.removeprefix("output/"): file[key] for key in file.files if key != "record"}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        found = "cannot be read" if path.exists() else "there is no such file"
        raise UserError(f"{path}: {found}; expected a record that verify.py --record wrote") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: not a record of this version; expected {FORMAT}")
    facts, spikes = content.get("facts"), content.get("spikes")
    if not isinstance(facts, dict) or not all(isinstance(facts.get(key), str) and facts[key] for key in FACTS):
        raise UserError(f"{path}: not a whole record: expected the facts {', '.join(FACTS)}")
    if not isinstance(spikes, dict) or not spikes or spikes.keys() != outputs.keys():
        raise UserError(f"{path}: not a whole record: expected spikes and an output of each precision")
    return Record(facts, outputs, spikes)


def packaged_record(network: Network, image: NDArray[np.floating[Any]]) -> Record | None:
    """The record that ships of this network and image, if there is one."""
    wanted = identity(network, image)
    for path in sorted(FOLDER.glob("*.npz")):
        facts = read_record(path).facts
        if all(facts[key] == value for key, value in wanted.items()):
            return find_record(path, network, image)
    return None


def find_record(path: Path, network: Network, image: NDArray[np.floating[Any]]) -> Record:
    """The record at `path`; UserError unless it is of this network and image, and holds all of its neurons."""
    record = read_record(path)
    other = [key for key, value in identity(network, image).items() if record.facts[key] != value]
    if other:
        raise UserError(f"{path}: the record of another {other[0]}; expected one of this checkpoint, image and --crop")
    shapes = infer_shapes(network, *image.shape[1:])
    for precision, spikes in record.spikes.items():
        for neuron in network.neurons:
            if not _is_recorded(spikes.get(neuron.name), shapes[neuron.name][0]):
                raise UserError(f"{path}: not a whole record: {precision}, {neuron.name}: expected its spikes per step")
        output = record.outputs[precision]
        if output.shape != shapes[network.output.name][1:] or not np.isfinite(output).all():
            raise UserError(f"{path}: not a whole record: {precision}: expected an output like the image")
    return record


def _is_recorded(entry: Any, steps: int) -> bool:
    """Spikes per step, and the hash of where they are."""
    if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not isinstance(entry[1], str):
        return False
    per_step, digest = entry
    counted = isinstance(per_step, list) and len(per_step) == steps and all(type(n) is int and n >= 0 for n in per_step)
    return counted and len(digest) == 64


def check_record(record: Record, precision: str, result: Result) -> Row:
    """The simulator's result on this machine against what the GPU found."""
    name = f"recorded {record.facts['device']}"
    if precision not in record.outputs:
        return Row(name, precision, "not run", f"the record holds {', '.join(record.outputs)} only")
    first = first_change(record, precision, result)
    expected = record.outputs[precision]
    near = output_within(expected, result.output) if precision == "float64" else np.array_equal(expected, result.output)
    largest = float(np.abs(result.output - expected).max())
    status: Status = "holds" if near and not first else "FAILED"
    note = first or f"output differs by {largest:.1e}"
    if status == "holds" and result.spikes and not any(spikes.any() for spikes in result.spikes.values()):
        status = "proves nothing"
    return Row(
        name, precision, status,
        f"the simulator here found something else: {note}" if status == "FAILED" else "the simulator here against it",
        None if first else 0, first, largest, psnr_db(expected, result.output),
    )  # fmt: skip


def first_change(record: Record, precision: str, result: Result) -> str:
    """The first neuron whose spikes are not those recorded, with their number in the first step that shows it."""
    for name, found in result.spikes.items():
        per_step, digest = record.spikes[precision][name]
        if _hash(found) != digest or _per_step(found) != per_step:
            counts = _per_step(found)
            step = next((step for step, count in enumerate(counts) if count != per_step[step]), 0)
            return f"{name}, step {step}: {counts[step]:,} spikes, recorded {per_step[step]:,}"
    return ""
