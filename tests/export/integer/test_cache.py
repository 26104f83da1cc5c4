"""Integers kept beside a checkpoint: found when all that made them is the same, made anew otherwise, never others."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from export.graph.network import Network
from export.integer import cache
from export.integer.cache import load_or_quantize
from export.integer.calibrate import quantize_on_images
from export.integer.network import IntegerNetwork
from export.integer.store import integer_digest
from tests.random_networks import random_gated

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tmp_path / "some.pt"


@pytest.fixture(scope="module")
def network() -> Network:
    return random_gated(0)


class Quantizer:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, network, images) -> IntegerNetwork:
        self.asked += 1
        return quantize_on_images(network, images)


def asked(checkpoint: Path, network: Network, image: np.ndarray = IMAGE) -> int:
    """How often it was quantised; whatever was found is what quantising gives."""
    quantizer = Quantizer()
    found = load_or_quantize(checkpoint, network, [image], quantizer)
    assert integer_digest(found) == integer_digest(quantize_on_images(network, [image]))
    return quantizer.asked


def test_the_second_time_it_is_read(checkpoint, network) -> None:
    assert asked(checkpoint, network) == 1
    assert [path.name for path in checkpoint.parent.iterdir()] == ["some.int8"]
    assert asked(checkpoint, network) == 0


def test_another_weight_or_image_is_made_anew(checkpoint, network) -> None:
    asked(checkpoint, network)
    layer = next(node for node in network.nodes if hasattr(node, "weight"))
    weight = layer.weight.copy()
    weight.flat[0] = np.nextafter(weight.flat[0], 1)
    other = replace(network, nodes=tuple(replace(n, weight=weight) if n is layer else n for n in network.nodes))
    assert asked(checkpoint, other) == 1
    assert asked(checkpoint, network) == 1
    assert asked(checkpoint, network, IMAGE ^ 1) == 1


def test_code_and_libraries_decide_too(checkpoint, network, tmp_path, monkeypatch) -> None:
    asked(checkpoint, network)
    monkeypatch.setattr(np, "__version__", "0.0")
    assert asked(checkpoint, network) == 1
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(cache, "CODE", package)
    assert asked(checkpoint, network) == 1
    (package / "rounding.py").write_text("half = 0.5")
    assert asked(checkpoint, network) == 1
    assert asked(checkpoint, network) == 0


def one_array(data: bytes) -> bytes:
    np.save(file := BytesIO(), np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"a note", one_array]
)
def test_a_damaged_file_is_replaced(checkpoint, network, damage) -> None:
    asked(checkpoint, network)
    kept = checkpoint.with_suffix(".int8")
    kept.write_bytes(damage(kept.read_bytes()))
    assert asked(checkpoint, network) == 1
    assert asked(checkpoint, network) == 0


def test_a_changed_integer_is_noticed(checkpoint, network) -> None:
    asked(checkpoint, network)
    kept = checkpoint.with_suffix(".int8")
    with np.load(kept) as file:
        arrays = dict(file)
    name = next(key for key in arrays if key.endswith("integer.weight"))
    arrays[name] = arrays[name] ^ 1
    with kept.open("wb") as file:
        np.savez(file, **arrays)
    assert asked(checkpoint, network) == 1


def test_a_header_of_another_time_is_made_anew(checkpoint, network) -> None:
    with checkpoint.with_suffix(".int8").open("wb") as file:
        np.savez(file, header=np.array(json.dumps({"version": 0})))
    assert asked(checkpoint, network) == 1


def test_where_nothing_can_be_written_it_is_made_each_time(tmp_path, network) -> None:
    assert [asked(tmp_path / "missing" / "some.pt", network) for _ in range(2)] == [1, 1]
