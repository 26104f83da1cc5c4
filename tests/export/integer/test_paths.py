"""Whole integer networks by the CPU's instructions for bytes and without them, in chains and node by node: the same
pixels, spikes and counts."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from esdnet.images.files import load_image
from export.graph.network import Network, infer_shapes
from export.integer import byte_convolution, convolution
from export.integer import operations as ops
from export.integer.calibrate import quantize_on_images
from export.integer.chains import find_chain
from export.integer.network import IntegerNetwork
from export.integer.quantize import quantize
from export.integer.run import run_integer, to_pixels
from export.readers.esdnet import lower
from hw_sim.agreement import integer_oracle
from hw_sim.backends import integer_simulator
from hw_sim.backends.executors import load_source
from tests.export.integer.test_convolution import needs_bytes
from tests.gated import KINDS, gated_model, rainy
from tests.random_networks import RANDOM

SAMPLE = "docs/sample/rainy.png"


def crop(height: int = 64, width: int = 64) -> np.ndarray:
    """(3, height, width) of the photo that ships, where it rains, in [0, 1]."""
    return load_image(SAMPLE).transpose(2, 0, 1)[:, 100 : 100 + height, 150 : 150 + width].astype(np.float64)


def scattered(network: Network, seed: int) -> IntegerNetwork:
    """Scales that fit nothing: values saturate, and are of every size."""
    rng = np.random.default_rng(seed)
    return quantize(network, {node.name: float(10 ** rng.uniform(-3, 2)) for node in network.nodes})


class Run:
    """Pixels and spikes of one image, and in which types convolutions were computed."""

    def __init__(self, integer: IntegerNetwork, image: np.ndarray, monkeypatch, *, by_bytes: bool) -> None:
        self.types: Counter[torch.dtype] = Counter()
        self.spikes: dict[str, np.ndarray] = {}

        def convolve(x, operation, how):
            self.types[how.dtype] += 1
            return original(x, operation, how)

        original = convolution.convolve
        with monkeypatch.context() as patch:
            for module in ("export.integer.run", "export.integer.chains"):
                patch.setattr(f"{module}.convolve", convolve)
            if not by_bytes:
                patch.setattr(byte_convolution, "machine", lambda: "aarch64")
            self.pixels = run_integer(integer, to_pixels(image), see_spikes=self.see)
            counted = integer_simulator.run(integer, image).counts
        self.counts = {name: {key: np.asarray(n).tolist() for key, n in vars(counts).items()}
                       for name, counts in counted.items()}  # fmt: skip

    def see(self, operation, value):
        self.spikes[operation.name] = value.numpy()


def compare_ways(integer: IntegerNetwork, image: np.ndarray, monkeypatch) -> tuple[Run, Run]:
    """By bytes and without them; node by node too."""
    fast, slow = (Run(integer, image, monkeypatch, by_bytes=by_bytes) for by_bytes in (True, False))
    assert torch.uint8 not in slow.types
    assert np.array_equal(fast.pixels, slow.pixels)
    assert fast.spikes.keys() == slow.spikes.keys()
    for name, spikes in slow.spikes.items():
        assert np.array_equal(fast.spikes[name], spikes), name
    assert fast.counts == slow.counts
    alone = {}
    pixels = run_integer(integer, to_pixels(image), lambda operation, _, value: alone.update({operation.name: value}))
    assert np.array_equal(pixels, fast.pixels)
    for name, spikes in fast.spikes.items():
        assert np.array_equal(alone[name].numpy(), spikes), name
    return fast, slow


@needs_bytes
@pytest.mark.parametrize("name", ["small_released", "small_spike_driven"])
def test_the_networks_that_ship(name, monkeypatch):
    """Every convolution but those of a pooled row goes by bytes; some spikes fire, and the picture is not flat."""
    network = load_source(name, None).network
    image = crop()
    integer = quantize_on_images(network, [to_pixels(image)])
    fast, _ = compare_ways(integer, image, monkeypatch)
    assert fast.types[torch.uint8] > 0.9 * sum(fast.types.values())
    assert sum(int(spikes.sum()) for spikes in fast.spikes.values()) > 100_000
    assert fast.pixels.std() > 5


@needs_bytes
@pytest.mark.parametrize("kind", KINDS)
def test_gated_networks(kind, monkeypatch):
    network = lower(gated_model(kind), kind)
    fast, _ = compare_ways(quantize_on_images(network, [to_pixels(rainy())]), rainy(), monkeypatch)
    assert fast.types[torch.uint8]


@needs_bytes
@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 20))])
def test_random_networks_equal_the_oracle_by_every_way(kind, seed, monkeypatch):
    """Odd halves and small ones, so that some layers go by bytes and others do not; scales that fit, and some that do
    not."""
    network = RANDOM[kind](seed, (0.05, 0.3, 3.0)[seed % 3])
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (3, 18 + 2 * (seed % 5), 16 + 2 * (seed % 3))) / 255.0
    integer = scattered(network, seed) if seed % 2 else quantize_on_images(network, [to_pixels(image)])
    fast, _ = compare_ways(integer, image, monkeypatch)
    assert fast.types[torch.uint8]
    trace = integer_oracle.run(integer, to_pixels(image))
    assert np.array_equal(fast.pixels, trace.values[network.output.name][0])
    for name, spikes in fast.spikes.items():
        assert np.array_equal(spikes, trace.values[name] == 1), name


@needs_bytes
def test_a_tap_off_by_one_is_seen(monkeypatch):
    """The comparison above notices what the trial would have: bytes whose last weight is one more."""
    network = RANDOM["spike_driven"](0)
    image = np.random.default_rng(0).integers(0, 256, (3, 16, 16)) / 255.0
    original = byte_convolution.packed

    def packed(weight, stride, padding):
        wrong = weight.clone()
        wrong[-1, -1, -1, -1] += 1
        return original(wrong, stride, padding)

    integer = quantize_on_images(network, [to_pixels(image)])
    monkeypatch.setattr(byte_convolution, "is_exact", lambda *geometry: True)
    monkeypatch.setattr(byte_convolution, "packed", packed)
    with pytest.raises(AssertionError):
        compare_ways(integer, image, monkeypatch)


@pytest.mark.slow  # oneDNN makes its kernels anew for two threads
def test_two_threads_and_one_compute_the_same(monkeypatch):
    network = load_source("small_spike_driven", None).network
    image = crop(40, 48)
    integer = quantize_on_images(network, [to_pixels(image)])
    alone = Run(integer, image, monkeypatch, by_bytes=True)
    torch.set_num_threads(2)
    try:
        both = Run(integer, image, monkeypatch, by_bytes=True)
    finally:
        torch.set_num_threads(1)
    assert np.array_equal(alone.pixels, both.pixels)
    assert alone.counts == both.counts


@pytest.mark.parametrize("kind", RANDOM)
def test_chains_are_what_they_say(kind):
    """Each value inside has one reader, the size and type of the first, and no gate; some chain is longer than one."""
    network = RANDOM[kind](0)
    integer, shapes = quantize(network, None), infer_shapes(network, 16, 16)
    lengths = []
    for first in range(len(integer.operations)):
        chain = find_chain(integer, shapes, first)
        lengths.append(len(chain))
        assert chain == list(integer.operations[first : first + len(chain)])
        for before, after in pairwise(chain):
            assert list(network.readers[before.name]) == [after.name]
            assert shapes[before.name] == shapes[after.name]
            assert len(after.node.inputs) == 1 or isinstance(after, (ops.IntegerAdd, ops.IntegerMul))
    assert max(lengths) > 1
