"""Integers kept beside the checkpoint that they were made of: to quantise takes longer than to run a small photo.

In: a checkpoint's path, its network, the calibration images, what quantises them. Out: the integer network, read back
from `<checkpoint>.int8` if all that decides it is what it was; else made, and kept there if the folder can be written.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from esdnet.command.errors import CannotWrite, UserError
from esdnet.command.writing import written_beside
from export.graph.network import Network
from export.graph.nodes import NetworkError
from export.graph.store import network_digest
from export.integer.network import IntegerNetwork
from export.integer.store import decode_integer, encode_integer, integer_digest

CODE = Path(__file__).resolve().parents[1]  # of this package
Quantizer = Callable[[Network, Sequence[NDArray[np.uint8]]], IntegerNetwork]


def load_or_quantize(
    checkpoint: Path, network: Network, images: Sequence[NDArray[np.uint8]], quantizer: Quantizer
) -> IntegerNetwork:
    """What `quantizer(network, images)` makes, from the cache if it is there."""
    cache = checkpoint.with_suffix(".int8")
    made_of = _digest_inputs(network, images)
    found = _read(cache, made_of)
    if found is None:
        found = quantizer(network, images)
        with suppress(CannotWrite):
            _write(cache, made_of, found)
    return found


def _digest_inputs(network: Network, images: Sequence[NDArray[np.uint8]]) -> str:
    """SHA-256 over all that decides integers: network, images, this package's code, the libraries that it computes
    with."""
    digest = hashlib.sha256(f"{network_digest(network)} {np.__version__} {torch.__version__}".encode())
    for image in images:
        digest.update(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes())
    for path in sorted(CODE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(cache: Path, made_of: str) -> IntegerNetwork | None:
    """The integers of a file, None where it is of others, damaged or missing."""
    try:
        with cache.open("rb") as file:
            arrays = dict(np.load(file, allow_pickle=False))
        header = json.loads(str(arrays.pop("header")))
        if header["made_of"] != made_of:
            return None
        found = decode_integer(header["record"], arrays)
        return found if integer_digest(found) == header["digest"] else None
    except (OSError, EOFError, zipfile.BadZipFile, KeyError, TypeError, ValueError, UserError, NetworkError):
        return None


def _write(cache: Path, made_of: str, integer: IntegerNetwork) -> None:
    record, arrays = encode_integer(integer)
    header = json.dumps({"made_of": made_of, "digest": integer_digest(integer), "record": record})
    with written_beside(cache) as path, path.open("wb") as file:
        np.savez(file, header=np.array(header), **arrays)
