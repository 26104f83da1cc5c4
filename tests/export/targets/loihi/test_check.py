"""The real netx loader and Lava's fixed-point models against the oracle, on layers of every shape that netx holds."""

from __future__ import annotations

import shutil
import sys

import h5py
import numpy as np
import pytest

from esdnet.command.errors import UserError
from export.graph.nodes import Conv, Neuron
from export.integer.operations import SPIKE, Format, IntegerConv, IntegerNeuron
from export.targets.loihi.check import check_segments, compare
from export.targets.loihi.netx import Layer, Segment, write_segment
from hw_sim.agreement import integer_oracle

pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 10), reason="Lava-DL runs on Python 3.10 only")


def make_layer(name, source, weight, threshold, *, bias=0, du=4095, dv=2048, **fields) -> Layer:
    """A netx layer from integers alone."""
    conv = Conv(name=f"{name}.conv", inputs=(source,), weight=weight.astype(np.float64), **fields)
    neuron = Neuron(name=f"{name}.lif", inputs=(conv.name,), threshold=np.array(0.5), membrane_decay=0.5)
    return Layer(
        IntegerConv(
            node=conv, output=Format(24, 1.0), weight=weight.astype(np.int8), weight_step=np.ones(len(weight)),
            bias=None, rescale=None,
        ),
        IntegerNeuron(
            node=neuron, output=SPIKE, threshold=np.array(threshold), bias=np.asarray(bias), current_decay=du,
            membrane_decay=dv, rescale=None,
        ),
    )  # fmt: skip


def expected(segment: Segment, spikes: np.ndarray, shapes: dict) -> np.ndarray:
    oracle = integer_oracle.Oracle(integer_oracle.Trace(), len(spikes))
    value = spikes.astype(np.int64)
    for layer in segment.layers:
        value = oracle.value(layer.neuron, oracle.value(layer.conv, value))
        shapes[layer.neuron.name] = value.shape
    return value > 0


def random_weight(seed, *shape):
    return np.random.default_rng(seed).integers(-127, 128, shape)


def segments() -> dict[str, tuple[Segment, tuple[int, ...]]]:
    """name -> segment and shape of its input spikes (T, C, H, W)."""
    bias = np.random.default_rng(9).integers(-200, 200, (5, 1, 1))
    plain = make_layer("a", "x", random_weight(0, 5, 3, 3, 3), 150, bias=bias, padding=(1, 1))
    then = make_layer("b", "a.lif", random_weight(1, 4, 5, 3, 3), 60, stride=(2, 2), padding=(1, 1))
    skewed = make_layer("s", "x", random_weight(2, 2, 3, 1, 3), 40, stride=(2, 1), padding=(0, 1), dilation=(1, 2))
    grouped = make_layer("g", "x", random_weight(3, 4, 2, 3, 3), 90, groups=2, padding=(1, 1))
    slow = make_layer("d", "x", random_weight(4, 2, 3, 3, 3), 300, du=1000, dv=77, bias=np.array(-3))
    # 9 taps x 120 channels x 127 = 137,160 > 2^17: a << 6 leaves 24 bits inside the image, not at its border
    extreme = np.array([4095, -4096])[:, None, None]
    large = make_layer("w", "x", np.full((2, 120, 3, 3), 127), 70000, padding=(1, 1), bias=extreme)
    return {
        "bias": (Segment((plain,)), (4, 3, 6, 5)),
        "two layers, stride 2": (Segment((plain, then)), (4, 3, 6, 6)),
        "kernel 1x3, stride, dilation": (Segment((skewed,)), (4, 3, 7, 6)),
        "groups": (Segment((grouped,)), (4, 4, 5, 5)),
        "current and slow membrane": (Segment((slow,)), (6, 3, 5, 6)),
        "one step": (Segment((plain,)), (1, 3, 5, 4)),
        "wrap around": (Segment((large,)), (3, 120, 4, 4)),
    }


@pytest.mark.slow
def test_netx_equals_the_oracle_on_every_kind_of_layer(tmp_path):
    """And the check can fail: one file more has a weight that is not the one that made the spikes."""
    given, names = {}, {}
    for index, (name, (segment, shape)) in enumerate(segments().items()):
        rate = 1.0 if name == "wrap around" else 0.4
        images = np.random.default_rng(index).random((2, *shape)) < rate  # one after the other, states anew
        shapes: dict = {}
        out = np.stack([expected(segment, spikes, shapes) for spikes in images])
        assert 0 < out.sum() < out.size, name
        path = tmp_path / f"{index}.h5"
        write_segment(path, segment, shapes)
        given[path], names[path] = (images, out), name
    changed = tmp_path / "changed.h5"
    shutil.copyfile(tmp_path / "0.h5", changed)
    with h5py.File(changed, "r+") as file:
        file["layer/0/weight"][0, 0, 1, 1] += 100
    found = check_segments({**given, changed: given[tmp_path / "0.h5"]})
    wrong = found.pop(changed)
    assert {names[path]: (row.mismatches, row.first) for path, row in found.items()} == dict.fromkeys(
        segments(), (0, "")
    )
    assert [row.spikes for row in found.values()] == [int(out.sum()) for _, out in given.values()]
    assert wrong.mismatches > 0
    assert wrong.first.startswith("image 0, step 0, channel 0, row ")


@pytest.mark.slow
def test_a_file_that_netx_cannot_read_is_one_line(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"not HDF5")
    spikes = np.zeros((1, 1, 1, 4, 4), bool)
    with pytest.raises(UserError, match=r"netx: Lava could not run the files: .*signature not found"):
        check_segments({path: (spikes, spikes)})


def test_comparison_names_the_first_mismatch():
    expected = np.zeros((2, 2, 3, 4, 5), bool)
    found = expected.copy()
    found[1, 1, 2, 3, 4] = found[1, 1, 2, 3, 0] = True
    row = compare(found, expected)
    assert (row.spikes, row.mismatches, row.first) == (0, 2, "image 1, step 1, channel 2, row 3, column 0")
