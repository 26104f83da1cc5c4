"""Convolutions of integers, by the CPU's instructions for bytes and in floating point: the same exact sums."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from export.graph.nodes import Conv
from export.integer import byte_convolution
from export.integer.convolution import Cut, convolve, cut
from export.integer.operations import Format, IntegerConv, Rescale
from export.integer.run import execute
from hw_sim.agreement import integer_oracle

ROOT = Path(__file__).parents[3]
TRIED = byte_convolution._is_exact
needs_bytes = pytest.mark.skipif(
    not byte_convolution.is_exact(7, (16, 16, 3, 3), (1, 1), (1, 1), (1, 16, 16, 16)),
    reason="this CPU or this torch has no exact convolution of bytes",
)


@pytest.fixture
def in_floats(monkeypatch):
    """As on a CPU that has no instructions for bytes."""
    monkeypatch.setattr(byte_convolution, "machine", lambda: "aarch64")


@pytest.fixture
def tried():
    """Nothing is known of any geometry, before and afterwards."""
    TRIED.cache_clear()
    yield
    TRIED.cache_clear()


def layer(weight: np.ndarray, rescale: Rescale | None = None, bits: int = 24, **fields) -> IntegerConv:
    """Without `rescale` the sums as they are."""
    node = Conv(name="c", inputs=("x",), weight=weight.astype(np.float64), **fields)
    bias = np.arange(len(weight), dtype=np.int64) * 1001 if rescale is not None else None
    return IntegerConv(
        node=node, output=Format(bits, 1.0), weight=weight.astype(np.int8), weight_step=np.ones(len(weight)),
        bias=bias, rescale=rescale,
    )  # fmt: skip


def expected(operation: IntegerConv, x: np.ndarray) -> np.ndarray:
    node = operation.node
    sums = integer_oracle.convolved(
        x.astype(np.int64), operation.weight, node.stride, node.padding, node.dilation, node.groups
    )
    if operation.rescale is None:
        return sums
    assert operation.bias is not None
    whole = integer_oracle.rescaled(sums + operation.bias[:, None, None], operation.rescale)
    return integer_oracle.saturated(whole, operation.output)


def computed(operation: IntegerConv, x: np.ndarray) -> np.ndarray:
    return execute(operation, [torch.from_numpy(x)], len(x)).to(torch.int64).numpy()


def way(operation: IntegerConv, x: np.ndarray) -> Cut:
    return cut(torch.from_numpy(x), operation, len(x))


def mixed(seed: int, *shape: int, low: int = -127, high: int = 127) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high + 1, shape)


def spikes(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape) < 0.3


VALUES = {
    "spikes": spikes,
    "pixels": lambda *shape: mixed(1, *shape, low=0, high=255).astype(np.int32),
    "white": lambda *shape: np.full(shape, 255, np.int32),
    "stream": lambda *shape: mixed(1, *shape, low=1 - 2**17, high=2**17 - 1).astype(np.int32),
    "wide": lambda *shape: mixed(1, *shape, low=-(2**35), high=2**35),
    "lowest": lambda *shape: np.full(shape, -127, np.int32),  # a byte with sign has one more
    "below": lambda *shape: np.full(shape, -129, np.int32),
}
GEOMETRIES = {
    "plain": {"padding": (1, 1)},
    "unpadded": {},
    "strided": {"padding": (1, 1), "stride": (2, 2)},
    "oblong stride": {"padding": (1, 1), "stride": (2, 1)},
    "oblong padding": {"padding": (0, 1)},
    "dilated": {"padding": (2, 2), "dilation": (2, 2)},
    "grouped": {"padding": (1, 1), "groups": 3},
}
BY_BYTES = ("plain", "unpadded", "strided")


@needs_bytes
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_both_ways_are_exact_for_every_geometry(geometry, values, monkeypatch):
    """Odd sizes; what the instructions are not trusted with goes the other way."""
    fields = GEOMETRIES[geometry]
    operation = layer(mixed(0, 6, 6 // fields.get("groups", 1), 3, 3), **fields)
    x = VALUES[values](2, 6, 9, 11)
    assert (way(operation, x).dtype is torch.uint8) == (geometry in BY_BYTES)
    sums = expected(operation, x)
    assert np.array_equal(computed(operation, x), sums)
    monkeypatch.setattr(byte_convolution, "machine", lambda: "aarch64")
    assert way(operation, x).dtype is not torch.uint8
    assert np.array_equal(computed(operation, x), sums)


@needs_bytes
@pytest.mark.parametrize("rescale", [None, Rescale(np.array(3), 2), Rescale(np.full((17, 1, 1), 40_001), 14)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("channels", [1, 3, 5, 17, 300])
def test_both_ways_are_exact_for_every_number_of_channels(channels, kernel, rescale, monkeypatch):
    operation = layer(mixed(channels, 17, channels, kernel, kernel), rescale, padding=(kernel // 2, kernel // 2))
    for values in ("spikes", "stream"):
        x = VALUES[values](2, channels, 13, 8)
        sums = expected(operation, x)
        assert np.array_equal(computed(operation, x), sums)
        with monkeypatch.context() as patch:
            patch.setattr(byte_convolution, "machine", lambda: "aarch64")
            assert np.array_equal(computed(operation, x), sums)


@needs_bytes
@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("channels", [16, 57, 58, 300])  # 57 * 9 * 128 * 255 is below 2^24, the next above
def test_both_ways_are_exact_for_the_largest_weights(channels, values, weight, monkeypatch):
    operation = layer(np.full((4, channels, 3, 3), weight), padding=(1, 1))
    x = VALUES[values](1, channels, 8, 9)
    sums = expected(operation, x)
    assert np.array_equal(computed(operation, x), sums)
    monkeypatch.setattr(byte_convolution, "machine", lambda: "aarch64")
    assert np.array_equal(computed(operation, x), sums)


def test_no_sum_of_bytes_may_reach_what_float32_rounds():
    """Rows of weights whose sum is 2^16, and one less: 2^16 times 2^8 is 2^24."""
    x = np.full((1, 529, 8, 8), 255, np.int32)
    weight = np.zeros((1, 529, 1, 1), np.int64)
    weight[0, :512] = 127
    weight[0, 512:516], weight[0, 516] = 127, 4
    assert np.abs(weight).sum() == 2**16
    for less in (0, 1):
        weight[0, 516] -= less
        operation = layer(weight)
        assert way(operation, x).bits != 8 or less
        assert np.array_equal(computed(operation, x), expected(operation, x))


@pytest.mark.parametrize("bits", [1, 2, 8, 18, 24, 31, 35])
@pytest.mark.parametrize("channels", [1, 40, 257])
@pytest.mark.parametrize("low", [0, -1])
def test_digits_at_their_limits(bits, channels, low, in_floats):
    """Values and weights whose sums no float32 holds; the last digit of a negative number is one larger than others."""
    high = 2**bits - 1
    x = np.random.default_rng(bits).choice([low * high, high, high - 1, 1], (2, channels, 6, 5)).astype(np.int64)
    weight = np.random.default_rng(0).choice([-127, 127, 126], (3, channels, 3, 3))
    operation = layer(weight, padding=(1, 1), stride=(2, 1))
    assert np.array_equal(computed(operation, x), expected(operation, x))
    operation = layer(np.full((2, channels, 1, 1), 127))
    everywhere = np.full((1, channels, 2, 2), low * high or high, np.int64)
    assert np.array_equal(computed(operation, everywhere), expected(operation, everywhere))


def test_images_of_few_columns_are_not_for_bytes():
    operation = layer(mixed(0, 8, 8, 3, 3), padding=(1, 1))
    for height, width in [(1, 1), (64, 1), (64, 3), (3, 64), (7, 8), (64, 7)]:
        x = VALUES["spikes"](2, 8, height, width)
        assert way(operation, x).dtype is torch.float32
        assert np.array_equal(computed(operation, x), expected(operation, x))


def test_results_of_few_columns_are_not_for_bytes():
    """Eight columns, of which a kernel of 7 makes one at stride 2, or two: there oneDNN 3.3 was wrong."""
    for stride, out in [((2, 2), 1), ((1, 1), 2)]:
        operation = layer(mixed(0, 5, 24, 7, 7), stride=stride)
        x = VALUES["spikes"](2, 24, 64, 8)
        assert way(operation, x).dtype is torch.float32
        found = computed(operation, x)
        assert found.shape[3] == out
        assert np.array_equal(found, expected(operation, x))


@needs_bytes
def test_every_batch_is_tried(monkeypatch):
    """Five frames, two at once: of two, and the last one alone; with a border of its own and both digits."""
    asked = []
    monkeypatch.setattr(byte_convolution, "is_exact", lambda *geometry: asked.append(geometry) or True)
    operation = layer(mixed(0, 4, 3, 3, 3), padding=(1, 1))
    how = cut(torch.from_numpy(VALUES["lowest"](5, 3, 8, 9)), operation, 2)
    assert how == Cut(8, 1, torch.uint8, 128)
    assert sorted(image for *_, image in asked) == [(1, 3, 10, 11), (2, 3, 10, 11)]
    assert {padding for _, _, _, padding, _ in asked} == {(0, 0)}


# --- kernels that err -------------------------------------------------------------------------------------------------

WHAT_IT_IS = (16, 12, 3, 3), (1, 1), (1, 1), (2, 12, 9, 10)


def plant(monkeypatch, fault) -> None:
    """A CPU whose sums are those of fault(x, weight, stride, padding)."""

    def packed(weight, stride, padding):
        return lambda x: fault(x, weight, stride, padding).contiguous(memory_format=torch.channels_last)

    monkeypatch.setattr(byte_convolution, "packed", packed)


def right(x, weight, stride, padding):
    return F.conv2d(x.float(), weight.float(), None, stride, padding).round_()


def a_tap_off_by_one(x, weight, stride, padding):
    weight = weight.float()
    weight[-1, -1, -1, -1] += 1
    return right(x, weight, stride, padding)


def last_channel_left_out(x, weight, stride, padding):
    return right(x[:, :-1], weight[:, :-1], stride, padding)


def frames_changed(x, weight, stride, padding):
    return right(x, weight, stride, padding).flip(0)


def a_corner_forgotten(x, weight, stride, padding):
    sums = right(x, weight, stride, padding)
    sums[-1, -1, -1, -1] = 0
    return sums


def outputs_changed(x, weight, stride, padding):
    return right(x, weight, stride, padding).roll(1, 1)


def cut_to_sixteen_bits(x, weight, stride, padding):
    """Two products at a time, as instructions before VNNI add them up."""
    height, width = x.shape[2] - 2, x.shape[3] - 2
    sums = 0
    for c, i, j in product(range(0, x.shape[1], 2), range(3), range(3)):
        seen, taps = x[:, c : c + 2, i : i + height, j : j + width], weight[:, c : c + 2, i : i + 1, j : j + 1]
        sums += right(seen, taps, stride, 0).clamp_(-(2**15), 2**15 - 1)
    return sums


FAULTS = [a_tap_off_by_one, last_channel_left_out, frames_changed, a_corner_forgotten, outputs_changed]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_kernel_that_errs_is_not_used(fault, tried, monkeypatch):
    plant(monkeypatch, right)
    assert byte_convolution.is_exact(8, *WHAT_IT_IS)
    TRIED.cache_clear()
    plant(monkeypatch, fault)
    assert not byte_convolution.is_exact(8, *WHAT_IT_IS)
    x = VALUES["pixels"](2, 12, 9, 10)
    operation = layer(mixed(0, 16, 12, 3, 3), padding=(1, 1))
    assert way(operation, x).dtype is torch.float32
    assert np.array_equal(computed(operation, x), expected(operation, x))


def test_the_faults_would_have_changed_sums(tried, monkeypatch):
    """What the trial keeps away: without it they are believed."""
    x, operation = VALUES["pixels"](2, 12, 9, 10), layer(mixed(0, 16, 12, 3, 3), padding=(1, 1))
    monkeypatch.setattr(byte_convolution, "is_exact", lambda *geometry: True)
    for fault in FAULTS:
        plant(monkeypatch, fault)
        assert not np.array_equal(computed(layer(operation.weight, padding=(1, 1)), x), expected(operation, x)), fault


def test_sums_of_two_products_in_sixteen_bits_are_for_seven_bits(tried, monkeypatch):
    plant(monkeypatch, cut_to_sixteen_bits)
    shape, stride, _, image = WHAT_IT_IS
    assert not byte_convolution.is_exact(8, shape, stride, (0, 0), image)
    assert byte_convolution.is_exact(7, shape, stride, (0, 0), image)
    x, operation = VALUES["white"](2, 12, 9, 10), layer(np.full((16, 12, 3, 3), 127))
    assert way(operation, x) == Cut(7, 2, torch.uint8)
    assert np.array_equal(computed(operation, x), expected(operation, x))


def test_another_number_of_threads_is_another_trial(tried, monkeypatch):
    plant(monkeypatch, right)
    assert byte_convolution.is_exact(8, *WHAT_IT_IS)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    plant(monkeypatch, a_tap_off_by_one)
    assert not byte_convolution.is_exact(8, *WHAT_IT_IS)


def test_a_torch_without_the_operation_convolves_in_floats(tried, monkeypatch):
    def packed(weight, stride, padding):
        raise AttributeError("'_OpNamespace' 'onednn' object has no attribute 'qconv_prepack'")

    monkeypatch.setattr(byte_convolution, "packed", packed)
    x, operation = VALUES["pixels"](2, 12, 9, 10), layer(mixed(0, 16, 12, 3, 3), padding=(1, 1))
    assert way(operation, x).dtype is torch.float32
    assert np.array_equal(computed(operation, x), expected(operation, x))


# What oneDNN would choose on such a machine; an order that this one does not have falls back to less by itself.
OTHERS = "SSE41", "AVX512_CORE", "AVX512_CORE_VNNI"
ON_SUCH_A_CPU = """
import numpy as np, torch
from tests.export.integer.test_convolution import VALUES, computed, expected, layer, mixed, way
torch.set_num_threads(1)
for values in ("spikes", "white", "pixels", "stream"):
    for weight in (mixed(0, 17, 12, 3, 3), np.full((17, 12, 3, 3), 127), np.full((17, 12, 3, 3), -128)):
        operation = layer(weight, padding=(1, 1))
        x = VALUES[values](3, 12, 19, 21)
        assert np.array_equal(computed(operation, x), expected(operation, x)), values
        print(values, way(operation, x).bits, end="; ")
"""


@pytest.mark.parametrize("isa", ["AVX2", *(pytest.param(isa, marks=pytest.mark.slow) for isa in OTHERS)])
def test_on_a_cpu_of(isa):
    """oneDNN keeps to the instructions of older CPUs: without VNNI it cuts two products of bytes to 16 bits."""
    done = subprocess.run(
        [sys.executable, "-c", ON_SUCH_A_CPU], cwd=ROOT, env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(done.stdout)


def test_an_excess_of_the_border_is_taken_off_again():
    """-1 everywhere, padded by zeros: where a tap meets the border it adds nothing."""
    operation = layer(np.ones((1, 1, 3, 3)), padding=(1, 1))
    found = computed(operation, np.full((1, 1, 8, 8), -1, np.int32))[0, 0]
    assert found[0].tolist() == [-4, *[-6] * 6, -4]
    assert found[1].tolist() == [-6, *[-9] * 6, -6]


@needs_bytes
def test_sums_of_digits_are_those_of_the_values():
    operation = layer(mixed(0, 4, 3, 3, 3), padding=(1, 1))
    x = VALUES["stream"](2, 3, 9, 8)
    how = way(operation, x)
    assert how == Cut(8, 3, torch.uint8, 2**23)
    sums = convolve(torch.from_numpy(x), operation, how)
    whole = sum(digit.to(torch.int64) << 8 * place for place, digit in enumerate(sums))
    excess = 2**23 * operation.weight.astype(np.int64).reshape(4, -1).sum(1)[:, None, None]
    assert np.array_equal(whole.numpy() - excess, expected(operation, x))
